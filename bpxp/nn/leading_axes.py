"""Leading axes: vectors in an array (batch, …, n), seen as the rows of a matrix, and back.

What a layer or a loss does to each vector it does to each row, so the equations hold with n running over all leading
axes. A matrix is returned as it is: networks of vectors pay nothing.
"""

from __future__ import annotations

from bpxp.core.typing import Array, Namespace


def as_rows(a: Array, /, *, xp: Namespace) -> Array:
    """Return (batch, …, n) as a matrix of shape (batch · …, n)."""
    return a if a.ndim == 2 else xp.reshape(a, (-1, a.shape[-1]))


def as_before(rows: Array, like: Array, /, *, xp: Namespace) -> Array:
    """Return rows with the leading axes of `like`: the inverse of `as_rows`."""
    return rows if like.ndim == 2 else xp.reshape(rows, (*like.shape[:-1], rows.shape[-1]))
