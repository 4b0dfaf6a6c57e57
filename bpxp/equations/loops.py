"""Equations run as slow loops: one entry after the other, in float64, written for clarity alone."""

from __future__ import annotations

import itertools
import math
import operator as op
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bpxp.equations.equations import Equations
from bpxp.equations.notation import (
    Binary,
    Bracket,
    Call,
    Comparison,
    Count,
    Negative,
    Node,
    Not,
    Number,
    Reduction,
    Reference,
    is_index,
    references,
)
from bpxp.errors import EquationError

Functions = dict[str, Callable[..., float]]
FUNCTIONS: Functions = {
    "exp": math.exp,
    "log": math.log,
    "sqrt": math.sqrt,
    "abs": abs,
    "sign": lambda a: float((a > 0.0) - (a < 0.0)),
    "floor": math.floor,
    "cos": math.cos,
    "tanh": math.tanh,
    "sigma": lambda a: 1.0 / (1.0 + math.exp(-a)),
    "Phi": lambda a: 0.5 * math.erfc(-a / math.sqrt(2.0)),
    "phi": lambda a: math.exp(-0.5 * a * a) / math.sqrt(2.0 * math.pi),
    "max": max,
    "min": min,
}
OPERATORS: Functions = {"+": op.add, "-": op.sub, "*": op.mul, "/": op.truediv, "^": op.pow}
COMPARISONS: Functions = {"<": op.lt, "<=": op.le, ">": op.gt, ">=": op.ge, "==": op.eq, "!=": op.ne}
Index = dict[str, int]
Asked = tuple[tuple[Node, ...], ...]  # conditions, by how many indices must be known to answer them


def evaluate(
    equations: Equations,
    given: Mapping[str, Any],
    /,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, np.ndarray]:
    """Compute what the equations say, from the first to the last.

    Parameters
    ----------
    equations : Equations
    given : mapping
        Name → array or number, of everything that is not itself computed.
    shapes : mapping, optional
        Name → shape of results, where an index occurs alone only in them.

    Returns
    -------
    dict
        Name → array (float64), 0-d for a number; in the order of the equations.

    Raises
    ------
    EquationError
        An index has two ranges or none; a name has no value; a subscript is no integer; a function has no value there.

    Examples
    --------
    >>> from bpxp.equations import Equations
    >>> product = Equations(z="z[n,j] = sum_i x[n,i]*W[i,j]")
    >>> evaluate(product, {"x": [[1.0, 2.0]], "W": [[3.0], [4.0]]})["z"]
    array([[11.]])
    """
    loops = _Loops(equations, given, shapes or {})
    results = {}
    for name, equation in equations.items():
        try:
            results[equation.target.name] = loops.run(equation.target, equation.value)
        except (ArithmeticError, ValueError) as error:
            if isinstance(error, EquationError):
                raise
            raise _error(f"{name}: {equation.text!r}", f"it has no value here ({error})") from None
    return results


class _Outside(Exception):
    """An entry outside of its array was read, where that is not 0."""


