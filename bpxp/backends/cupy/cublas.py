"""Matrix products of CuPy arrays by cuBLAS on a handle of bpxp's own, which can be captured in a CUDA graph.

CuPy refuses its own calls of cuBLAS while a stream is captured (`setStream` in cupy_backends/cuda/libs/cublas.pyx).
nvmath-python's bindings call the same library. Eager and captured steps share the handle and the size of its workspace:
cuBLAS chooses its algorithm by that, and other algorithms round differently.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from bpxp.core.typing import Array

WORKSPACE = 32 << 20  # bytes: what NVIDIA recommends for Hopper
PER_THREAD = 2  # cudaStreamPerThread: one name for the streams of all threads
TYPES = {"float32": 0, "float64": 1, "float16": 2}  # cudaDataType_t: CUDA_R_32F, CUDA_R_64F, CUDA_R_16F


def layout(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[bool, int] | None:
    """Return how cuBLAS, which is column-major, reads a (rows, columns) matrix: whether transposed, and the pitch.

    False for a row-major matrix, True for a column-major one; the pitch is the number of items from one row or column
    to the next. None for other strides: the matrix has to be copied. Strides are in bytes; no dimension is 0.
    """
    rows, columns = shape
    down, right = (stride // itemsize for stride in strides)
    if any(stride % itemsize for stride in strides):
        return None
    if (right == 1 or columns == 1) and (down >= columns or rows == 1):
        return False, down if rows > 1 else columns
    if (down == 1 or rows == 1) and (right >= rows or columns == 1):
        return True, right if columns > 1 else rows
    return None


class Blas:
    """Matrix products on one device.

    Parameters
    ----------
    cublas : module
        ``nvmath.bindings.cublas``, or what has its functions.
    library : module
        ``cupy``, for arrays, memory and the current stream.
    """

    def __init__(self, cublas: Any, library: Any) -> None:
        self.cublas, self.library = cublas, library
        self.handle = cublas.create()
        self._workspaces: dict[Any, Array] = {}  # one for each stream: two streams may multiply at the same time
        self._stream: Any = None
        self._lock = threading.Lock()
        numbers: dict[str, np.ndarray] = {name: np.array([1.0, 0.0], name) for name in ("float32", "float64")}
        self._numbers = numbers  # keeps the addresses of 1 and 0 valid
        self._scalars = {name: (a.ctypes.data, a.ctypes.data + a.itemsize) for name, a in numbers.items()}
        kinds = cublas.ComputeType
        self._modes = {"float32": kinds.COMPUTE_32F, "float64": kinds.COMPUTE_64F, "tf32": kinds.COMPUTE_32F_FAST_TF32}

    def takes(self, a: Array, b: Array) -> bool:
        """Return whether cuBLAS has this product: of matrices or stacks of them, of one floating dtype."""
        return (
            a.dtype == b.dtype
            and a.dtype.name in TYPES
            and a.ndim >= 2
            and b.ndim >= 2
            and a.size > 0
            and b.size > 0
            and a.shape[-1] == b.shape[-2]
        )

    def matmul(self, a: Array, b: Array, /, mode: str = "") -> Array:
        """Return a b, (…, m, k) by (…, k, n), in the mode "" or "tf32"; the product of float16 matrices in float32."""
        if b.ndim == 2 and a.ndim > 2 and a.flags.c_contiguous:
            flat = self.matmul(a.reshape(-1, a.shape[-1]), b, mode)
            return flat.reshape(*a.shape[:-1], b.shape[-1])
        stack = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        count = int(np.prod(stack, dtype=np.int64))
        (a, step_a), (b, step_b) = self._stacked(a, stack), self._stacked(b, stack)
        m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
        kind = "float64" if a.dtype.name == "float64" else "float32"
        out = self.library.empty((*stack, m, n), dtype=kind)
        (a, transposed_a, pitch_a), (b, transposed_b, pitch_b) = self._matrix(a), self._matrix(b)
        one, zero = self._scalars[kind]
        given = TYPES[a.dtype.name]
        # cuBLAS is column-major, so a row-major matrix is its transpose: compute outᵀ = bᵀ aᵀ.
        head = (int(transposed_b), int(transposed_a), n, m, k, one)
        tail = (self._modes[mode or kind], self.cublas.GemmAlgo.DEFAULT)
        with self._lock:
            self._settle()
            if count == 1:
                places = (b.data.ptr, given, pitch_b, a.data.ptr, given, pitch_a, zero, out.data.ptr, TYPES[kind], n)
                self.cublas.gemm_ex(self.handle, *head, *places, *tail)
            else:
                steps = (b.data.ptr, given, pitch_b, step_b, a.data.ptr, given, pitch_a, step_a)
                result = (zero, out.data.ptr, TYPES[kind], n, m * n, count)
                self.cublas.gemm_strided_batched_ex(self.handle, *head, *steps, *result, *tail)
        return out

    def _stacked(self, a: Array, stack: tuple[int, ...]) -> tuple[Array, int]:
        """Return a matrix or a stack of them, and the number of items from one to the next."""
        if a.ndim > 3 or (a.ndim == 3 and len(stack) > 1):
            a = self.library.ascontiguousarray(self.library.broadcast_to(a, (*stack, *a.shape[-2:])))
            a = a.reshape(-1, *a.shape[-2:])
        if a.ndim == 3 and a.shape[0] == 1:
            a = a[0]
        if a.ndim == 2:
            return a, 0
        if a.strides[0] % a.itemsize or layout(a.shape[1:], a.strides[1:], a.itemsize) is None:
            a = self.library.ascontiguousarray(a)
        return a, a.strides[0] // a.itemsize

    def _matrix(self, a: Array) -> tuple[Array, bool, int]:
        found = layout(a.shape[-2:], a.strides[-2:], a.itemsize)
        if found is None:
            a = self.library.ascontiguousarray(a)
            found = False, a.shape[-1]
        return a, *found

    def _settle(self) -> None:
        """Set the handle to the current stream and its workspace."""
        stream = int(self.library.cuda.get_current_stream().ptr)
        key = stream if stream != PER_THREAD else (stream, threading.get_ident())
        if key == self._stream:
            return
        if key not in self._workspaces:
            # Not from a pool, which may be a graph's: the workspace outlives the graph.
            self._workspaces[key] = self.library.cuda.Memory(WORKSPACE)
        self.cublas.set_stream(self.handle, stream)
        self.cublas.set_workspace(self.handle, self._workspaces[key].ptr, WORKSPACE)  # set_stream resets it
        self._stream = key
