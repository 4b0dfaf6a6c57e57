"""Metrics of classes: accuracy, top-k accuracy, and precision, recall and F1 of each class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.core.checks import set_counts
from bpxp.core.typing import Array, Namespace
from bpxp.metrics.labels import ExactMatch, LabelScores
from bpxp.metrics.metric import (
    Counts,
    Metric,
    add,
    class_indices,
    confusion,
    counted,
    each_position,
    scores,
    share,
    total,
    zeros,
)
from bpxp.metrics.outputs import OF_VALUES, Fitted, Outputs
from bpxp.nn.losses import one_hot


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, as it fits the loss.

    Notes
    -----
    Of classes: the largest logit is that of the class. Of one label: the label is right, on where its probability is
    above 1/2. Of several labels: all of a sample's are, as in `ExactMatch` and scikit-learn.
    """

    name = "accuracy"
    higher_is_better = True

    def fitted(self, outputs: Outputs, /) -> Metric:
        if outputs.kind == "classes":
            return self
        if outputs.kind == "values" or (outputs.half and outputs.count > 1):
            raise outputs.misfit(
                self.name, OF_VALUES if outputs.kind == "values" else "metrics=['exact_match'] for labels"
            )
        if outputs.count == 1:
            return Fitted(self, self.name, outputs.half, two_classes=True)
        return Fitted(ExactMatch(), self.name, outputs.half)

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return zeros(xp, 1, 1)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        logits, y, weight = each_position(logits, y, weight, xp)
        right = xp.astype(guessed(logits, xp) == class_indices(y, xp=xp), xp.int32)
        present = counted(logits, weight, xp)
        return add(counts, total(right * present, xp), total(present, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        return share(*counts)


@dataclass(frozen=True)
class TopK:
    """Share of the samples whose class is among the k largest logits.

    Parameters
    ----------
    k : int, optional
        With as many classes as that, or fewer, every sample counts as right.

    Notes
    -----
    A class is among them if fewer than k are ahead of it: counting needs no sort. Of equal logits that of the higher
    class is ahead, as in scikit-learn's ``top_k_accuracy_score``, so a network whose logits are all the same scores k
    of n_out; one whose logits are NaN scores 0.
    """

    k: int = 5

    higher_is_better = True

    def __post_init__(self) -> None:
        set_counts(self, "k")

    @property
    def name(self) -> str:
        return f"top{self.k}_accuracy"

    def fitted(self, outputs: Outputs, /) -> Metric:
        if outputs.kind == "classes":
            return self
        label = "'accuracy'" if outputs.count == 1 else "'label_accuracy'"
        raise outputs.misfit(self.name, OF_VALUES if outputs.kind == "values" else f"metrics=[{label}]")

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return zeros(xp, 1, 1)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        logits, y, weight = each_position(logits, y, weight, xp)
        n_out, index = logits.shape[1], class_indices(y, xp=xp)
        own = xp.sum(xp.where(one_hot(index, n_out, dtype=xp.bool, xp=xp), logits, 0.0), axis=1, keepdims=True)
        higher = xp.arange(n_out, dtype=xp.int32) > xp.expand_dims(index, axis=1)
        ahead = xp.logical_or(logits > own, xp.logical_and(logits == own, higher))
        few = xp.sum(xp.astype(ahead, xp.int32), axis=1, dtype=xp.int32) < self.k
        right = xp.astype(xp.logical_and(few, are_numbers(logits, xp)), xp.int32)
        present = counted(logits, weight, xp)
        return add(counts, total(right * present, xp), total(present, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> float:
        return share(*counts)


@dataclass(frozen=True)
class PrecisionRecallF1:
    """Precision, recall and F1 of each class, averaged over the classes ("macro").

    Parameters
    ----------
    per_class : bool, optional
        Whether the values of each class are returned as well, as ``"f1_3"``.

    Notes
    -----
    With tp, fp, fn the true positives, false positives and false negatives of a class::

        precision = tp/(tp + fp)      recall = tp/(tp + fn)      F1 = 2 tp/(2 tp + fp + fn)

    A class that is never predicted has precision 0, one that never occurs has recall 0. As in scikit-learn, one that
    neither occurs nor is predicted does not count in the average. One label is two classes, off and on; of several
    labels each is averaged.
    """

    per_class: bool = False

    name = "class"
    higher_is_better = True

    def fitted(self, outputs: Outputs, /) -> Metric:
        if outputs.kind == "classes":
            return self
        if outputs.kind == "values":
            raise outputs.misfit(self.name, OF_VALUES)
        if outputs.count == 1:
            return Fitted(self, self.name, outputs.half, two_classes=True)
        return Fitted(LabelScores(self.per_class), self.name, outputs.half)

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return zeros(xp, n_out, n_out, n_out)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        logits, y, weight = each_position(logits, y, weight, xp)
        n_out = logits.shape[1]
        present = xp.expand_dims(counted(logits, weight, xp), axis=1)
        guess = one_hot(guessed(logits, xp), n_out, dtype=xp.int32, xp=xp) * present
        truth = one_hot(class_indices(y, xp=xp), n_out, dtype=xp.int32, xp=xp) * present
        return add(counts, *confusion(guess, truth, xp))

    def result(self, counts: tuple[np.ndarray, ...], /) -> dict[str, float]:
        return scores(counts, np.asarray(sum(counts) > 0), self.per_class)


def guessed(logits: Array, xp: Namespace) -> Array:
    """Return the class of the largest logit, (batch,), int32; -1, which is none, where a logit is NaN."""
    return xp.where(are_numbers(logits, xp), xp.astype(xp.argmax(logits, axis=1), xp.int32), -1)


def are_numbers(logits: Array, xp: Namespace) -> Array:
    """Return whether none of a sample's logits is NaN, (batch,)."""
    largest = xp.max(logits, axis=1)  # NaN if one of them is
    return largest == largest  # NaN differs from itself
