"""Divergence: notice what is not finite, go back to the last finite state, and find the step and the layer.

Steps never inspect values: that would force a synchronisation per step. NaN and infinity propagate, so the sum of the
loss, which is read anyway, shows them later; parameters and the optimizer's state are checked beside it, where host and
device synchronise. The last finite state is kept on the host. A run is a function of its state: from there its steps
are repeated one at a time, and the step that went wrong once more, layer by layer.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bpxp.backends import Array
from bpxp.core.text import shell_word
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.errors import DivergenceError
from bpxp.network.step import State
from bpxp.optim import OptState
from bpxp.training.pacing import MOMENT
from bpxp.training.run import FitProgress
from bpxp.training.setup import FitSetup

if TYPE_CHECKING:
    from pathlib import Path

SHARE = 200  # checks and copies wait until the steps have taken this many times as long


class Kept(NamedTuple):
    """A finite state on the host, and its place in the run."""

    epoch: int
    done: int
    seconds: float
    rows: int
    state: State


class Throttle:
    """Whether it is time for something that may take no more than its share."""

    def __init__(self, least: float) -> None:
        self.least, self.next = least, 0.0

    def due(self) -> bool:
        return time.perf_counter() >= self.next

    @contextlib.contextmanager
    def timed(self) -> Any:
        begun = time.perf_counter()
        yield
        now = time.perf_counter()
        self.next = now + max(self.least, SHARE * (now - begun))


class DivergenceMonitor:
    """Watches a fit for numbers that are not finite.

    `step` is compiled; ``opt = observe(opt, row)`` is what the end of an epoch does to the optimizer's state. A step
    that diverged is written to `file`. Without `locate` no state is kept, and so no step named.
    """

    kept: Kept | None = None  # the last finite state, if there is memory for one

    def __init__(
        self,
        run: FitProgress,
        setup: FitSetup,
        step: Any,
        observe: Callable[[OptState, dict[str, Any]], OptState],
        *,
        file: Path | None,
        locate: bool = True,
    ) -> None:
        self.run, self.setup, self.step, self.observe, self.file, self.keeps = run, setup, step, observe, file, locate
        self.net, self._changes = run.net, run.changes
        self._looking, self._keeping = Throttle(MOMENT), Throttle(MOMENT)
        self._unwatched: set[str] = set()
        self._sure = True
        self._unwatched = set(self._bad())  # what was not finite when the fit began is no sign
        self.keep()

    # ---------------------------------------------------------------- noticing

    def look(self) -> None:
        """Check the state, and keep it, as far as it is time to; raises what `check` raises."""
        if self._looking.due():
            self.check()
            self.keep()

    def check(self, *, whole: bool = True) -> None:
        """Check the state; without `whole` the loss alone, unless it is time for all.

        If it is not finite, a DivergenceError; the run is then where it was before the step that made it so.
        """
        self._sure = whole or self._looking.due()
        if self._sure:
            with self._looking.timed():
                bad = self._bad()
        else:
            loss = self.net.backend.to_numpy(self.run.live.loss)
            bad = [] if np.isfinite(loss).all() else ["loss"]
        if bad:
            raise self._diverged(bad)

    def _bad(self) -> list[str]:
        """Return the names of those arrays of the state that are not finite."""
        state, backend, xp = self.run.live, self.net.backend, self.net.xp
        kind = getattr(xp, self.net.dtype)
        tree = Watched(state.params, state.stats, state.opt.slots, state.opt.average, state.loss)
        arrays = [a for a in leaves(tree) if a.dtype == kind]
        with np.errstate(all="ignore"):
            # Not compiled: JAX would do it anew for each network.
            sums = backend.to_numpy(xp.concat([xp.sum(xp.reshape(a, (-1,)), keepdims=True) for a in arrays], axis=0))
        if np.isfinite(sums).all():
            return []
        named = [(name, a) for name, a in named_leaves(tree) if a.dtype == kind and name not in self._unwatched]
        # A sum may be too large where its terms are not.
        return [name for name, a in named if not np.isfinite(backend.to_numpy(a)).all()]

    # ---------------------------------------------------------------- keeping

    def follow(self) -> None:
        """Check and keep a state that a callback has changed: from an older one the steps would not be the same."""
        if self.run.changes != self._changes:
            self._changes, self._keeping.next = self.run.changes, 0.0
            self.check()
            self.keep()

    def keep(self) -> None:
        """Keep the state if it is time to, and if the last check has found all of it finite."""
        if not (self.keeps and self._sure and self._keeping.due()):
            return
        run, backend = self.run, self.net.backend
        self.kept = None  # there may be no memory for two
        try:
            with self._keeping.timed():
                state = tree_map(backend.to_numpy, run.live._replace(order=()))
        except Exception as error:
            if not backend.out_of_memory(error):
                raise
            self.keeps = False  # the fit matters more
        else:
            self.kept = Kept(self.net.epoch, run.done, run.seconds, len(run.history), state)

    def put_back(self, *, last: bool = False) -> None:
        """Put the state that is kept into the run and the network, as a copy, unless it is for the last time."""
        assert self.kept is not None
        run, net, kept = self.run, self.net, self.kept
        own: Any = net.backend.asarray if last else lambda a: net.backend.asarray(np.array(a))
        run.put(tree_map(own, kept.state)._replace(order=run.live.order))
        net.epoch, run.done, run.seconds = kept.epoch, kept.done, kept.seconds
        if last:
            self.kept = None
            del run.history.rows[kept.rows :]

    # ---------------------------------------------------------------- finding

    def _diverged(self, bad: list[str]) -> DivergenceError:
        """Go back to the last finite state, and return the error that says what came after it."""
        from bpxp.training.divergence.report import diagnose  # imported only where a fit diverges

        run, net = self.run, self.net
        end, rows = (net.epoch, run.done), list(run.history)
        tell = functools.partial(
            diagnose,
            net.model,
            noticed=bad,
            rate=float(net.backend.to_numpy(run.live.opt.learning_rate)[0]),
            losses=[row["loss"] for row in rows],
        )
        if self.kept is None:
            return self._told(tell, *end, after="The parameters are those of a run that has diverged")
        try:
            if not self._again(end, rows, look=True):
                return self._told(tell, *end, after=AGAIN + self._now())
            epoch, step = net.epoch, run.done
            del run.history.rows[epoch - run.first :]
            self._again((epoch, step - 1), rows, look=False)
            return self._traced(tell, epoch, step)
        except Exception as error:  # no memory is left, say: the run has diverged all the same
            del run.history.rows[self.kept.rows :]
            self.put_back()
            return self._told(tell, *end, after=f"{self._now()}; its steps could not be done again ({error!r})")

    def _again(self, end: tuple[int, int], rows: list[dict[str, Any]], *, look: bool) -> bool:
        """Repeat the steps from the kept state to a place; with `look` one at a time, until one goes wrong: True."""
        run, net, setup = self.run, self.net, self.setup
        self.put_back()
        run.begin_epoch(setup.order(net.seed, net.epoch), setup.feed)
        while (net.epoch, run.done) < end:
            if run.done == run.batches:
                run.observe(self.observe, rows[net.epoch - run.first])
                net.epoch, run.done = net.epoch + 1, 0
                run.begin_epoch(setup.order(net.seed, net.epoch), setup.feed)
                continue
            last = end[1] if net.epoch == end[0] else run.batches
            run.advance(self.step, setup.feed, 1 if look else last - run.done)
            if look and self._bad():
                return True
        return False

    def _traced(self, tell: Callable[..., DivergenceError], epoch: int, step: int) -> DivergenceError:
        """Return the error of the next step, traced layer by layer."""
        from bpxp.training.divergence.replay import pack
        from bpxp.training.divergence.trace import Batch, Tracer, own_copy

        net, setup, state = self.net, self.setup, self.run.live
        data, _ = next(iter(setup.feed.parts(step - 1, 1)))
        with np.errstate(all="ignore"):
            batch = Batch(*setup.step.batch(state, data))
        tracer = Tracer(net.model, net.loss, setup.step.optimizer, xp=net.xp, to_numpy=net.backend.to_numpy)
        params, opt, stats = own_copy((state.params, state.opt, state.stats), net.xp)
        seen = tracer.run(params, opt, stats, state.key, batch)
        samples = setup.samples(net.seed, epoch, step - 1)
        after = "The network is as it was before that step"
        error = self._told(tell, epoch, step, seen=seen, samples=samples, after=after)
        trees = [("params", state.params), ("stats", state.stats), ("opt", state.opt)]
        place = {"epoch": epoch + 1, "step": step}
        error.bundle = pack(net, setup.step.optimizer, trees, batch, samples, seen, place)
        if self.file is not None:
            try:
                error.bundle.write(self.file)
            except OSError as failure:
                error.add_note(f"the step could not be written down ({failure})")
            else:
                error.file = self.file
                error.add_note(f"to see it on NumPy in float64: bpxp replay {shell_word(str(self.file))}")
        return error

    def _told(self, tell: Callable[..., DivergenceError], epoch: int, step: int, **known: Any) -> DivergenceError:
        error = tell(where=f"fit: epoch {epoch + 1}, step {step} of {self.run.batches}", **known)
        error.epoch, error.step = epoch + 1, step
        return error

    def _now(self) -> str:
        return f"The network is as it was after step {self.run.done} of epoch {self.net.epoch + 1}"


AGAIN = (
    "Done again, the same steps were finite: a layer or a transform is not a function of its arguments, or the machine "
    "has erred. "
)


class Watched(NamedTuple):
    """The part of a state that is checked."""

    params: Any
    stats: Any
    slots: Any
    average: Any
    loss: Array
