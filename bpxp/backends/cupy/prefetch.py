"""The calls of CuPy that copy from pinned memory while the device computes."""

from __future__ import annotations

from typing import Any

import cupy
import cupyx
import numpy as np

from bpxp.core.typing import Array


class CupyCuda:
    """`bpxp.backends.prefetch.Cuda` on a cupy.cuda.Device."""

    def __init__(self, device: Any) -> None:
        self.device = device

    def current(self) -> Any:
        return self.device

    def pinned(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return cupyx.zeros_pinned(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        return cupy.zeros(shape, dtype)

    def stream(self) -> Any:
        return cupy.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        return cupy.cuda.Event(disable_timing=True)

    def current_stream(self) -> Any:
        return cupy.cuda.get_current_stream()

    def copy(self, into: Array, pinned: Any, stream: Any) -> None:
        into.set(pinned, stream=stream)
