"""Losses by name. Each takes logits, and returns the mean loss of the batch and its derivative, the output error."""

from __future__ import annotations

from typing import Any

from bpxp.core.checks import resolve
from bpxp.nn.losses.binary_cross_entropy import BinaryCrossEntropy
from bpxp.nn.losses.loss import Loss
from bpxp.nn.losses.regression import Huber, MeanAbsoluteError, MeanSquaredError, Poisson
from bpxp.nn.losses.softmax_cross_entropy import SoftmaxCrossEntropy, log_softmax, one_hot, softmax, softmax_jacobian
from bpxp.nn.losses.weights import class_weights_to_sample_weights

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "Huber",
    "Loss",
    "MeanAbsoluteError",
    "MeanSquaredError",
    "Poisson",
    "SoftmaxCrossEntropy",
    "class_weights_to_sample_weights",
    "get_loss",
    "log_softmax",
    "one_hot",
    "softmax",
    "softmax_jacobian",
]

LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": SoftmaxCrossEntropy(),
    "binary_cross_entropy": BinaryCrossEntropy(),
    "mean_squared_error": MeanSquaredError(),
    "mean_absolute_error": MeanAbsoluteError(),
    "huber": Huber(),
    "poisson": Poisson(),
}


def get_loss(loss: Any) -> Loss:
    """Return a loss by its name, or the given object; errors as in `get_activation`."""
    return resolve(loss, Loss, LOSSES, "loss", fix="loss='softmax_cross_entropy'")
