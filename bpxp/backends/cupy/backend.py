"""CuPy on a CUDA device: ``cupy``, or ``cupy:1`` for the second device."""

from __future__ import annotations

import functools
from typing import Any

import array_api_compat.cupy as compat
import cupy
import numpy as np

from bpxp.backends.base import CREATION, FUNCTIONS, Step, StepFunction, namespace, no_such_device
from bpxp.backends.by_name import ByName
from bpxp.backends.cupy.cublas import Blas
from bpxp.backends.cupy.cuda_graph import CupyGraph
from bpxp.backends.cupy.prefetch import CupyCuda
from bpxp.backends.cupy.threefry import threefry
from bpxp.backends.dlpack import host_array, import_array, is_host_array
from bpxp.backends.prefetch import DEVICE_BYTES, Kinds, PinnedPrefetch
from bpxp.core.memory import Memory
from bpxp.core.typing import Array

NO_MEMORY = ("cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED")


def _on(device: Any, function: Any) -> Any:
    """Make a function compute on `device`: CuPy computes on its current device only."""

    @functools.wraps(function)
    def there(*args: Any, **kwargs: Any) -> Array:
        with device:
            return function(*args, **kwargs)

    return there


class CupyBackend(ByName):
    """CuPy arrays on one device.

    Attributes
    ----------
    blas : Blas or None
        Matrix products that a CUDA graph can capture; None without nvmath-python.
    blas_missing : str
        Why there are none; empty if there are.

    Notes
    -----
    Operators such as ``x * 2.0`` compute on CuPy's current device. So a backend that was asked for by number makes its
    device the current one of the thread; a step sets it for itself.
    """

    matmul = "float32"
    prefetch_bytes = DEVICE_BYTES
    reuses_state = True  # in the buffers of a CUDA graph

    def __init__(self, device: str = "") -> None:
        self.name = f"cupy:{device}" if device else "cupy"
        self.device = cupy.cuda.Device(int(device or 0))
        if device:
            self.device.use()
        self.blas, self.blas_missing = find_blas(self.device)
        own = {"matmul": self._matmul, "threefry": threefry}
        names = {*CREATION, *(FUNCTIONS if device else ())}
        there = {name: _on(self.device, getattr(compat, name)) for name in names if hasattr(compat, name)}
        own = {name: _on(self.device, function) if device else function for name, function in own.items()}
        self.xp = namespace(compat, None, self, memo={}, **{**there, **own})

    def _matmul(self, a: Array, b: Array, /) -> Array:
        if self.blas is not None and self.blas.takes(a, b):
            return self.blas.matmul(a, b)
        return cupy.matmul(a, b)

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        with self.device:
            if is_host_array(a):
                return cupy.asarray(host_array(a), dtype=dtype)
            if isinstance(a, cupy.ndarray) and a.device == self.device:
                return cupy.asarray(a, dtype=dtype)
            own = import_array(a, self, cupy.from_dlpack, (2, self.device.id))
            return cupy.asarray(own, dtype=dtype)

    def to_numpy(self, a: Array, /) -> np.ndarray:
        with self.device:
            back: np.ndarray = cupy.asnumpy(a)
        return back

    def compile(self, step: StepFunction, /) -> Step:
        return CupyGraph(step, self.xp, self.device, self.blas_missing)

    def prefetch(self, kinds: Kinds, rows: int) -> PinnedPrefetch:
        return PinnedPrefetch(kinds, rows, CupyCuda(self.device))

    def memory(self) -> Memory | None:
        with self.device:
            free, total = self.device.mem_info
            return Memory(free + cupy.get_default_memory_pool().free_bytes(), total)

    def out_of_memory(self, error: BaseException, /) -> bool:
        # CuPy's OutOfMemoryError is a MemoryError; the driver and cuBLAS raise errors of their own with these names.
        text = str(error)
        return isinstance(error, MemoryError) or any(said in text for said in NO_MEMORY)


def find_blas(device: Any) -> tuple[Blas | None, str]:
    """Return cuBLAS by nvmath-python's bindings after a test; or None, and the reason."""
    try:
        from nvmath.bindings import cublas

        with device:
            blas = Blas(cublas, cupy)
            for dtype in (np.float32, np.float64):
                a = np.arange(6, dtype=dtype).reshape(2, 3)
                b = np.arange(24, dtype=dtype).reshape(2, 3, 4)
                for left, right in ((a, b[0]), (a, b), (b[0].T, a.T)):
                    product = blas.matmul(cupy.asarray(left), cupy.asarray(right))
                    if not np.array_equal(cupy.asnumpy(product), np.matmul(left, right)):
                        raise RuntimeError("nvmath-python's cuBLAS gave another product than NumPy")
    except ImportError:
        return None, "needs nvmath-python (pip install nvmath-python)"
    except Exception as error:  # a library that does not load, an interface that has changed
        return None, f"nvmath-python does not multiply here: {type(error).__name__}: {error}"
    return blas, ""


def check_device(device: str) -> None:
    """Raise if `device` is not the number of a CUDA device that answers."""
    count = cupy.cuda.runtime.getDeviceCount()  # raises CUDARuntimeError without a driver or a device
    if device and (not device.isdigit() or int(device) >= count):
        raise no_such_device("CuPy", f"cupy:{device}", count, "CUDA")
