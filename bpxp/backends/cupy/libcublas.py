"""The functions of cuBLAS that bpxp calls, by ctypes, from the library that CuPy has loaded."""

from __future__ import annotations

import ctypes
import sys
from ctypes import c_int, c_longlong, c_size_t, c_void_p
from typing import Any

ALLOC_FAILED = 3  # cublasStatus_t
DEFAULT = -1  # cublasGemmAlgo_t: CUBLAS_GEMM_DEFAULT
COMPUTE_32F, COMPUTE_64F, COMPUTE_32F_FAST_TF32 = 68, 70, 77  # cublasComputeType_t

POINTER = c_void_p
OPERATIONS, SIZES = [c_int] * 2, [c_int] * 3
MATRIX, MATRICES = [POINTER, c_int, c_int], [POINTER, c_int, c_int, c_longlong]  # address, type, pitch(, step)
HEAD = [POINTER, *OPERATIONS, *SIZES, POINTER]
ARGUMENTS = {
    "cublasCreate_v2": [POINTER],
    "cublasSetStream_v2": [POINTER, POINTER],
    "cublasSetWorkspace_v2": [POINTER, POINTER, c_size_t],
    "cublasGemmEx": [*HEAD, *MATRIX, *MATRIX, POINTER, *MATRIX, c_int, c_int],
    "cublasGemmStridedBatchedEx": [*HEAD, *MATRICES, *MATRICES, POINTER, *MATRICES, c_int, c_int, c_int],
}


class Cublas:
    """cuBLAS of one process; a status other than success is a RuntimeError, or a MemoryError."""

    def __init__(self) -> None:
        library = _library()
        functions = []
        for name, arguments in ARGUMENTS.items():
            function = getattr(library, name)
            function.argtypes, function.restype, function.errcheck = arguments, c_int, _check
            functions.append(function)
        self._create, self.set_stream, self.set_workspace, self.gemm_ex, self.gemm_strided_batched_ex = functions

    def create(self) -> int:
        """Return a handle on the current device."""
        handle = c_void_p()
        self._create(ctypes.byref(handle))
        return int(handle.value or 0)


def _library() -> ctypes.CDLL:
    from cupy_backends.cuda.libs import cublas  # loads the library of NVIDIA

    if sys.platform == "win32":
        from cuda import pathfinder

        return ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    return ctypes.CDLL(cublas.__file__)  # a name is looked up in what this links, too


def _check(status: int, function: Any, _: Any) -> None:
    what = f"{function.__name__} returned cuBLAS status {status}"
    if status == ALLOC_FAILED:
        raise MemoryError(what)
    if status:
        raise RuntimeError(what)