class _Loops:
    """The values known so far, and the ranges of the indices."""

    def __init__(self, equations: Equations, given: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.values = {"pi": np.asarray(math.pi), **{name: np.asarray(value) for name, value in given.items()}}
        self.ranges = {index: self.whole(self.value(size, {})) for index, size in equations.ranges.items()}
        self.origin = dict.fromkeys(self.ranges, "its declaration")
        self._find_ranges(equations, {**{name: a.shape for name, a in self.values.items()}, **shapes})

    def _find_ranges(self, equations: Equations, shapes: dict[str, tuple[int, ...]]) -> None:
        """Give each index the range of the axes at which it stands alone; results get their shapes on the way."""
        before = -1
        while before < len(self.ranges) + len(shapes):
            before = len(self.ranges) + len(shapes)
            for equation in equations.values():
                for reference in itertools.chain([equation.target], references(equation.value)):
                    self._range_of_indices(reference, shapes)
                axes = [getattr(i, "name", "") for i in equation.target.indices]
                if all(axis in self.ranges for axis in axes):
                    shapes.setdefault(equation.target.name, tuple(self.ranges[axis] for axis in axes))

    def _range_of_indices(self, reference: Reference, shapes: dict[str, tuple[int, ...]]) -> None:
        shape = shapes.get(reference.name, ())
        if not (reference.indices and shape):  # a number with an index is the same for all of them
            return
        if len(shape) != len(reference.indices):
            raise _error(
                reference.name, "another number of axes", f"shape {shape}", f"{len(reference.indices)} axes, as written"
            )
        for axis, (index, size) in enumerate(zip(reference.indices, shape, strict=True)):
            if isinstance(index, Reference) and is_index(index.name) and not index.indices:
                if index.name in self.values:
                    continue
                here = f"axis {axis} of {reference.name}"
                if self.ranges.setdefault(index.name, size) != size:
                    there = f"{self.ranges[index.name]} by {self.origin[index.name]}"
                    raise _error(f"index {index.name}", "it has two ranges", f"{size} by {here}", there)
                self.origin.setdefault(index.name, here)

    def run(self, target: Reference, value: Node) -> np.ndarray:
        """Compute an array entry by entry, and remember it."""
        indices = tuple(index.name for index in target.indices if isinstance(index, Reference))
        result = np.zeros(tuple(self.range(index) for index in indices))
        for index in self.loop(indices, {}):
            result[tuple(index[name] for name in indices)] = self.value(value, index)
        self.values[target.name] = result
        return result

    def range(self, index: str) -> int:
        if index not in self.ranges:
            raise _error(f"index {index}", "nothing says how far it runs", "", "an array in which it stands alone")
        return self.ranges[index]

    def loop(self, indices: tuple[str, ...], index: Index, asked: Asked = ()) -> Iterator[Index]:
        """Yield the outer indices together with each value of these for which the conditions hold."""
        if not indices:
            yield index
            return
        now, later = (asked[0], asked[1:]) if asked else ((), ())
        for i in range(self.range(indices[0])):
            inner = {**index, indices[0]: i}
            if all(self.holds(condition, inner) for condition in now):
                yield from self.loop(indices[1:], inner, later)

    def value(self, node: Node, index: Index, outside: float | None = 0.0) -> float:
        """Return the value of a node; `outside` is what an array is beyond its shape, None: nothing at all."""
        match node:
            case Number(text):
                return float(text)
            case Reference(name, indices):
                return self.entry(name, indices, index, outside)
            case Negative(of):
                return -self.value(of, index, outside)
            case Binary("*"):
                factors = [*_factors(node)]
                if not all(self.value(factor, index) for factor in factors if isinstance(factor, Bracket)):
                    return 0.0
                return math.prod(self.value(f, index, outside) for f in factors if not isinstance(f, Bracket))
            case Binary(operator, left, right):
                return OPERATORS[operator](self.value(left, index, outside), self.value(right, index, outside))
            case Call(function, arguments):
                return FUNCTIONS[function](*(self.value(a, index, outside) for a in arguments))
            case Reduction(kind, indices, body):
                return self.reduce(kind, indices, body, index, outside)
            case Count(index_):
                return self.range(index_)
            case Bracket(conditions):
                return float(all(self.holds(condition, index) for condition in conditions))
            case _:
                raise AssertionError(node)

    def entry(self, name: str, indices: tuple[Node, ...], index: Index, outside: float | None) -> float:
        if name in index and not indices:
            return index[name]
        if name not in self.values:
            raise _error(name, "no value", "", f"an index of the left side or of a sum, or one of {[*self.values]}")
        array = self.values[name]
        if not array.ndim:
            return float(array)
        place = tuple(self.whole(self.value(i, index)) for i in indices)
        if len(place) != array.ndim:
            raise _error(name, "an entry needs an index for each axis", f"{len(place)} indices", f"{array.ndim}")
        if not all(0 <= i < size for i, size in zip(place, array.shape, strict=True)):
            if outside is None:
                raise _Outside
            return outside
        return float(array[place])

    def reduce(self, kind: str, indices: tuple[str, ...], body: Node, index: Index, outside: float | None) -> float:
        if kind in ("sum", "mean"):
            asked = _asked(indices, body) if kind == "sum" else ()
            terms = [self.value(body, inner, outside) for inner in self.loop(indices, index, asked)]
        else:
            loser = math.inf if kind == "min" else -math.inf
            terms = [self.candidate(body, inner, loser) for inner in self.loop(indices, index)]
        match kind:
            case "sum":
                return math.fsum(terms) if all(map(math.isfinite, terms)) else sum(terms)
            case "mean":
                return math.fsum(terms) / len(terms)
            case "argmax":
                return terms.index(max(terms))
            case _:
                return FUNCTIONS[kind](terms)

    def candidate(self, body: Node, index: Index, loser: float) -> float:
        """Return a candidate for the largest value; one that reads outside of an array never wins."""
        try:
            return self.value(body, index, None)
        except _Outside:
            return loser

    def holds(self, condition: Node, index: Index) -> bool:
        match condition:
            case Not(of):
                return not self.holds(of, index)
            case Comparison(operators, operands):
                values = [self.value(operand, index) for operand in operands]
                pairs = zip(operators, itertools.pairwise(values), strict=True)
                return all(COMPARISONS[operator](a, b) for operator, (a, b) in pairs)
            case _:
                return self.value(condition, index) != 0.0

    @staticmethod
    def whole(value: float) -> int:
        if value != int(value):
            raise _error("index", "not an integer", repr(value))
        return int(value)


def _factors(node: Node) -> Iterator[Node]:
    match node:
        case Binary("*", left, right):
            yield from _factors(left)
            yield from _factors(right)
        case _:
            yield node


def _asked(indices: tuple[str, ...], body: Node) -> Asked:
    """Return the conditions under which a term of a sum is not 0, each at the loop where its indices are known.

    The result is the same, with far fewer terms where a sum runs over all windows and a bracket selects some of them.
    """
    asked: list[list[Node]] = [[] for _ in indices]
    for factor in _factors(body):
        for condition in factor.conditions if isinstance(factor, Bracket) else ():
            named = {reference.name for reference in references(condition)}
            asked[max((k for k, index in enumerate(indices) if index in named), default=0)].append(condition)
    return tuple(map(tuple, asked))


def _error(where: str, what: str, got: str = "", expected: str = "") -> EquationError:
    return EquationError(where, what, code="E083", got=got, expected=expected)
