"""The namespace of arrays with error bounds: the same mathematics runs in it, and returns how far a backend can be off.

Its values are those of float64; beside each stands the bound of `bpxp.verify.parity.rounding`. Integers are exact.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from bpxp.backends import Backend
from bpxp.backends.base import CONSTANTS, DTYPES, RuledNamespace
from bpxp.backends.numpy.threefry import threefry
from bpxp.core.tree import tree_map
from bpxp.verify.parity import rounding
from bpxp.verify.parity.rounding import ELEMENTARY, QUOTIENT, REFERENCE, Arithmetic, Rounded, carried

# They move values, and their bounds along.
MOVED = """
broadcast_to concat expand_dims flip matrix_transpose moveaxis permute_dims repeat reshape roll squeeze stack take
take_along_axis tile tril triu
""".split()
# Increasing functions: the ends of the operand's interval give the bound.
INCREASING = "asinh atan exp exp2 expm1 log log10 log1p log2 sinh sqrt tanh".split()
NAMES = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}


def bounded_namespace(rules: Arithmetic) -> Any:
    """Return the namespace whose arrays are float64, with the distance that another arithmetic can have from them."""
    functions: dict[str, Any] = {name: getattr(np, name) for name in CONSTANTS}
    functions |= {name: np.dtype(name) for name in DTYPES}
    functions |= {"finfo": np.finfo, "iinfo": np.iinfo, "isdtype": np.isdtype, "threefry": threefry}
    functions |= {name: functools.partial(_moved, rules, getattr(np, name)) for name in MOVED}
    functions |= {name: functools.partial(_increasing, getattr(np, name)) for name in INCREASING}
    for name, answer in rounding.COMPARISONS.items():
        functions[NAMES[name]] = functools.partial(_either, functools.partial(rounding.compared, answer), answer)
    for name in ("add", "subtract", "multiply", "divide"):
        functions[name] = functools.partial(_either, getattr(rounding, name), getattr(np, name))
    functions |= {name: functools.partial(_made, rules, getattr(np, name)) for name in CREATED}
    functions |= {name: functools.partial(rule, rules) for name, rule in WITH_RULES.items()}
    # One block, whatever a backend takes: a sum in pieces has the bound of the whole.
    lacking, where = (
        "it has no rule for rounding errors",
        "bpxp/verify/parity/error_bounds.py that returns its result's bound",
    )
    return RuledNamespace(lacking, where, **functions, **RULES, workspace=1 << 50)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence NumPy's warnings: infinite values and bounds are answers, too."""
    with np.errstate(all="ignore"):
        yield


def exact(tree: Any, backend: Backend, rules: Arithmetic) -> Any:
    """Return a tree of a backend's arrays as exact float64 numbers; integers, flags and None as they are."""

    def take(a: Any) -> Any:
        if a is None or isinstance(a, (bool, int, float)):
            return a
        host = np.array(backend.to_numpy(a))
        return Rounded(host.astype(np.float64), None, rules) if host.dtype.kind == "f" else host

    return tree_map(take, tree)


# ---------------------------------------------------------------- made and moved


def _wrapped(rules: Arithmetic, a: Any) -> Any:
    """Return floating values as such an array, and others as they are."""
    return Rounded(a.astype(np.float64), None, rules) if a.dtype.kind == "f" else a


