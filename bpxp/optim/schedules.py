"""Learning rates that change: functions of the number of steps done, evaluated where the step runs.

A schedule's value is an array in the optimizer's state: a new value is no new compilation. A step is one mini-batch:
n epochs are ``n * math.ceil(samples / batch_size)`` steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bpxp.core.aliases import suggestion
from bpxp.core.checks import number, set_counts, set_field, set_numbers
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.errors import InvalidTypeError, InvalidValueError

ScheduleState = tuple[Any, ...]


class Schedule:
    """Base of the schedules: pure functions of the step; a frozen dataclass of hyper-parameters."""

    def init(self, like: Array, /, *, xp: Namespace) -> ScheduleState:
        """Return the state of the schedule: () for most. `like` gives the dtype."""
        return ()

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        """Return the learning rate of step t = 0, 1, …; t and the result are floating arrays of shape (1,)."""
        raise NotImplementedError

    def observe(self, state: ScheduleState, metric: Array, /, *, xp: Namespace) -> ScheduleState:
        """Receive the metric of an epoch, shape (1,), lower is better: most ignore it."""
        return state


@dataclass(frozen=True)
class Constant(Schedule):
    """η(t) = η."""

    learning_rate: float

    equations = Equations(rate="eta[t] = learning_rate")

    def __post_init__(self) -> None:
        set_numbers(self, "learning_rate", low=0.0, low_open=True)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        return xp.full((1,), self.learning_rate, dtype=t.dtype)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """η(t) = η · factor^⌊t / every⌋: a staircase.

    Parameters
    ----------
    learning_rate : float
        η of the first stair.
    every : int
        Steps per stair.
    factor : float, optional
        From stair to stair, in (0, 1]; 0.1.
    """

    learning_rate: float
    every: int
    factor: float = 0.1

    equations = Equations(rate="eta[t] = learning_rate*factor^floor(t/every)")

    def __post_init__(self) -> None:
        set_numbers(self, "learning_rate", low=0.0, low_open=True)
        set_counts(self, "every")
        set_numbers(self, "factor", low=0.0, low_open=True, high=1.0)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        # Half a step later the quotient is never a whole number, so that no rounding ends on the wrong stair: on a GPU
        # torch multiplies by the rounded 1/every instead of dividing.
        stair = xp.floor((t + 0.5) / self.every)
        return self.learning_rate * self.factor**stair


@dataclass(frozen=True)
class ExponentialDecay(Schedule):
    """η(t) = η · decay^t.

    Parameters
    ----------
    learning_rate : float
        η of the first step.
    decay : float
        From step to step, in (0, 1].
    """

    learning_rate: float
    decay: float

    equations = Equations(rate="eta[t] = learning_rate*decay^t")

    def __post_init__(self) -> None:
        set_numbers(self, "learning_rate", low=0.0, low_open=True)
        set_numbers(self, "decay", low=0.0, low_open=True, high=1.0)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        # The logarithm in double precision: float32(0.9999)^t would be wrong by 3e-8 t.
        return self.learning_rate * xp.exp(t * math.log(self.decay))


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """η(t) = floor + (η - floor) (1 + cos(π t / steps)) / 2, and floor from t = steps on.

    Parameters
    ----------
    learning_rate : float
        η of the first step.
    steps : int
        Length of the decay.
    floor : float, optional
        Final value, in [0, η]; 0.

    References
    ----------
    I. Loshchilov, F. Hutter, *SGDR: stochastic gradient descent with warm restarts*, ICLR 2017, equation 5, one cycle.
    """

    learning_rate: float
    steps: int
    floor: float = 0.0

    equations = Equations(rate="eta[t] = floor + (learning_rate - floor)*(1 + cos(pi*min(t/steps, 1)))/2")

    def __post_init__(self) -> None:
        set_numbers(self, "learning_rate", low=0.0, low_open=True)
        set_counts(self, "steps")
        set_numbers(self, "floor", low=0.0, high=self.learning_rate)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        way = xp.minimum(t / self.steps, xp.ones((1,), dtype=t.dtype))
        return self.floor + (self.learning_rate - self.floor) * half_cosine(way, xp)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """One cycle: up to a high learning rate, then down to a very low one.

    Parameters
    ----------
    learning_rate : float
        The peak, η.
    steps : int
        Length of the run; the lowest rate is that of the last step, t = steps - 1, and of all that follow.
    rise : float, optional
        Share of the steps spent on the way up, in (0, 1); 0.3. ``rise * steps`` must be more than 1.
    start, end : float, optional
        The first rate is η/start, the last η/(start · end), both >= 1; 25 and 1e4.
    shape : str, optional
        Of the way up: "cosine" (fastai) or "linear" (Smith). The way down is a half cosine.

    Notes
    -----
    In the equations T is the step of the peak, a the first rate, b the last, and u and v the shares of the way up and
    of the way down. It is torch's OneCycleLR with its defaults; the cycle of the momentum is left out.

    References
    ----------
    L. Smith, N. Topin, *Super-convergence: very fast training of neural networks using large learning rates*, 2017.
    """

    learning_rate: float
    steps: int
    rise: float = 0.3
    start: float = 25.0
    end: float = 1e4
    shape: str = "cosine"

    equations = Equations(
        peak="T = rise*steps - 1",
        first="a = learning_rate/start",
        last="b = a/end",
        up="u[t] = min(t/T, 1)*[linear] + (1 - cos(pi*min(t/T, 1)))/2*[not linear]",
        down="v[t] = (1 + cos(pi*min((t - T)/(steps - 1 - T), 1)))/2",
        rate="eta[t] = (a + (learning_rate - a)*u[t])*[t < T] + (b + (learning_rate - b)*v[t])*[t >= T]",
    )

    @property
    def linear(self) -> bool:
        """Whether the way up is a straight line."""
        return self.shape == "linear"

    def __post_init__(self) -> None:
        set_numbers(self, "learning_rate", low=0.0, low_open=True)
        set_counts(self, "steps")
        set_numbers(self, "rise", low=0.0, low_open=True, high=1.0, high_open=True)
        set_numbers(self, "start", "end", low=1.0)
        if self.shape not in ("cosine", "linear"):
            got = repr(self.shape)
            first = suggestion(str(self.shape), ["cosine", "linear"])
            raise InvalidValueError(
                "OneCycle(shape=…)", "unknown shape", code="E003", got=got, expected="'cosine' or 'linear'", first=first
            )
        if self.rise * self.steps <= 1.0:
            what = "too few steps for a way up"
            got = f"rise * steps = {self.rise * self.steps:g}"
            fix = f"steps={math.floor(1.0 / self.rise) + 1}"
            raise InvalidValueError("OneCycle(steps=…)", what, code="E005", got=got, expected="> 1", fix=fix)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        top, last = self.rise * self.steps - 1.0, self.steps - 1.0
        first = self.learning_rate / self.start
        lowest = first / self.end
        one = xp.ones((1,), dtype=t.dtype)
        up = xp.minimum(t / top, one)
        up = up if self.linear else half_cosine(1.0 - up, xp)
        down = half_cosine(xp.minimum((t - top) / (last - top), one), xp)
        # Two branches, not a sum: in float32 the lowest rate would be lost beside the peak.
        return xp.where(
            t < top, first + (self.learning_rate - first) * up, lowest + (self.learning_rate - lowest) * down
        )


@dataclass(frozen=True)
class WarmUp(Schedule):
    """A linear warm-up over `steps` steps, then another schedule from its step 0 on.

    Parameters
    ----------
    schedule : Schedule or float
        What follows.
    steps : int
        Length of the warm-up.

    Notes
    -----
    The first rate is not zero, and step t = steps is the schedule's first.

    References
    ----------
    P. Goyal et al., *Accurate, large minibatch SGD: training ImageNet in 1 hour*, 2017, section 2.2.
    """

    schedule: Schedule | float
    steps: int

    equations = Equations(rate="eta[t] = min(1, (t + 1)/(steps + 1))*schedule[max(0, t - steps)]")

    def __post_init__(self) -> None:
        set_field(self, "schedule", as_schedule(self.schedule, "WarmUp(schedule=…)"))
        set_counts(self, "steps")

    def init(self, like: Array, /, *, xp: Namespace) -> ScheduleState:
        return as_schedule(self.schedule).init(like, xp=xp)

    def at(self, t: Array, state: ScheduleState, /, *, xp: Namespace) -> Array:
        ramp = xp.minimum((t + 1.0) / (self.steps + 1), xp.ones((1,), dtype=t.dtype))
        later = xp.maximum(t - self.steps, xp.zeros((1,), dtype=t.dtype))
        return ramp * as_schedule(self.schedule).at(later, state, xp=xp)

    def observe(self, state: ScheduleState, metric: Array, /, *, xp: Namespace) -> ScheduleState:
        return as_schedule(self.schedule).observe(state, metric, xp=xp)


def half_cosine(u: Array, xp: Namespace) -> Array:
    """Return (1 + cos πu)/2, which falls from 1 at u = 0 to 0 at u = 1."""
    return 0.5 * (1.0 + xp.cos(math.pi * u))


def as_schedule(learning_rate: Schedule | float, where: str = "learning_rate") -> Schedule:
    """Return a schedule as it is, and a number as a constant one."""
    if isinstance(learning_rate, Schedule):
        return learning_rate
    if isinstance(learning_rate, type) and issubclass(learning_rate, Schedule):
        what = "a class, not a schedule"
        raise InvalidTypeError(where, what, code="E004", got=learning_rate.__name__, fix=f"{learning_rate.__name__}(…)")
    return Constant(number(learning_rate, where, low=0.0, low_open=True))
