"""Activations that level off on both sides: sigmoid, tanh, softsign, hard sigmoid."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.nn.activations.activation import Activation
from bpxp.nn.functions import constant


@dataclass(frozen=True)
class Sigmoid(Activation):
    """a = σ(z) = 1/(1 + e^(-z)), dz = da a (1 - a).

    Notes
    -----
    Computed as (tanh(z/2) + 1)/2: one exact identity, no overflow, no branch. Its absolute error is a rounding; its
    relative error in the tail is not, so what a user reads out as a probability is computed by the loss instead.
    """

    analytic = True

    equations = Equations(
        forward="a[n,j] = 1/(1 + exp(-z[n,j]))",
        dz="dz[n,j] = da[n,j]*a[n,j]*(1 - a[n,j])",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = xp.tanh(z * 0.5)
        a *= 0.5
        a += 0.5
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = 1.0 - a
        dz *= a
        dz *= da
        return dz, ()


@dataclass(frozen=True)
class Tanh(Activation):
    """a = tanh(z), dz = da (1 - a²)."""

    analytic = True

    equations = Equations(
        forward="a[n,j] = tanh(z[n,j])",
        dz="dz[n,j] = da[n,j]*(1 - a[n,j]^2)",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = xp.tanh(z)
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = 1.0 - a * a
        dz *= da
        return dz, ()


@dataclass(frozen=True)
class Softsign(Activation):
    """a = z/(1 + |z|), dz = da/(1 + |z|)²: like tanh, with tails that fall as 1/z² instead of e^(-2z).

    Notes
    -----
    The cache is 1 + |z|, by which da is divided twice: its square would overflow where the quotient does not.

    References
    ----------
    J. Bergstra et al., *Quadratic polynomials learn better image features*, technical report 1337, Université de
    Montréal, 2009.
    """

    equations = Equations(
        forward="a[n,j] = z[n,j]/(1 + abs(z[n,j]))",
        dz="dz[n,j] = da[n,j]/(1 + abs(z[n,j]))^2",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        d = xp.abs(z)
        d += 1.0
        return z / d, d

    def backward(self, params: tuple[()], d: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = da / d
        dz /= d
        return dz, ()


@dataclass(frozen=True)
class HardSigmoid(Activation):
    """a = min(max(z + 3, 0), 6)/6, dz = da [-3 < z < 3]/6; the derivative at ±3 is 0, as in PyTorch.

    Notes
    -----
    This is PyTorch's; Keras 2 had min(max(0.2 z + 0.5, 0), 1). The derivative is decided on z, since z + 3 rounds.

    References
    ----------
    A. Howard et al., *Searching for MobileNetV3*, ICCV 2019.
    """

    equations = Equations(
        forward="a[n,j] = min(max(z[n,j] + 3, 0), 6)/6",
        dz="dz[n,j] = 1/6*da[n,j]*[-3 < z[n,j] < 3]",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = xp.minimum(z, constant(3.0, z, xp=xp))  # first, so that z + 3 cannot overflow
        a += 3.0
        a = xp.maximum(a, constant(0.0, z, xp=xp))
        a /= 6.0
        return a, z

    def backward(self, params: tuple[()], z: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = xp.astype(xp.abs(z) < 3.0, z.dtype)
        dz *= da
        dz /= 6.0
        return dz, ()
