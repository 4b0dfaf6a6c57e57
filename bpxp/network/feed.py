"""How samples come to the steps: from arrays that lie on the device, or piece by piece from the host.

A stream brings the mini-batches of an epoch in their order, some of them at a time, into buffers that keep their place:
the step that reads them is compiled, recorded or captured once. While the device works on a piece, a thread gathers the
next one from the host's memory, or from the disk, and the device fetches it. The steps do with the samples what they do
with samples on the device, and in the same order: so the results have the same bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.backends.base import option
from bpxp.backends.prefetch import make_prefetch
from bpxp.data.rows import Rows
from bpxp.network.step import Data

if TYPE_CHECKING:
    from concurrent.futures import Future

LARGE = 8 << 20  # bytes of a piece that several threads gather: it is for a device which is quicker than one of them
HELPERS = max(1, min(4, (os.cpu_count() or 1) // 2))
WHOLE = 8  # as many steps, or a multiple of them, have a CUDA graph of their own


class Resident:
    """Samples that lie on the device, in mini-batches of `size`."""

    samples = None  # the step sees how many they are

    def __init__(self, backend: Backend, data: Data) -> None:
        self.backend, self.data, self.size = backend, data, int(data.batch_index.shape[0])

    def begin(self, order: np.ndarray) -> Array:
        """Take the order of an epoch; return what the state has to hold of it."""
        return self.backend.asarray(order)

    def parts(self, done: int, count: int) -> Iterator[tuple[Data, int]]:
        """Yield the data for `count` steps after `done` of the epoch, each with the number of steps that it is for."""
        yield self.data, count


class Stream:
    """Samples that stay on the host, and come to the device in pieces of some mini-batches of `size`.

    Attributes
    ----------
    samples : int
        How many there are: the data that a step is given hold a part of them.
    batches : int
        Mini-batches in a piece.
    bytes : int
        Of the buffers on the device.

    Notes
    -----
    Until `begin` gives another order the samples come as they stand. Any steps may be asked for at any time, also those
    that were done already.
    """

    def __init__(self, backend: Backend, x: Rows, y: Rows, weight: Rows | None, size: int) -> None:
        from concurrent.futures import ThreadPoolExecutor  # not imported by those who have room

        self.sources = [rows for rows in (x, y, weight) if rows is not None]
        self.samples, self.size = len(x), size
        self.batches = batches_of_a_piece(backend, sum(rows.row_bytes for rows in self.sources), self.samples, size)
        rows = self.batches * size
        self.prefetch = make_prefetch(backend, [(source.sample, source.dtype) for source in self.sources], rows)
        self.bytes = 2 * rows * sum(source.row_bytes for source in self.sources)
        self.batch_index = backend.xp.arange(size, dtype=backend.xp.int32)
        self._xp = backend.xp
        self._order: np.ndarray | None = None
        self._thread = ThreadPoolExecutor(1, "bpxp-stream")  # one: what is asked for comes in turn
        self._helpers = ThreadPoolExecutor(HELPERS, "bpxp-gather") if self.bytes // 2 >= LARGE else None
        self._asked: dict[int, tuple[int, Future[None]]] = {}  # of each half, the piece that is or will be there
        self._now: int | None = None

    def begin(self, order: np.ndarray) -> Array:
        """Take the order of an epoch; the state has none, since the samples come in it."""
        self._leave()
        self._asked.clear()
        self._order = order
        return self._xp.zeros((1,), dtype=self._xp.int32)

    def parts(self, done: int, count: int) -> Iterator[tuple[Data, int]]:
        """Yield the data for `count` steps after `done` of the epoch, each with the number of steps that it is for."""
        end = done + count
        while done < end:
            piece = done // self.batches
            until = min(end, (piece + 1) * self.batches)
            yield self._data(piece), until - done
            done = until

    def _data(self, piece: int) -> Data:
        if piece != self._now:
            self._leave()
            self._ask(piece).result()
            self._now = piece
            if (piece + 1) * self.batches * self.size < self.samples:
                self._ask(piece + 1)
        x, y, *weight = self.prefetch.wait(piece % 2)
        return Data(x, y, weight[0] if weight else None, self.batch_index)

    def _leave(self) -> None:
        if self._now is not None:
            self.prefetch.release(self._now % 2)
            self._now = None

    def _ask(self, piece: int) -> Future[None]:
        known, coming = self._asked.get(piece % 2, (None, None))
        if coming is None or known != piece:
            coming = self._thread.submit(self._fill, piece, self._order)
            self._asked[piece % 2] = piece, coming
        return coming

    def _fill(self, piece: int, order: np.ndarray | None) -> None:
        """Gather a piece, and send it; in the thread."""
        rows = self.batches * self.size
        begin, end = piece * rows, min((piece + 1) * rows, -(-self.samples // self.size) * self.size)
        # Without an order the last sample again where a mini-batch is short, as an evaluation has it.
        which = np.minimum(np.arange(begin, end), self.samples - 1) if order is None else order[begin:end]
        for source, room in zip(self.sources, self.prefetch.host_buffer(piece % 2), strict=True):
            self._gather(source, which, room[: end - begin])
        self.prefetch.start(piece % 2)

    def _gather(self, source: Rows, which: np.ndarray, room: np.ndarray) -> None:
        if self._helpers is None or room.nbytes < LARGE:
            source.take(which, room)
            return
        step = -(-len(which) // HELPERS)
        parts = [slice(begin, begin + step) for begin in range(0, len(which), step)]
        for done in [self._helpers.submit(source.take, which[part], room[part]) for part in parts]:
            done.result()


Feed = Resident | Stream


def batches_of_a_piece(backend: Backend, row_bytes: int, samples: int, size: int) -> int:
    """Return how many mini-batches travel at a time: enough that handing them over costs little."""
    most: int = option(backend, "prefetch_bytes")
    batches = min(max(1, most // max(1, row_bytes * size)), -(-samples // size))
    return batches - batches % WHOLE if batches > WHOLE else batches
