"""Categorical cross-entropy of the softmax: one class out of many."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.nn.checks import number
from bpxp.nn.losses.loss import Array, Namespace, sample_weights


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

    (times w_n/Σw, or 1/batch). log a is computed as z - max z - log Σ e^(z - max z): no overflow, and no probability
    is clipped, so J grows with z without bound as it should.

    `y` is an integer array (batch,) of class indices, or (batch, n_out) with rows that sum to 1 (one-hot or soft).

    References
    ----------
    C. Bishop, *Pattern Recognition and Machine Learning*, 4.3.4 and 5.2.
    """

    label_smoothing: float = 0.0

    targets = "classes"

    def __post_init__(self) -> None:
        number(
            self.label_smoothing,
            "SoftmaxCrossEntropy(label_smoothing=…)",
            low=0.0,
            high=1.0,
            high_open=True,
        )

    def __call__(
        self, logits: Array, y: Array, weight: Array | None = None, /, *, xp: Namespace
    ) -> tuple[Array, Array]:
        if y.ndim == 1:
            y = one_hot(y, logits.shape[1], dtype=logits.dtype, xp=xp)
        if self.label_smoothing:
            y = (1.0 - self.label_smoothing) * y + self.label_smoothing / logits.shape[1]
        scale = sample_weights(logits, weight, xp)
        log_a = log_softmax(logits, xp=xp)
        value = -xp.sum(xp.sum(y * log_a, axis=1, keepdims=True) * scale)
        delta = xp.exp(log_a)
        delta -= y
        delta *= scale
        return value, delta

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        return softmax(logits, xp=xp)


def one_hot(y: Array, classes: int, /, *, dtype: object, xp: Namespace) -> Array:
    """Return rows with a 1 in place y[n], by comparison: no scatter, and valid under any compiler."""
    return xp.astype(xp.expand_dims(y, axis=1) == xp.arange(classes, dtype=y.dtype), dtype)


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
