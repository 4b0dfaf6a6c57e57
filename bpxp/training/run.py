"""The progress of a fit: its state, its epoch and its place there. A fit can be cut wherever a step ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpxp.core.typing import Params
from bpxp.errors import NOTHING_CHANGED, FitInProgressError
from bpxp.network.feed import Feed
from bpxp.network.held import Numbers, copies
from bpxp.network.network import Network
from bpxp.network.step import State, restarted
from bpxp.optim import Optimizer, OptState
from bpxp.training.history import History

NOTHING, SHOWN, WHOLE = range(3)  # what of the state is lent: nothing; what the network holds of it; all


@dataclass
class FitProgress:
    """One fit.

    Notes
    -----
    Steps write the state in place. The network, and so its readers in callbacks and other threads, gets it by `show`;
    the next step then writes a copy. What callbacks assign to the network is the state of the next step.
    """

    net: Network  # its `epoch` is the number of epochs done
    _state: State
    optimizer: Optimizer
    size: int  # samples per step
    batches: int  # steps per epoch
    first: int  # epochs that the network had done before this fit
    plan: Callable[[], dict[str, Any]]  # what has to be the same when the run is continued, as JSON values
    history: History = field(default_factory=History)
    done: int = 0  # steps of the current epoch; 0 where an epoch has ended
    seconds: float = 0.0  # spent in the current epoch
    _changes: int = 0
    _lent: int = NOTHING
    _seen: Numbers = field(init=False)  # what the network held when the state was last compared with it

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let readers and callbacks see the state, until it is left to the network."""
        held, before = self.net._held, self.net._held.now
        held.begin(self)
        self.put(self._state)
        try:
            yield
        finally:
            if held.fit is self:  # the fit ends before its first step
                held.end(held.now if self.changes else before)

    @property
    def steps(self) -> int:
        """Steps done, those of this fit and, as far as its batch size tells, those before."""
        return self.net.epoch * self.batches + self.done

    # ---------------------------------------------------------------- the state

    @property
    def state(self) -> State:
        """The state after the last step, for anyone to keep; a callback may assign another one."""
        self.show(whole=True)
        return self._state

    @state.setter
    def state(self, new: State) -> None:
        self.put(new)
        self._changes += 1

    @property
    def live(self) -> State:
        """The state after the last step and the callbacks: it may be read until the next step writes it."""
        now = self.net._held.now
        if self._at_work and now is not self._seen:
            self._adopt(now)
        return self._state

    @property
    def changes(self) -> int:
        """How often callbacks have changed the state."""
        _ = self.live
        return self._changes

    @property
    def _at_work(self) -> bool:
        return self.net._held.fit is self

    def _adopt(self, now: Numbers) -> None:
        """Take over what a callback has assigned to the network."""
        (params, opt), seen = self.between_fits(), self._seen
        if now.params is not seen.params:
            params = now.params
            opt = opt._replace(average=params) if opt.average else opt
        if now.opt is not seen.opt:
            opt = self.optimizer.init(params, xp=self.net.xp) if now.opt is None else now.opt
        params, opt = swapped(params, opt)
        self._state = self._state._replace(params=params, opt=opt, stats=now.stats, key=now.key)
        self._seen, self._lent = now, WHOLE
        self._changes += 1

    def show(self, *, whole: bool = False) -> None:
        """Let the network hold the state as it is now, with `whole` the optimizer's, too."""
        state, level = self.live, WHOLE if whole else SHOWN
        if not self._at_work or self._lent >= level:
            return
        if self.net._held.reused:
            self._state = state = copies(state, self.net.backend)
        now = numbers(state, self.optimizer)
        self._seen = self.net._held.now = now if whole else now._replace(opt=None)
        self._lent = level

    def put(self, state: State) -> None:
        """Go on from this state."""
        self._state, self._seen, self._lent = state, self.net._held.now, NOTHING
        self.show(whole=True)

    def own(self) -> State:
        """Return the state for a step to write: of what is lent, a copy."""
        state, held = self.live, self.net._held
        if self._lent == WHOLE:
            state = copies(state, self.net.backend)
            self._seen = held.now = held.now._replace(optimizer=self.optimizer, opt=None)  # the memory of the old one
        elif self._lent == SHOWN:
            params, opt = self.between_fits()
            params, stats, key = copies((params, state.stats, state.key), self.net.backend)
            params, opt = swapped(params, opt)
            state = state._replace(params=params, opt=opt, stats=stats, key=key)
        self._state, self._lent = state, NOTHING
        return state

    # ---------------------------------------------------------------- the fit

    def begin_epoch(self, order: np.ndarray, feed: Feed) -> None:
        """Take a new order of the samples: from its beginning, or from where the epoch was cut."""
        self._state = self.live._replace(order=feed.begin(order))
        if not self.done:
            self._state = restarted(self._state, xp=self.net.xp)

    def advance(self, step: Any, feed: Feed, count: int) -> None:
        """Do `count` steps."""
        self.own()
        with np.errstate(all="ignore"):  # NumPy alone would warn; what is not finite is found on every backend
            for data, part in feed.parts(self.done, count):
                self._state = step(self._state, data, count=part)
        self.done += count

    def observe(self, observe: Callable[[OptState, dict[str, Any]], OptState], row: dict[str, Any]) -> None:
        """Let the schedule see an epoch's row of the history."""
        state = self.own()
        self._state = state._replace(opt=observe(state.opt, row))

    def between_fits(self) -> tuple[Params, OptState]:
        """Return parameters and optimizer state as a network keeps them between fits; see `swapped`."""
        return swapped(self._state.params, self._state.opt)

    def finish(self) -> None:
        """Leave the state to the network."""
        if self._at_work:
            self.net._held.end(numbers(self.live, self.optimizer))


@contextmanager
def claimed(net: Network) -> Iterator[None]:
    """Claim a network: no other fit may run."""
    with net._held.lock:
        if net.training:
            what = "this network is being fitted already"
            fix = "wait for the other fit, or use another Network"
            raise FitInProgressError("fit", what, code="E051", fix=fix, after=NOTHING_CHANGED)
        net.training = True
    try:
        yield
    finally:
        net.training = False


def over() -> dict[str, Any]:
    """Refuse the plan of a fit that is over: its data are let go."""
    raise RuntimeError("a run can be saved during its fit: callbacks=[bpxp.callbacks.Checkpoint('run.bpxp')]")


def numbers(state: State, optimizer: Optimizer) -> Numbers:
    """Return what a network holds of a state."""
    params, opt = swapped(state.params, state.opt)
    return Numbers(params, state.stats, state.key, optimizer, opt)


def swapped(params: Params, opt: OptState) -> tuple[Params, OptState]:
    """Swap the parameters and their moving average, if there is one.

    A network keeps the average as its parameters between fits, since that is what was evaluated; the optimizer's state
    then holds the others.
    """
    return (opt.average, opt._replace(average=params)) if opt.average else (params, opt)
