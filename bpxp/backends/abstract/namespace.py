"""The namespace of abstract arrays: the real step runs in it, and its costs are counted.

It has the functions that the mathematics uses, and raises a clear error for others. No cost is stated twice: the calls
of layers, losses and optimizers are counted.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bpxp.backends.abstract.array import Meter, ShapeArray, broadcast, elementwise, new, noted, reshaped
from bpxp.backends.base import CONSTANTS, DTYPES, RuledNamespace
from bpxp.core.typing import Shape
from bpxp.errors import InvalidTypeError, InvalidValueError, ShapeRuleError

# Elementwise, with a result of the same dtype; `ARITHMETIC` of bpxp.backends.abstract.array has the operators.
SAME_DTYPE = """
abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_invert bitwise_left_shift bitwise_or
bitwise_right_shift bitwise_xor ceil copysign cos cosh divide exp expm1 floor floor_divide hypot log log10 log1p log2
logaddexp maximum minimum multiply negative nextafter positive pow reciprocal remainder round sign sin sinh sqrt square
subtract tan tanh trunc
""".split()
TO_BOOL = """
equal greater greater_equal isfinite isinf isnan less less_equal logical_and logical_not logical_or logical_xor
not_equal signbit
""".split()
NO_NUMBERS = {"maximum", "minimum", "logaddexp", "atan2", "hypot"}  # arrays only, as in the mathematics
REDUCTIONS: dict[str, Any] = {
    **dict.fromkeys("max mean min prod std sum var".split()),
    **dict.fromkeys("all any".split(), bool),
    **dict.fromkeys("argmax argmin count_nonzero".split(), np.int64),
}


def shape_namespace(meter: Meter, like: Any = None) -> Any:
    """Return the namespace whose operations are counted by `meter`.

    Parameters
    ----------
    meter : Meter
    like : namespace, optional
        Of the backend in question: its `workspace` and `fuses` hold here too, and its kernels count as one operation.
    """
    functions: dict[str, Any] = {name: getattr(np, name) for name in CONSTANTS}
    rules: dict[str, Callable[..., Any]] = {}
    for name in SAME_DTYPE:
        rules[name] = functools.partial(_elementwise, meter, name, None)
    for name in TO_BOOL:
        rules[name] = functools.partial(_elementwise, meter, name, np.dtype(bool))
    for name, kind in REDUCTIONS.items():
        rules[name] = functools.partial(_reduce, meter, name, kind)
    for name, rule in BY_NAME.items():
        rules[name] = functools.partial(rule, meter, name)
    kernels = {name: rule for name, rule in KERNEL_RULES.items() if hasattr(like, name)}
    for name, rule in (RULES | kernels).items():
        rules[name] = functools.partial(rule, meter)
    for name in ("broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis", "permute_dims", "squeeze"):
        rules[name] = globals()[f"_{name}"]
    functions |= {name: functools.partial(_noted, meter, name, rule) for name, rule in rules.items()}
    functions |= {name: meter.dtypes.get(np.dtype(name), np.dtype(name)) for name in DTYPES}
    library = like if meter.dtypes else np  # whose dtypes these are
    functions |= {name: getattr(library, name) for name in ("finfo", "iinfo", "isdtype")}
    functions["result_type"] = functools.partial(_called, meter)
    functions |= {name: getattr(like, name) for name in ("workspace", "fuses") if hasattr(like, name)}
    functions |= {"memo": {}} if hasattr(like, "memo") else {}
    lacking = (
        "no rule says what this function costs",
        "bpxp/backends/abstract/namespace.py that returns its result's shape",
    )
    return _ShapeNamespace(*lacking, **functions, _meter=meter)


class _ShapeNamespace(RuledNamespace):
    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except ShapeRuleError as error:  # hasattr would turn it into an answer
            self._meter.refused = self._meter.refused or error
            raise


def shape_of(a: Any, meter: Meter) -> ShapeArray:
    """Return the abstract array of an array of any library."""
    return new(meter, tuple(a.shape), dtype_name(a))


def as_dtype(dtype: Any) -> Any:
    """Return NumPy's dtype of this name in any library."""
    try:
        return np.dtype(dtype)
    except TypeError:
        return np.dtype(str(dtype).rpartition(".")[2])


