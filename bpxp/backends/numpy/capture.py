"""The calls of a captured step on NumPy: functions that write, with ``out=``, into buffers of the plan."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from bpxp.backends.abstract.trace import Operation, Value
from bpxp.backends.plan import IN_PLACE
from bpxp.backends.program import OUT, Call, with_arrays
from bpxp.core.typing import Array

COPIED = 64 << 10  # bytes that are sooner copied twice than their indices looked through

REDUCED: dict[str, Any] = {"sum": np.add, "max": np.maximum, "min": np.minimum}
FILLING: dict[str, Any] = {"concat": np.concatenate, "stack": np.stack}


class NumpyLibrary:
    """NumPy, as `bpxp.backends.plan.Library` describes it."""

    array_type: type = np.ndarray
    copy: Callable[[Any, Any], Any] = staticmethod(np.copyto)
    differs = "{0}.shape != {1} or {0}.strides != {3} or {0}.dtype != {2}"

    def kind(self, a: Any) -> tuple[Any, ...]:
        return a.shape, a.dtype, a.strides

    def own(self, a: Any) -> Array:
        return np.array(a)  # in the same memory order

    def writable(self, a: Array) -> bool:
        return bool(a.flags.writeable)

    def bounds(self, a: Array) -> tuple[int, int]:
        if not a.flags.c_contiguous:
            return np.lib.array_utils.byte_bounds(a)
        begin: int = a.__array_interface__["data"][0]
        return begin, begin + a.nbytes

    def shares(self, a: Any, b: Any) -> bool:
        return np.may_share_memory(a, b)  # where the bounds of contiguous memory overlap, so do the arrays

    def same(self, a: Any, b: Any) -> bool:
        return a.shape == b.shape and a.dtype == b.dtype and bool(a.tobytes() == b.tobytes())

    def agrees(self, a: Any, shape: Any, kind: Any) -> bool:
        return type(a) in (np.ndarray, kind.type) and a.shape == shape and a.dtype == kind

    def extent(self, kind: tuple[Any, ...]) -> int:
        shape, dtype, strides = kind
        if 0 in shape:
            return 0
        return int(dtype.itemsize + sum((n - 1) * abs(stride) for n, stride in zip(shape, strides, strict=True)))

    def fresh(self, kind: tuple[Any, ...]) -> Callable[[], Array]:
        make: Any = np.ndarray
        return functools.partial(make, kind[0], kind[1], strides=kind[2])

    def memory(self, size: int) -> Array:
        return np.empty(size + 64, np.uint8)

    def placed(self, memory: Array, offset: int, kind: tuple[Any, ...]) -> Array:
        begin = -memory.ctypes.data % 64  # whole lines of the cache
        return np.ndarray(kind[0], kind[1], memory, begin + offset, kind[2])

    def call(self, op: Operation, function: Any, arguments: tuple[Any, ...], result: Any) -> Call | None:
        name = op.name
        if name == "pow" and op.infix and not isinstance(op.inputs[1], Value):
            return None  # x ** 0.5 is a square root
        ufunc = function if isinstance(function, np.ufunc) else getattr(np, name, None) if op.infix else None
        if isinstance(ufunc, np.ufunc) and not op.static:
            inputs = numbers(op.inputs, arguments)
            if ufunc in (np.maximum, np.minimum):  # for these two NumPy wants the keyword
                return Call(ufunc, inputs, {"out": OUT}, True)
            return Call(ufunc, (*inputs, OUT), elementwise=ufunc.signature is None)
        if name in REDUCED:
            options = {"axis": None, "dtype": None, "keepdims": False, **op.static}
            return Call(REDUCED[name].reduce, (*op.inputs, options["axis"], options["dtype"], OUT, options["keepdims"]))
        if name == "astype":
            return Call(np.copyto, (OUT, op.inputs[0], "unsafe"))
        if name == "take":
            gather = _gather if result.nbytes > COPIED else np.ndarray.take
            return Call(gather, (*op.inputs, op.static.get("axis"), OUT))
        if name in FILLING:
            return Call(FILLING[name], op.inputs, {**op.static, "out": OUT})
        return None

    def call_in_place(self, op: Operation, arguments: tuple[Any, ...]) -> Call:
        if op.name == "pow":
            return Call(IN_PLACE[op.name], op.inputs)
        return Call(getattr(np, op.name), (*numbers(op.inputs, arguments), op.inputs[0]))


numbers = functools.partial(with_arrays, make=np.array, iinfo=np.iinfo)


def _gather(x: np.ndarray, rows: np.ndarray, axis: int | None, into: np.ndarray) -> None:
    # NumPy copies twice with `out` unless told what to do with an index out of range: so it is asked whether there is.
    if rows.min() >= 0 and rows.max() < (x.size if axis is None else x.shape[axis]):
        x.take(rows, axis, into, "clip")
    else:
        x.take(rows, axis, into)
