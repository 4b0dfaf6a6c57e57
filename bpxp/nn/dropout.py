"""Dropout: in training each value is left out at random, so that no unit can rely on another."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import number, set_numbers
from bpxp.core.random import HostRandom
from bpxp.core.threefry import LEVELS, Key, bernoulli, level
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError


@named_arguments
@dataclass(frozen=True)
class Dropout:
    """Multiply by a random mask in training; the identity in evaluation.

    Parameters
    ----------
    rate : float, optional
        Probability of leaving a value out, in [0, 1). It is rounded to a multiple of 2⁻¹⁶.

    Notes
    -----
    In the equations m[n,i] is 1 where a value is kept, and p the probability of that, exactly as the mask was drawn.
    The mean of y is x, so that nothing needs scaling in evaluation. The mask is a function of the seed, the step and
    the place of the layer: the same bits on every backend, and in a run that was resumed. It is kept for the backward
    pass: drawing it again would cost more than reading it.

    References
    ----------
    Srivastava et al., *Dropout: a simple way to prevent neural networks from overfitting*, JMLR 15 (2014), scaled in
    training instead of in evaluation.
    """

    rate: float = 0.5

    uses = frozenset({"key"})
    analytic = True

    equations = Equations(
        forward="y[n,i] = x[n,i]*m[n,i]/p",
        dx="dx[n,i] = dy[n,i]*m[n,i]/p",
    )
    evaluation = Equations(
        forward="y[n,i] = x[n,i]",
        dx="dx[n,i] = dy[n,i]",
    )

    def __post_init__(self) -> None:
        where = "Dropout(rate=…)"
        if number(self.rate, where, low=0.0) == 1.0:
            raise InvalidValueError(
                where, "1.0 would drop everything", code="E002", got=repr(self.rate), expected="a number in [0, 1)"
            )
        set_numbers(self, "rate", low=0.0, high=1.0, high_open=True)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        return (), in_shape

    def forward(
        self, params: tuple[()], x: Array, /, *, xp: Namespace, key: Key | None = None
    ) -> tuple[Array, Array | None]:
        kept = level(1.0 - self.rate)
        if key is None or kept == LEVELS:
            return xp.astype(x, x.dtype, copy=True), None
        mask = bernoulli(key, x.shape, kept / LEVELS, dtype=x.dtype, xp=xp)
        mask *= LEVELS / kept
        return x * mask, mask

    def backward(
        self, params: tuple[()], mask: Array | None, dy: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[()]]:
        return (xp.astype(dy, dy.dtype, copy=True) if mask is None else dy * mask), ()