def dtype_name(a: Any) -> str:
    """Return ``"float32"`` for an array of any library."""
    return str(getattr(a.dtype, "name", a.dtype)).rpartition(".")[2].lower()


def _noted(meter: Meter, name: str, rule: Callable[..., Any], /, *inputs: Any, **static: Any) -> Any:
    return noted(meter, name, rule, inputs, static)


def _called(meter: Meter, /, *operands: Any) -> Any:
    kind = _result_type(*operands)
    return meter.dtypes.get(kind, kind)


def _result_type(*operands: Any) -> Any:
    kinds = (a.kind if isinstance(a, ShapeArray) else a if type(a) in (int, float) else as_dtype(a) for a in operands)
    return np.result_type(*kinds)


# ---------------------------------------------------------------- elementwise


def _elementwise(meter: Meter, name: str, dtype: Any, /, *operands: Any) -> ShapeArray:
    if name in NO_NUMBERS and not all(isinstance(a, ShapeArray) for a in operands):
        raise InvalidTypeError(
            f"xp.{name}", "a Python number among the operands", code="E027", fix="xp.full((), number, …)"
        )
    return elementwise(meter, name, operands, dtype)


def _where(meter: Meter, condition: ShapeArray, a: Any, b: Any, /) -> ShapeArray:
    arrays, shape = broadcast("where", (condition, a, b))
    kind = _result_type(*(x for x in (a, b) if isinstance(x, ShapeArray)))
    return _done(meter, "where", arrays, new(meter, shape, kind, arrays))


def _astype(meter: Meter, x: ShapeArray, dtype: Any, /, *, copy: bool = True) -> ShapeArray:
    kind = as_dtype(dtype)
    if not copy and x.kind == kind:
        return x
    return _done(meter, "astype", [x], new(meter, x.shape, kind, [x]))


def _done(meter: Meter, name: str, read: Sequence[ShapeArray], result: ShapeArray) -> ShapeArray:
    """Count an operation that reads all of some arrays and writes another."""
    meter.record(name, sum(a.touched for a in read) + result.touched)
    return result


def _reduce(
    meter: Meter, name: str, kind: Any, x: ShapeArray, /, *, axis: Any = None, keepdims: bool = False, dtype: Any = None
) -> ShapeArray:
    axes = range(x.ndim) if axis is None else [_axis(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))]
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keepdims or i not in axes)
    if dtype is None:
        dtype = kind or (np.int64 if name in ("sum", "prod") and x.kind.kind == "i" else x.kind)
    return _done(meter, name, [x], new(meter, kept, as_dtype(dtype)))


def _axis(axis: int, ndim: int) -> int:
    if not -ndim <= axis < ndim:
        raise InvalidValueError("axis", "there is no such axis", code="E027", got=str(axis), expected=f"one of {ndim}")
    return axis % ndim


def _matmul(meter: Meter, a: ShapeArray, b: ShapeArray, /) -> ShapeArray:
    (m, k), (rows, n) = a.shape[-2:], b.shape[-2:]
    if k != rows:
        raise InvalidValueError("xp.matmul", "the shapes do not fit", code="E027", got=f"{a.shape} and {b.shape}")
    lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    result = new(meter, (*lead, m, n), _result_type(a, b))
    meter.matmuls.append((m, k, n))
    meter.record("matmul", a.touched + b.touched + result.touched, 2 * k * result.size)
    return result


# ---------------------------------------------------------------- creation and manipulation


def _made(meter: Meter, name: str, shape: int | Shape, /, *_: Any, dtype: Any) -> ShapeArray:
    made = new(meter, (shape,) if isinstance(shape, int) else tuple(shape), as_dtype(dtype))
    return made if name == "empty" else _done(meter, name, [], made)


def _like(meter: Meter, name: str, x: ShapeArray, /, *_: Any, dtype: Any = None) -> ShapeArray:
    made = new(meter, x.shape, x.kind if dtype is None else as_dtype(dtype), [x])
    return made if name == "empty_like" else _done(meter, name, [], made)


