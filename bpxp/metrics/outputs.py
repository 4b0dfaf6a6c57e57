"""What a network's outputs mean, and a metric that was fitted to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError
from bpxp.metrics.metric import Counts, Metric, counted, each_position

OF_VALUES = "metrics=[], the loss is the metric"


@dataclass(frozen=True)
class Outputs:
    """What a network's outputs mean: a metric that cannot be computed from them is refused before the first step.

    Attributes
    ----------
    kind : {"classes", "labels", "values"}
        One class out of several; labels, each on or off; or real numbers.
    count : int
        Number of outputs.
    half : float
        Where a label is as likely on as off: 0 of a logit, 0.5 of a probability.
    loss : str
        The loss, for messages.
    """

    kind: str
    count: int
    half: float = 0.0
    loss: str = "the loss"

    def misfit(self, name: str, fix: str, what: str = "") -> InvalidValueError:
        """Return the error for a metric that does not fit."""
        what = (
            what
            or {
                "classes": f"it is a metric of labels, and {self.loss} takes one class for each sample",
                "labels": f"it is a metric of classes, and {self.loss} takes labels, each on or off",
                "values": f"it counts right answers, and {self.loss} takes real numbers",
            }[self.kind]
        )
        got = f"{self.count} output{'s' * (self.count > 1)}"
        return InvalidValueError(f"metrics: {name}", what, code="E018", got=got, fix=fix)


@dataclass(frozen=True)
class Fitted:
    """A metric of logits, made that of other outputs.

    Parameters
    ----------
    metric : Metric
    name : str
        What was asked for.
    half : float
        See `Outputs`.
    two_classes : bool
        Whether the one output is that of a metric of classes: off is class 0, on is class 1.
    """

    metric: Metric
    name: str
    half: float = 0.0
    two_classes: bool = False

    higher_is_better = True

    def init(self, n_out: int, /, *, xp: Namespace, dtype: Any) -> Counts:
        return self.metric.init(2 if self.two_classes else n_out, xp=xp, dtype=dtype)

    def update(self, counts: Counts, logits: Array, y: Array, weight: Array | None, /, *, xp: Namespace) -> Counts:
        if self.half:
            logits = logits - self.half  # its sign is exact
        if self.two_classes:
            logits, y, weight = as_two_classes(*each_position(logits, y, weight, xp), xp)
        return self.metric.update(counts, logits, y, weight, xp=xp)

    def result(self, counts: tuple[np.ndarray, ...], /) -> float | dict[str, float]:
        return self.metric.result(counts)


def as_two_classes(z: Array, y: Array, weight: Array | None, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return logits (batch, 2), classes (batch,) and weights (batch,) of one label; a missing one has weight 0."""
    y = xp.astype(xp.reshape(y, (-1,)), z.dtype)
    known = xp.astype(y == y, xp.int32) * counted(z, weight, xp)  # NaN differs from itself
    return xp.concat([-z, z], axis=1), xp.astype(y > 0.5, xp.int32), xp.astype(known, z.dtype)
