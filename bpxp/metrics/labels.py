"""Metrics of labels, each on or off, of which some may be missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError
from bpxp.metrics.metric import (
    Counts,
    Metric,
    add,
    by_column,
    confusion,
    counted,
    each_position,
    scores,
    share,
    shares,
    total,
    zeros,
)
from bpxp.metrics.outputs import OF_VALUES, Fitted, Outputs


class OfLabels:
    """Base of the metrics of labels: a label is predicted where its logit is > 0, its probability > 1/2."""

    name: str
    higher_is_better = True
    instead = "metrics=['accuracy']"  # of classes

    def fitted(self: Any, outputs: Outputs, /) -> Metric:
        if outputs.kind != "labels":
            raise outputs.misfit(self.name, self.instead if outputs.kind == "classes" else OF_VALUES)
        return Fitted(self, self.name, outputs.half) if outputs.half else self


@dataclass(frozen=True)
class BinaryAccuracy(OfLabels):
    """Share of the known labels that are right: a label is predicted where its logit is > 0, its probability > 1/2.

    A target above 1/2 means that the label is on.
    """

    name = "label_accuracy"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return zeros(xp, n_out, n_out)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        guess, truth, known = as_labels(logits, y, weight, xp)
        right = xp.astype(guess == truth, xp.int32) * known
        return add(counts, by_column(right, xp), by_column(known, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        right, known = (c.sum(dtype=np.int64) for c in counts)
        return share(right, known)


@dataclass(frozen=True)
class ExactMatch(OfLabels):
    """Share of the samples all of whose known labels are right; a sample without a known label is left out."""

    name = "exact_match"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return zeros(xp, 1, 1)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        guess, truth, known = as_labels(logits, y, weight, xp)
        wrong = xp.sum(xp.astype(guess != truth, xp.int32) * known, axis=1, dtype=xp.int32)
        present = xp.astype(xp.sum(known, axis=1, dtype=xp.int32) > 0, xp.int32)
        right = xp.astype(wrong == 0, xp.int32) * present
        return add(counts, total(right, xp), total(present, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        return share(*counts)


@dataclass(frozen=True)
class MultiLabelF1(OfLabels):
    """F1 = 2 tp/(2 tp + fp + fn) of labels: "micro" from the sums over all labels, "macro" the mean of each label's.

    A label is predicted where its logit is > 0; missing ones are left out; one that is never predicted nor present
    has F1 = 0.
    """

    name = "f1"
    instead = "metrics=['precision_recall_f1']"

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return zeros(xp, n_out, n_out, n_out)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        guess, truth, known = as_labels(logits, y, weight, xp)
        return add(counts, *confusion(guess * known, truth * known, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> dict[str, float]:
        tp, fp, fn = (c.astype(np.float64) for c in counts)
        right, wrong = 2.0 * tp.sum(), (fp + fn).sum()
        macro = np.mean(shares(2.0 * tp, 2.0 * tp + fp + fn))
        return {"micro": share(right, right + wrong), "macro": float(macro)}


@dataclass(frozen=True)
class LabelScores(MultiLabelF1):
    """Precision, recall and F1 of each label, averaged over all labels: `PrecisionRecallF1` of several labels."""

    per_class: bool = False

    def result(self, counts: tuple[np.ndarray, ...], /) -> dict[str, float]:
        return scores(counts, np.ones(len(counts[0]), bool), self.per_class)


def as_labels(logits: Array, y: Array, weight: Array | None, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return prediction, truth and whether a label counts, as 0 and 1, int32, (batch · …, n_out).

    Where a logit is NaN the prediction is the wrong one.
    """
    logits, y, weight = each_position(logits, y, weight, xp)
    if y.ndim == 1 and logits.shape[1] == 1:
        y = xp.expand_dims(y, axis=1)
    if y.shape != logits.shape:
        what = "this metric takes labels, one column for each output"
        got = f"y of shape {tuple(y.shape)}"
        fix = "metrics=['accuracy'] for classes"
        raise InvalidValueError("metrics", what, code="E044", got=got, expected=f"{tuple(logits.shape)}", fix=fix)
    y = xp.astype(y, logits.dtype, copy=False)
    known = xp.astype(y == y, xp.int32)  # NaN differs from itself
    known *= xp.expand_dims(counted(logits, weight, xp), axis=1)
    guess, truth = xp.astype(logits > 0.0, xp.int32), xp.astype(y > 0.5, xp.int32)
    return xp.where(logits == logits, guess, 1 - truth), truth, known
