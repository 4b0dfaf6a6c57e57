"""Buffers through which samples travel from the host to a device, a piece at a time, while the device works.

Two pieces are on their way in turn: in one stands what the steps read now, in the other what they read next. Who fills
a piece is another thread than who gives the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from bpxp.backends.base import Backend, option
from bpxp.core.typing import Array

PIECE = 32 << 20  # bytes at a time to a device at the end of a bus: it asks for few long journeys

Kinds = list[tuple[tuple[int, ...], np.dtype[Any]]]  # of each array: the shape of one row, and the dtype


class Ring(Protocol):
    """Arrays of a device that hold `pieces` pieces of `rows` rows, and the way of each piece from the host to there.

    Pieces have the numbers 0 and 1. The order of calls for one of them is room, send, arrays, used.
    """

    pieces: int

    def room(self, piece: int) -> list[np.ndarray]:
        """Return where on the host the rows of a piece are to be written, once nobody reads what is there."""

    def send(self, piece: int) -> None:
        """Begin to bring what was written to the device, where it waits for the steps that read what is there."""

    def arrays(self, piece: int) -> list[Array]:
        """Return the arrays in which the piece stands; what the device is given to do from now on waits for it."""

    def used(self, piece: int) -> None:
        """Take note that of the steps which read the piece, the last was given to the device."""


class SharedRing:
    """For a device that computes in the host's memory, when it is told to: rows are written where steps read them.

    Parameters
    ----------
    kinds : list of (shape, dtype)
    rows : int
        Of one piece.
    share : callable
        Makes an array of the library from one of NumPy, in the same memory.
    """

    pieces = 2

    def __init__(self, kinds: Kinds, rows: int, share: Callable[[np.ndarray], Array]) -> None:
        self.rows = rows
        self._host = [np.zeros((2 * rows, *shape), dtype) for shape, dtype in kinds]
        self._own = [share(a) for a in self._host]

    def room(self, piece: int) -> list[np.ndarray]:
        return [a[piece * self.rows : (piece + 1) * self.rows] for a in self._host]

    def send(self, piece: int) -> None:
        pass

    def arrays(self, piece: int) -> list[Array]:
        return self._own

    def used(self, piece: int) -> None:
        pass


class FreshRing:
    """For a library that writes into no array: each piece comes in arrays of its own.

    Parameters
    ----------
    kinds : list of (shape, dtype)
    rows : int
        Of one piece.
    take : callable
        Brings an array of NumPy to the device. It may keep the memory: nobody else does.
    """

    pieces = 1

    def __init__(self, kinds: Kinds, rows: int, take: Callable[[np.ndarray], Array]) -> None:
        self.kinds, self.rows, self.take = kinds, rows, take
        self._host: dict[int, list[np.ndarray]] = {}
        self._own: dict[int, list[Array]] = {}

    def room(self, piece: int) -> list[np.ndarray]:
        self._host[piece] = [np.zeros((self.rows, *shape), dtype) for shape, dtype in self.kinds]
        return self._host[piece]

    def send(self, piece: int) -> None:
        self._own[piece] = [self.take(a) for a in self._host.pop(piece)]

    def arrays(self, piece: int) -> list[Array]:
        return self._own[piece]

    def used(self, piece: int) -> None:
        pass


def make_ring(backend: Backend, kinds: Kinds, rows: int) -> Ring:
    """Return the ring of a backend; one that has none of its own gets its pieces by `asarray`."""
    own: Callable[[Kinds, int], Ring] | None = option(backend, "prefetch")
    return FreshRing(kinds, rows, backend.asarray) if own is None else own(kinds, rows)
