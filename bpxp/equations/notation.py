"""The index notation of `Equations`: its parser, and the tree that a line becomes.

From loose to tight:

==================================  ==================================================================================
``z[n,j] = …``, ``J = …``           an equation: one entry of an array, for every value of its indices; or a number
``a + b``, ``a - b``                sums
``sum_i …``, ``sum_{p,q} …``        reaches to the end of the product that follows, as Σ does in print:
                                    ``sum_i x[n,i]*W[i,j] + b[j]`` is (Σ_i x W) + b. So do ``mean_``, ``max_``, ``min_``
                                    and ``argmax_``, the place of the first maximum, counted row by row
``count_k``                         how many values the index k has; printed as K
``a * b``, ``a / b``                from left to right: ``a/b*c`` is (a/b) c
``-a``                              binds tighter than ``*``, looser than ``^``
``a ^ b``                           powers, from right to left
``[a < b]``                         Iverson's bracket: 1 where the condition holds, else 0, and then its other factors
                                    are not evaluated; with ``< <= > >= == !=``, chains, ``and``, ``not``
``exp(a)``, ``max(a, b)``, ``pi``   functions, see `FUNCTIONS`, and the constant
``x[n, s*p + i - P, c]``            an entry; an index may be computed, also from an entry: ``W[x[n], k]``. Outside of
                                    its shape an array is 0, and under ``max_`` it never wins
``p'``                              the value of p after an optimizer's step
==================================  ==================================================================================

An index is a single letter, and has one range throughout: that of every axis where it stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

from bpxp.errors import EquationError

# Name: number of arguments. sigma is 1/(1 + e^-z), Phi the distribution function of the standard normal distribution,
# and phi its density.
FUNCTIONS = dict.fromkeys("exp log sqrt abs sign floor cos tanh sigma Phi phi".split(), 1) | {"max": 2, "min": 2}
REDUCTIONS = ("sum", "mean", "max", "min", "argmax")
COMPARISONS = ("<=", ">=", "==", "!=", "<", ">")


@dataclass(frozen=True)
class Number:
    """A constant, with the digits that were written."""

    text: str


@dataclass(frozen=True)
class Reference:
    """An entry of an array, ``x[n,i]``; without indices a number, ``beta1``, or the value of an index."""

    name: str
    indices: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Negative:
    """Minus something."""

    of: Node


@dataclass(frozen=True)
class Binary:
    """One of ``+ - * / ^``."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True)
class Call:
    """A function of numbers."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Reduction:
    """Sum, mean, maximum, minimum or place of the maximum of the body over all values of the indices."""

    kind: str
    indices: tuple[str, ...]
    body: Node


@dataclass(frozen=True)
class Count:
    """How many values an index has."""

    index: str


@dataclass(frozen=True)
class Comparison:
    """A chain ``a <= b < c``: operators stand between operands."""

    operators: tuple[str, ...]
    operands: tuple[Node, ...]


@dataclass(frozen=True)
class Not:
    """The opposite of a condition."""

    of: Node


@dataclass(frozen=True)
class Bracket:
    """Iverson's bracket of conditions that must all hold; one that is no comparison holds where it is not 0."""

    conditions: tuple[Node, ...]


Node = Number | Reference | Negative | Binary | Call | Reduction | Count | Comparison | Not | Bracket


@dataclass(frozen=True)
class Equation:
    """``target = value``, and the line as it was written."""

    target: Reference
    value: Node
    text: str


def references(node: Any) -> Iterator[Reference]:
    """Yield the references in a tree, those within indices too."""
    if isinstance(node, tuple):
        for child in node:
            yield from references(child)
    elif hasattr(node, "__dataclass_fields__"):
        if isinstance(node, Reference):
            yield node
        for field in fields(node):
            yield from references(getattr(node, field.name))


def is_index(name: str) -> bool:
    """Return whether a name may be that of an index: a single letter."""
    return len(name) == 1 and name.isalpha()


def parse(line: str, where: str = "equation") -> Equation:
    """Read one line.

    Raises
    ------
    EquationError
        Says what was read, and what was expected.
    """
    equation: Equation = _Reader(line, where).whole(_Reader.equation)
    return equation


def parse_ranges(text: str, where: str = "ranges") -> dict[str, Node]:
    """Return how many values each index of ``"i < kernel[0], j < kernel[1]"`` has."""
    found = {}
    for part in filter(None, re.split(r",(?![^\[(]*[\])])", text)):
        index, less, size = part.strip().partition(" < ")
        if not (less and is_index(index)):
            raise _Reader(part, where).error("no range of an index", "'i < size'")
        found[index] = _Reader(size, where).whole(_Reader.sum)
    return found


TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d*)?(?:e[-+]?\d+)?)|([^\W\d]\w*'?)|(<=|>=|==|!=|[-+*/^()\[\]{},<>=]))")


class _Reader:
    """Reads a line from left to right, one method for each level of the notation."""

    def __init__(self, line: str, where: str) -> None:
        self.line, self.where, self.place = line, where, 0
        self.tokens: list[tuple[str, int]] = []  # and where each ends
        end = 0
        while found := TOKEN.match(line, end):
            end = found.end()
            self.tokens.append((found.group().strip(), end))
        if line[end:].strip():
            self.place = len(self.tokens)
            raise self.error(f"unknown character {line[end:].strip()[0]!r}")
        self.tokens.append(("", len(line)))

    @property
    def token(self) -> str:
        return self.tokens[self.place][0]

    def error(self, what: str, expected: str = "") -> EquationError:
        read = self.line[: self.tokens[self.place - 1][1]].strip() if self.place else ""
        rest = f"{self.token!r}" if self.place < len(self.tokens) and self.token else "the end"
        got = (f"{rest} after {read!r}" if read else f"{rest} at the start") if expected else ""
        return EquationError(f"{self.where}: {self.line!r}", what, code="E082", got=got, expected=expected)

    def take(self, *allowed: str) -> str:
        """Return the next token if it is one of these, else an empty string."""
        if self.token and self.token in allowed:
            self.place += 1
            return self.tokens[self.place - 1][0]
        return ""

    def need(self, token: str) -> None:
        if not self.take(token):
            raise self.error("not in the notation", f"{token!r}")

    def name(self, what: str) -> str:
        if not (self.token and (self.token[0].isalpha() or self.token[0] == "_")):
            raise self.error("not in the notation", what)
        self.place += 1
        return self.tokens[self.place - 1][0]

    def whole(self, rule: Any) -> Any:
        found = rule(self)
        if self.token:
            raise self.error("not in the notation", "an operator or the end")
        return found

    def equation(self) -> Equation:
        target = self.entry(self.name("the name of what is computed"))
        if not all(isinstance(i, Reference) and is_index(i.name) and not i.indices for i in target.indices):
            raise self.error(f"the indices of {target.name}, which is computed, must be single letters")
        self.need("=")
        return Equation(target, self.sum(), self.line.strip())

    def sum(self) -> Node:
        left = self.product()
        while operator := self.take("+", "-"):
            left = Binary(operator, left, self.product())
        return left

    def product(self) -> Node:
        left = self.factor()
        while operator := self.take("*", "/"):
            left = Binary(operator, left, self.factor())
        return left

    def factor(self) -> Node:
        if self.take("-"):
            return Negative(self.factor())
        kind, underscore, index = self.token.partition("_")
        if underscore and kind in REDUCTIONS and (is_index(index) or not index):
            self.place += 1
            return Reduction(kind, (index,) if index else self.braces(), self.product())
        if kind == "count" and is_index(index):
            self.place += 1
            return Count(index)
        base = self.atom()
        return Binary("^", base, self.factor()) if self.take("^") else base

    def braces(self) -> tuple[str, ...]:
        self.need("{")
        indices = self.list(lambda: self.name("an index"), "}")
        for index in indices:
            if not is_index(index):
                raise self.error(f"an index is a single letter, not {index!r}")
        return indices

    def atom(self) -> Node:
        if self.token[:1].isdigit():
            self.place += 1
            return Number(self.tokens[self.place - 1][0])
        if self.take("("):
            inner = self.sum()
            self.need(")")
            return inner
        if self.take("["):
            return Bracket(self.list(self.condition, "]", "and"))
        name = self.name("a number, a name, '(' or '['")
        return self.call(name) if self.take("(") else self.entry(name)

    def call(self, name: str) -> Node:
        if name not in FUNCTIONS:
            self.place -= 1
            raise self.error(f"unknown function {name!r}", "one of " + ", ".join(FUNCTIONS))
        arguments = self.list(self.sum, ")")
        if len(arguments) != FUNCTIONS[name]:
            raise self.error(f"{name} takes {FUNCTIONS[name]} argument(s), not {len(arguments)}")
        return Call(name, arguments)

    def entry(self, name: str) -> Reference:
        return Reference(name, self.list(self.sum, "]") if self.take("[") else ())

    def list(self, one: Callable[[], Any], end: str, between: str = ",") -> tuple[Any, ...]:
        found = [one()]
        while self.take(between):
            found.append(one())
        self.need(end)
        return tuple(found)

    def condition(self) -> Node:
        if self.take("not"):
            return Not(self.condition())
        operators, operands = [], [self.sum()]
        while operator := self.take(*COMPARISONS):
            operators.append(operator)
            operands.append(self.sum())
        return Comparison(tuple(operators), tuple(operands)) if operators else operands[0]
