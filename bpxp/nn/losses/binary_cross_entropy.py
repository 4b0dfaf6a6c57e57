"""Binary cross-entropy of the sigmoid: several labels, each on or off by itself."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.checks import number, set_field, set_numbers
from bpxp.core.typing import Array, Namespace
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.functions import decay, logistic, logistic_numerators, softplus_pair
from bpxp.nn.losses.loss import sample_weights, targets_like, weighted_mean


@dataclass(frozen=True)
class BinaryCrossEntropy:
    """Cross-entropy of independent labels, summed over the labels of a sample.

    Parameters
    ----------
    pos_weight : float or tuple of float, optional
        p > 0, for all labels or for each: how much more a positive counts. negatives/positives balances a rare label.
    label_smoothing : float, optional
        ε in [0, 1): the target becomes (1 - ε) y + ε/2.

    Notes
    -----
    With a = σ(z), for each label k of a sample::

        J     = Σ_k -p y log a - (1 - y) log(1 - a)
              = Σ_k p y softplus(-z) + (1 - y) softplus(z)
        delta = ∂J/∂z = (1 - y) σ(z) - p y σ(-z)          (= a - y for p = 1)

    (times w_n/Σw, or 1/batch), where softplus(±z) = max(±z, 0) + log(1 + e^(-|z|)); without p that is the well-known
    max(z, 0) - z y + log(1 + e^(-|z|)). σ(z) and σ(-z) are both computed from e^(-|z|), so J and delta keep their
    relative accuracy for labels that are nearly certain, and no probability is clipped.

    `y` is (batch, …, n_out), or (batch, …) for a single output, with 0 and 1 or anything between. NaN marks a missing
    label, which contributes nothing to J and delta: NaN differs from itself, so the bracket in the equations is 0.

    `weight` may also be (batch, n_out), a weight w_nk of each label: then u_nk = w_nk/Σ_m w_m stands in the place of
    u_n, where w_m is the mean of the weights of sample m.

    References
    ----------
    C. Bishop, *Pattern Recognition and Machine Learning*, 4.3.2 and 5.2.
    """

    pos_weight: float | tuple[float, ...] = 1.0
    label_smoothing: float = 0.0

    targets = "labels"

    equations = Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        target="t[n,k] = (1 - label_smoothing)*y[n,k] + label_smoothing/2",
        activate="a[n,k] = 1/(1 + exp(-z[n,k]))",
        J="J = -sum_n u[n]*sum_k [y[n,k] == y[n,k]]*(pos_weight[k]*t[n,k]*log(a[n,k]) + (1 - t[n,k])*log(1 - a[n,k]))",
        delta="delta[n,k] = u[n]*[y[n,k] == y[n,k]]*((1 - t[n,k])*a[n,k] - pos_weight[k]*t[n,k]*(1 - a[n,k]))",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "label_smoothing", low=0.0, high=1.0, high_open=True)
        if isinstance(self.pos_weight, (tuple, list)):
            where = f"{type(self).__name__}(pos_weight=…)"
            set_field(self, "pos_weight", tuple(number(p, where, low=0.0, low_open=True) for p in self.pos_weight))
        else:
            set_numbers(self, "pos_weight", low=0.0, low_open=True)

    def __call__(
        self, logits: Array, y: Array, weight: Array | None = None, /, *, xp: Namespace
    ) -> tuple[Array, Array]:
        on, off = self._masses(logits, y, xp)  # p y and 1 - y
        scale, e = sample_weights(logits, weight, xp), decay(logits, xp=xp)  # e^(-|z|)
        # J = Σ_k p y softplus(-z) + (1 - y) softplus(z)
        plus, minus = softplus_pair(logits, e, xp=xp)
        plus *= off
        minus *= on
        plus += minus
        by_label = weight is not None and weight.ndim == 2
        each = plus if by_label else xp.sum(plus, axis=-1, keepdims=True)
        # delta = ((1 - y) σ(z) - p y σ(-z)) scale, where σ(z) and σ(-z) are quotients by 1 + e
        above, below = logistic_numerators(logits, e, xp=xp)
        e += 1.0
        delta = off
        delta *= above
        on *= below
        delta -= on
        delta /= e
        delta *= scale
        value = weighted_mean(each, scale, xp)
        return xp.sum(value, keepdims=True) if by_label else value, delta

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        return logistic(logits, xp=xp)

    def _masses(self, logits: Array, y: Array, xp: Namespace) -> tuple[Array, Array]:
        """Return p y and 1 - y as new arrays, both 0 where the label is missing."""
        if y.ndim == logits.ndim - 1 and logits.shape[-1] == 1:
            y = xp.expand_dims(y, axis=-1)
        may_miss = xp.isdtype(y.dtype, "real floating")
        y = targets_like(logits, y, "BinaryCrossEntropy", xp)
        if may_miss:
            known = y == y  # NaN differs from itself
            on = xp.where(known, y, 0.0)
            off = xp.astype(known, y.dtype)
        else:
            on = xp.astype(y, y.dtype, copy=True)
            off = xp.ones_like(on)
        if self.label_smoothing:
            on *= 1.0 - self.label_smoothing
            on += (0.5 * self.label_smoothing) * off
        off -= on
        if self.pos_weight != 1.0:
            on *= self._pos_weights(logits, xp)
        return on, off

    def _pos_weights(self, logits: Array, xp: Namespace) -> Array | float:
        if not isinstance(self.pos_weight, tuple):
            return self.pos_weight
        if len(self.pos_weight) != logits.shape[-1]:
            what = "one weight per label is needed"
            got = f"{len(self.pos_weight)} weights"
            expected = f"{logits.shape[-1]}, or one number for all labels"
            raise InvalidValueError("BinaryCrossEntropy(pos_weight=…)", what, code="E044", got=got, expected=expected)
        # Fills, not a copy of host data: those may be recorded in a CUDA graph.
        return xp.concat([xp.full((1,), p, dtype=logits.dtype) for p in self.pos_weight])
