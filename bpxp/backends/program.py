"""The program of a plan: calls as the text of a Python function, and the places of their results in memory.

Nothing that is faster calls functions from Python, and its arguments are bound in each call. The text is made of names
that stand for objects, and of nothing that comes from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from bpxp.backends.abstract.trace import Operation, Value

ALIGNED = 64  # bytes: a line of a cache

OUT = Value(-1)  # in a call: where the result goes


class Call(NamedTuple):
    """A function that computes an operation into a buffer, and its arguments: values, constants, and `OUT`."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any] = MappingProxyType({})
    elementwise: bool = False  # the result may take the memory of an operand of its layout


class Offsets:
    """Places in memory that are taken and given back."""

    def __init__(self) -> None:
        self.size, self.free = 0, list[tuple[int, int]]()  # (offset, size)

    def take(self, size: int) -> int:
        """Return the offset of so many bytes: of the smallest gap that holds them, or at the end."""
        size = rounded(size)
        fits = [gap for gap in self.free if gap[1] >= size]
        if not fits:
            self.size += size
            return self.size - size
        offset, room = min(fits, key=lambda gap: gap[1])
        self.free.remove((offset, room))
        if room > size:
            self.free.append((offset + size, room - size))
        return offset

    def give(self, offset: int, size: int) -> None:
        """Take bytes back, and join them with the gaps beside them."""
        joined: list[tuple[int, int]] = []
        for begin, room in sorted([*self.free, (offset, rounded(size))]):
            if joined and sum(joined[-1]) == begin:
                joined[-1] = joined[-1][0], joined[-1][1] + room
            else:
                joined.append((begin, room))
        self.free = joined


def rounded(size: int) -> int:
    """Return a number of bytes that whole lines of a cache hold."""
    return max(ALIGNED, -(-size // ALIGNED) * ALIGNED)


class Code:
    """The text of a program, and the objects that it names."""

    def __init__(self, copy: Callable[[Any, Any], Any]) -> None:
        self.before: list[str] = []
        self.during: list[str] = []
        self.objects: dict[str, Any] = {}
        self._names: dict[int, str] = {}
        self._copy = copy

    def constant(self, a: Any) -> str:
        """Return the name of an object."""
        name = self._names.setdefault(id(a), f"c{len(self._names)}")
        self.objects[name] = a
        return name

    def shown(self, a: Any, real: dict[int, Any], local: dict[int, str]) -> str:
        """Return an argument as text."""
        if isinstance(a, Value):
            return local[a.number] if a.number in local else self.constant(real[a.number])
        if isinstance(a, (tuple, list)) and any(True for _ in values(a)):
            return f"({', '.join(self.shown(part, real, local) for part in a)},)"
        return repr(a) if a is None or type(a) in (bool, int) else self.constant(a)

    def call(self, function: Any, arguments: Any, keywords: Any, real: dict[int, Any], local: dict[int, str]) -> str:
        """Return a call as text."""
        parts = [self.shown(a, real, local) for a in arguments]
        parts += [f"{name}={self.shown(a, real, local)}" for name, a in keywords.items()]
        return f"{self.constant(function)}({', '.join(parts)})"

    def copy(self, real: dict[int, Any], local: dict[int, str], into: int, a: Any) -> None:
        """Write a copy."""
        self.during.append(self.call(self._copy, (Value(into), a), {}, real, local))

    def again(self, function: Any, op: Operation, real: dict[int, Any], local: dict[int, str]) -> None:
        """Write a call whose results are copied."""
        result = self.call(function, op.inputs, op.static, real, local)
        if len(op.outputs) > 1:
            self.during.append(f"t = {result}")
        for k, value in enumerate(op.outputs):
            part = result if len(op.outputs) == 1 else f"t[{k}]"
            self.during.append(f"{self.constant(self._copy)}({self.shown(value, real, local)}, {part})")

    def program(self, given: int, returned: str) -> Callable[..., Any]:
        """Return the function ``play(count, a0, a1, …)``."""
        head = f"def play({', '.join(['count', *(f'a{i}' for i in range(given))])}):"
        body = [*self.before, "for _ in range(count):", *(f" {line}" for line in self.during or ["pass"])]
        return define("play", [head, *(f" {line}" for line in body), f" return {returned}"], self.objects)


def values(tree: Any) -> Iterator[int]:
    """Yield the numbers of the values in arguments."""
    if isinstance(tree, Value):
        yield tree.number
    elif isinstance(tree, (tuple, list)):
        for part in tree:
            yield from values(part)
    elif isinstance(tree, Mapping):
        yield from values(tuple(tree.values()))


def several(result: Any) -> Any:
    """Return the results of a function."""
    return result if isinstance(result, (tuple, list)) else (result,)


def with_arrays(inputs: tuple[Any, ...], arguments: tuple[Any, ...], make: Any, iinfo: Any) -> tuple[Any, ...]:
    """Return Python's numbers as arrays of the dtype that they take beside an array: else every call converts them."""
    dtypes = {a.dtype for a in arguments if hasattr(a, "dtype")}
    if len(dtypes) != 1:
        return inputs
    (dtype,) = dtypes
    integers = iinfo(dtype) if "int" in str(dtype) else None

    def number(a: Any) -> Any:
        if type(a) is float or (type(a) is int and (integers is None or integers.min <= a <= integers.max)):
            return make(a, dtype)
        return a

    return tuple(map(number, inputs))


def filled(tree: Any, real: dict[int, Any]) -> Any:
    """Return arguments with arrays in the place of values."""
    if isinstance(tree, Value):
        return real[tree.number]
    if isinstance(tree, (tuple, list)):
        return tuple(filled(part, real) for part in tree)
    if isinstance(tree, Mapping):
        return {name: filled(part, real) for name, part in tree.items()}
    return tree


def define(name: str, lines: list[str], objects: dict[str, Any]) -> Callable[..., Any]:
    """Return the function that lines of Python define."""
    exec(compile("\n".join(lines), "<a captured step>", "exec"), objects)
    function: Callable[..., Any] = objects.pop(name)
    return function
