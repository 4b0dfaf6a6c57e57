"""A fit on its way: what its steps change, and where in which epoch it stands. It can be cut wherever a step ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpxp.core.typing import Params
from bpxp.network.feed import Feed
from bpxp.network.network import Network
from bpxp.network.step import State
from bpxp.optim import OptState
from bpxp.training.history import History

MOMENT = 0.2  # seconds: how long the host may run ahead of the device, and so how soon Ctrl-C is heard
MARKS = 20  # places in an epoch where progress can be shown


@dataclass
class Run:
    """One fit.

    Attributes
    ----------
    net : Network
        Its `epoch` is the number of epochs done, its arrays those of `state`, after every call.
    state : State
        After the last step.
    size, batches : int
        Samples per step, and steps per epoch.
    first : int
        Epochs that the network had done before this fit.
    plan : function
        Returns what has to be the same when the run is continued, as JSON values.
    history : History
    done : int
        Steps of the epoch on its way; 0 where an epoch has ended.
    seconds : float
        Spent in the epoch on its way.
    """

    net: Network
    state: State
    size: int
    batches: int
    first: int
    plan: Callable[[], dict[str, Any]]
    history: History = field(default_factory=History)
    done: int = 0
    seconds: float = 0.0

    @property
    def steps(self) -> int:
        """Steps done, those of this fit and, as far as its batch size tells, those before."""
        return self.net.epoch * self.batches + self.done

    def begin_epoch(self, order: np.ndarray, feed: Feed) -> None:
        """Take a new order of the samples: from its beginning, or from where the epoch was cut."""
        self.state = self.state._replace(order=feed.begin(order))
        if not self.done:
            self.state = self.state._replace(**fresh_sums(self.net))

    def advance(self, step: Any, feed: Feed, count: int) -> None:
        """Do `count` steps, and let the network hold what they made."""
        with np.errstate(all="ignore"):  # NumPy alone would warn; what is not finite is found on every backend
            for data, part in feed.parts(self.done, count):
                self.state = step(self.state, data, count=part)
        self.done += count
        self.publish(self.state.params)

    def publish(self, params: Params) -> None:
        """Let the network hold these parameters, and the statistics and the key of the state."""
        self.net._params, self.net.stats, self.net.key = params, self.state.stats, self.state.key

    def between_fits(self) -> tuple[Params, OptState]:
        """Return parameters and optimizer state as a network keeps them when nobody trains it; see `swapped`."""
        return swapped(self.state.params, self.state.opt)


def swapped(params: Params, opt: OptState) -> tuple[Params, OptState]:
    """Let parameters and their moving average, if there is one, change places.

    A network keeps the average as its parameters between fits, since that is what was evaluated; the optimizer's state
    then holds the others.
    """
    return (opt.average, opt._replace(average=params)) if opt.average else (params, opt)


def fresh_sums(net: Network, done: int = 0) -> dict[str, Any]:
    """Return what a state has at the beginning of an epoch, or after `done` samples."""
    xp, kind = net.xp, getattr(net.xp, net.dtype)
    zeros = {name: xp.zeros((1,), dtype=kind) for name in ("loss", "weight")}
    return {"position": xp.full((1,), done, dtype=xp.int32), **zeros}


def next_mark(done: int, batches: int, every: Iterable[int], epoch: int, marks: int = MARKS) -> int:
    """Return the next step of the epoch at which the run looks up: to show progress, or because it was asked to.

    Parameters
    ----------
    done : int
        Steps of the epoch that are done.
    batches : int
        Steps of an epoch.
    every : iterable of int
        Look up after so many steps, counted from the network's first epoch on.
    epoch : int
        Epochs done.
    marks : int, optional
        Places in an epoch at which somebody wants to see how far it is.
    """
    marks = min(marks, batches)
    i = done * marks // batches + 1
    mark = i * batches // marks
    if mark == done:  # rounded down to where we are
        mark = (i + 1) * batches // marks
    total = epoch * batches + done
    return min([mark, *(done + n - total % n for n in every)])


class Pace:
    """How many steps the device gets at a time, so that host and device meet every moment.

    A device works while the host goes on; without meeting, an interrupt would be obeyed when all that was asked for is
    done. In a short epoch they need not meet at all.
    """

    def __init__(self) -> None:
        self.most = 1
        self.begin()

    def begin(self) -> None:
        """Start counting anew: something else has taken its time."""
        self._given, self._since = 0, time.perf_counter()

    @property
    def room(self) -> int:
        """Steps to give before the next meeting."""
        return self.most - self._given

    def gave(self, count: int, run: Run) -> None:
        """Take note of steps given, and wait for the device if it is time."""
        self._given += count
        if self._given < self.most:
            return
        run.net.backend.to_numpy(run.state.position)
        seconds = max(time.perf_counter() - self._since, 1e-9)
        # The first step compiles: the pace is found again from below.
        self.most = max(1, min(int(self._given * MOMENT / seconds), 4 * self.most))
        self.begin()


def chunks(run: Run, pace: Pace, every: Collection[int], marks: int = MARKS) -> Iterator[int]:
    """Yield how many steps to do next, until the epoch ends; the run is looked at anew each time.

    A call of a compiled step takes about 0.1 ms beside its numbers: where nobody watches, `marks` is 1.
    """
    pace.begin()
    while run.done < run.batches:
        mark = next_mark(run.done, run.batches, every, run.net.epoch, marks)
        count = min(mark - run.done, pace.room)
        yield count
        pace.gave(count, run)
