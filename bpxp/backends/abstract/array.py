"""Abstract arrays: a shape, a dtype, strides and a buffer, but no numbers; their operations are counted, or traced.

A view shares its buffer, and a buffer lives as long as an array refers to it, as in NumPy. So the peak memory is known
without allocating any.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bpxp.core.typing import Shape
from bpxp.errors import InvalidTypeError, InvalidValueError


class Cost(NamedTuple):
    """Of the operations of one name: how many, the bytes that they read and wrote, the FLOPs of matrix products."""

    operations: int = 0
    bytes: int = 0
    flops: int = 0

    def __add__(self, other: Cost) -> Cost:  # type: ignore[override]
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


class Meter:
    """Sums the costs of the operations of a namespace.

    Attributes
    ----------
    live, peak : int
        Bytes of all buffers, now and at the peak.
    by_name : dict of str to Cost
        An operation reads or writes numbers, and is a kernel launch on a GPU; views are not counted.
    matmuls : list of (m, k, n)
        The matrix products, in order.
    refused : Exception or None
        The first thing asked for that an array without numbers does not have, also where the caller caught the error.
    """

    array_type: type | None = None  # what the arrays say that they are, where a trace stands for real ones
    dtypes: Mapping[Any, Any] = {}  # and what their dtypes are called there

    def __init__(self) -> None:
        self.refused: Exception | None = None
        self.live = self.peak = 0
        self.start()

    def start(self) -> None:
        """Reset the counts, and the peak to what is live."""
        self.by_name: dict[str, Cost] = {}
        self.matmuls: list[tuple[int, int, int]] = []
        self.peak = self.live

    @property
    def total(self) -> Cost:
        """Return the sum over all names."""
        return sum(self.by_name.values(), Cost())

    def allocate(self, size: int) -> None:
        """Add a buffer."""
        self.live += size
        self.peak = max(self.peak, self.live)

    def note(
        self, name: str, inputs: tuple[Any, ...], static: dict[str, Any], result: Any, infix: bool, into: bool
    ) -> None:
        """Hear of an operation or a view: a tracer writes it down."""

    def record(self, name: str, moved: int, flops: int = 0) -> None:
        """Count an operation."""
        self.by_name[name] = self.by_name.get(name, Cost()) + Cost(1, moved, flops)


class Buffer:
    """Bytes that are live as long as this object is."""

    def __init__(self, meter: Meter, size: int) -> None:
        self.meter, self.size = meter, size
        meter.allocate(size)

    def __del__(self) -> None:
        self.meter.live -= self.size


class ShapeArray:
    """An array of the Array API without numbers.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy.dtype
    strides : tuple of int
        In items, not in bytes.
    buffer : Buffer
    """

    __slots__ = ("buffer", "kind", "number", "shape", "strides")
    __hash__ = object.__hash__
    __array_ufunc__ = None  # NumPy leaves its operators to this class, and its functions refuse

    def __init__(self, shape: Shape, kind: Any, strides: Shape, buffer: Buffer) -> None:
        self.shape, self.kind, self.strides, self.buffer = shape, kind, strides, buffer
        self.number: int | None = None  # in a trace

    @property
    def dtype(self) -> Any:
        return self.buffer.meter.dtypes.get(self.kind, self.kind)

    @property  # type: ignore[misc]
    def __class__(self) -> type:  # a branch on the type of an array goes the way that it goes with real ones
        return self.buffer.meter.array_type or ShapeArray

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def touched(self) -> int:
        """Bytes that a read touches: a number that is broadcast counts once."""
        own = (n for n, stride in zip(self.shape, self.strides, strict=True) if stride or not n)
        return math.prod(own) * int(self.kind.itemsize)

    def __repr__(self) -> str:
        self._refused(described(self))  # a text of real arrays shows their numbers
        return described(self)

    def _refused(self, got: str) -> InvalidTypeError:
        what = "it has no numbers to look at: neither could a compiled step, without waiting for the device"
        error = InvalidTypeError("a shape-only array", what, code="E027", got=got)
        self.buffer.meter.refused = self.buffer.meter.refused or error
        return error

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise self._refused(described(self))

    def __getattr__(self, name: str) -> Any:
        # No AttributeError, which hasattr would turn into an answer.
        raise self._refused(f"x.{name}, which is not in the mathematics of bpxp")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = __setitem__ = __len__ = __iter__ = _refuse
    __contains__ = __reduce_ex__ = __format__ = __array__ = __dlpack__ = __dlpack_device__ = _refuse

    def view(self, shape: Shape, strides: Shape) -> ShapeArray:
        """Return a view of the same buffer."""
        return ShapeArray(shape, self.kind, strides, self.buffer)

    def __getitem__(self, index: Any) -> ShapeArray:
        def rule(a: ShapeArray, index: Any) -> ShapeArray:
            return a.view(*indexed(a, index if isinstance(index, tuple) else (index,)))

        return noted(self.buffer.meter, "getitem", rule, (self, index), {}, infix=True)  # type: ignore[no-any-return]


def described(a: Any) -> str:
    """Return the text of an array for messages."""
    return f"ShapeArray({a.shape}, {a.kind.name})" if isinstance(a, ShapeArray) else repr(a)


def noted(
    meter: Meter,
    name: str,
    rule: Callable[..., Any],
    inputs: tuple[Any, ...],
    static: dict[str, Any],
    *,
    infix: bool = False,
    into: bool = False,
) -> Any:
    """Return what a rule says, and let the meter hear of it; an error is remembered, also if the caller catches it."""
    try:
        result = rule(*inputs, **static)
        meter.note(name, inputs, static, result, infix, into)
    except Exception as error:
        meter.refused = meter.refused or error
        raise
    return result


def new(meter: Meter, shape: Shape, dtype: Any, operands: Sequence[ShapeArray] = ()) -> ShapeArray:
    """Return an array in a buffer of its own, in C order, or in the memory order of the largest operand."""
    dtype = np.dtype(dtype)
    order = memory_order(max(operands, key=lambda a: a.touched), len(shape)) if operands else range(len(shape))
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= max(1, shape[axis])
    return ShapeArray(shape, dtype, tuple(strides), Buffer(meter, math.prod(shape) * dtype.itemsize))


def memory_order(a: ShapeArray, ndim: int) -> list[int]:
    """Return the axes of a result from the slowest to the fastest; one that is broadcast keeps its place."""
    lead = ndim - a.ndim
    own = [i for i, (n, stride) in enumerate(zip(a.shape, a.strides, strict=True)) if n != 1 and stride]
    slowest = iter(sorted(own, key=lambda i: -abs(a.strides[i])))
    return [*range(lead), *(lead + (next(slowest) if i in own else i) for i in range(a.ndim))]


# ---------------------------------------------------------------- views


def compact(shape: Shape) -> Shape:
    """Return the strides of a C-contiguous array."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


