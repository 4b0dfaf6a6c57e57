"""Categorical cross-entropy of the softmax: one class out of many."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.checks import set_numbers
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.losses.loss import sample_weights, targets_like, weighted_mean


@dataclass(frozen=True)
class SoftmaxCrossEntropy:
    """Cross-entropy between the target distribution and the softmax of the logits.

    Parameters
    ----------
    label_smoothing : float, optional
        ε in [0, 1): the target becomes (1 - ε) y + ε/n_out.

    Notes
    -----
    With z the logits of one sample, a = softmax(z) and Σ_k y_k = 1::

        J     = -Σ_k y_k log a_k = log Σ_k e^(z_k) - Σ_k y_k z_k
        delta = ∂J/∂z = a - y

    (times w_n/Σw, or 1/batch). z stands for z - max z, which changes neither: no overflow for any logits whose
    differences are finite numbers, and no probability is clipped, so J grows with z without bound as it should.

    `y` is an integer array (batch, …) of class indices, or (batch, …, n_out) with rows that sum to 1 (one-hot or soft).

    References
    ----------
    C. Bishop, *Pattern Recognition and Machine Learning*, 4.3.4 and 5.2.
    """

    label_smoothing: float = 0.0

    targets = "classes"
    analytic = True

    equations = Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        target="t[n,k] = (1 - label_smoothing)*y[n,k] + label_smoothing/count_k",
        activate="a[n,k] = exp(z[n,k])/(sum_j exp(z[n,j]))",
        J="J = -sum_n u[n]*sum_k t[n,k]*log(a[n,k])",
        delta="delta[n,k] = u[n]*(a[n,k] - t[n,k])",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "label_smoothing", low=0.0, high=1.0, high_open=True)

    def __call__(
        self, logits: Array, y: Array, weight: Array | None = None, /, *, xp: Namespace
    ) -> tuple[Array, Array]:
        y = self._rows(logits, y, xp)
        scale = sample_weights(logits, weight, xp)
        z = logits - xp.max(logits, axis=-1, keepdims=True)
        delta = xp.exp(z)
        total = xp.sum(delta, axis=-1, keepdims=True)
        delta /= total  # a
        delta -= y
        delta *= scale
        z *= y
        each = xp.log(total)
        each -= xp.sum(z, axis=-1, keepdims=True)
        return weighted_mean(each, scale, xp), delta

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        return softmax(logits, xp=xp)

    def _rows(self, logits: Array, y: Array, xp: Namespace) -> Array:
        """Return the target distributions, in shape and dtype of the logits."""
        classes = logits.shape[-1]
        if y.ndim == logits.ndim - 1:
            if y.shape != logits.shape[:-1]:
                what = "one class index per sample is needed"
                got = f"y of shape {tuple(y.shape)}"
                expected = f"{tuple(logits.shape[:-1])}"
                raise InvalidValueError("SoftmaxCrossEntropy", what, code="E044", got=got, expected=expected)
            y = one_hot(y, classes, dtype=logits.dtype, xp=xp)
        else:
            y = targets_like(logits, y, "SoftmaxCrossEntropy", xp)
        if self.label_smoothing:
            y = (1.0 - self.label_smoothing) * y
            y += self.label_smoothing / classes
        return y


def one_hot(y: Array, classes: int, /, *, dtype: object, xp: Namespace) -> Array:
    """Return rows with a 1 in place y[n], by comparison: no scatter, and valid under any compiler.

    An index outside 0 … classes-1 gives a row of zeros; (…) to (…, classes).
    """
    # Not every library compares every kind of integer, and uint8 cannot count past 255.
    y = xp.astype(y, xp.int32, copy=False)
    return xp.astype(xp.expand_dims(y, axis=y.ndim) == xp.arange(classes, dtype=xp.int32), dtype)


def log_softmax(z: Array, /, *, xp: Namespace) -> Array:
    """Log softmax(z) over the last axis, without overflow; (…, n_out) to (…, n_out)."""
    shifted = z - xp.max(z, axis=-1, keepdims=True)
    shifted -= xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))
    return shifted


def softmax(z: Array, /, *, xp: Namespace) -> Array:
    """softmax(z) over the last axis: each a_k to a relative error of a few roundings, down to underflow."""
    e = xp.exp(z - xp.max(z, axis=-1, keepdims=True))
    e /= xp.sum(e, axis=-1, keepdims=True)
    return e


def softmax_jacobian(a: Array, /, *, xp: Namespace) -> Array:
    """∂a_j/∂z_k = a_k (δ_jk - a_j) of a = softmax(z); (…, n_out) to (…, n_out, n_out).

    Training needs only its product with ∂J/∂a, in which it vanishes: delta = a - y. It is here to be looked at.
    """
    jacobian = xp.eye(a.shape[-1], dtype=a.dtype) - xp.expand_dims(a, axis=-1)
    jacobian *= xp.expand_dims(a, axis=-2)
    return jacobian
