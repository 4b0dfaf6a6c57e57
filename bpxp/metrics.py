"""Metrics: counts summed on the device, and the ratios that the host computes from them at the end.

A metric counts samples, each once, whatever its weight: a sample of weight 0 (padding, say) is left out, all others
are equal. Where the network answers at several positions of a sample, (batch, time, n_out) say, each position counts.
The counts are int32, exact up to 2^31 - 1 of them, where float32 would stop counting at 2^24.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bpxp.core.checks import resolve, set_counts
from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError
from bpxp.nn.leading_axes import as_rows
from bpxp.nn.losses import Loss, one_hot

Counts = tuple[Array, ...]


@runtime_checkable
class Metric(Protocol):
    """The protocol of a metric; a frozen dataclass of hyper-parameters satisfies it."""

    @property
    def name(self) -> str:
        """What the column of a history is called."""

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        """Return the counters at zero; `dtype` is the network's, for a metric that sums real numbers."""

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        """Count a batch. `counts` is donated, and may be written in place; the rest is only read.

        Parameters
        ----------
        counts : tuple of array
        logits : array, (batch, …, n_out)
        y : array, (batch, …) or (batch, …, n_out)
            Class indices or one-hot rows; for labels 0, 1 and NaN for a missing one.
        weight : array, (batch,), or None
            Only whether it is 0 matters.
        """

    def result(self, counts: tuple[np.ndarray, ...], /) -> float | dict[str, float]:
        """Return the metric, or several by name, from the counters as NumPy arrays; 0/0 is 0."""


