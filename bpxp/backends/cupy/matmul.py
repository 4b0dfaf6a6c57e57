"""Matrix products of CuPy in reduced precision; it has no bfloat16.

With nvmath-python they can be captured in a CUDA graph, and products of float16 return the float32 accumulators.
"""

from __future__ import annotations

from collections.abc import Callable

import cupy
import numpy as np
from cupy._core import _routines_linalg as linalg  # where CuPy keeps its switch

from bpxp.backends.base import Backend
from bpxp.core.typing import Array

LARGEST = 2.0**15  # half of the largest number of float16


def rounding_matmuls(backend: Backend) -> dict[str, Callable[[Array, Array], Array]]:
    """Return the functions that the device has, by the precision of their operands."""
    blas = getattr(backend, "blas", None)
    if blas is None:
        return {"tf32": _tf32, "float16": _float16}

    def tf32(a: Array, b: Array) -> Array:
        return blas.matmul(a, b, "tf32") if blas.takes(a, b) else _tf32(a, b)

    def float16(a: Array, b: Array) -> Array:
        return blas.matmul(a.astype(cupy.float16), b.astype(cupy.float16)) if blas.takes(a, b) else _float16(a, b)

    return {"tf32": tf32, "float16": float16}


def _tf32(a: Array, b: Array) -> Array:
    before = linalg.get_compute_type(np.float32)
    linalg.set_compute_type(np.float32, linalg.COMPUTE_TYPE_TF32)
    try:
        return cupy.matmul(a, b)
    finally:
        linalg.set_compute_type(np.float32, before)


def _float16(a: Array, b: Array) -> Array:
    """Multiply numbers of at most 1 in float16; CuPy accumulates in float32, and rounds the sum to float16."""
    share = min(1.0, LARGEST / a.shape[-1])  # so that the sum is within the range of float16
    narrow = cupy.matmul((a * share).astype(cupy.float16), b.astype(cupy.float16))
    return narrow.astype(cupy.float32) / share
