"""What a loss is: it takes logits, owns the output error, and says how to read the logits."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

Array = Any
Namespace = Any


@runtime_checkable
class Loss(Protocol):
    """The protocol of a loss; a frozen dataclass of hyper-parameters satisfies it.

    Attributes
    ----------
    targets : str
        What `y` may be: ``"classes"`` (integers or rows that sum to 1), ``"labels"`` (independent 0/1, NaN for a
        missing one), ``"values"`` (real numbers) or ``"counts"`` (numbers >= 0).
    """

    @property
    def targets(self) -> str: ...

    def __call__(
        self, logits: Array, y: Array, weight: Array | None = None, /, *, xp: Namespace
    ) -> tuple[Array, Array]:
        """Return (J, delta): the weighted mean over the batch of each sample's loss, and ∂J/∂logits.

        Parameters
        ----------
        logits : array, (batch, n_out)
        y : array
            Targets.
        weight : array, (batch,), optional
            Weight of each sample, >= 0. J = Σ w_n J_n / Σ w_n; a batch of zero weight has J = 0.
        """

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        """Return what the logits mean: probabilities, rates or values."""


def sample_weights(logits: Array, weight: Array | None, xp: Namespace) -> Array | float:
    """Return w_n / Σ w_n: the factor 1/batch without weights, an array (batch, 1) with them."""
    if weight is None:
        return 1.0 / logits.shape[0]
    total = xp.sum(weight)
    # A batch that holds nothing but padding has zero weight: divide by one instead of by zero.
    total = total + xp.astype(total == 0.0, weight.dtype)
    return xp.expand_dims(weight / total, axis=1)
