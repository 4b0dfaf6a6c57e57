"""Cache blocking: an elementwise rule gets a large leaf a block of rows at a time, which stays in the cache.

A rule is several operations on the same numbers. On a whole large leaf each of them reads and writes main memory; on a
block all but the first find it in the cache. The bits are the same.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

from bpxp.core.tree import leaves, unflatten
from bpxp.core.typing import Array, Namespace, Params
from bpxp.errors import InvalidValueError

SHARE = 8  # a rule works on up to six arrays: each may take this part of the workspace

Rule = Callable[[Array, Array, tuple[Array, ...]], tuple[Array, tuple[Array, ...]]]


def update_leaves(
    rule: Rule,
    params: Params,
    grads: Params,
    slots: tuple[Any, ...],
    /,
    *,
    elementwise: bool,
    where: str,
    xp: Namespace,
) -> tuple[Params, tuple[Any, ...]]:
    """Return parameters and slots after ``rule(p, g, slots of p)`` for each leaf p.

    Raises
    ------
    InvalidValueError
        If a gradient does not have its parameter's shape (it would be broadcast).
    """
    old, old_slots = leaves(params), [leaves(slot) for slot in slots]
    new, new_slots = [], []
    of_leaf: Any = zip(*old_slots, strict=True) if old_slots else repeat((), len(old))
    for p, g, own in zip(old, leaves(grads), of_leaf, strict=True):
        if p.shape != g.shape:
            raise _shapes_differ(where, p, g)
        rows = rows_at_a_time(p, xp=xp) if elementwise else p.shape[0]
        p, own = rule(p, g, own) if rows >= p.shape[0] else _in_blocks(rule, p, g, own, rows)
        new.append(p)
        new_slots.append(own)
    params = _refill(params, old, new)
    if slots and old:
        trees = zip(slots, old_slots, zip(*new_slots, strict=True), strict=True)
        slots = tuple([_refill(*tree) for tree in trees])
    return params, slots


def rows_at_a_time(p: Array, /, *, xp: Namespace) -> int:
    """Return how many rows of p make a block: all, unless p is larger than the namespace's `workspace`."""
    workspace: int | None = getattr(xp, "workspace", None)
    size: int = math.prod(p.shape) * xp.finfo(p.dtype).bits // 8
    if workspace is None or size <= workspace:
        return int(p.shape[0])
    return max(1, int(p.shape[0]) * workspace // (SHARE * size))


def _in_blocks(rule: Rule, p: Array, g: Array, slots: tuple[Array, ...], rows: int) -> Any:
    """Apply the rule to some rows after the other: views, which it writes in place."""
    for i in range(0, p.shape[0], rows):
        part = slice(i, i + rows), ...
        rule(p[part], g[part], tuple([a[part] for a in slots]))
    return p, slots


def _refill(tree: Params, old: list[Array], new: Sequence[Array]) -> Params:
    """Return `tree` with its leaves `old` replaced by `new`: itself, where they were written in place."""
    return tree if all(map(operator.is_, old, new)) else unflatten(tree, new)


def _shapes_differ(where: str, p: Array, g: Array) -> InvalidValueError:
    what = "a gradient has another shape than its parameter"
    return InvalidValueError(where, what, code="E017", got=f"gradient {tuple(g.shape)}", expected=f"{tuple(p.shape)}")
