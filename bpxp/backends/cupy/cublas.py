"""Matrix products of CuPy arrays by cuBLAS on a handle of bpxp's own, which can be captured in a CUDA graph.

CuPy refuses its own calls of cuBLAS while a stream is captured (`setStream` in cupy_backends/cuda/libs/cublas.pyx);
`bpxp.backends.cupy.libcublas` calls the same library. Eager and captured steps share the handle and the size of its
workspace: cuBLAS chooses its algorithm by that, and other algorithms round differently.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import cupy
import numpy as np

from bpxp.backends.cupy.libcublas import COMPUTE_32F, COMPUTE_32F_FAST_TF32, COMPUTE_64F, DEFAULT, Cublas
from bpxp.core.typing import Array

WORKSPACE, SMALL_WORKSPACE = 32 << 20, 4 << 20  # bytes: what NVIDIA recommends since Hopper, and before
HOPPER = 90  # compute capability
PER_THREAD = 2  # cudaStreamPerThread: one name for the streams of all threads
MODES = {"float32": COMPUTE_32F, "float64": COMPUTE_64F, "tf32": COMPUTE_32F_FAST_TF32}
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


def stream_key() -> Any:
    """Return what identifies the current stream."""
    stream = int(cupy.cuda.get_current_stream().ptr)
    return stream if stream != PER_THREAD else (stream, threading.get_ident())


class Blas:
    """Matrix products on the current device."""

    def __init__(self) -> None:
        self.cublas = Cublas()
        self.handle = self.cublas.create()
        capability = cupy.cuda.Device().compute_capability
        self.workspace = WORKSPACE if int(capability) >= HOPPER else SMALL_WORKSPACE  # bytes for each stream
        self._workspaces: dict[Any, Any] = {}  # one for each stream: two streams may multiply at the same time
        self._lent: dict[int, Any] = {}  # of a stream that is captured: whose workspace it has
        self._settled: Any = None
        self._lock = threading.Lock()
        numbers: dict[str, np.ndarray] = {name: np.array([1.0, 0.0], name) for name in ("float32", "float64")}
        self._numbers = numbers  # keeps the addresses of 1 and 0 valid
        self._scalars = {name: (a.ctypes.data, a.ctypes.data + a.itemsize) for name, a in numbers.items()}

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
        out = cupy.empty((*stack, m, n), dtype=kind)
        (a, transposed_a, pitch_a), (b, transposed_b, pitch_b) = self._matrix(a), self._matrix(b)
        one, zero = self._scalars[kind]
        given = TYPES[a.dtype.name]
        # cuBLAS is column-major, so a row-major matrix is its transpose: compute outᵀ = bᵀ aᵀ.
        head = (int(transposed_b), int(transposed_a), n, m, k, one)
        tail = (MODES[mode or kind], DEFAULT)
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
            a = cupy.ascontiguousarray(cupy.broadcast_to(a, (*stack, *a.shape[-2:])))
            a = a.reshape(-1, *a.shape[-2:])
        if a.ndim == 3 and a.shape[0] == 1:
            a = a[0]
        if a.ndim == 2:
            return a, 0
        if a.strides[0] % a.itemsize or layout(a.shape[1:], a.strides[1:], a.itemsize) is None:
            a = cupy.ascontiguousarray(a)
        return a, a.strides[0] // a.itemsize

    def _matrix(self, a: Array) -> tuple[Array, bool, int]:
        found = layout(a.shape[-2:], a.strides[-2:], a.itemsize)
        if found is None:
            a = cupy.ascontiguousarray(a)
            found = False, a.shape[-1]
        return a, *found

    @contextlib.contextmanager
    def lent(self, stream: Any) -> Iterator[None]:
        """Let a stream that is captured have the workspace of the current one, on which its graph will run."""
        self._lent[int(stream.ptr)] = stream_key()
        try:
            yield
        finally:
            del self._lent[int(stream.ptr)]

    def _settle(self) -> None:
        """Set the handle to the current stream and its workspace."""
        stream, key = int(cupy.cuda.get_current_stream().ptr), stream_key()
        key = self._lent.get(key, key)
        if (stream, key) == self._settled:
            return
        if key not in self._workspaces:
            # Not from a pool, which may be a graph's: the workspace outlives the graph.
            self._workspaces[key] = cupy.cuda.Memory(self.workspace)
        self.cublas.set_stream(self.handle, stream)
        self.cublas.set_workspace(self.handle, self._workspaces[key].ptr, self.workspace)  # set_stream resets it
        self._settled = stream, key