def _made(rules: Arithmetic, function: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
    return _wrapped(rules, function(*args, **options))


def _full(rules: Arithmetic, shape: Any, value: float, /, *, dtype: Any) -> Any:
    made = _wrapped(rules, np.full(shape, value, dtype=dtype))
    if isinstance(made, Rounded) and (lost := rules.constant(float(value))):
        return Rounded(made.v, lost, rules)
    return made


def _asarray(rules: Arithmetic, a: Any, /, *, dtype: Any = None, copy: bool | None = None) -> Any:
    return _astype(rules, a, dtype or a.dtype) if isinstance(a, Rounded) else _wrapped(rules, np.array(a, dtype=dtype))


def _like(value: float) -> Callable[..., Any]:
    def create(rules: Arithmetic, a: Any, /, *, dtype: Any = None) -> Any:
        return _wrapped(rules, np.full(a.shape, value, dtype=dtype or a.dtype))

    return create


def _astype(rules: Arithmetic, a: Any, dtype: Any, /, *, copy: bool = True) -> Any:
    if not isinstance(a, Rounded):
        return _wrapped(rules, a.astype(dtype))
    return Rounded(a.v.astype(np.float64), a.e, rules) if np.dtype(dtype).kind == "f" else a.v.astype(dtype)


def _moved(rules: Arithmetic, function: Callable[..., Any], a: Any, /, *args: Any, **options: Any) -> Any:
    parts = a if isinstance(a, (list, tuple)) else [a]
    if not any(isinstance(part, Rounded) for part in parts):
        return _wrapped(rules, function(a, *args, **options))
    lifted = [part if isinstance(part, Rounded) else Rounded(part, None, rules) for part in parts]
    several = parts is a
    v = function([part.v for part in lifted] if several else lifted[0].v, *args, **options)
    if all(part.e is None for part in lifted):
        return Rounded(v, None, rules)
    return Rounded(v, function([part.bound for part in lifted] if several else lifted[0].e, *args, **options), rules)


def _where(rules: Arithmetic, condition: Any, a: Any, b: Any, /) -> Any:
    if not any(isinstance(x, Rounded) for x in (condition, a, b)):
        return _wrapped(rules, np.where(condition, a, b))
    a, b = (Rounded(0.0, None, rules).like(x) for x in (a, b))
    if not isinstance(condition, Rounded):
        condition = Rounded(condition, None, rules)
    v, e = np.where(condition.v, a.v, b.v), np.where(condition.v, a.bound, b.bound)
    if condition.e is not None:
        e = np.where(condition.e > 0.0, np.abs(a.v - b.v) + np.maximum(a.bound, b.bound), e)
    return Rounded(v, e, rules)


# ---------------------------------------------------------------- numbers for numbers


def _either(function: Callable[..., Any], plain: Callable[..., Any], a: Any, b: Any, /) -> Any:
    if isinstance(a, Rounded):
        return function(a, a.like(b))
    return function(b.like(a), b) if isinstance(b, Rounded) else plain(a, b)


def _increasing(function: Callable[..., Any], a: Rounded, /) -> Rounded:
    v = function(a.v)
    units = QUOTIENT if function is np.sqrt else ELEMENTARY
    if a.e is None:
        return carried(v, 0.0, a.rules, units, floor=True)
    low, high = np.nextafter(a.v - a.e, -np.inf), np.nextafter(a.v + a.e, np.inf)  # the ends are rounded, too
    if function is np.sqrt:
        low = np.maximum(low, 0.0)
    ends = np.maximum(function(high) - v, v - function(low)) + 2.0 * ELEMENTARY * REFERENCE * np.abs(v)
    return carried(v, np.where(np.isnan(ends), np.inf, ends), a.rules, units, floor=True)


def _bounded_by_operand(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose slope is never more than 1."""
    return lambda a: carried(function(a.v), 0.0 if a.e is None else a.e, a.rules, ELEMENTARY, floor=True)


def _extremum(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return maximum or minimum of two: its error is at most the larger of both."""

    def largest(a: Any, b: Any, /) -> Any:
        if not (isinstance(a, Rounded) or isinstance(b, Rounded)):
            return function(a, b)
        a, b = (a, a.like(b)) if isinstance(a, Rounded) else (b.like(a), b)
        e = None if a.e is None and b.e is None else np.maximum(a.bound, b.bound)
        return Rounded(function(a.v, b.v), e, a.rules)

    return largest


def _logaddexp(a: Rounded, b: Rounded, /) -> Rounded:
    return carried(np.logaddexp(a.v, b.v), np.maximum(a.bound, b.bound), a.rules, 2.0 * ELEMENTARY, floor=True)


def _stairs(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return floor, round, …: exact, unless the interval contains a jump."""

    def step(a: Any, /) -> Any:
        if not isinstance(a, Rounded):
            return function(a)
        v = function(a.v)
        e = None if a.e is None else np.maximum(function(a.v + a.e) - v, v - function(a.v - a.e))
        return Rounded(v, e, a.rules)

    return step


def _logical(function: Callable[..., Any]) -> Callable[..., Any]:
    def combine(*answers: Any) -> Any:
        given = [a for a in answers if isinstance(a, Rounded)]
        v = function(*(a.v if isinstance(a, Rounded) else a for a in answers))
        doubts = [a.e for a in given if a.e is not None]
        if not given:
            return v
        return Rounded(v, functools.reduce(np.maximum, doubts) if doubts else None, given[0].rules)

    return combine


def _asked(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, /, **options: function(a.v if isinstance(a, Rounded) else a, **options)


# ---------------------------------------------------------------- many numbers to one


def _count(shape: tuple[int, ...], axis: Any) -> int:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return math.prod(shape[i] for i in axes)


def _sum(a: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    if not isinstance(a, Rounded):
        return np.asarray(np.sum(a, axis=axis, dtype=dtype, keepdims=keepdims))
    total = functools.partial(np.sum, axis=axis, keepdims=keepdims)
    rounded = _rounded(a.rules, _count(a.shape, axis) - 1, total(a.largest))
    return Rounded(total(a.v), (0.0 if a.e is None else total(a.e)) + rounded, a.rules)


def _rounded(rules: Arithmetic, n: int, magnitudes: np.ndarray) -> np.ndarray:
    """Return the rounding of a sum of n terms, from the sum of their magnitudes; infinite where it may overflow."""
    return np.where(magnitudes <= rules.top, rules.summed(n) * magnitudes, np.inf)


def _mean(a: Rounded, /, *, axis: Any = None, keepdims: bool = False) -> Rounded:
    total: Rounded = _sum(a, axis=axis, keepdims=keepdims)
    return rounding.divide(total, total.like(_count(a.shape, axis)))


def _of_all(function: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(a: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
        if not isinstance(a, Rounded):
            return np.asarray(function(a, axis=axis, keepdims=keepdims))
        e = None if a.e is None else np.max(a.e, axis=axis, keepdims=keepdims)
        return Rounded(function(a.v, axis=axis, keepdims=keepdims), e, a.rules)

    return reduce


def _matmul(a: Rounded, b: Rounded, /) -> Rounded:
    """|fl(A B) - A B| <= |A| E_B + E_A (|B| + E_B) + γ_n (|A| + E_A)(|B| + E_B)."""
    rules, product = a.rules, np.matmul
    lost_a, lost_b = rules.operand(a.largest), rules.operand(b.largest)
    ea, eb = _with(a.e, lost_a), _with(b.e, lost_b)
    size_a, size_b = _with(np.abs(a.v), ea), _with(np.abs(b.v), eb)
    e = _rounded(rules, a.shape[-1], product(size_a, size_b)) + a.shape[-1] * rules.tiny
    if eb is not None:
        e = e + product(np.abs(a.v), eb)
    if ea is not None:
        e = e + product(ea, size_b)
    return Rounded(product(a.v, b.v), e, rules)


def _with(a: Any, b: Any) -> Any:
    """Return the sum of two bounds, either of which may be None."""
    if a is None:
        return None if isinstance(b, float) and b == 0.0 else b
    return a if b is None or (isinstance(b, float) and b == 0.0) else a + b


CREATED = ("arange", "eye", "linspace", "ones", "zeros", "empty")
WITH_RULES: dict[str, Callable[..., Any]] = {
    "asarray": _asarray,
    "astype": _astype,
    "full": _full,
    "where": _where,
    **{"empty_like": _like(0.0), "ones_like": _like(1.0), "zeros_like": _like(0.0)},
}
RULES: dict[str, Callable[..., Any]] = {
    "abs": operator.abs,
    "logaddexp": _logaddexp,
    "matmul": _matmul,
    "mean": _mean,
    "negative": operator.neg,
    "pow": lambda a, b, /: rounding.power(a, a.like(b)),
    "square": lambda a, /: rounding.multiply(a, a),
    "sum": _sum,
    **{name: _asked(getattr(np, name)) for name in ("argmax", "argmin", "isfinite", "isinf", "isnan")},
    **{name: _bounded_by_operand(getattr(np, name)) for name in ("cos", "sin")},
    **{name: _extremum(getattr(np, name)) for name in ("maximum", "minimum")},
    **{name: _logical(getattr(np, name)) for name in ("logical_and", "logical_not", "logical_or")},
    **{name: _of_all(getattr(np, name)) for name in ("max", "min")},
    **{name: _stairs(getattr(np, name)) for name in ("ceil", "floor", "round", "trunc")},
}
