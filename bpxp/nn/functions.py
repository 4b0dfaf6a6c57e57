"""Elementwise functions that the Array API lacks, accurate in their tails and without overflow.

None of them selects by `where`, which mispredicts its branches on NumPy: a maximum of masks does the same exactly.
"""

from __future__ import annotations

import math

from bpxp.core.typing import Array, Namespace

# Numerator and denominator of R(u) = e^(u²/2) Φ(-u), lowest power first: rational interpolants at the Chebyshev points
# of u/(u + K). Every coefficient is positive, so for u >= 0 no step of Horner's scheme cancels.
TAIL_FLOAT32 = (  # relative error 8e-9 for u in [0, 15], beyond which the tail underflows
    (0.5, 0.43867425738206206, 0.18347186143016864, 0.04070006147737858, 0.004122528203069215),
    (
        1.0,
        1.6752334168384364,
        1.2035824337408796,
        0.4700843052336978,
        0.10202606508008999,
        0.01033353410301861,
    ),
)
TAIL_FLOAT64 = (  # relative error 9e-17 for u in [0, 39]
    (
        0.5,
        0.7758577209030002,
        0.5954446719693803,
        0.2903132931433541,
        0.0981308959658345,
        0.023751350888201746,
        0.004115983017212425,
        0.0004941506706428816,
        3.757916535870989e-05,
        1.3993048118643565e-06,
    ),
    (
        1.0,
        2.349600002608859,
        2.5655989100829704,
        1.718839864814702,
        0.7848013162542371,
        0.2561065130662715,
        0.06076744505109421,
        0.010411436397331716,
        0.0012421595801411335,
        9.419699842335464e-05,
        3.5075370062550256e-06,
    ),
)


def constant(value: float, like: Array, /, *, xp: Namespace) -> Array:
    """Return a 0-d array of the dtype of `like`: what `maximum` and `minimum` take instead of a Python number."""
    return xp.full((), value, dtype=like.dtype)


def positive(z: Array, /, *, xp: Namespace) -> Array:
    """Return the mask [z > 0] as numbers 0 and 1 of the dtype of z: a new array."""
    return xp.astype(z > 0.0, z.dtype)


def sign(z: Array, /, *, xp: Namespace) -> Array:
    """Return -1, 0 or 1: a new array (the standard's `sign` waits for the device on torch)."""
    s = positive(z, xp=xp)
    s -= xp.astype(z < 0.0, z.dtype)
    return s


def decay(z: Array, /, *, xp: Namespace) -> Array:
    """Return e^(-|z|), in (0, 1]: a new array."""
    e = xp.abs(z)
    e *= -1.0
    return xp.exp(e)


def logistic(z: Array, /, *, xp: Namespace) -> Array:
    """Return σ(z) = 1/(1 + e^(-z)) to a relative error of a few roundings, down to underflow.

    With e = e^(-|z|), σ is 1/(1 + e) for z > 0, else e/(1 + e): the numerator is the larger of e and [z > 0].
    """
    e = decay(z, xp=xp)
    a = xp.maximum(e, positive(z, xp=xp))
    e += 1.0
    a /= e
    return a


def logistic_numerators(z: Array, e: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return σ(z) and σ(-z) times their common denominator 1 + e, where e = e^(-|z|): two new arrays."""
    above = positive(z, xp=xp)
    return xp.maximum(e, above), xp.maximum(e, 1.0 - above)


def logistic_pair(z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return σ(z) and 1 - σ(z) = σ(-z), neither by a difference that cancels."""
    e = decay(z, xp=xp)
    a, rest = logistic_numerators(z, e, xp=xp)
    e += 1.0
    a /= e
    rest /= e
    return a, rest


def softplus(z: Array, /, *, xp: Namespace) -> Array:
    """Return log(1 + e^z) = max(z, 0) + log1p(e^(-|z|)) to a relative error of a few roundings."""
    a = xp.log1p(decay(z, xp=xp))
    a += xp.maximum(z, constant(0.0, z, xp=xp))
    return a


def softplus_pair(z: Array, e: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return softplus(z) and softplus(-z) = max(-z, 0) + log1p(e), where e = e^(-|z|): two new arrays."""
    plus = xp.maximum(z, constant(0.0, z, xp=xp))
    minus = plus - z  # max(-z, 0), exactly
    log = xp.log1p(e)
    plus += log
    minus += log
    return plus, minus


def tanh_softplus(z: Array, /, *, xp: Namespace) -> Array:
    """Return tanh(log(1 + e^z)) = p/(p + 2q): one exponential, no logarithm, and the tail keeps its relative accuracy.

    With n = e^(-|z|), p = n² + 2n and q = 1 for z <= 0, p = 1 + 2n and q = n² for z > 0.
    """
    p = decay(z, xp=xp)  # n
    square, above = p * p, positive(z, xp=xp)
    p *= 2.0
    p += xp.maximum(square, above)
    t = xp.maximum(square, 1.0 - above)  # q
    t *= 2.0
    t += p
    return p / t


def normal_tail(u: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return (Φ(-u), φ(u)) of the standard normal distribution for 0 <= u <= 40.

    Φ(-u) = erfc(u/√2)/2 = e^(-u²/2) R(u). The relative error is that of e^(-u²/2), about (1 + u²/2) roundings.

    Notes
    -----
    R(u) is Mills' ratio over √(2π), a smooth and slowly decaying function, for which one rational function serves all
    u; what W. J. Cody, *Rational Chebyshev approximations for the error function*, Math. Comp. 23 (1969), does on three
    intervals would need branches.
    """
    numerator, denominator = TAIL_FLOAT32 if u.dtype == xp.float32 else TAIL_FLOAT64
    e = u * u
    e *= -0.5
    e = xp.exp(e)
    tail = polynomial(numerator, u)
    tail /= polynomial(denominator, u)
    tail *= e
    e *= 1.0 / math.sqrt(2.0 * math.pi)
    return tail, e


def polynomial(coefficients: tuple[float, ...], u: Array, /) -> Array:
    """Return Σ_k c_k u^k by Horner's scheme: a new array."""
    total = coefficients[-1] * u
    for c in coefficients[-2:0:-1]:
        total += c
        total *= u
    total += coefficients[0]
    return total
