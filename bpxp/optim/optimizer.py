"""The order of an update, the same for every rule: penalise, clip, schedule, decay, rule, average.

An optimizer is a frozen dataclass of hyper-parameters; whatever changes from step to step is an array in its state.
`update` owns parameters, gradients and state: it writes into them and returns them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from bpxp.optim.schedules import ScheduleState

Array = Any
Namespace = Any
Params = tuple[Any, ...]


class OptState(NamedTuple):
    """What an optimizer remembers.

    Attributes
    ----------
    t : array, (1,), int32
        Updates done.
    learning_rate : array, (1,)
        Of the last update; before the first, of the first.
    slots : tuple of trees
        One tree of the parameters' structure per quantity that the rule keeps (velocity, second moment, …).
    schedule : tuple of arrays
        What the schedule remembers.
    average : tree or ()
        The moving average of the parameters, if asked for.
    """

    t: Array
    learning_rate: Array
    slots: tuple[Any, ...]
    schedule: ScheduleState
    average: Any


# (SGD and the others follow in files of their own; Optimizer itself is completed with penalties, clipping, averaging.)
