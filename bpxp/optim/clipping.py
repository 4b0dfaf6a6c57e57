"""Clipping: gradients that are too long are shortened, without a decision that depends on a value."""

from __future__ import annotations

from bpxp.core.tree import leaves, tree_map
from bpxp.core.typing import Array, Namespace, Params


def clip_by_norm(grads: Params, limit: float, /, *, xp: Namespace) -> Params:
    """Shorten the gradient as a whole, so that its Euclidean norm over all leaves is at most `limit`.

    Writes into `grads` and returns it. The direction is kept::

        g ← g · limit / max(‖g‖, limit)

    Notes
    -----
    The maximum makes the factor exactly 1 for a short gradient, and a zero gradient is no division by zero. Before it
    is squared the gradient is divided by max(limit, max|g|): an exploding gradient, for which one clips, does not
    overflow on the way to its norm. Infinities and NaN stay visible: they come out as NaN.

    References
    ----------
    R. Pascanu, T. Mikolov, Y. Bengio, *On the difficulty of training recurrent neural networks*, 2013, algorithm 1.
    torch divides by ‖g‖ + 1e-6 instead.
    """
    flat = leaves(grads)
    if not flat:
        return grads
    largest = xp.full((1,), limit, dtype=flat[0].dtype)
    for g in flat:
        largest = xp.maximum(largest, xp.reshape(xp.max(xp.abs(g)), (1,)))
    squares = xp.zeros((1,), dtype=flat[0].dtype)
    for g in flat:
        squares += xp.sum(xp.square(g / largest))
    relative_limit = limit / largest
    factor = relative_limit / xp.maximum(xp.sqrt(squares), relative_limit)

    def scale(g: Array) -> Array:
        g *= factor
        return g

    return tree_map(scale, grads)  # type: ignore[no-any-return]


def clip_by_value(grads: Params, limit: float, /, *, xp: Namespace) -> Params:
    """Return the gradients with every component brought into [-limit, limit]; this may change the direction."""
    flat = leaves(grads)
    if not flat:
        return grads
    # `maximum` takes no Python scalar: an array of one element made on the device.
    upper = xp.full((1,), limit, dtype=flat[0].dtype)
    lower = -upper
    return tree_map(lambda g: xp.minimum(xp.maximum(g, lower), upper), grads)  # type: ignore[no-any-return]
