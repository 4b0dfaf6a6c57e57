"""Activations that pass what is positive: ReLU, leaky ReLU, ELU, SELU, softplus."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.checks import set_numbers
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.nn.activations.activation import Activation
from bpxp.nn.functions import constant, positive, softplus


@dataclass(frozen=True)
class ReLU(Activation):
    """a = max(z, 0), dz = da [z > 0]; the derivative at 0 is 0, as in PyTorch."""

    # A tie of several a is one of 0, where nothing comes back; other a have the order of their z, bit for bit.
    commutes_with_max = True

    equations = Equations(
        forward="a[n,j] = max(z[n,j], 0)",
        dz="dz[n,j] = da[n,j]*[z[n,j] > 0]",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = xp.maximum(z, xp.zeros((), dtype=z.dtype))
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = xp.astype(a > 0.0, a.dtype)
        dz *= da
        return dz, ()


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """a = max(z, slope z), dz = da (1 if z > 0 else slope); the derivative at 0 is the slope, as in PyTorch.

    Parameters
    ----------
    slope : float, optional
        In [0, 1]: 0 is `ReLU`, 1 the identity.

    Notes
    -----
    a > 0 exactly where z > 0, whatever the slope, so a is enough for the derivative.

    References
    ----------
    A. Maas, A. Hannun, A. Ng, *Rectifier nonlinearities improve neural network acoustic models*, ICML 2013.
    """

    slope: float = 0.01

    equations = Equations(
        forward="a[n,j] = max(z[n,j], slope*z[n,j])",
        dz="dz[n,j] = da[n,j]*([z[n,j] > 0] + slope*[z[n,j] <= 0])",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "slope", low=0.0, high=1.0)

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = xp.maximum(z, z * self.slope)
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = xp.maximum(positive(a, xp=xp), constant(self.slope, a, xp=xp))
        dz *= da
        return dz, ()


@dataclass(frozen=True)
class ELU(Activation):
    """a = z if z > 0 else α (e^z - 1), dz = da (1 if z > 0 else a + α); the derivative at 0 is α, as in PyTorch.

    Parameters
    ----------
    alpha : float, optional
        α >= 0: the level reached for z → -∞ is -α. With 1 the derivative is continuous.

    References
    ----------
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, *Fast and accurate deep network learning by exponential linear units*,
    ICLR 2016.
    """

    alpha: float = 1.0

    equations = Equations(
        forward="a[n,j] = z[n,j]*[z[n,j] > 0] + alpha*(exp(z[n,j]) - 1)*[z[n,j] <= 0]",
        dz="dz[n,j] = da[n,j]*([z[n,j] > 0] + alpha*exp(z[n,j])*[z[n,j] <= 0])",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "alpha", low=0.0)

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = exponential_linear(z, 1.0, self.alpha, xp)
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = exponential_linear_derivative(a, 1.0, self.alpha, xp)
        dz *= da
        return dz, ()


SELU_ALPHA = 1.6732632423543772848170429916717
SELU_SCALE = 1.0507009873554804934193349852946


@dataclass(frozen=True)
class SELU(Activation):
    """a = λ (z if z > 0 else α (e^z - 1)), dz = da (λ if z > 0 else a + λα); the derivative at 0 is λα.

    Notes
    -----
    λ and α are such that the mean 0 and variance 1 of z are kept by a; that needs W from ``"lecun_normal"``.

    References
    ----------
    G. Klambauer et al., *Self-normalizing neural networks*, NeurIPS 2017, equations 2 and 14.
    """

    alpha, scale = SELU_ALPHA, SELU_SCALE

    equations = Equations(
        forward="a[n,j] = scale*(z[n,j]*[z[n,j] > 0] + alpha*(exp(z[n,j]) - 1)*[z[n,j] <= 0])",
        dz="dz[n,j] = da[n,j]*scale*([z[n,j] > 0] + alpha*exp(z[n,j])*[z[n,j] <= 0])",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = exponential_linear(z, SELU_SCALE, SELU_SCALE * SELU_ALPHA, xp)
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = exponential_linear_derivative(a, SELU_SCALE, SELU_SCALE * SELU_ALPHA, xp)
        dz *= da
        return dz, ()


def exponential_linear(z: Array, scale: float, level: float, xp: Namespace) -> Array:
    """Return scale·z for z > 0, else level·(e^z - 1): each part is exactly 0 where the other one counts."""
    zero = constant(0.0, z, xp=xp)
    a = xp.expm1(xp.minimum(z, zero))
    a *= level
    rest = xp.maximum(z, zero)
    if scale != 1.0:
        rest *= scale
    a += rest
    return a


def exponential_linear_derivative(a: Array, scale: float, level: float, xp: Namespace) -> Array:
    """Return scale for a > 0, else a + level; where the two meet, one minimum is enough."""
    slope = xp.minimum(a, constant(0.0, a, xp=xp))
    slope += level
    if scale == level:
        return slope
    above = positive(a, xp=xp)
    slope *= 1.0 - above
    above *= scale
    slope += above
    return slope


@dataclass(frozen=True)
class Softplus(Activation):
    """a = log(1 + e^z), dz = da σ(z) = da (1 - e^(-a)): a smooth ReLU.

    Notes
    -----
    Computed as max(z, 0) + log(1 + e^(-|z|)), for all z; PyTorch replaces it by z above 20.

    References
    ----------
    C. Dugas et al., *Incorporating second-order functional knowledge for better option pricing*, NeurIPS 2000.
    """

    equations = Equations(
        forward="a[n,j] = log(1 + exp(z[n,j]))",
        dz="dz[n,j] = da[n,j]*sigma(z[n,j])",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = softplus(z, xp=xp)
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = xp.expm1(-a)
        dz *= -1.0
        dz *= da
        return dz, ()
