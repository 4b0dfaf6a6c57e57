"""Pinned buffers of PyTorch, from which a CUDA device copies while it computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bpxp.backends.prefetch import Kinds
from bpxp.core.typing import Array


class TorchRing:
    """Two pieces in pinned memory, two on the device, and a stream of their own between them.

    Parameters
    ----------
    kinds : list of (shape, dtype)
    rows : int
        Of one piece.
    device : torch.device
        A CUDA device.

    Notes
    -----
    Of each piece, one event says that it was copied: the host may write into the pinned memory again, and the steps may
    begin. Another says that the steps have read it: the next copy may begin. An event that was never recorded keeps
    nobody waiting.
    """

    pieces = 2

    def __init__(self, kinds: Kinds, rows: int, device: Any) -> None:
        self.device, self.rows = device, rows
        dtypes = [torch.from_numpy(np.empty(0, dtype)).dtype for _, dtype in kinds]
        shapes = [(2 * rows, *shape) for shape, _ in kinds]
        with torch.cuda.device(device):
            self._host = [torch.zeros(s, dtype=d, pin_memory=True) for s, d in zip(shapes, dtypes, strict=True)]
            self._own = [torch.zeros(s, dtype=d, device=device) for s, d in zip(shapes, dtypes, strict=True)]
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which fills with zeros
            for a in self._own:
                a.record_stream(self._stream)  # a copy may still be on its way when nobody wants them any more
            self._copied = [torch.cuda.Event(), torch.cuda.Event()]
            self._read = [torch.cuda.Event(), torch.cuda.Event()]

    def _part(self, piece: int) -> slice:
        return slice(piece * self.rows, (piece + 1) * self.rows)

    def room(self, piece: int) -> list[np.ndarray]:
        self._copied[piece].synchronize()
        return [a[self._part(piece)].numpy() for a in self._host]

    def send(self, piece: int) -> None:
        part = self._part(piece)
        with torch.cuda.device(self.device), torch.cuda.stream(self._stream):
            self._stream.wait_event(self._read[piece])
            for own, pinned in zip(self._own, self._host, strict=True):
                own[part].copy_(pinned[part], non_blocking=True)
            self._copied[piece].record(self._stream)

    def arrays(self, piece: int) -> list[Array]:
        torch.cuda.current_stream(self.device).wait_event(self._copied[piece])
        return self._own

    def used(self, piece: int) -> None:
        self._read[piece].record(torch.cuda.current_stream(self.device))
