"""Small inputs, and small copies of layers: loops are slow, and what an equation says is the same for any size.

A copy keeps what the equations name (kernel, stride, padding, dilation, epsilon, …), and has fewer units, filters
and words. Code that branches on the size of an image may take another branch for a small one: `check_gradients`
checks the network as it is.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from bpxp.core.typing import Shape
from bpxp.nn import Conv2D, Dense, Embedding, Flatten, GlobalAvgPool2D, Reshape, Residual


def small(layer: Any, in_shape: Shape | None = None, /) -> tuple[Any, Any]:
    """Return a small copy of a layer, and an input for it: the shape (batch, …), or an array of whole numbers.

    `in_shape` is that of the samples in its network; an unknown layer gets shorter axes, and may refuse them.
    """

    def copy(**changes: Any) -> Any:
        return dataclasses.replace(layer, **changes)

    match layer:
        case Dense():
            return copy(units=min(layer.units, 3)), (3, 4)
        case Conv2D():
            groups = min(layer.groups, 2)
            per_group = 2 if in_shape is None else min(in_shape[-1] // layer.groups, 4 // groups)
            few = copy(groups=groups, filters=groups * min(layer.filters // layer.groups, 2))
            return few, (*_windowed(few), groups * per_group)
        case GlobalAvgPool2D() | Flatten():
            return layer, (2, 2, 3, 2)
        case Embedding():
            count = min(layer.count, 4)
            return copy(count=count, dim=min(layer.dim, 2)), np.array([1, 0, 3, 2, 1]) % count
        case Reshape():
            sizes = tuple(min(n, 3) for n in layer.shape)
            return copy(shape=sizes), (2, *(2 if n == -1 else n for n in reversed(sizes)))
        case Residual():
            # The same for any branch; the layers of its own branch are checked separately.
            return Residual([Dense(3, "tanh"), Dense(4)]), (3, 4)
        case _ if hasattr(layer, "grid"):
            return layer, (*_windowed(layer), 2)
        case _:
            return layer, (3, *(min(n, 4) for n in in_shape or (4,)))


def _windowed(layer: Any) -> Shape:
    """Return (batch, height, width): the smallest height >= 3 and width >= 4 with two windows."""
    sizes = []
    for axis, n in enumerate((3, 4)):
        while layer.grid((n, n))[axis].out < 2:
            n += 1
        sizes.append(n)
    return (2 if math.prod(sizes) <= 16 else 1, *sizes)
