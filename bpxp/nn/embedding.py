"""Embedding: a lookup table with a vector for each integer id."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import fits_in_memory, set_counts, set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.functions import constant
from bpxp.nn.initializers import Initializer, get_initializer

EXACT = 2**24  # beyond it float32 skips integers
ONE_HOT = 2**24  # numbers in one block of the one-hot matrix: 64 MiB in float32


class EmbeddingParams(NamedTuple):
    """The table of `Embedding`, or its gradient: W (count, dim)."""

    W: Array


@named_arguments
@dataclass(frozen=True)
class Embedding:
    """Look up the vector of each id: (…,) becomes (…, dim).

    Parameters
    ----------
    count : int
        Number of ids: x holds 0 … count - 1. At most 2²⁴, up to which float32 holds every integer.
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

    x arrives in the network's float dtype and is rounded to integers. An id out of range gives NaN on every backend,
    not the vector of another id. dx is 0.
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
            what = "float32 does not hold so many integers exactly"
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
