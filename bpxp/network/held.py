"""The arrays of a network: readers in any thread get snapshots, since a writer copies what was lent before it writes.

In-place updates are what makes a step fast, and JAX deletes the arrays that a step is donated. So who owns an array is
decided here, once for all backends.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, NamedTuple, Protocol, TypeVar

from bpxp.backends import Backend
from bpxp.backends.base import option
from bpxp.backends.device import here
from bpxp.core.tree import leaves, unflatten
from bpxp.core.typing import Params
from bpxp.errors import FitInProgressError
from bpxp.optim import Optimizer, OptState

T = TypeVar("T")


class Numbers(NamedTuple):
    """What a network holds between calls: arrays, and the optimizer that the state `opt` belongs to."""

    params: Params
    stats: Any
    key: Any
    optimizer: Optimizer | None = None
    opt: OptState | None = None


class Live(Protocol):
    """A fit at work, which has a state of its own."""

    def show(self, *, whole: bool = False) -> None:
        """Let the network hold the state as it is now, with `whole` the optimizer's, too."""


class Held:
    """The arrays of a network, for readers in any thread and one writer at a time.

    Parameters
    ----------
    backend : Backend
    now : Numbers
    lent : bool, optional
        Whether anything else holds these arrays.

    Attributes
    ----------
    now : Numbers
        Replaced as a whole. During a fit, what it showed last: the arrays at its beginning, then those at the end of
        each epoch, and of each step at which a callback looked.
    fit : Live or None
        The fit at work. In its thread, that of the callbacks, readers see its state as it is.
    lock : RLock
        A writer holds it while it writes.
    """

    def __init__(self, backend: Backend, now: Numbers, *, lent: bool = False) -> None:
        self.backend, self.now, self.lent = backend, now, lent
        self.reused: bool = option(backend, "reuses_state")
        self.lock = threading.RLock()
        self.fit: Live | None = None
        self._thread = self._readers = 0

    # ---------------------------------------------------------------- reading

    def lend(self, *, whole: bool = False) -> Numbers:
        """Return the arrays, for good; with `whole`, those of the optimizer of a fit, too."""
        with self.lock:
            self._look(whole)
            if self.reused and not self.lent:
                self._copy()
            self.lent = True
            return self.now

    def __enter__(self) -> Numbers:
        """Return the arrays, for the time of a computation."""
        with self.lock:
            if self.reused:
                self.lend()
            else:
                self._look()
            self._readers += 1
            return self.now

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self._readers -= 1

    def _look(self, whole: bool = False) -> None:
        if self.fit is not None and self._thread == threading.get_ident():
            self.fit.show(whole=whole)

    # ---------------------------------------------------------------- writing

    def replace(self, where: str, **changed: Any) -> None:
        """Hold other arrays instead of some; a fit whose callback does it goes on with them."""
        with self.lock:
            self._claim(where)
            self.put(self.now._replace(**changed))

    def own(self, where: str) -> Numbers:
        """Return the arrays for a writer, which has the lock: copies, where others have them."""
        self._claim(where)
        if self.lent or self._readers or self.fit is not None:
            self._copy()
            self.lent = self.fit is not None
        return self.now

    def put(self, now: Numbers) -> None:
        """Hold these arrays. A moving average of the parameters begins anew from others."""
        if now.opt is not None and now.opt.average and now.params is not self.now.params:
            now = now._replace(opt=now.opt._replace(average=now.params))
        self.now = now

    def _copy(self) -> None:
        now = self.now
        params, stats, key = copies((now.params, now.stats, now.key), self.backend)
        self.put(now._replace(params=params, stats=stats, key=key))

    def _claim(self, where: str) -> None:
        if self.fit is None:
            return
        if self._thread != threading.get_ident():
            what, fix = "another thread fits this network", "a callback of that fit may do it; or after the fit"
            raise FitInProgressError(where, what, code="E051", fix=fix)
        self.fit.show(whole=True)

    # ---------------------------------------------------------------- a fit

    def begin(self, fit: Live) -> None:
        """Let a fit begin, in this thread."""
        with self.lock:
            self.fit, self._thread, self.lent = fit, threading.get_ident(), True

    def end(self, now: Numbers) -> None:
        """Let the fit end, and hold what it leaves."""
        with self.lock:
            self.fit, self.now = None, now


def copies(tree: T, backend: Backend) -> T:
    """Return a tree with copies of its arrays, on the device."""
    copied = option(backend, "copied") or functools.partial(backend.xp.asarray, copy=True)
    with here(backend):
        return unflatten(tree, map(copied, leaves(tree)))