def indexed(a: ShapeArray, index: tuple[Any, ...]) -> tuple[Shape, Shape]:
    """Return shape and strides of ``a[index]``, for integers, slices, None and an Ellipsis."""
    if any(not (part is None or part is ... or type(part) in (int, slice)) for part in index):
        raise InvalidTypeError(
            "x[…]",
            "an array as an index",
            code="E027",
            got=", ".join(map(described, index)),
            expected="integers and slices",
            fix="xp.take(x, …)",
        )
    named = sum(part is not None and part is not ... for part in index)
    where = next((i for i, part in enumerate(index) if part is ...), len(index))
    full = [*index[:where], *[slice(None)] * (a.ndim - named), *index[where + 1 :]]
    shape, strides, axis = [], [], 0
    for part in full:
        if part is None:
            shape.append(1)
            strides.append(0)
            continue
        if axis == a.ndim or (isinstance(part, int) and not -a.shape[axis] <= part < a.shape[axis]):
            raise InvalidValueError("x[…]", "out of bounds", code="E027", got=f"{index} of shape {a.shape}")
        if isinstance(part, slice):
            start, stop, step = part.indices(a.shape[axis])
            shape.append(len(range(start, stop, step)))
            strides.append(a.strides[axis] * step)
        axis += 1
    return tuple(shape), tuple(strides)


