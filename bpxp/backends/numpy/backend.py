"""NumPy on the CPU: the reference, and the backend that is always available."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.backends.base import CACHE, Step, StepFunction, namespace
from bpxp.backends.by_name import ByName
from bpxp.backends.captured import CapturedStep
from bpxp.backends.dlpack import host_array, import_array, is_host_array
from bpxp.backends.numpy.capture import NumpyLibrary
from bpxp.backends.numpy.threads import LimitedStep
from bpxp.backends.numpy.threefry import threefry
from bpxp.backends.prefetch import Kinds, SharedPrefetch
from bpxp.core.memory import Memory, host_memory
from bpxp.core.typing import Array
from bpxp.errors import InvalidValueError

CPU = (1, 0)


def keep_freed_memory() -> None:
    """Raise glibc's thresholds, so that freed temporaries are not returned to the system and faulted in at every step.

    glibc adapts its mmap and trim thresholds to the largest mapped block that was freed, up to 32 MiB
    (M_MMAP_THRESHOLD in mallopt(3)), so freeing one block of nearly that size is enough. A no-op elsewhere.
    """
    np.empty((32 << 20) - (1 << 16), np.uint8)


def _argsort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    if not descending:
        return np.argsort(x, axis=axis, stable=stable)
    # Sorting the flipped array and flipping the result back keeps ties in their order.
    return np.flip(x.shape[axis] - 1 - np.argsort(np.flip(x, axis), axis=axis, stable=stable), axis)


def _sort(x: Array, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Array:
    ascending = np.sort(x, axis=axis, stable=stable)
    return np.flip(ascending, axis) if descending else ascending


_ADD: Any = np.add.reduce
_MAXIMUM: Any = np.maximum.reduce


def _sum(x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Array:
    return _ADD(x, axis=axis, dtype=dtype, keepdims=keepdims)


def _max(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
    return _MAXIMUM(x, axis=axis, keepdims=keepdims)


def _take(x: Array, indices: Array, /, *, axis: int | None = None) -> Array:
    return x.take(indices, axis)


def _astype(x: Array, dtype: Any, /, *, copy: bool = True) -> Array:
    return x.astype(dtype, copy=copy)


def _matrix_transpose(x: Array, /) -> Array:
    return x.swapaxes(-1, -2)


def _expand_dims(x: Array, /, *, axis: int = 0) -> Array:
    return x[:, None] if axis == 1 else np.expand_dims(x, axis)


# NumPy's functions dispatch before they compute, which costs a small network more than the arithmetic. The functions of
# every step call the method or the ufunc directly: 2 to 10 times less time for an array of 10 by 30.
LEAN = {"astype": _astype, "expand_dims": _expand_dims, "matrix_transpose": _matrix_transpose}
LEAN |= {"max": _max, "sum": _sum, "take": _take}


class NumpyBackend(ByName):
    """NumPy arrays; updates are in place, and a small step is captured and replayed."""

    name = "numpy"
    device = "cpu"
    matmul = "float32"
    shares_memory = True

    def __init__(self, device: str = "") -> None:
        own = {"argsort": _argsort, "sort": _sort, "threefry": threefry, "memo": {}, "workspace": CACHE}
        self.xp = namespace(np, None, self, **own, **LEAN)
        keep_freed_memory()

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        own = host_array(a) if is_host_array(a) else import_array(a, self, np.from_dlpack, CPU)
        return np.asarray(own, dtype=dtype)

    def to_numpy(self, a: Array, /) -> np.ndarray:
        return np.array(a)

    def compile(self, step: StepFunction, /) -> Step:
        return LimitedStep(step, CapturedStep(step, NumpyLibrary()))

    def prefetch(self, kinds: Kinds, rows: int) -> SharedPrefetch:
        return SharedPrefetch(kinds, rows, np.asarray)

    def memory(self) -> Memory | None:
        return host_memory()

    def out_of_memory(self, error: BaseException, /) -> bool:
        return isinstance(error, MemoryError)


def check_device(device: str) -> None:
    """Raise unless `device` is the host."""
    if device not in ("", "cpu"):
        what, got = "NumPy computes on the CPU", repr(f"numpy:{device}")
        raise InvalidValueError("backend", what, code="E023", got=got, fix="backend='numpy'")
