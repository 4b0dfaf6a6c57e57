"""Reduce on plateau: a learning rate that falls when an epoch's metric no longer does."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.checks import set_counts, set_numbers
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.optim.schedules import Schedule, ScheduleState


@dataclass(frozen=True)
class Plateau(Schedule):
    """η ← max(factor · η, floor) after `patience` epochs in which the metric did not get better.

    Parameters
    ----------
    learning_rate : float
        η at the start.
    factor : float, optional
        In (0, 1); 0.1.
    patience : int, optional
        Epochs without improvement until η falls, and again until it falls the next time; 10.
    min_delta : float, optional
        What counts as better: metric < best - min_delta; 0.
    floor : float, optional
        η does not fall below it, in [0, η]; 0.

    Notes
    -----
    The metric is a loss, lower is better, one per epoch, shown by `Optimizer.observe`. NaN is never better. With
    ``patience=2`` the second epoch without improvement lowers η (as in Keras; torch's ReduceLROnPlateau waits for the
    third).

    The equations say what an epoch does. wait is 0 and best infinite at the start, and eta is the rate of all steps
    until the next epoch ends; b is 1 if the metric has got better, and w how many epochs it has not.
    """

    learning_rate: float
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 0.0
    floor: float = 0.0

    equations = Equations(
        better="b = [metric < best - min_delta]",
        best="best' = metric*[b] + best*[not b]",
        waited="w = (wait + 1)*[not b]",
        wait="wait' = w*[w < patience]",
        rate="eta' = eta*[w < patience] + max(factor*eta, floor)*[w >= patience]",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "learning_rate", low=0.0, low_open=True)
        set_numbers(self, "factor", low=0.0, low_open=True, high=1.0, high_open=True)
        set_counts(self, "patience")
        set_numbers(self, "min_delta", low=0.0)
        set_numbers(self, "floor", low=0.0, high=self.learning_rate)

    def init(self, like: Array, /, *, xp: Namespace) -> ScheduleState:
        """Return (best, wait, rate), each of shape (1,); the best is the largest number before there is one."""
        best = xp.full((1,), float(xp.finfo(like.dtype).max), dtype=like.dtype)
        wait = xp.zeros((1,), dtype=xp.int32)
        rate = xp.full((1,), self.learning_rate, dtype=like.dtype)
        return best, wait, rate

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        return state[2]

    def observe(self, state: ScheduleState, metric: Array, /, *, xp: Namespace) -> ScheduleState:
        best, wait, rate = state
        better = metric < best - self.min_delta
        wait = (wait + 1) * xp.astype(xp.logical_not(better), wait.dtype)
        due = wait >= self.patience
        lower = xp.maximum(rate * self.factor, xp.full((1,), self.floor, dtype=rate.dtype))
        return (
            xp.where(better, xp.astype(metric, best.dtype), best),
            wait * xp.astype(xp.logical_not(due), wait.dtype),
            xp.where(due, lower, rate),
        )