def _arange(meter: Meter, start: float, stop: float | None = None, step: float = 1, /, *, dtype: Any) -> ShapeArray:
    start, stop = (0, start) if stop is None else (start, stop)
    made = new(meter, (max(0, math.ceil((stop - start) / step)),), as_dtype(dtype))
    return _done(meter, "arange", [], made)


def _linspace(meter: Meter, start: float, stop: float, num: int, /, *, dtype: Any) -> ShapeArray:
    return _done(meter, "linspace", [], new(meter, (num,), as_dtype(dtype)))


def _eye(meter: Meter, rows: int, columns: int | None = None, /, *, dtype: Any) -> ShapeArray:
    return _done(meter, "eye", [], new(meter, (rows, rows if columns is None else columns), as_dtype(dtype)))


def _asarray(meter: Meter, a: Any, /, *, dtype: Any = None, copy: bool | None = None) -> ShapeArray:
    if isinstance(a, ShapeArray):
        return _astype(meter, a, a.kind if dtype is None else dtype, copy=bool(copy))
    kind = np.asarray(a).dtype if dtype is None else as_dtype(dtype)
    return _done(meter, "asarray", [], new(meter, np.shape(a), kind))


def _reshape(meter: Meter, x: ShapeArray, /, shape: Shape, *, copy: bool | None = None) -> ShapeArray:
    known = math.prod(n for n in shape if n > 0)
    shape = tuple(x.size // known if n < 0 else n for n in shape)
    if math.prod(shape) != x.size:
        raise InvalidValueError("xp.reshape", "another size", code="E027", got=f"{x.shape} to {shape}")
    strides = None if copy else reshaped(x, shape)
    if strides is not None:
        return x.view(shape, strides)
    return _done(meter, "reshape", [x], new(meter, shape, x.kind))


def _take(meter: Meter, x: ShapeArray, indices: ShapeArray, /, *, axis: int = 0) -> ShapeArray:
    axis = _axis(axis, x.ndim)
    result = new(meter, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]), x.kind)
    return _gathered(meter, "take", indices, result)


def _take_along_axis(meter: Meter, x: ShapeArray, indices: ShapeArray, /, *, axis: int = -1) -> ShapeArray:
    return _gathered(meter, "take_along_axis", indices, new(meter, indices.shape, x.kind))


def _gathered(meter: Meter, name: str, indices: ShapeArray, result: ShapeArray) -> ShapeArray:
    """Count a gather, which reads as much of the source as it writes."""
    meter.record(name, indices.touched + 2 * result.touched)
    return result


def _concat(meter: Meter, arrays: Sequence[ShapeArray], /, *, axis: int = 0) -> ShapeArray:
    first, axis = arrays[0], _axis(axis, arrays[0].ndim)
    for a in arrays:
        if a.shape[:axis] + a.shape[axis + 1 :] != first.shape[:axis] + first.shape[axis + 1 :]:
            raise InvalidValueError(
                "xp.concat", "the shapes do not fit", code="E027", got=f"{first.shape} and {a.shape}"
            )
    shape = (*first.shape[:axis], sum(a.shape[axis] for a in arrays), *first.shape[axis + 1 :])
    return _done(meter, "concat", arrays, new(meter, shape, _result_type(*arrays), arrays))


def _stack(meter: Meter, arrays: Sequence[ShapeArray], /, *, axis: int = 0) -> ShapeArray:
    first = arrays[0]
    if any(a.shape != first.shape for a in arrays):
        raise InvalidValueError(
            "xp.stack", "the shapes differ", code="E027", got=", ".join(str(a.shape) for a in arrays)
        )
    parts = [_expand_dims(a, axis=axis) for a in arrays]
    axis = _axis(axis, first.ndim + 1)
    shape = (*first.shape[:axis], len(arrays), *first.shape[axis:])
    return _done(meter, "stack", arrays, new(meter, shape, _result_type(*arrays), parts))


