"""Layers that change the shape of a sample and none of its values.

They return a view where the library has one: inputs and outputs of layers are never written.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

from bpxp.core.checks import set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidTypeError, InvalidValueError


@dataclass(frozen=True)
class Flatten:
    """A sample becomes a vector, row by row: (height, width, channels) to (height · width · channels,).

    Notes
    -----
    The equations are those of images; a sample with fewer axes is an image of height 1. Each number has a place k, and
    of the sum over all pixels the bracket keeps the one at that place.
    """

    analytic = True

    equations = Equations(
        forward="y[n,k] = sum_{h,w,c} x[n,h,w,c]*[(h*count_w + w)*count_c + c == k]",
        dx="dx[n,h,w,c] = dy[n, (h*count_w + w)*count_c + c]",
    )

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        return (), (math.prod(in_shape),)

    def forward(self, params: tuple[()], x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        return _reshaped(x, (math.prod(x.shape[1:]),), xp)

    def backward(self, params: tuple[()], like: Array, dy: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        return xp.reshape(dy, (dy.shape[0], *like.shape[1:])), ()


@dataclass(frozen=True)
class Reshape:
    """A sample gets another shape of as many numbers, row by row.

    Parameters
    ----------
    shape : tuple of int
        Without the batch, ``(28, 28, 1)``; one entry may be -1, what is left for it.

    Notes
    -----
    The equations have three axes before and after; where there are fewer, the first ones have length 1. Counted row by
    row, a number has the same place in both shapes.
    """

    shape: Shape

    analytic = True

    equations = Equations(
        forward="y[n,p,q,d] = sum_{h,w,c} x[n,h,w,c]*[(h*count_w + w)*count_c + c == (p*count_q + q)*count_d + d]",
        dx="dx[n,h,w,c] = sum_{p,q,d} dy[n,p,q,d]*[(p*count_q + q)*count_d + d == (h*count_w + w)*count_c + c]",
    )

    def __post_init__(self) -> None:
        where = "Reshape(shape=…)"
        sizes: Any = (self.shape,) if isinstance(self.shape, numbers.Integral) else self.shape
        if not isinstance(sizes, (tuple, list)) or any(
            isinstance(n, bool) or not isinstance(n, numbers.Integral) for n in sizes
        ):
            raise InvalidTypeError(where, "not a shape", code="E001", got=repr(self.shape), expected="a tuple of ints")
        if not sizes or any(n < 1 and n != -1 for n in sizes) or list(sizes).count(-1) > 1:
            expected = "sizes >= 1, of which one may be -1"
            raise InvalidValueError(where, "not a shape", code="E002", got=repr(self.shape), expected=expected)
        set_field(self, "shape", tuple(int(n) for n in sizes))

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        return (), self._out_shape(in_shape)

    def _out_shape(self, in_shape: Shape) -> Shape:
        count, known = math.prod(in_shape), math.prod(n for n in self.shape if n != -1)
        whole = count % known == 0 if -1 in self.shape else count == known
        if not whole:
            what = f"{_product(in_shape)} numbers do not fill {_product(self.shape)}"
            got = f"a sample of shape {in_shape}"
            fix = "Reshape((-1,)), or sizes with that product"
            raise InvalidValueError(f"Reshape({self.shape})", what, code="E014", got=got, fix=fix)
        return tuple(count // known if n == -1 else n for n in self.shape)

    def forward(self, params: tuple[()], x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        return _reshaped(x, self._out_shape(x.shape[1:]), xp)

    def backward(self, params: tuple[()], like: Array, dy: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        return xp.reshape(dy, (dy.shape[0], *like.shape[1:])), ()


def _reshaped(x: Array, shape: Shape, xp: Namespace) -> tuple[Array, Array]:
    """Return x in the shape, and an empty array that remembers the old one: it holds no memory."""
    return xp.reshape(x, (x.shape[0], *shape)), xp.zeros((0, *x.shape[1:]), dtype=x.dtype)


def _product(shape: Shape) -> str:
    if -1 in shape:
        return " · ".join("?" if n == -1 else str(n) for n in shape)
    return f"{' · '.join(str(n) for n in shape)} = {math.prod(shape)}"
