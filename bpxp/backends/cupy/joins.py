"""Joins of arrays in one kernel: CuPy launches one for each of a few, and copies a table of addresses for many."""

from __future__ import annotations

import functools
import math
from typing import Any

import cupy

from bpxp.core.typing import Array

MOST = 32  # arrays of one kernel, whose arguments must fit into 4 KiB
FEW = 8  # arrays of several shapes that CuPy joins without a table


@functools.cache
def _join(count: int) -> Any:
    """Return a kernel that puts element i of array k at ((i / inner) n + first + k) inner + i % inner."""
    names = ", ".join(f"T a{k}" for k in range(count))
    places = "; ".join(f"out[place + {k} * inner] = a{k}" for k in range(count))
    place = "const long long place = ((i / inner) * n + first) * inner + i % inner"
    arguments = f"{names}, int64 inner, int64 n, int64 first"
    return cupy.ElementwiseKernel(arguments, "raw T out", f"{place}; {places}", "bpxp_join")


def concat(arrays: Any, /, *, axis: int | None = 0) -> Array:
    """Return `xp.concat`."""
    arrays = list(arrays)
    if axis is None:
        arrays, axis = [a.reshape(-1) for a in arrays], 0
    shape, axis = arrays[0].shape, axis % max(arrays[0].ndim, 1)
    if all(a.shape == shape and a.dtype == arrays[0].dtype for a in arrays) and shape:
        return _joined(arrays, (*shape[:axis], len(arrays) * shape[axis], *shape[axis + 1 :]), math.prod(shape[axis:]))
    if len(arrays) <= FEW:
        return cupy.concatenate(arrays, axis=axis)
    groups = [arrays[i : i + FEW] for i in range(0, len(arrays), FEW)]
    return concat([cupy.concatenate(group, axis=axis) for group in groups], axis=axis)


def stack(arrays: Any, /, *, axis: int = 0) -> Array:
    """Return `xp.stack`."""
    arrays = list(arrays)
    if any(a.shape != arrays[0].shape or a.dtype != arrays[0].dtype for a in arrays):
        return concat([cupy.expand_dims(a, axis) for a in arrays], axis=axis)
    shape, axis = arrays[0].shape, axis % (arrays[0].ndim + 1)
    return _joined(arrays, (*shape[:axis], len(arrays), *shape[axis:]), math.prod(shape[axis:]))


def _joined(arrays: list[Array], shape: tuple[int, ...], inner: int) -> Array:
    out = cupy.empty(shape, dtype=arrays[0].dtype)
    for first in range(0, len(arrays), MOST):
        some = arrays[first : first + MOST]
        _join(len(some))(*some, inner, len(arrays), first, out)
    return out
