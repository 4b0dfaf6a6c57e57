"""The protocol of a loss: it takes logits, owns the output error, and defines how logits are read."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError
from bpxp.nn.leading_axes import as_rows


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
        logits : array, (batch, …, n_out)
            A sample with several positions, (time, n_out) say, has the mean over them as its loss J_n: it counts once,
            however many positions it has.
        y : array
            Targets, like the logits; or class indices, (batch, …).
        weight : array, (batch,), optional
            Weight of each sample, >= 0. J = Σ w_n J_n / Σ w_n; a batch of zero weight has J = 0.

        Returns
        -------
        J : array, (1,)
            Of one dimension, since NumPy would make a scalar of a 0-d array.
        delta : array, like the logits
            Both have the dtype of the logits, and share memory with nothing.

        Raises
        ------
        InvalidValueError
            If the shape of y does not fit: (batch,) against (batch, 1) is never broadcast.
        """

    def activate(self, logits: Array, /, *, xp: Namespace) -> Array:
        """Return what the logits mean, as a new array: probabilities, rates or values."""


def sample_weights(logits: Array, weight: Array | None, xp: Namespace) -> Array | float:
    """Return the share of each position in J, w_n / (positions Σ w_n): a number without weights, else (batch, …, 1).

    Weights of labels, (batch, n_out), have shares of their shape; a sample weighs the mean over its labels.
    """
    batch, *positions, _ = logits.shape
    count = math.prod(positions)
    if weight is None:
        return 1.0 / (batch * count)
    weight = xp.astype(weight, logits.dtype, copy=False)
    # A batch of padding alone has zero weight: the divisor is then the smallest normal number.
    least = xp.full((1,), float(xp.finfo(weight.dtype).smallest_normal), dtype=weight.dtype)
    each = weight if weight.ndim == 1 else xp.mean(weight, axis=1)
    total = xp.maximum(xp.sum(each, axis=0, keepdims=True), least)
    if count > 1:
        total *= count
    return xp.reshape(weight / total, (batch, *(1 for _ in positions), *(weight.shape[1:] or (1,))))


def weighted_mean(each: Array, scale: Array | float, xp: Namespace) -> Array:
    """Return J = Σ scale J_n, shape (1,), from the loss of each position, (batch, …, 1), which is overwritten."""
    each *= scale
    return xp.sum(as_rows(each, xp=xp), axis=0)


def targets_like(logits: Array, y: Array, where: str, xp: Namespace) -> Array:
    """Return y in the dtype of the logits, after its shape was compared with theirs; y itself if it fits already."""
    if y.shape != logits.shape:
        fix = f"y[{':' if y.ndim == 1 else '...'}, None]" if (*y.shape, 1) == logits.shape else ""
        what = "the shape of the targets is not that of the outputs"
        got = f"y of shape {tuple(y.shape)}"
        raise InvalidValueError(where, what, code="E044", got=got, expected=f"{tuple(logits.shape)}", fix=fix)
    return xp.astype(y, logits.dtype, copy=False)
