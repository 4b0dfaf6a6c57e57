"""Pinned buffers of CuPy, from which a CUDA device copies while it computes."""

from __future__ import annotations

import contextlib
from typing import Any

import cupy
import cupyx
import numpy as np

from bpxp.backends.prefetch import Kinds
from bpxp.core.typing import Array


class CupyRing:
    """Two pieces in pinned memory, two on the device, and a stream of their own between them.

    Parameters
    ----------
    kinds : list of (shape, dtype)
    rows : int
        Of one piece.
    device : cupy.cuda.Device

    Notes
    -----
    As for PyTorch: an event says that a piece was copied, another that the steps have read it. The stream waits for
    nobody else, the null stream included.
    """

    pieces = 2

    def __init__(self, kinds: Kinds, rows: int, device: Any) -> None:
        self.device, self.rows = device, rows
        with device:
            self._host = [cupyx.zeros_pinned((2 * rows, *shape), dtype) for shape, dtype in kinds]
            self._own = [cupy.zeros((2 * rows, *shape), dtype) for shape, dtype in kinds]
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._copied = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
            self._read = [cupy.cuda.Event(disable_timing=True) for _ in range(2)]
            cupy.cuda.get_current_stream().synchronize()  # which fills with zeros

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # it was not made, or the interpreter ends
            self._stream.synchronize()  # no copy is on its way to memory that somebody else gets

    def _part(self, piece: int) -> slice:
        return slice(piece * self.rows, (piece + 1) * self.rows)

    def room(self, piece: int) -> list[np.ndarray]:
        with self.device:
            self._copied[piece].synchronize()
        return [a[self._part(piece)] for a in self._host]

    def send(self, piece: int) -> None:
        part = self._part(piece)
        with self.device:
            self._stream.wait_event(self._read[piece])
            for own, pinned in zip(self._own, self._host, strict=True):
                own[part].set(pinned[part], stream=self._stream)
            self._copied[piece].record(self._stream)

    def arrays(self, piece: int) -> list[Array]:
        with self.device:
            cupy.cuda.get_current_stream().wait_event(self._copied[piece])
        return self._own

    def used(self, piece: int) -> None:
        with self.device:
            self._read[piece].record(cupy.cuda.get_current_stream())
