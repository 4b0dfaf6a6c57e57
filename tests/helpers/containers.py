"""Layers that are made of layers, as a user might write them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from bpxp.core.tree import tree_map


@dataclass(frozen=True)
class Closed:
    """left(x) + right(x), which does not say what it is made of."""

    left: Any
    right: Any

    def init(self, rng, in_shape, /):
        left, shape = self.left.init(rng.at(0), in_shape)
        return (left, self.right.init(rng.at(1), in_shape)[0]), shape

    def forward(self, params, x, /, *, xp):
        (y, first), (z, second) = self.left.forward(params[0], x, xp=xp), self.right.forward(params[1], x, xp=xp)
        return xp.add(y, z), (first, second)

    def backward(self, params, cache, dy, /, *, xp):
        dx, left = self.left.backward(params[0], cache[0], dy, xp=xp)
        more, right = self.right.backward(params[1], cache[1], dy, xp=xp)
        return xp.add(dx, more), (left, right)


@dataclass(frozen=True)
class Parallel(Closed):
    """The same, which names its children."""

    @property
    def children(self):
        return self.left, self.right

    def with_children(self, children, /):
        return dataclasses.replace(self, left=children[0], right=children[1])


@dataclass(frozen=True)
class Twice:
    """cell(cell(x)): one child, called two times."""

    cell: Any

    @property
    def children(self):
        return (self.cell,)

    def with_children(self, children, /):
        return Twice(*children)

    def init(self, rng, in_shape, /):
        params, shape = self.cell.init(rng.at(0), in_shape)
        return (params,), shape

    def forward(self, params, x, /, *, xp):
        y, first = self.cell.forward(params[0], x, xp=xp)
        y, second = self.cell.forward(params[0], y, xp=xp)
        return y, (first, second)

    def backward(self, params, cache, dy, /, *, xp):
        dy, late = self.cell.backward(params[0], cache[1], dy, xp=xp)
        dx, early = self.cell.backward(params[0], cache[0], dy, xp=xp)
        return dx, (tree_map(xp.add, late, early),)
