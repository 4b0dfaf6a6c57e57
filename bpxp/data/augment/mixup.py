"""Mixup: each sample becomes a mixture of two, and so does its target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bpxp.core.checks import set_numbers
from bpxp.core.threefry import Key, uniform
from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidTypeError


@dataclass(frozen=True)
class Mixup:
    """Mix each sample with another of the mini-batch: x ← (1 - s) x + s x', y ← (1 - s) y + s y'.

    Parameters
    ----------
    alpha : float, optional
        > 0: the share s of the other is drawn from Beta(alpha, alpha). If small, one of the two dominates; if large,
        both are mixed half and half; 1 is uniform.

    Notes
    -----
    The other is the sample r places further in the mini-batch, r in 1 … batch - 1 drawn once per step. Each sample
    keeps its own weight. Targets have to be rows; the trainer one-hot encodes class indices.

    References
    ----------
    H. Zhang, M. Cisse, Y. Dauphin, D. Lopez-Paz, *mixup: beyond empirical risk minimization*, ICLR 2018.
    """

    alpha: float = 0.2

    mixes = True  # targets, too: the trainer one-hot encodes class indices

    def __post_init__(self) -> None:
        set_numbers(self, "alpha", low=0.0, low_open=True)

    def __call__(self, x: Array, y: Array, key: Key, /, *, xp: Namespace) -> tuple[Array, Array]:
        if len(y.shape) < 2 or not xp.isdtype(y.dtype, "real floating"):
            what = "class indices cannot be mixed"
            got = f"y of shape {tuple(y.shape)}"
            fix = "one_hot(y, classes, dtype=x.dtype, xp=xp)"
            raise InvalidTypeError("Mixup", what, code="E056", got=got, expected="rows (batch, …, n_out)", fix=fix)
        batch = x.shape[0]
        share = symmetric_beta(key.at(0), self.alpha, batch, dtype=x.dtype, xp=xp)
        turn = xp.floor(uniform(key.at(1), (1,), dtype=x.dtype, xp=xp) * float(batch - 1))
        other = xp.arange(batch, dtype=xp.int32) + (xp.astype(turn, xp.int32) + 1)
        other -= batch * xp.astype(other >= batch, xp.int32)
        return _mixed(x, other, share, xp), _mixed(y, other, share, xp)


def _mixed(a: Array, other: Array, share: Array, xp: Namespace) -> Array:
    b = xp.take(a, other, axis=0)
    b -= a
    b *= xp.reshape(share, (-1,) + (1,) * (len(a.shape) - 1))
    b += a
    return b


def symmetric_beta(key: Key, alpha: float, size: int, /, *, dtype: Any, xp: Namespace) -> Array:
    """Return independent draws from Beta(alpha, alpha), (size,), without rejection.

    Notes
    -----
    With U, V uniform, p > 1/2 and c = √(1 - U^(2/(2p - 1))) cos 2πV, the number B = (1 + c)/2 is Beta(p, p) (Ulrich).
    It is also the share G/(G + G') of a Gamma(p) among two, of which their sum is independent; and with W uniform,
    G W^(1/alpha) is Gamma(alpha) if G is Gamma(alpha + 1). So p = alpha + 1 and the odds::

        s/(1 - s) = B/(1 - B) (W/W')^(1/alpha)

    are those of Beta(alpha, alpha), for every alpha > 0. Their logarithm is 2 artanh c + (log W - log W')/alpha.

    References
    ----------
    L. Devroye, *Non-uniform random variate generation*, 1986, IX.3.5 and IX.4.
    """
    u = 1.0 - uniform(key, (size, 4), dtype=dtype, xp=xp)  # in (0, 1]
    c = xp.sqrt(1.0 - u[:, 0] ** (2.0 / (2.0 * alpha + 1.0)))
    c *= xp.cos(u[:, 1] * (2.0 * math.pi))
    c *= 1.0 - 1e-6  # below 1 after rounding, too
    half = xp.log(u[:, 2])
    half -= xp.log(u[:, 3])
    half *= 0.5 / alpha
    half += xp.atanh(c)
    s = xp.tanh(half)
    s += 1.0
    s *= 0.5
    return s
