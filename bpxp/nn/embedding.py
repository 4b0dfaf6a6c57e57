"""Embedding: a table of vectors, one for each of the things that a whole number can name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bpxp.core.checks import fits_in_memory, set_counts, set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations.notation import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.functions import constant
from bpxp.nn.initializers import Initializer, get_initializer

EXACT = 2**24  # float32 counts no further
ONE_HOT = 2**24  # numbers in one block of the one-hot matrix: 64 MiB in float32


class EmbeddingParams(NamedTuple):
    """The table of `Embedding`, or its gradient: W (count, dim)."""

    W: Array


@dataclass(frozen=True)
class Embedding:
    """Look up the vector of each number: (…,) becomes (…, dim).

    Parameters
    ----------
    count : int
        How many things there are: x holds 0 … count - 1. At most 2²⁴, what float32 can count.
    dim : int
        Length of each vector.
    initializer : str or Initializer, optional
        How W is drawn, N(0, 1) unless said otherwise.

    Notes
    -----
    y is the product of the one-hot matrix h[n,i] = [x[n] = i] with W, and dW that of its transpose with dy.

    dW is computed as this product, in blocks of h of at most 64 MiB: no two threads add to one
    number, and the order of the summands is fixed. It costs count · dim operations per number of x, which
    bounds the vocabularies that this layer is for to some ten thousands.

    The network hands x over in its own float dtype; numbers are rounded to the nearest whole one. A number that names
    nothing becomes NaN, on every backend, rather than somebody else's vector. Bytes (uint8) are pixels to a network,
    and scaled: give it int32. There is no derivative by x: dx is 0.
    """

    count: int
    dim: int
    initializer: str | Initializer = "normal"

    equations = Equations(
        forward="y[n,j] = W[x[n],j]",
        dW="dW[i,j] = sum_n [x[n] == i]*dy[n,j]",
        dx="dx[n] = 0",
    )

    def __post_init__(self) -> None:
        set_counts(self, "count", "dim")
        set_field(self, "initializer", get_initializer(self.initializer))
        if self.count > EXACT:
            what = "float32 cannot tell so many numbers"
            raise InvalidValueError("Embedding(count=…)", what, code="E002", got=str(self.count), expected="<= 2**24")

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[EmbeddingParams, Shape]:
        fits_in_memory(self.count * self.dim, f"Embedding({self.count}, {self.dim})")
        draw = get_initializer(self.initializer).draw
        W = draw(rng.at(0), (self.count, self.dim), fan_in=self.count, fan_out=self.dim)
        return EmbeddingParams(W), (*in_shape, self.dim)

    def forward(self, params: EmbeddingParams, x: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Array, Array]]:
        named = xp.round(x)
        low, high = constant(0.0, x, xp=xp), constant(self.count - 1.0, x, xp=xp)
        inside = xp.minimum(xp.maximum(named, low), high)
        index = xp.reshape(xp.astype(inside, xp.int32), (-1,))
        y = xp.reshape(xp.take(params.W, index, axis=0), (*x.shape, self.dim))
        y += xp.expand_dims(xp.where(named == inside, low, xp.nan), axis=-1)
        return y, (x, index)

    def backward(
        self, params: EmbeddingParams, cache: tuple[Array, Array], dy: Array, /, *, xp: Namespace
    ) -> tuple[Array, EmbeddingParams]:
        return xp.zeros_like(cache[0]), self.gradients(params, cache, dy, xp=xp)

    def gradients(
        self, params: EmbeddingParams, cache: tuple[Array, Array], dy: Array, /, *, xp: Namespace
    ) -> EmbeddingParams:
        _, index = cache
        rows = xp.reshape(dy, (index.shape[0], self.dim))
        size = max(1, ONE_HOT // index.shape[0])
        parts = []
        for begin in range(0, self.count, size):
            numbers = xp.arange(begin, min(begin + size, self.count), dtype=xp.int32)
            transposed = xp.astype(xp.expand_dims(numbers, axis=1) == index, dy.dtype)
            parts.append(xp.matmul(transposed, rows))
        return EmbeddingParams(parts[0] if len(parts) == 1 else xp.concat(parts, axis=0))