def reshaped(a: ShapeArray, shape: Shape) -> Shape | None:
    """Return the strides of a view of `a` in another shape of the same size; None where it has to be a copy."""
    if a.size <= 1:
        return compact(shape)
    runs: list[tuple[int, int]] = []  # axes that are contiguous with each other: their size, and the stride of the last
    for n, stride in zip(a.shape, a.strides, strict=True):
        if runs and runs[-1][1] == n * stride:
            runs[-1] = runs[-1][0] * n, stride
        elif n != 1:
            runs.append((n, stride))
    strides = []
    for n in reversed(shape):
        size, stride = runs.pop() if n != 1 else (1, 0)
        if size % n:
            return None
        strides.append(stride)
        if size > n:
            runs.append((size // n, stride * n))
    return tuple(reversed(strides))


# ---------------------------------------------------------------- operators


def promoted(name: str, operands: Sequence[Any]) -> Any:
    """Return the dtype of a result: that of the arrays, which are of one kind; Python numbers never promote it.

    Raises
    ------
    InvalidTypeError
        Where the standard leaves the result undefined: mixed kinds, or a Python float with integers.
    """
    dtypes = [a.kind for a in operands if isinstance(a, ShapeArray)]
    kinds = {("i" if d.kind == "u" else d.kind) for d in dtypes}
    allowed: dict[str, tuple[type, ...]] = {"f": (int, float), "c": (int, float, complex), "i": (int,), "b": (bool,)}
    numbers = [a for a in operands if not isinstance(a, ShapeArray)]
    mixed = len(kinds) != 1 or any(type(n) not in allowed[next(iter(kinds))] for n in numbers)
    if mixed or (name == "divide" and kinds <= {"i", "b"}):
        got = ", ".join(a.kind.name if isinstance(a, ShapeArray) else type(a).__name__ for a in operands)
        raise InvalidTypeError(name, "mixed kinds of numbers", code="E027", got=got, fix="xp.astype(x, dtype)")
    return np.result_type(*dtypes)


def elementwise(meter: Meter, name: str, operands: Sequence[Any], dtype: Any = None) -> ShapeArray:
    """Return the result of an elementwise operation, after broadcasting."""
    arrays, shape = broadcast(name, operands)
    result = new(meter, shape, promoted(name, operands) if dtype is None else dtype, arrays)
    meter.record(name, sum(a.touched for a in arrays) + result.touched)
    return result


def broadcast(name: str, operands: Sequence[Any]) -> tuple[list[ShapeArray], Shape]:
    """Return the arrays among the operands, and their common shape."""
    arrays = [a for a in operands if isinstance(a, ShapeArray)]
    try:
        return arrays, np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError as error:
        got = ", ".join(str(a.shape) for a in arrays)
        raise InvalidValueError(name, "the shapes do not fit", code="E027", got=got) from error


def _operate(a: ShapeArray, name: str, dtype: Any, swapped: bool, *others: Any) -> ShapeArray:
    """Return the result of an operator; `swapped`: of ``2.0 - x``."""

    def rule(*operands: Any) -> ShapeArray:
        if dtype is not None:
            promoted(name, operands)
        return elementwise(meter, name, operands, dtype)

    meter = a.buffer.meter
    return noted(meter, name, rule, (*others, a) if swapped else (a, *others), {}, infix=True)  # type: ignore[no-any-return]


def _write(a: ShapeArray, name: str, other: Any) -> ShapeArray:
    """Return an array that an operator has written in place."""

    def rule(a: ShapeArray, other: Any) -> ShapeArray:
        arrays, shape = broadcast(name, (a, other))
        if promoted(name, (a, other)) != a.kind or shape != a.shape:
            got = f"{described(a)} and {described(other)}"
            raise InvalidValueError(f"{name}, in place", "the result does not fit", code="E027", got=got)
        meter.record(name, sum(x.touched for x in arrays) + a.touched)
        return a

    meter = a.buffer.meter
    return noted(meter, name, rule, (a, other), {}, infix=True, into=True)  # type: ignore[no-any-return]


ARITHMETIC = {
    "add": "add",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "truediv",
    "floor_divide": "floordiv",
    "remainder": "mod",
    "pow": "pow",
    "bitwise_and": "and",
    "bitwise_or": "or",
    "bitwise_xor": "xor",
    "bitwise_left_shift": "lshift",
    "bitwise_right_shift": "rshift",
}
COMPARISONS = {
    "equal": "eq",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
}
UNARY = {"negative": "neg", "positive": "pos", "abs": "abs", "bitwise_invert": "invert"}
for _name, _short in ARITHMETIC.items():
    setattr(ShapeArray, f"__{_short}__", functools.partialmethod(_operate, _name, None, False))
    setattr(ShapeArray, f"__r{_short}__", functools.partialmethod(_operate, _name, None, True))
    setattr(ShapeArray, f"__i{_short}__", functools.partialmethod(_write, _name))
for _name, _short in COMPARISONS.items():
    setattr(ShapeArray, f"__{_short}__", functools.partialmethod(_operate, _name, np.dtype(bool), False))
for _name, _short in UNARY.items():
    setattr(ShapeArray, f"__{_short}__", functools.partialmethod(_operate, _name, None, False))
