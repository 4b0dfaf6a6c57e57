"""The arguments of a captured step: the arrays in its state and data, and what makes them arguments of another plan."""

from __future__ import annotations

import operator
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from bpxp.backends.abstract.trace import NotCapturable
from bpxp.backends.program import define
from bpxp.core.typing import Array

PLAIN = {type(None), bool, int, float, str}


def kinds(tree: Any, library: Any) -> Iterator[tuple[Any, ...]]:
    """Yield types and lengths of tuples, shape, dtype and strides of arrays, and other values, from left to right."""
    if isinstance(tree, tuple):
        yield type(tree), len(tree)
        for child in tree:
            yield from kinds(child, library)
    elif type(tree) is library.array_type:
        yield library.kind(tree)
    else:
        yield type(tree), tree if type(tree) in PLAIN else None


def arrays_of(tree: Any, kind: type) -> list[Array]:
    """Return the arrays of a tree, from left to right."""
    if isinstance(tree, tuple):
        return [a for child in tree for a in arrays_of(child, kind)]
    return [tree] if type(tree) is kind else []


def matcher(state: Any, data: Any, library: Any) -> Callable[[Any, Any], tuple[Array, ...] | None]:
    """Return a function that returns the arrays of arguments of the same kinds, and None for others.

    It is written as a program: it runs before every call of a plan.
    """
    names: dict[str, Any] = {"kind": library.array_type}
    lines: list[str] = []
    arrays: list[str] = []

    def constant(a: Any) -> str:
        names[f"c{len(names)}"] = a
        return f"c{len(names) - 1}"

    def match(tree: Any, name: str) -> None:
        if isinstance(tree, tuple):
            parts = [f"{name}_{i}" for i in range(len(tree))]
            lines.append(f"if type({name}) is not {constant(type(tree))} or len({name}) != {len(tree)}: return")
            if parts:
                lines.append(f"{', '.join(parts)}, = {name}")
            for child, part in zip(tree, parts, strict=True):
                match(child, part)
        elif type(tree) is library.array_type:
            arrays.append(name)
            differs = library.differs.format(name, *map(constant, library.kind(tree)))
            lines.append(f"if type({name}) is not kind or {differs}: return")
        elif type(tree) in PLAIN:
            lines.append(f"if type({name}) is not {constant(type(tree))} or {name} != {constant(tree)}: return")
        else:
            raise NotCapturable(f"an argument is a {type(tree).__name__}")

    match(state, "state")
    match(data, "data")
    head, last = "def match(state, data):", f" return ({', '.join(arrays)},)" if arrays else " return ()"
    return define("match", [head, *(f" {line}" for line in lines), last], names)


class Apart:
    """Whether a state may be written: no array of it shares memory with another, or with the data.

    It knows the arguments of the last call, by weak references, so that only other arrays are looked at.
    """

    def __init__(self, library: Any) -> None:
        self.library = library
        self._seen: list[Any] = []
        self._bounds: list[tuple[int, int]] = []

    def __call__(self, arrays: tuple[Array, ...], own: int) -> bool:
        """Return it for arguments of which the first `own` are the state's."""
        known = [ref() for ref in self._seen]
        if len(known) != len(arrays):
            new, self._bounds, self._seen = list(range(len(arrays))), [(0, 0)] * len(arrays), [None] * len(arrays)
        elif all(map(operator.is_, known, arrays)):
            return True
        else:
            new = [i for i, (a, b) in enumerate(zip(known, arrays, strict=True)) if a is not b]
        seen, self._seen, bounds = self._seen, [], self._bounds
        for i in new:
            bounds[i] = self.library.bounds(arrays[i])
        for i in new:
            if i < own and not self.library.writable(arrays[i]):
                return False
            begin, end = bounds[i]
            for j in range(len(arrays) if i < own else own):
                if begin < bounds[j][1] and bounds[j][0] < end and i != j:
                    return False
            seen[i] = weakref.ref(arrays[i])
        self._seen = seen
        return True
