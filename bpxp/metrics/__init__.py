"""Metrics: counts summed on the device, and the ratios that the host computes from them at the end.

A metric counts samples, each once, whatever its weight: a sample of weight 0 (padding, say) is left out, all others
are equal. Where the network answers at several positions of a sample, (batch, time, n_out) say, each position counts.
An output that is NaN is never a right answer. Where several conventions are in use, ties or classes that do not occur,
it is scikit-learn's.
"""

from __future__ import annotations

from typing import Any

from bpxp.core.checks import resolve
from bpxp.metrics.classes import Accuracy, PrecisionRecallF1, TopK
from bpxp.metrics.labels import BinaryAccuracy, ExactMatch, MultiLabelF1
from bpxp.metrics.metric import Counts, Metric, class_indices
from bpxp.metrics.outputs import Outputs
from bpxp.nn.losses import Loss

__all__ = [
    "METRICS",
    "Accuracy",
    "BinaryAccuracy",
    "Counts",
    "ExactMatch",
    "Metric",
    "MultiLabelF1",
    "Outputs",
    "PrecisionRecallF1",
    "TopK",
    "class_indices",
    "default_metrics",
    "get_metric",
]

METRICS: dict[str, Metric] = {
    "accuracy": Accuracy(),
    "top5_accuracy": TopK(5),
    "precision_recall_f1": PrecisionRecallF1(),
    "label_accuracy": BinaryAccuracy(),
    "exact_match": ExactMatch(),
    "f1": MultiLabelF1(),
}


def get_metric(metric: Any) -> Metric:
    """Return a metric by its name, or the given object.

    Raises
    ------
    InvalidValueError
        Unknown name; the message lists the known ones.
    InvalidTypeError
        Neither a name nor a `Metric`.
    """
    return resolve(metric, Metric, METRICS, "metrics", fix="metrics=['accuracy']")


def default_metrics(loss: Loss, /) -> tuple[Metric, ...]:
    """Return what is usually asked of the targets of a loss; of real numbers, nothing beside the loss."""
    return {
        "classes": (Accuracy(),),
        "labels": (BinaryAccuracy(), MultiLabelF1()),
    }.get(loss.targets, ())
