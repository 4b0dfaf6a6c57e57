"""The compiled steps of a network: the last few, and why some of them run eagerly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from bpxp.backends import Backend
from bpxp.backends.capture import NO_STATE, switch_off

STEPS = 8  # each may have buffers
_lock = threading.Lock()  # of all networks: it is held for a moment


class CompiledSteps(dict[Any, Callable[..., Any]]):
    """Compiled steps by their keys, the least recently used first.

    Parameters
    ----------
    capture : bool, optional
        Whether they may be captured.
    """

    def __init__(self, *, capture: bool = True) -> None:
        super().__init__()
        self.capture = capture

    def recent(self, key: Any) -> Callable[..., Any] | None:
        """Return the compiled step of a key, if there is one, and let it be the last to go."""
        with _lock:
            run = self.pop(key, None)
            if run is not None:
                self[key] = run
        return run

    def step(self, backend: Backend, step: Any, key: Any) -> Callable[..., Any]:
        """Return a step, compiled once for its key; the least recently used ones go."""
        run = self.recent(key)
        if run is not None:
            return run
        run = backend.compile(step)
        if not self.capture:
            switch_off(run)
        with _lock:
            run = self.setdefault(key, run)  # another thread may have compiled it meanwhile
            while len(self) > STEPS:
                del self[next(iter(self))]
        return run

    def switch_off(self) -> None:
        """Let all of them run eagerly for good."""
        with _lock:
            for run in self.values():
                switch_off(run)

    def eager(self) -> dict[str, str]:
        """Return why steps run eagerly instead of from a capture, by the step's name."""
        found = {}
        for key, run in list(self.items()):
            reason = getattr(getattr(run, "run", run), "reason", "")
            if reason and reason != NO_STATE:
                kind = type(key[0] if isinstance(key, tuple) else key).__name__
                found[key if isinstance(key, str) else kind] = reason
        return found
