"""The calls of PyTorch that copy from pinned memory while a CUDA device computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from bpxp.core.typing import Array


class TorchCuda:
    """`bpxp.backends.prefetch.Cuda` on a torch.device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def current(self) -> Any:
        return torch.cuda.device(self.device)

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return torch.zeros(shape, dtype=_dtype(dtype), pin_memory=True)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return torch.zeros(shape, dtype=_dtype(dtype), device=self.device)

    def stream(self) -> Any:
        return torch.cuda.Stream(self.device)

    def event(self) -> Any:
        return torch.cuda.Event()

    def current_stream(self) -> Any:
        return torch.cuda.current_stream(self.device)

    def copy(self, into: Array, pinned: Any, stream: Any) -> None:
        with torch.cuda.stream(stream):
            into.copy_(pinned, non_blocking=True)


def _dtype(dtype: np.dtype[Any]) -> Any:
    return torch.from_numpy(np.empty(0, dtype)).dtype
