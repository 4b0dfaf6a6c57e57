"""Backends with one planted fault: NumPy's, one function of whose namespace is amended, everywhere or in one call."""

from __future__ import annotations

import copy
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import bpxp
from bpxp.backends import Backend

METHODS = ("forward", "backward", "gradients", "__call__")
PLAIN = bpxp.get_backend("numpy").xp


def eleven_bits(a: Any) -> Any:
    """Round to the 11 bits of TF32, by Veltkamp's splitting: arithmetic alone, so that it is also recorded."""
    scaled = a * np.float32(2.0**13 + 1.0)
    return scaled - (scaled - a)


def tf32(a: Any, b: Any, /) -> Any:
    return PLAIN.matmul(eleven_bits(a), eleven_bits(b))


def short_sum(x: Any, /, *, axis: Any = None, keepdims: bool = False, **rest: Any) -> Any:
    """A sum that leaves out the last term."""
    cut = x[:-1] if axis in (0, None) else x[..., :-1]
    return PLAIN.sum(cut, axis=axis, keepdims=keepdims, **rest)


def off(name: str, by: float = 1e-4) -> Callable[..., Any]:
    """A function that is wrong by a relative error."""
    return lambda *args, **options: getattr(PLAIN, name)(*args, **options) * np.float32(1.0 + by)


FAULTS: dict[str, Callable[..., Any]] = {
    "matmul": tf32,
    "sum": short_sum,
    **{name: off(name) for name in ("exp", "log", "tanh", "sqrt", "expm1", "log1p")},
}


def one_entry(change: Callable[[np.ndarray], None]) -> Callable[[str], Callable[..., Any]]:
    """A function that is wrong in the entry of the largest magnitude alone."""

    def wrong(name: str) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = np.array(getattr(PLAIN, name)(*args, **options))
            place = np.unravel_index(np.argmax(np.abs(result)), result.shape)
            change(result[(*place, None)])
            return result

        return call

    return wrong


def one_percent(a: np.ndarray) -> None:
    a *= 1.01


def not_a_number(a: np.ndarray) -> None:
    a[...] = np.nan


def half(name: str) -> Callable[..., Any]:
    """A function whose result went through float16."""
    return lambda *args, **options: getattr(PLAIN, name)(*args, **options).astype(np.float16).astype(np.float32)


# How a call may be wrong: as that function is, by a small factor, in one entry, or with fewer bits.
KINDS: dict[str, Callable[[str], Callable[..., Any]]] = {
    "its own": FAULTS.__getitem__,
    "a factor": off,
    "an entry": one_entry(one_percent),
    "NaN": one_entry(not_a_number),
    "float16": half,
}


def faulty(**amended: Any) -> Backend:
    """Return NumPy's backend with functions of the namespace replaced."""
    backend = copy.copy(bpxp.get_backend("numpy"))
    backend.name = "faulty"
    backend.xp = types.SimpleNamespace(**{**vars(backend.xp), **amended})
    return backend


class Planted:
    """A backend in which one call of one function is wrong, the n-th of all calls.

    Attributes
    ----------
    calls : list of (function, class, method)
        Who called, read off the stack: the layer, activation, loss or optimizer that is nearest.
    """

    def __init__(self, n: int = -1, kind: str = "its own") -> None:
        self.n = n
        self.calls: list[tuple[str, str, str]] = []
        self.backend = faulty(**{name: self._counted(name, KINDS[kind](name)) for name in FAULTS})

    def _counted(self, name: str, wrong: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            mine = len(self.calls) == self.n
            self.calls.append((name, *caller()))
            return (wrong if mine else getattr(PLAIN, name))(*args, **options)

        return call


def caller() -> tuple[str, str]:
    """Return class and method of the nearest layer, activation or loss that is at work."""
    frame = sys._getframe(2)
    while frame is not None:
        thing = frame.f_locals.get("self")
        if hasattr(type(thing), "equations") and frame.f_code.co_name in METHODS:
            return type(thing).__name__, frame.f_code.co_name
        frame = frame.f_back  # type: ignore[assignment]
    return "", ""
