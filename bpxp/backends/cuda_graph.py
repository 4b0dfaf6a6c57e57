"""What the CUDA graphs of CuPy and PyTorch have in common: a step is written down without being done, then launched."""

from __future__ import annotations

from typing import Any

from bpxp.backends.base import State, StepFunction
from bpxp.backends.capture import NotRecordable, Replay
from bpxp.core.tree import leaves, unflatten
from bpxp.core.typing import Array, Namespace


class GraphReplay(Replay):
    """A compiled step of a GPU: its kernels, launched with one call instead of one call each.

    Parameters
    ----------
    step : callable
    xp : namespace
        Of the step: its `memo` has to be complete before anything is captured.
    """

    WORTH = 3  # the first steps compile kernels and load libraries
    SIZES = (8, 1)
    PROOFS = 2  # the second begins with memory as the first has left it
    RUNS = False
    FAILURES = (Exception,)  # a library refuses in its own way; what the step itself does wrong, it does again

    def __init__(self, step: StepFunction, xp: Namespace, /) -> None:
        self.xp = xp
        super().__init__(step)

    def warm_up(self, state: State, data: Any) -> None:
        """Do on a copy of the state all that is going to be captured."""
        copies = [self.own(a) for a in leaves(state)]
        after = self.step(unflatten(state, copies), data)
        for into, a in zip(copies, leaves(after), strict=True):
            self.copy(into, a)

    def work(self, state: State, data: Any, size: int) -> None:
        """Do so many steps on the buffers of the state: what is to be captured."""
        memo: dict[Any, Array] = getattr(self.xp, "memo", {})
        known = set(memo)
        try:
            for _ in range(size):
                for own, a in self.changed(leaves(self.step(state, data))):
                    self.copy(own, a)
        finally:
            # Within a capture tables have no numbers yet, and their memory is the graph's.
            new = memo.keys() - known
            for key in new:
                del memo[key]
        if new:
            raise NotRecordable("it makes a table of indices, once, and not when it is warmed up")
