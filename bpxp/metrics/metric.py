"""The protocol of a metric, and the counters that metrics share.

The counters are int32, exact up to 2^31 - 1, where float32 would stop counting at 2^24.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np

from bpxp.core.typing import Array, Namespace
from bpxp.nn.leading_axes import as_rows

Counts = tuple[Array, ...]


@runtime_checkable
class Metric(Protocol):
    """The protocol of a metric; a frozen dataclass of hyper-parameters satisfies it.

    Optional members:

    ``higher_is_better``
        bool: which way a callback that monitors the metric takes for better. Without it bpxp measures it: right
        answers against wrong ones.
    ``fitted(outputs, /) -> Metric``
        The metric for what a network's outputs mean, `bpxp.metrics.Outputs`; an InvalidValueError if it fits none of
        them. Called before the first step.
    """

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


def class_indices(y: Array, /, *, xp: Namespace) -> Array:
    """Return class indices, (batch,), int32, from themselves or from rows: the class of the largest entry."""
    return xp.astype(y if y.ndim == 1 else xp.argmax(y, axis=1), xp.int32, copy=False)


def each_position(logits: Array, y: Array, weight: Array | None, xp: Namespace) -> tuple[Array, Array, Array | None]:
    """Return all three with one row for each position of each sample: of a matrix of logits, as they are."""
    if logits.ndim == 2:
        return logits, y, weight
    leading = logits.shape[:-1]
    if weight is not None:
        column = xp.reshape(weight, (leading[0], *(1 for _ in leading[1:])))
        weight = xp.reshape(xp.broadcast_to(column, leading), (-1,))
    y = xp.reshape(y, (-1,)) if y.ndim < logits.ndim else as_rows(y, xp=xp)
    return as_rows(logits, xp=xp), y, weight


def counted(logits: Array, weight: Array | None, xp: Namespace) -> Array:
    """Return 1 for the samples that count and 0 for the others, (batch,), int32."""
    if weight is None:
        return xp.ones((logits.shape[0],), dtype=xp.int32)
    return xp.astype(weight > 0.0, xp.int32)


def confusion(guess: Array, truth: Array, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return true positives, false positives and false negatives of each column, (n_out,)."""
    both = guess * truth
    return by_column(both, xp), by_column(guess - both, xp), by_column(truth - both, xp)


def zeros(xp: Namespace, *sizes: int) -> Counts:
    """Return counters of these sizes at zero."""
    return tuple(xp.zeros((size,), dtype=xp.int32) for size in sizes)


def total(ones: Array, xp: Namespace) -> Array:
    """Return the sum over the samples, (1,)."""
    return xp.sum(ones, axis=0, keepdims=True, dtype=xp.int32)


def by_column(ones: Array, xp: Namespace) -> Array:
    """Return the sum over the samples for each column, (n_out,)."""
    return xp.sum(ones, axis=0, dtype=xp.int32)


def add(counts: Counts, *more: Array) -> Counts:
    """Add to the counters, in place where the library can."""
    added = []
    for count, new in zip(counts, more, strict=True):
        count += new
        added.append(count)
    return tuple(added)


def shares(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Return part/whole, and 0 where both are 0."""
    return np.asarray(part / np.where(whole == 0, 1, whole))


def share(part: Any, whole: Any) -> float:
    """Return part/whole of two counters with one number each, and 0 where both are 0."""
    return float(shares(np.asarray(part), np.asarray(whole)).sum())


def scores(counts: tuple[np.ndarray, ...], chosen: np.ndarray, each: bool) -> dict[str, float]:
    """Return precision, recall and F1 from tp, fp and fn, the mean over the chosen columns; `each`: of each as well."""
    tp, fp, fn = (c.astype(np.float64) for c in counts)
    found = {
        "precision": shares(tp, tp + fp),
        "recall": shares(tp, tp + fn),
        "f1": shares(2.0 * tp, 2.0 * tp + fp + fn),
    }
    means = {name: float(np.mean(values[chosen])) if chosen.any() else 0.0 for name, values in found.items()}
    own = {f"{name}_{k}": float(v) for name, values in found.items() for k, v in enumerate(values)}
    return means | own if each else means
