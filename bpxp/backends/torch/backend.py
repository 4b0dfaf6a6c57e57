"""PyTorch tensors, on the CPU or a CUDA device: ``torch``, ``torch:cuda``, ``torch:cuda:1``.

Only its array operations are used, no automatic differentiation.
"""

from __future__ import annotations

import warnings
from typing import Any

import array_api_compat.torch as compat
import numpy as np
import torch

from bpxp.backends.base import CACHE, Step, StepFunction, namespace, no_such_device
from bpxp.backends.by_name import ByName
from bpxp.backends.captured import CapturedStep
from bpxp.backends.dlpack import host_array, import_array, is_host_array
from bpxp.backends.numpy.backend import keep_freed_memory
from bpxp.backends.numpy.threefry import threefry
from bpxp.backends.prefetch import DEVICE_BYTES, Kinds, PinnedPrefetch, Prefetch, SharedPrefetch
from bpxp.backends.torch.capture import TorchLibrary
from bpxp.backends.torch.cuda_graph import TorchGraph
from bpxp.backends.torch.prefetch import TorchCuda
from bpxp.core.memory import Memory, host_memory
from bpxp.core.typing import Array
from bpxp.errors import InvalidValueError

FEW_ROWS = 64  # below which one thread gathers faster than all
NO_MEMORY = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def _take(x: Array, indices: Array, /, *, axis: int = 0) -> Array:
    return torch.index_select(x, axis, indices)


def _take_of_rows(x: Array, indices: Array, /, *, axis: int = 0) -> Array:
    """Take on the CPU: PyTorch gathers rows of a matrix with all its threads, of a batch of matrices with one."""
    if x.ndim == 3 and axis in (1, -2) and x.is_contiguous() and indices.shape[0] >= FEW_ROWS:
        batch, n, c = x.shape
        first = torch.arange(0, batch * n, n, dtype=indices.dtype).unsqueeze(1)
        rows = torch.index_select(x.view(-1, c), 0, (first + indices).view(-1))
        return rows.view(batch, -1, c)
    return torch.index_select(x, axis, indices)


def _sum(x: Array, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Array:
    return torch.sum(x, axis, keepdims, dtype=dtype)


def _extremum(function: Any) -> Any:
    def reduce(x: Array, /, *, axis: Any = None, keepdims: bool = False) -> Array:
        return function(x, dim=() if axis is None else axis, keepdim=keepdims)

    return reduce


def _astype(x: Array, dtype: Any, /, *, copy: bool = True) -> Array:
    if x.dtype is torch.bool and dtype is not torch.bool:
        x = x.view(torch.uint8)  # the same bytes, and its conversion is vectorised: five times faster
    return x.to(dtype, copy=copy)


def _threefry(*words: Array) -> tuple[Array, ...]:
    return tuple(torch.from_numpy(a) for a in threefry(*(word.numpy() for word in words)))


# torch's own functions that conform to the standard for operands of one dtype, which is all that the mathematics
# passes: array-api-compat's wrappers cost more than a small kernel.
SAME = "abs exp expm1 log log1p logaddexp matmul maximum minimum reshape sqrt square tanh where".split()
NATIVE = {
    **{name: getattr(torch, name) for name in SAME},
    "sum": _sum,
    "take": _take,
    "max": _extremum(torch.amax),
    "min": _extremum(torch.amin),
    "astype": _astype,
    "matrix_transpose": lambda x, /: x.mT,
    "expand_dims": lambda x, /, *, axis=0: torch.unsqueeze(x, axis),
}


class TorchBackend(ByName):
    """Torch tensors on one device."""

    matmul = "float32"

    def __init__(self, device: str = "") -> None:
        self.name = f"torch:{device}" if device not in ("", "cpu") else "torch"
        self.device = torch.device(device or "cpu")
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        own = {}
        if self.device.type == "cpu":
            own = {"threefry": _threefry, "take": _take_of_rows, "workspace": 8 * CACHE}
            keep_freed_memory()  # tensors use the same allocator
        self.xp = namespace(compat, self.device, self, memo={}, **(NATIVE | own))
        self.shares_memory = self.device.type == "cpu"
        if self.device.type == "cuda":
            self.prefetch_bytes, self.reuses_state = DEVICE_BYTES, True  # in the buffers of a CUDA graph

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        if isinstance(a, torch.Tensor):
            foreign = a.requires_grad or a.device != self.device
        else:
            foreign = not is_host_array(a)
        if foreign:  # or refused, with the fix
            own = import_array(a, self, torch.from_dlpack, self._dlpack_device)
        else:
            own = a if isinstance(a, torch.Tensor) else self._from_host(host_array(a))
        return own if dtype is None else own.to(dtype)

    def _from_host(self, a: np.ndarray) -> Array:
        if any(stride < 0 for stride in a.strides):
            a = np.ascontiguousarray(a)  # torch has no negative strides
        with warnings.catch_warnings():
            # Read-only arrays are shared too: bpxp never writes into its inputs.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(a).to(self.device)

    @property
    def _dlpack_device(self) -> tuple[int, int]:
        return (1, 0) if self.device.type == "cpu" else (2, self.device.index)

    def to_numpy(self, a: Array, /) -> np.ndarray:
        own = a.detach()
        back: np.ndarray = own.numpy().copy() if own.device.type == "cpu" else own.cpu().numpy()
        return back

    def compile(self, step: StepFunction, /) -> Step:
        return (
            CapturedStep(step, TorchLibrary()) if self.device.type == "cpu" else TorchGraph(step, self.xp, self.device)
        )

    def prefetch(self, kinds: Kinds, rows: int) -> Prefetch:
        if self.device.type == "cpu":
            return SharedPrefetch(kinds, rows, torch.from_numpy)
        return PinnedPrefetch(kinds, rows, TorchCuda(self.device))

    def memory(self) -> Memory | None:
        if self.device.type == "cpu":
            return host_memory()
        free, total = torch.cuda.mem_get_info(self.device)
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return Memory(free + cached, total)

    def out_of_memory(self, error: BaseException, /) -> bool:
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
            return True
        # The CPU's allocator and cuBLAS raise plain RuntimeErrors.
        text = str(error)
        return isinstance(error, RuntimeError) and any(said in text for said in NO_MEMORY)


def check_device(device: str) -> None:
    """Raise if torch does not have the device."""
    kind, _, index = device.partition(":")
    if kind not in ("", "cpu", "cuda") or (index and not index.isdigit()):
        what, expected = "unknown torch device", "cpu, cuda or cuda:<index>"
        raise InvalidValueError("backend", what, code="E023", got=repr(device), expected=expected)
    if kind == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(f"torch {torch.__version__} sees no CUDA device")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise no_such_device("torch", f"torch:{device}", torch.cuda.device_count(), "CUDA")
