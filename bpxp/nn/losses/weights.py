"""Class weights as sample weights, the only weights that a loss takes."""

from __future__ import annotations

from bpxp.core.typing import Array, Namespace


def class_weights_to_sample_weights(y: Array, class_weight: Array, /, *, xp: Namespace) -> Array:
    """Return w_n, the weight of the class of each sample.

    Parameters
    ----------
    y : array, (batch,) or (batch, n_classes)
        Class indices, or rows that sum to 1: a soft row gets the mean of the weights under it.
    class_weight : array, (n_classes,), floating
        Weight of each class.

    Returns
    -------
    array, (batch,)
        In the dtype of `class_weight`.
    """
    if y.ndim == 1:
        # torch takes no uint8 as an index
        return xp.take(class_weight, xp.astype(y, xp.int32), axis=0)
    return xp.sum(xp.astype(y, class_weight.dtype, copy=False) * class_weight, axis=1)
