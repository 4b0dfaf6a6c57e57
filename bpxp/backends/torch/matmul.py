"""Matrix products of PyTorch in reduced precision: on the tensor cores of a GPU, and on the CPU."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch

from bpxp.backends.base import Backend
from bpxp.core.typing import Array


def rounding_matmuls(backend: Backend) -> dict[str, Callable[[Array, Array], Array]]:
    """Return the functions that the device has, by the precision of their operands."""
    if backend.device.type == "cuda":
        return {
            "tf32": functools.partial(_in_mode, torch.backends.cuda.matmul, "tf32"),
            "bfloat16": functools.partial(_narrow, torch.bfloat16),
            "float16": functools.partial(_narrow, torch.float16),
        }
    bfloat16 = functools.partial(_in_mode, torch.backends.mkldnn.matmul, "bf16")
    if not _rounds(bfloat16):
        bfloat16 = functools.partial(_rounded, torch.bfloat16)
    return {"bfloat16": bfloat16, "float16": functools.partial(_rounded, torch.float16)}


def _narrow(dtype: torch.dtype, a: Array, b: Array) -> Array:
    """Multiply in 16 bits, and return the float32 accumulators."""
    a, b = a.to(dtype), b.to(dtype)
    if a.ndim == b.ndim == 2:
        return torch.mm(a, b, out_dtype=torch.float32)
    if a.ndim == b.ndim == 3 and a.shape[0] == b.shape[0]:
        return torch.bmm(a, b, out_dtype=torch.float32)
    return torch.matmul(a, b).to(torch.float32)


def _rounded(dtype: torch.dtype, a: Array, b: Array) -> Array:
    """Round the operands and multiply in float32: the same numbers, but no faster."""
    return torch.matmul(a.to(dtype).to(torch.float32), b.to(dtype).to(torch.float32))


def _in_mode(settings: Any, mode: str, a: Array, b: Array) -> Array:
    with _set(settings, mode):
        return torch.matmul(a, b)


@contextlib.contextmanager
def _set(settings: Any, mode: str) -> Iterator[None]:
    """Set one of torch's global switches for a block: 1 µs."""
    before = settings.fp32_precision
    settings.fp32_precision = mode
    try:
        yield
    finally:
        settings.fp32_precision = before


def _rounds(product: Callable[[Array, Array], Array]) -> bool:
    """Return whether this processor multiplies bfloat16; where it does not, torch silently multiplies float32."""
    ones = torch.full((128, 128), 1.0 + 2.0**-10)
    return bool((product(ones, ones) == 128.0).all())
