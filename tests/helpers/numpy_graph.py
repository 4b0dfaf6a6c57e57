"""A CUDA graph made of NumPy: a capture computes nothing, a launch does the steps; for tests of what graphs share."""

from __future__ import annotations

import numpy as np

from bpxp.backends.cuda_graph import CapturedGraph
from bpxp.core.tree import leaves


class Graph(CapturedGraph):
    """What a CUDA graph does, with NumPy's arrays: a capture computes nothing, a launch does the steps."""

    SIZES = (4, 1)
    launches = 0

    def is_array(self, a):
        return isinstance(a, np.ndarray)

    def own(self, a):
        return np.array(a, order="C")

    def copy(self, into, a):
        np.copyto(into, a)

    def place(self, a):
        owner = a if a.base is None else a.base
        return owner.__array_interface__["data"][0], (a.__array_interface__["data"][0], a.strides)

    def same(self, pairs):
        return all(a.tobytes() == b.tobytes() for a, b in pairs)

    def stream(self):
        return 0

    def capture(self, state, data, size):
        known = set(self.xp.memo)
        copies = [self.own(a) for a in leaves(state)]
        self.work(state, data, size)
        assert set(self.xp.memo) == known
        for into, a in zip(leaves(state), copies, strict=True):
            into[...] = a

        def play(times):
            for _ in range(times):
                self.launches += 1
                self.work(state, data, size)

        return play
