"""CuPy on a CUDA device: ``cupy``, or ``cupy:1`` for the second device."""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy as compat
import cupy
import numpy as np

from bpxp.backends.base import NoDevice, Step, StepFunction, namespace, no_such_device
from bpxp.backends.by_name import ByName
from bpxp.backends.cupy.cublas import Blas
from bpxp.backends.cupy.cuda_graph import CupyGraph
from bpxp.backends.cupy.joins import concat, stack
from bpxp.backends.cupy.prefetch import CupyCuda
from bpxp.backends.cupy.threefry import threefry
from bpxp.backends.dlpack import host_array, import_array, is_host_array
from bpxp.backends.prefetch import DEVICE_BYTES, Kinds, PinnedPrefetch
from bpxp.core.memory import Memory
from bpxp.core.typing import Array

NO_MEMORY = ("cudaErrorMemoryAllocation", "CUBLAS_STATUS_ALLOC_FAILED")


class CupyBackend(ByName):
    """CuPy arrays on one device.

    Notes
    -----
    Functions and operators of CuPy compute on the current device of the thread. `here` makes the backend's device the
    current one for a while; ``"cupy"`` is the first, whichever the user has made current.
    """

    matmul = "float32"
    prefetch_bytes = DEVICE_BYTES
    reuses_state = True  # in the buffers of a CUDA graph

    def __init__(self, device: str = "") -> None:
        self.name = f"cupy:{device}" if device else "cupy"
        self.device = cupy.cuda.Device(int(device or 0))
        self._blas, self._no_blas = find_blas(self.device)
        own = {"matmul": self._matmul, "threefry": threefry, "concat": concat, "stack": stack}
        self.xp = namespace(compat, None, self, memo={}, **own)

    def here(self) -> Any:
        return self.device

    def _matmul(self, a: Array, b: Array, /) -> Array:
        if self._blas is not None and self._blas.takes(a, b):
            return self._blas.matmul(a, b)
        return cupy.matmul(a, b)

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        with self.device:
            if not hasattr(a, "__dlpack_device__") and hasattr(a, "__cuda_array_interface__"):  # of Numba, RMM
                a = cupy.asarray(a)
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
        return CupyGraph(step, self.xp, self.device, self._blas, self._no_blas)

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
    """Return cuBLAS after a test; or None, and the reason."""
    try:
        with device:
            blas = Blas()
            for dtype in (np.float32, np.float64):
                a = np.arange(6, dtype=dtype).reshape(2, 3)
                b = np.arange(24, dtype=dtype).reshape(2, 3, 4)
                for left, right in ((a, b[0]), (a, b), (b[0].T, a.T)):
                    product = blas.matmul(cupy.asarray(left), cupy.asarray(right))
                    if not np.array_equal(cupy.asnumpy(product), np.matmul(left, right)):
                        raise RuntimeError("cuBLAS gave another product than NumPy")
    except Exception as error:  # a library that does not load, or lacks a function
        return None, f"cuBLAS does not multiply here: {type(error).__name__}: {error}"
    return blas, ""


def check_device(device: str) -> None:
    """Raise if `device` is not the number of a CUDA device that answers.

    Raises
    ------
    NoDevice
        If there is no driver, or no device.
    RuntimeError
        If the driver is older than the CUDA that CuPy was built for.
    """
    cuda = cupy.cuda.runtime
    driver, own = cuda.driverGetVersion() // 1000, cuda.runtimeGetVersion() // 1000
    if not driver:
        raise NoDevice("no GPU driver is loaded")
    if not cuda.is_hip and driver < own:
        raise RuntimeError(f"the driver is for CUDA {driver}, CuPy for CUDA {own}: pip install 'bpxp[cuda{driver}]'")
    try:
        count = cuda.getDeviceCount()
    except cuda.CUDARuntimeError as error:
        raise NoDevice(str(error)) from error
    if device and (not device.isdigit() or int(device) >= count):
        raise no_such_device("CuPy", f"cupy:{device}", count, "CUDA")