def _tile(meter: Meter, x: ShapeArray, repetitions: Shape, /) -> ShapeArray:
    ndim = max(x.ndim, len(repetitions))
    own, times = ((1,) * (ndim - len(part)) + tuple(part) for part in (x.shape, repetitions))
    shape = tuple(n * r for n, r in zip(own, times, strict=True))
    return _done(meter, "tile", [x], new(meter, shape, x.kind))


def _moved(meter: Meter, name: str, x: ShapeArray, /, *_: Any, **__: Any) -> ShapeArray:
    return _done(meter, name, [x], new(meter, x.shape, np.int64 if name == "argsort" else x.kind))


BY_NAME: dict[str, Callable[..., ShapeArray]] = {  # rules of several functions, which are given the name
    **dict.fromkeys("empty full ones zeros".split(), _made),
    **dict.fromkeys("empty_like full_like ones_like zeros_like".split(), _like),
    **dict.fromkeys("argsort cumulative_sum roll sort tril triu".split(), _moved),
}
RULES: dict[str, Callable[..., ShapeArray]] = {
    "arange": _arange,
    "asarray": _asarray,
    "astype": _astype,
    "concat": _concat,
    "eye": _eye,
    "linspace": _linspace,
    "matmul": _matmul,
    "reshape": _reshape,
    "stack": _stack,
    "take": _take,
    "take_along_axis": _take_along_axis,
    "tile": _tile,
    "where": _where,
}


# ---------------------------------------------------------------- views


def _permute_dims(x: ShapeArray, /, axes: Shape) -> ShapeArray:
    return x.view(tuple(x.shape[a] for a in axes), tuple(x.strides[a] for a in axes))


def _matrix_transpose(x: ShapeArray, /) -> ShapeArray:
    return _permute_dims(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def _moveaxis(x: ShapeArray, source: int, destination: int, /) -> ShapeArray:
    axes = [i for i in range(x.ndim) if i != _axis(source, x.ndim)]
    axes.insert(_axis(destination, x.ndim), _axis(source, x.ndim))
    return _permute_dims(x, tuple(axes))


def _expand_dims(x: ShapeArray, /, *, axis: int = 0) -> ShapeArray:
    axis = _axis(axis, x.ndim + 1)
    return x.view((*x.shape[:axis], 1, *x.shape[axis:]), (*x.strides[:axis], 0, *x.strides[axis:]))


def _flip(x: ShapeArray, /, *, axis: int | Shape | None = None) -> ShapeArray:
    axes = range(x.ndim) if axis is None else [_axis(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))]
    return x.view(x.shape, tuple(-stride if i in axes else stride for i, stride in enumerate(x.strides)))


def _squeeze(x: ShapeArray, /, axis: int | Shape) -> ShapeArray:
    gone = {_axis(a, x.ndim) for a in (axis if isinstance(axis, tuple) else (axis,))}
    kept = [i for i in range(x.ndim) if i not in gone]
    return x.view(tuple(x.shape[i] for i in kept), tuple(x.strides[i] for i in kept))


def _broadcast_to(x: ShapeArray, /, shape: Shape) -> ShapeArray:
    own = (1,) * (len(shape) - x.ndim) + x.shape
    if len(own) != len(shape) or any(n not in (1, wanted) for n, wanted in zip(own, shape, strict=True)):
        raise InvalidValueError("xp.broadcast_to", "the shapes do not fit", code="E027", got=f"{x.shape} to {shape}")
    strides = tuple(0 if n == 1 else stride for n, stride in zip(x.shape, x.strides, strict=True))
    return x.view(tuple(shape), (0,) * (len(shape) - x.ndim) + strides)


# ---------------------------------------------------------------- kernels that a backend may have


def _threefry(meter: Meter, k0: ShapeArray, k1: ShapeArray, c0: ShapeArray, c1: ShapeArray, /) -> Any:
    words = [new(meter, c0.shape, np.int32) for _ in range(2)]
    meter.record("threefry", sum(a.touched for a in (k0, k1, c0, c1, *words)))
    return tuple(words)


KERNEL_RULES: dict[str, Callable[..., Any]] = {"threefry": _threefry}
