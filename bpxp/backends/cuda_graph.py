"""What the CUDA graphs of CuPy and PyTorch share: a step is captured without being run, then launched."""

from __future__ import annotations

import operator
from typing import Any

from bpxp.backends.base import State, StepFunction
from bpxp.backends.capture import NotRecordable, Replay
from bpxp.core.tree import leaves, unflatten
from bpxp.core.typing import Array, Namespace


class GraphReplay(Replay):
    """A compiled step on a GPU: one launch of a graph instead of one launch for each kernel.

    Parameters
    ----------
    step : callable
    xp : namespace
        Of the step: its `memo` has to be complete before the capture.
    """

    WORTH = 3  # the first steps compile kernels and load libraries
    SIZES = (8, 1)
    PROOFS = 2  # the second starts with memory as the first left it
    RUNS = False
    FAILURES = (Exception,)  # libraries raise their own types; an error of the step itself is raised again eagerly

    def __init__(self, step: StepFunction, xp: Namespace, /) -> None:
        self.xp = xp
        super().__init__(step)

    def __reduce__(self) -> tuple[Any, ...]:  # what is captured belongs to this process
        return operator.methodcaller("compile", self.step), (self.xp.owner,)

    def warm_up(self, state: State, data: Any) -> None:
        """Run what will be captured on a copy of the state."""
        copies = [self.own(a) for a in leaves(state)]
        after = self.step(unflatten(state, copies), data)
        for into, a in zip(copies, leaves(after), strict=True):
            self.copy(into, a)

    def work(self, state: State, data: Any, size: int) -> None:
        """Run `size` steps on the buffers of the state, for the capture."""
        memo: dict[Any, Array] = getattr(self.xp, "memo", {})
        known = set(memo)
        try:
            for _ in range(size):
                for own, a in self.changed(leaves(self.step(state, data))):
                    self.copy(own, a)
        finally:
            # Tables that are made within a capture have no values yet, and their memory is the graph's.
            new = memo.keys() - known
            for key in new:
                del memo[key]
        if new:
            raise NotRecordable("it makes a table of indices, once, and not when it is warmed up")
