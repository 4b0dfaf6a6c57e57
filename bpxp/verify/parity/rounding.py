"""Running error analysis: float64 values, each with a bound of its distance from another arithmetic's value.

Each operation computes its value in float64, and beside it the largest distance of the result in float32, say: the
errors of the operands, propagated, plus the rounding of the operation itself. N. Higham, *Accuracy and Stability of
Numerical Algorithms*, 2nd edition, sections 2.2, 3.1 and 3.3.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.backends import Backend
from bpxp.backends.precision import ROUNDOFF

REFERENCE = 2.0**-53  # the values themselves are rounded, too
# In units of the roundoff u, half a unit in the last place. IEEE 754 rounds + - * correctly. Compilers for GPUs may
# divide and take roots to two units in the last place; exp, log, tanh … are held to four by the libraries that say
# anything.
QUOTIENT, ELEMENTARY = 4.0, 8.0
DEVIATIONS = 6.0  # of the estimate: how many standard deviations a sum of n roundings is allowed, as √n goes


@dataclass(frozen=True)
class Arithmetic:
    """The rounding of one arithmetic.

    Parameters
    ----------
    dtype : {"float32", "float64"}
    matmul : {"float32", "tf32", "bfloat16", "float16"}, optional
        Of the operands of matrix products.
    statistical : bool, optional
        A sum of n numbers is wrong by at most γ_n = n u/(1 - n u) of what their magnitudes add up to: a bound, in any
        order of summation. True takes 6 √n u where that is less: an estimate, right with overwhelming probability if
        roundings are independent and have mean 0 (Higham and Mary, *A new approach to probabilistic rounding error
        analysis*, SIAM J. Sci. Comput. 41, 2019). Propagated errors are worst-case in both.
    """

    dtype: str
    matmul: str = "float32"
    statistical: bool = False

    @property
    def u(self) -> float:
        """Roundoff: the largest relative error of a number that is rounded to the nearest."""
        return float(np.finfo(self.dtype).eps) / 2.0

    @property
    def tiny(self) -> float:
        """Below it numbers lose digits, or become 0 where a device flushes them."""
        return float(np.finfo(self.dtype).smallest_normal)

    @property
    def top(self) -> float:
        """The largest number: what may be beyond it may be infinite."""
        return float(np.finfo(self.dtype).max)

    @property
    def once(self) -> float:
        """Relative difference that a single correctly rounded operation makes between the two."""
        return self.u + REFERENCE

    def summed(self, n: int) -> float:
        """Return the same of a sum of n products, relative to the sum of the magnitudes."""
        n = max(n, 1)
        worst = n * self.once / (1.0 - n * self.once)
        return min(worst, DEVIATIONS * n**0.5 * self.once) if self.statistical else worst

    def constant(self, value: float) -> float:
        """Return how far the arithmetic's own constant is from a Python number: 0 if it has that number."""
        return 0.0 if float(np.dtype(self.dtype).type(value)) == value or value != value else self.u * abs(value)

    def operand(self, size: np.ndarray) -> np.ndarray | float:
        """Return how far the operand of a matrix product is from what it was, from an upper bound of its magnitude."""
        if self.dtype != "float32" or self.matmul == "float32":
            return 0.0
        lost = ROUNDOFF[self.matmul] * size
        if self.matmul == "float16":  # scaled to at most 1 first, and back; it ends at 2^-24
            lost = lost + (2.0**-24 + 2.0 * QUOTIENT * self.u) * np.max(size, initial=0.0)
        return np.asarray(lost)


def arithmetic(backend: Backend, dtype: str, statistical: bool = False) -> Arithmetic:
    """Return what a backend does to numbers: in matrix products it may round the operands."""
    return Arithmetic(dtype, backend.matmul, statistical)


def as_rounded(a: Any, rules: Arithmetic) -> Rounded:
    """Return an array with its bound; one that has none, such as integers, is exact."""
    return a if isinstance(a, Rounded) else Rounded(np.asarray(a).astype(np.float64), None, rules)


class Rounded:
    """An array: values v, and how far the other arithmetic's can be from them.

    v is float64, or bool for the result of a comparison. e is the bound of the distance, of the shape of v; None is 0.
    Of a bool it is 1 where the other arithmetic may disagree.
    """

    __slots__ = ("e", "rules", "v")
    __array_ufunc__ = None  # NumPy's operators defer to this class
    __hash__ = object.__hash__

    def __init__(self, v: Any, e: Any, rules: Arithmetic) -> None:
        self.v = np.asarray(v)
        self.e = None if e is None else np.broadcast_to(e, self.v.shape)
        if self.e is not None and self.v.dtype.kind == "f" and not np.max(self.largest, initial=0.0) <= rules.top:
            self.e = np.where(self.largest <= rules.top, self.e, np.inf)  # it may overflow there
        self.rules = rules

    shape = property(lambda self: self.v.shape)
    dtype = property(lambda self: self.v.dtype)
    ndim = property(lambda self: self.v.ndim)
    size = property(lambda self: self.v.size)

    @property
    def bound(self) -> np.ndarray:
        """The distance as an array, 0 where there is none."""
        return np.zeros(self.v.shape) if self.e is None else self.e

    @property
    def largest(self) -> np.ndarray:
        """The largest magnitude that the number can have in the other arithmetic."""
        magnitude: np.ndarray = np.abs(self.v)
        return magnitude if self.e is None else magnitude + self.e

    def __getitem__(self, index: Any) -> Rounded:
        return Rounded(self.v[index], None if self.e is None else self.e[index], self.rules)

    def __neg__(self) -> Rounded:
        return Rounded(-self.v, self.e, self.rules)

    def __abs__(self) -> Rounded:
        return Rounded(np.abs(self.v), self.e, self.rules)

    def __invert__(self) -> Rounded:
        return Rounded(~self.v, self.e, self.rules)

    def like(self, other: Any) -> Rounded:
        """Return another operand as such an array; a Python number is rounded to the arithmetic."""
        if isinstance(other, Rounded):
            return other
        if isinstance(other, (int, float)):
            lost = self.rules.constant(float(other))
            return Rounded(np.float64(other), lost or None, self.rules)
        return Rounded(np.asarray(other, dtype=np.float64), None, self.rules)


