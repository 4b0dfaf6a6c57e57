"""Matrix products of CuPy in reduced precision: operands of tf32, or of float16 with float32 accumulators."""

from __future__ import annotations

from collections.abc import Callable

import cupy

from bpxp.backends.base import Backend
from bpxp.core.typing import Array


def rounding_matmuls(backend: Backend) -> dict[str, Callable[[Array, Array], Array]]:
    """Return the functions that the device has, by the precision of their operands; CuPy alone has none."""
    blas = getattr(backend, "_blas", None)
    if blas is None:
        return {}

    def tf32(a: Array, b: Array) -> Array:
        return blas.matmul(a, b, "tf32") if blas.takes(a, b) else cupy.matmul(a, b)

    def float16(a: Array, b: Array) -> Array:
        if not blas.takes(a, b):
            return cupy.matmul(a, b)
        return blas.matmul(a.astype(cupy.float16), b.astype(cupy.float16))

    return {"tf32": tf32, "float16": float16}
