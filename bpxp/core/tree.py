"""Parameters, gradients and optimizer states are trees: tuples in tuples, with arrays as leaves.

NamedTuples keep their type. Tuples are pytrees, so a state crosses `jax.jit` without registration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bpxp.core.typing import Array

Tree = Any
T = TypeVar("T")


def tree_map(function: Callable[..., Any], tree: Tree, /, *rest: Tree) -> Tree:
    """Apply `function` to each leaf of `tree` and to the corresponding leaves of `rest`."""
    if isinstance(tree, tuple):
        return rebuild(tree, [tree_map(function, *parts) for parts in zip(tree, *rest, strict=True)])
    return function(tree, *rest)


def rebuild(like: tuple[Any, ...], values: list[Any]) -> tuple[Any, ...]:
    """Return `values` as a tuple of the type of `like`."""
    return type(like)(*values) if hasattr(like, "_fields") else tuple(values)


def leaves(tree: Tree, /) -> list[Array]:
    """Return the leaves from left to right: once per step, so without the cost of their names."""
    if not isinstance(tree, tuple):
        return [tree]
    found: list[Array] = []
    for child in tree:
        if isinstance(child, tuple):
            found += leaves(child)
        else:
            found.append(child)
    return found


def unflatten(like: T, flat: Iterable[Array], /) -> T:
    """Return a tree of the structure of `like` with the leaves `flat`, from left to right."""
    filled: T = _fill(like, iter(flat))
    return filled


def _fill(like: Tree, rest: Iterator[Array]) -> Tree:
    # No function within a function that calls itself: it would be a cycle, and keep the arrays until it is collected.
    if not isinstance(like, tuple):
        return next(rest)
    return rebuild(like, [_fill(child, rest) for child in like])


def named_leaves(tree: Tree, /, prefix: str = "") -> Iterator[tuple[str, Array]]:
    """Yield ``("0/W", array)`` for each leaf: positions and field names, joined by a slash."""
    if not isinstance(tree, tuple):
        yield prefix, tree
        return
    names = getattr(tree, "_fields", None) or [str(i) for i in range(len(tree))]
    for name, child in zip(names, tree, strict=True):
        yield from named_leaves(child, f"{prefix}/{name}" if prefix else name)
