"""Losses of real numbers: squared, absolute and Huber's error, and the Poisson likelihood of counts.

The loss of a sample is the mean over its outputs, so J is the mean over all elements, as in PyTorch. In the formulas
m is the number of outputs, and each delta is multiplied by w_n/Σw, or 1/batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.checks import set_numbers
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.nn.functions import constant, sign
from bpxp.nn.losses.loss import sample_weights, targets_like, weighted_mean


class Regression:
    """Base of the losses whose outputs are read as they are."""

    targets = "values"

    def __call__(
        self, logits: Array, y: Array, weight: Array | None = None, /, *, xp: Namespace
    ) -> tuple[Array, Array]:
        y = targets_like(logits, y, type(self).__name__, xp)
        scale = sample_weights(logits, weight, xp)
        each, delta = self.elementwise(logits, y, xp)
        delta *= scale / logits.shape[-1]
        return weighted_mean(xp.mean(each, axis=-1, keepdims=True), scale, xp), delta

    def elementwise(self, z: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return the loss of each element and its derivative with respect to z: two new arrays."""
        raise NotImplementedError

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        return xp.astype(logits, logits.dtype, copy=True)


@dataclass(frozen=True)
class MeanSquaredError(Regression):
    """J = 1/m Σ_k (z_k - y_k)², delta = 2 (z - y)/m: without the 1/2 of the textbooks, as in PyTorch."""

    analytic = True

    equations = Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        activate="a[n,k] = z[n,k]",
        J="J = sum_n u[n]*mean_k (z[n,k] - y[n,k])^2",
        delta="delta[n,k] = u[n]*2*(z[n,k] - y[n,k])/count_k",
    )

    def elementwise(self, z: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        difference = z - y
        squares = difference * difference
        difference *= 2.0
        return squares, difference


@dataclass(frozen=True)
class MeanAbsoluteError(Regression):
    """J = 1/m Σ_k |z_k - y_k|, delta = sign(z - y)/m; the derivative at z = y is 0, as in PyTorch."""

    equations = Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        activate="a[n,k] = z[n,k]",
        J="J = sum_n u[n]*mean_k abs(z[n,k] - y[n,k])",
        delta="delta[n,k] = u[n]*sign(z[n,k] - y[n,k])/count_k",
    )

    def elementwise(self, z: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        difference = z - y
        return xp.abs(difference), sign(difference, xp=xp)


@dataclass(frozen=True)
class Huber(Regression):
    """Squared for small errors, linear for large ones: an outlier pulls no harder than the threshold.

    Parameters
    ----------
    threshold : float, optional
        t > 0, where the two parts meet (PyTorch's ``delta``).

    Notes
    -----
    With d = z - y and c = min(max(d, -t), t)::

        J     = 1/m Σ_k c (d - c/2)     (= d²/2 for |d| <= t, else t (|d| - t/2))
        delta = c/m

    References
    ----------
    P. Huber, *Robust estimation of a location parameter*, Annals of Mathematical Statistics 35 (1964).
    """

    threshold: float = 1.0

    equations = Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        activate="a[n,k] = z[n,k]",
        clamped="c[n,k] = min(max(z[n,k] - y[n,k], -threshold), threshold)",
        J="J = sum_n u[n]*mean_k c[n,k]*(z[n,k] - y[n,k] - c[n,k]/2)",
        delta="delta[n,k] = u[n]*c[n,k]/count_k",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "threshold", low=0.0, low_open=True)

    def elementwise(self, z: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        difference = z - y
        clamped = xp.minimum(difference, constant(self.threshold, z, xp=xp))
        clamped = xp.maximum(clamped, constant(-self.threshold, z, xp=xp))
        difference -= 0.5 * clamped
        difference *= clamped
        return difference, clamped


@dataclass(frozen=True)
class Poisson(Regression):
    """Negative log-likelihood of counts y whose rate is e^z; `activate` returns the rates.

    Notes
    -----
    J = 1/m Σ_k (e^(z_k) - y_k z_k), delta = (e^z - y)/m. The term log y!, which does not depend on z, is left out, as
    in PyTorch's ``PoissonNLLLoss(log_input=True, full=False)``, so J may be negative. A rate beyond the dtype's range
    (z > 88 in float32) is infinite, and so is J.
    """

    targets = "counts"
    analytic = True

    equations = Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        activate="a[n,k] = exp(z[n,k])",
        J="J = sum_n u[n]*mean_k (exp(z[n,k]) - y[n,k]*z[n,k])",
        delta="delta[n,k] = u[n]*(a[n,k] - y[n,k])/count_k",
    )

    def elementwise(self, z: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        rate = xp.exp(z)
        each = rate - y * z
        rate -= y
        return each, rate

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        return xp.exp(logits)