def carried(v: np.ndarray, e: Any, rules: Arithmetic, units: float = 1.0, floor: bool = False) -> Rounded:
    """Return the result v of an operation, with the propagated error e and the rounding of the operation itself.

    e says how far the exact result of the other arithmetic's operands is from v; the rounding is in `units` of the
    roundoff; with `floor` the result may be so small that digits are lost.
    """
    e = e + units * rules.once * (np.abs(v) + e)
    return Rounded(v, e + rules.tiny if floor else e, rules)


def shares(a: np.ndarray, b: np.ndarray, bound: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return difference, bound, and their quotient, entry by entry.

    The share of an infinite bound is 0; that of NaN on one side alone is infinite.
    """
    with np.errstate(all="ignore"):
        same = (a == b) | (np.isnan(a) & np.isnan(b))
        difference = np.where(same, 0.0, np.abs(np.asarray(a, dtype=np.float64) - b))
        bound = np.where(np.isnan(bound), np.inf, bound)
        share = np.where(same, 0.0, difference / bound)
        share = np.where(np.isinf(bound), 0.0, np.where(np.isnan(share), np.inf, share))
    return difference, bound, share


def _bound(a: Rounded) -> Any:
    return 0.0 if a.e is None else a.e


def add(a: Rounded, b: Rounded) -> Rounded:
    """Return a + b."""
    return carried(a.v + b.v, _bound(a) + _bound(b), a.rules)


def subtract(a: Rounded, b: Rounded) -> Rounded:
    """Return a - b."""
    return carried(a.v - b.v, _bound(a) + _bound(b), a.rules)


def multiply(a: Rounded, b: Rounded) -> Rounded:
    """Return a b."""
    ea, eb = _bound(a), _bound(b)
    e = np.abs(a.v) * eb + np.abs(b.v) * ea + ea * eb
    whole = any(x.ndim == 0 and x.e is None and abs(np.frexp(x.v)[0]) in (0.0, 0.5) for x in (a, b))  # a power of two
    return carried(a.v * b.v, e, a.rules, 0.0 if whole else 1.0, floor=True)


def divide(a: Rounded, b: Rounded) -> Rounded:
    """Return a/b; where the divisor may be 0, the bound is infinite."""
    v, size = a.v / b.v, np.abs(b.v) - _bound(b)
    e = (_bound(a) + np.abs(v) * _bound(b)) / np.where(size > 0.0, size, np.nan)
    return carried(v, np.where(size > 0.0, e, np.inf), a.rules, QUOTIENT, floor=True)


def power(a: Rounded, b: Rounded) -> Rounded:
    """Return a^b for a > 0, which is monotone in each."""
    ea, eb = _bound(a), _bound(b)
    v = a.v**b.v
    corners = [np.abs(np.maximum(a.v + s * ea, 0.0) ** (b.v + t * eb) - v) for s in (-1, 1) for t in (-1, 1)]
    return carried(v, np.max(np.stack(corners), axis=0), a.rules, 2.0 * ELEMENTARY, floor=True)


def compared(answer: Callable[[Any, Any], Any], a: Rounded, b: Rounded) -> Rounded:
    """Return the result of a comparison, in doubt where the two may disagree."""
    reach = _bound(a) + _bound(b)
    doubt = (np.abs(a.v - b.v) <= reach) & (reach > 0.0)
    return Rounded(answer(a.v, b.v), doubt.astype(np.float64) if np.any(doubt) else None, a.rules)


def _operator(function: Callable[[Rounded, Rounded], Rounded]) -> Callable[[Rounded, Any], Rounded]:
    return lambda self, other: function(self, self.like(other))


def _reflected(function: Callable[[Rounded, Rounded], Rounded]) -> Callable[[Rounded, Any], Rounded]:
    return lambda self, other: function(self.like(other), self)


ARITHMETIC = {"add": add, "sub": subtract, "mul": multiply, "truediv": divide, "pow": power}
COMPARISONS = {name: getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")}

# There is no in-place operator: `a += b` makes a new array, as with JAX.
for _name, _function in ARITHMETIC.items():
    setattr(Rounded, f"__{_name}__", _operator(_function))
    setattr(Rounded, f"__r{_name}__", _reflected(_function))
for _name, _answer in COMPARISONS.items():
    setattr(Rounded, f"__{_name}__", _operator(functools.partial(compared, _answer)))
