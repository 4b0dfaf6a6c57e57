"""Learning rates that change: functions of the number of steps done, evaluated where the step runs.

A schedule's value is an array in the optimizer's state: a new value is no new compilation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bpxp.nn.checks import number

Array = Any
Namespace = Any
ScheduleState = tuple[Any, ...]


class Schedule:
    """Base of the schedules: pure functions of the step."""

    def init(self, like: Array, /, *, xp: Namespace) -> ScheduleState:
        """Return the arrays that the schedule remembers: most need none. `like` gives the dtype."""
        return ()

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        """Return the learning rate of step t = 0, 1, …; t and the result are floating arrays of shape (1,)."""
        raise NotImplementedError

    def observe(self, state: ScheduleState, metric: Array, /, *, xp: Namespace) -> ScheduleState:
        """Take notice of the metric of an epoch, shape (1,), lower is better: most do nothing."""
        return state


@dataclass(frozen=True)
class Constant(Schedule):
    """η(t) = η."""

    learning_rate: float

    def __post_init__(self) -> None:
        number(self.learning_rate, "learning_rate", low=0.0, low_open=True)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        return xp.full((1,), self.learning_rate, dtype=t.dtype)
