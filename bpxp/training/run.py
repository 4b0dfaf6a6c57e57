"""The progress of a fit: its state, its epoch and its place there. A fit can be cut wherever a step ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpxp.core.typing import Params
from bpxp.network.feed import Feed
from bpxp.network.network import Network
from bpxp.network.step import State, restarted
from bpxp.optim import OptState
from bpxp.training.history import History


@dataclass
class FitProgress:
    """One fit."""

    net: Network  # its `epoch` is the number of epochs done, its arrays those of `state`, after every call
    state: State  # after the last step
    size: int  # samples per step
    batches: int  # steps per epoch
    first: int  # epochs that the network had done before this fit
    plan: Callable[[], dict[str, Any]]  # what has to be the same when the run is continued, as JSON values
    history: History = field(default_factory=History)
    done: int = 0  # steps of the current epoch; 0 where an epoch has ended
    seconds: float = 0.0  # spent in the current epoch

    @property
    def steps(self) -> int:
        """Steps done, those of this fit and, as far as its batch size tells, those before."""
        return self.net.epoch * self.batches + self.done

    def begin_epoch(self, order: np.ndarray, feed: Feed) -> None:
        """Take a new order of the samples: from its beginning, or from where the epoch was cut."""
        self.state = self.state._replace(order=feed.begin(order))
        if not self.done:
            self.state = restarted(self.state, xp=self.net.xp)

    def advance(self, step: Any, feed: Feed, count: int) -> None:
        """Do `count` steps; the network then holds the new parameters."""
        with np.errstate(all="ignore"):  # NumPy alone would warn; what is not finite is found on every backend
            for data, part in feed.parts(self.done, count):
                self.state = step(self.state, data, count=part)
        self.done += count
        self.publish(self.state.params)

    def publish(self, params: Params) -> None:
        """Give the network these parameters, and the statistics and the key of the state."""
        self.net._params, self.net.stats, self.net.key = params, self.state.stats, self.state.key

    def between_fits(self) -> tuple[Params, OptState]:
        """Return parameters and optimizer state as a network keeps them between fits; see `swapped`."""
        return swapped(self.state.params, self.state.opt)


def swapped(params: Params, opt: OptState) -> tuple[Params, OptState]:
    """Swap the parameters and their moving average, if there is one.

    A network keeps the average as its parameters between fits, since that is what was evaluated; the optimizer's state
    then holds the others.
    """
    return (opt.average, opt._replace(average=params)) if opt.average else (params, opt)
