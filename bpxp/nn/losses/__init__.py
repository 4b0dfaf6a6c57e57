"""Losses by name."""

from __future__ import annotations

from typing import Any

from bpxp.errors import InvalidTypeError, InvalidValueError, message, suggestion
from bpxp.nn.losses.loss import Loss
from bpxp.nn.losses.softmax_cross_entropy import SoftmaxCrossEntropy, log_softmax, one_hot, softmax

__all__ = ["LOSSES", "Loss", "SoftmaxCrossEntropy", "get_loss", "log_softmax", "one_hot", "softmax"]

LOSSES: dict[str, Loss] = {
    "softmax_cross_entropy": SoftmaxCrossEntropy(),
}


def get_loss(loss: Any) -> Loss:
    """Return a loss by its name, or the given object; errors as in `get_activation`."""
    if isinstance(loss, Loss) and not isinstance(loss, type):
        return loss
    if not isinstance(loss, str):
        raise InvalidTypeError(
            message(
                "loss",
                "neither a name nor a Loss",
                got=f"{type(loss).__name__} {loss!r}",
                fix="loss='softmax_cross_entropy'",
            )
        )
    if loss not in LOSSES:
        raise InvalidValueError(
            message("loss", "unknown name", got=repr(loss), expected=f"one of {', '.join(LOSSES)}")
            + suggestion(loss, LOSSES)
        )
    return LOSSES[loss]
