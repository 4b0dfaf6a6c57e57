"""Activations that are z times a gate between 0 and 1: SiLU, mish, GELU."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bpxp.core.checks import set_field
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.activations.activation import Activation
from bpxp.nn.functions import constant, logistic, logistic_pair, normal_tail, positive, tanh_softplus


@dataclass(frozen=True)
class SiLU(Activation):
    """a = z σ(z), dz = da (σ + a (1 - σ)); also known as swish.

    References
    ----------
    S. Elfwing, E. Uchibe, K. Doya, *Sigmoid-weighted linear units for neural network function approximation in
    reinforcement learning*, Neural Networks 107 (2018).
    """

    equations = Equations(
        forward="a[n,j] = z[n,j]*sigma(z[n,j])",
        dz="dz[n,j] = da[n,j]*sigma(z[n,j])*(1 + z[n,j]*(1 - sigma(z[n,j])))",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Array, Array]]:
        gate = logistic(z, xp=xp)
        a = z * gate
        return a, (a, gate)

    def backward(
        self, params: tuple[()], cache: tuple[Array, Array], da: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[()]]:
        a, gate = cache
        dz = 1.0 - gate
        dz *= a
        dz += gate
        dz *= da
        return dz, ()


@dataclass(frozen=True)
class Mish(Activation):
    """a = z t with t = tanh(log(1 + e^z)), dz = da (t + z (1 - t²) σ(z)).

    References
    ----------
    D. Misra, *Mish: a self regularized non-monotonic activation function*, BMVC 2020.
    """

    equations = Equations(
        gate="t[n,j] = tanh(log(1 + exp(z[n,j])))",
        forward="a[n,j] = z[n,j]*t[n,j]",
        dz="dz[n,j] = da[n,j]*(t[n,j] + z[n,j]*(1 - t[n,j]^2)*sigma(z[n,j]))",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Array, Array]]:
        t = tanh_softplus(z, xp=xp)
        return z * t, (z, t)

    def backward(
        self, params: tuple[()], cache: tuple[Array, Array], da: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[()]]:
        z, t = cache
        dz = 1.0 - t * t
        dz *= z
        dz *= logistic(z, xp=xp)
        dz += t
        dz *= da
        return dz, ()


SLOPE = 2.0 * math.sqrt(2.0 / math.pi)
TANH_FORM = Equations(
    argument="w[n,j] = sqrt(2/pi)*(z[n,j] + 0.044715*z[n,j]^3)",
    forward="a[n,j] = z[n,j]*(1 + tanh(w[n,j]))/2",
    slope="s[n,j] = sqrt(2/pi)*(1 + 3*0.044715*z[n,j]^2)",
    dz="dz[n,j] = da[n,j]/2*(1 + tanh(w[n,j]) + z[n,j]*(1 - tanh(w[n,j])^2)*s[n,j])",
)


@dataclass(frozen=True)
class GELU(Activation):
    """a = z Φ(z), dz = da (Φ(z) + z φ(z)), with Φ and φ of the standard normal distribution.

    Parameters
    ----------
    approximate : {"none", "tanh"}, optional
        ``"none"`` computes Φ to the rounding of the dtype (the error function is not in the Array API: see
        `bpxp.nn.functions.normal_tail`). ``"tanh"`` replaces Φ(z) by (1 + tanh(√(2/π) (z + 0.044715 z³)))/2, whose
        absolute error is below 5e-4: cheaper, and what models trained with it need.

    References
    ----------
    D. Hendrycks, K. Gimpel, *Gaussian error linear units*, arXiv:1606.08415.
    """

    approximate: str = "none"

    equations = Equations(
        forward="a[n,j] = z[n,j]*Phi(z[n,j])",
        dz="dz[n,j] = da[n,j]*(Phi(z[n,j]) + z[n,j]*phi(z[n,j]))",
    )

    def __post_init__(self) -> None:
        if not isinstance(self.approximate, str) or self.approximate not in ("none", "tanh"):
            got = repr(self.approximate)
            fix = "GELU(approximate='tanh')"
            raise InvalidValueError(
                "GELU(approximate=…)", "unknown form", code="E003", got=got, expected="'none' or 'tanh'", fix=fix
            )
        if self.approximate == "tanh":
            set_field(self, "equations", TANH_FORM)

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Array, ...]]:
        if self.approximate == "tanh":
            return self._tanh_forward(z, xp)
        # Beyond 40 the tail is 0 in every dtype, and the square of z would overflow.
        u = xp.abs(z)
        size = xp.minimum(u, constant(40.0, z, xp=xp))
        tail, density = normal_tail(size, xp=xp)
        # z Φ(z) = max(z, 0) - |z| Φ(-|z|): the tail keeps its relative accuracy.
        u *= tail
        a = xp.maximum(z, constant(0.0, z, xp=xp))
        a -= u
        density *= size
        tail -= density  # the derivative where z < 0; by symmetry 1 minus it where z > 0
        return a, (z, tail)

    def backward(
        self, params: tuple[()], cache: tuple[Array, ...], da: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[()]]:
        if self.approximate == "tanh":
            return self._tanh_backward(cache, da, xp), ()
        z, below = cache
        above = positive(z, xp=xp)
        dz = 1.0 - 2.0 * above
        dz *= below
        dz += above
        dz *= da
        return dz, ()

    def _tanh_forward(self, z: Array, xp: Namespace) -> tuple[Array, tuple[Array, ...]]:
        # (1 + tanh(w))/2 = σ(2 w), which keeps its relative accuracy where 1 + tanh(w) cancels.
        size = clamped(z, xp)
        gate = size * size
        gate *= 0.044715 * SLOPE
        gate += SLOPE
        gate *= size
        gate, rest = logistic_pair(gate, xp=xp)
        return z * gate, (z, gate, rest)

    def _tanh_backward(self, cache: tuple[Array, ...], da: Array, xp: Namespace) -> Array:
        z, gate, rest = cache
        size = clamped(z, xp)
        dz = size * size
        dz *= 3.0 * 0.044715 * SLOPE
        dz += SLOPE
        dz *= size
        dz *= rest
        dz += 1.0
        dz *= gate
        dz *= da
        return dz


def clamped(z: Array, xp: Namespace) -> Array:
    """Return z held within ±25, where the gate of the tanh form is 0 or 1 in every dtype and z³ cannot overflow."""
    return xp.maximum(xp.minimum(z, constant(25.0, z, xp=xp)), constant(-25.0, z, xp=xp))