@dataclass(frozen=True)
class Accuracy:
    """Share of the samples whose largest logit is that of their class."""

    name = "accuracy"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return _zeros(xp, 1, 1)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        logits, y, weight = _rows(logits, y, weight, xp)
        guess = xp.astype(xp.argmax(logits, axis=1), xp.int32)
        right = xp.astype(guess == class_indices(y, xp=xp), xp.int32)
        counted = _counted(logits, weight, xp)
        return _add(counts, _total(right * counted, xp), _total(counted, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        return _share(*counts)


@dataclass(frozen=True)
class TopK:
    """Share of the samples whose class is among the k largest logits.

    Parameters
    ----------
    k : int, optional
        With as many classes as that, or fewer, every sample counts as right.

    Notes
    -----
    A class is among them if fewer than k logits are larger: counting needs no sort. Logits that equal that of the class
    are not larger, so a network whose logits are all the same scores 1; one whose logits are NaN scores 0.
    """

    k: int = 5

    def __post_init__(self) -> None:
        set_counts(self, "k")

    @property
    def name(self) -> str:
        return f"top{self.k}_accuracy"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return _zeros(xp, 1, 1)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        logits, y, weight = _rows(logits, y, weight, xp)
        n_out = logits.shape[1]
        chosen = one_hot(class_indices(y, xp=xp), n_out, dtype=xp.bool, xp=xp)
        own = xp.sum(xp.where(chosen, logits, 0.0), axis=1, keepdims=True)
        # n_out minus the number of larger ones; NaN compares false.
        others = xp.sum(xp.astype(logits <= own, xp.int32), axis=1, dtype=xp.int32)
        right = xp.astype(others > max(n_out - self.k, 0), xp.int32)
        counted = _counted(logits, weight, xp)
        return _add(counts, _total(right * counted, xp), _total(counted, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        return _share(*counts)


@dataclass(frozen=True)
class PrecisionRecallF1:
    """Precision, recall and F1 of each class, averaged over all classes ("macro").

    Parameters
    ----------
    per_class : bool, optional
        Whether the values of each class are returned as well, as ``"f1_3"``.

    Notes
    -----
    With tp, fp, fn the true positives, false positives and false negatives of a class::

        precision = tp/(tp + fp)      recall = tp/(tp + fn)      F1 = 2 tp/(2 tp + fp + fn)

    A class that is never predicted has precision 0, one that never occurs has recall 0; both count in the average.
    """

    per_class: bool = False

    name = "class"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return _zeros(xp, n_out, n_out, n_out)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        logits, y, weight = _rows(logits, y, weight, xp)
        n_out = logits.shape[1]
        counted = xp.expand_dims(_counted(logits, weight, xp), axis=1)
        guess = one_hot(xp.argmax(logits, axis=1), n_out, dtype=xp.int32, xp=xp) * counted
        truth = one_hot(class_indices(y, xp=xp), n_out, dtype=xp.int32, xp=xp) * counted
        return _add(counts, *_confusion(guess, truth, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> dict[str, float]:
        tp, fp, fn = (c.astype(np.float64) for c in counts)
        each = {
            "precision": _shares(tp, tp + fp),
            "recall": _shares(tp, tp + fn),
            "f1": _shares(2.0 * tp, 2.0 * tp + fp + fn),
        }
        found = {name: float(np.mean(values)) for name, values in each.items()}
        if self.per_class:
            found |= {f"{name}_{k}": float(v) for name, values in each.items() for k, v in enumerate(values)}
        return found


@dataclass(frozen=True)
class BinaryAccuracy:
    """Share of the known labels that are right: a label is predicted where its logit is > 0, its probability > 1/2.

    A target above 1/2 means that the label is on.
    """

    name = "label_accuracy"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return _zeros(xp, n_out, n_out)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        guess, truth, known = _labels(logits, y, weight, xp)
        right = xp.astype(guess == truth, xp.int32) * known
        return _add(counts, _by_label(right, xp), _by_label(known, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        right, known = (c.sum(dtype=np.int64) for c in counts)
        return _share(right, known)


@dataclass(frozen=True)
class ExactMatch:
    """Share of the samples all of whose known labels are right; a sample without a known label is left out."""

    name = "exact_match"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return _zeros(xp, 1, 1)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        guess, truth, known = _labels(logits, y, weight, xp)
        wrong = xp.sum(xp.astype(guess != truth, xp.int32) * known, axis=1, dtype=xp.int32)
        counted = xp.astype(xp.sum(known, axis=1, dtype=xp.int32) > 0, xp.int32)
        right = xp.astype(wrong == 0, xp.int32) * counted
        return _add(counts, _total(right, xp), _total(counted, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        return _share(*counts)


@dataclass(frozen=True)
class MultiLabelF1:
    """F1 = 2 tp/(2 tp + fp + fn) of labels: "micro" from the sums over all labels, "macro" the mean of each label's.

    A label is predicted where its logit is > 0; missing ones are left out; one that is never predicted nor present
    has F1 = 0.
    """

    name = "f1"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return _zeros(xp, n_out, n_out, n_out)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        guess, truth, known = _labels(logits, y, weight, xp)
        return _add(counts, *_confusion(guess * known, truth * known, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> dict[str, float]:
        tp, fp, fn = (c.astype(np.float64) for c in counts)
        total, wrong = 2.0 * tp.sum(), (fp + fn).sum()
        macro = np.mean(_shares(2.0 * tp, 2.0 * tp + fp + fn))
        return {"micro": _share(total, total + wrong), "macro": float(macro)}


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


def class_indices(y: Array, /, *, xp: Namespace) -> Array:
    """Return class indices, (batch,), int32, from themselves or from rows: the class of the largest entry."""
    return xp.astype(y if y.ndim == 1 else xp.argmax(y, axis=1), xp.int32, copy=False)


def _rows(logits: Array, y: Array, weight: Array | None, xp: Namespace) -> tuple[Array, Array, Array | None]:
    """Return all three with one row for each position of each sample: of a matrix of logits, as they are."""
    if logits.ndim == 2:
        return logits, y, weight
    leading = logits.shape[:-1]
    if weight is not None:
        column = xp.reshape(weight, (leading[0], *(1 for _ in leading[1:])))
        weight = xp.reshape(xp.broadcast_to(column, leading), (-1,))
    y = xp.reshape(y, (-1,)) if y.ndim < logits.ndim else as_rows(y, xp=xp)
    return as_rows(logits, xp=xp), y, weight


def _labels(logits: Array, y: Array, weight: Array | None, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return prediction, truth and whether a label counts, as 0 and 1, int32, (batch · …, n_out)."""
    logits, y, weight = _rows(logits, y, weight, xp)
    if y.ndim == 1 and logits.shape[1] == 1:
        y = xp.expand_dims(y, axis=1)
    if y.shape != logits.shape:
        what = "this metric takes labels, one column for each output"
        got = f"y of shape {tuple(y.shape)}"
        fix = "metrics=['accuracy'] for classes"
        raise InvalidValueError("metrics", what, code="E044", got=got, expected=f"{tuple(logits.shape)}", fix=fix)
    y = xp.astype(y, logits.dtype, copy=False)
    known = xp.astype(y == y, xp.int32)  # NaN differs from itself
    known *= xp.expand_dims(_counted(logits, weight, xp), axis=1)
    return xp.astype(logits > 0.0, xp.int32), xp.astype(y > 0.5, xp.int32), known


def _confusion(guess: Array, truth: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return true positives, false positives and false negatives of each column, (n_out,)."""
    both = guess * truth
    return _by_label(both, xp), _by_label(guess - both, xp), _by_label(truth - both, xp)


def _counted(logits: Array, weight: Array | None, xp: Namespace) -> Array:
    """Return 1 for the samples that count and 0 for the others, (batch,), int32."""
    if weight is None:
        return xp.ones((logits.shape[0],), dtype=xp.int32)
    return xp.astype(weight > 0.0, xp.int32)


def _zeros(xp: Namespace, *sizes: int) -> Counts:
    return tuple(xp.zeros((size,), dtype=xp.int32) for size in sizes)


def _total(ones: Array, xp: Namespace) -> Array:
    return xp.sum(ones, axis=0, keepdims=True, dtype=xp.int32)


def _by_label(ones: Array, xp: Namespace) -> Array:
    return xp.sum(ones, axis=0, dtype=xp.int32)


def _add(counts: Counts, *more: Array) -> Counts:
    """Add to the counters, in place where the library can."""
    added = []
    for count, new in zip(counts, more, strict=True):
        count += new
        added.append(count)
    return tuple(added)


def _shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part/whole, and 0 where both are 0."""
    return np.asarray(part / np.where(whole == 0, 1, whole))


def _share(part: Any, whole: Any) -> float:
    return float(_shares(np.asarray(part), np.asarray(whole)).sum())
