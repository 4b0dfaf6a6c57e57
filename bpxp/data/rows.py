"""Lazily converted rows of a host array, which may be a memory-mapped file larger than memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

BLOCK = 4 << 20  # bytes converted at a time


class Rows:
    """A view, (n, *sample), of a host array that is converted to `dtype` row by row when it is read.

    The array, (N, …), may have any layout, dtype and byte order, and be a memory map; it is never written. A row is
    reshaped to `sample`, and `index` are the rows of the view; default: all as they are.
    """

    def __init__(
        self, a: np.ndarray, dtype: np.dtype, sample: tuple[int, ...] | None = None, index: np.ndarray | None = None
    ) -> None:
        self.a, self.dtype, self.index = a, np.dtype(dtype), index
        self.sample: tuple[int, ...] = a.shape[1:] if sample is None else sample
        self.shape = (len(a) if index is None else len(index), *self.sample)
        # NumPy's `take` would copy the whole array first if it has another layout.
        self._as_it_is = a.dtype == self.dtype and a.flags.c_contiguous and a.flags.aligned

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.sample)

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Write the rows with these indices, each in 0 … n - 1, into `out`, (len(rows), *sample), in C order."""
        if self.index is not None:
            rows = self.index[rows]
        into = out.reshape((len(rows), *self.a.shape[1:]))
        if self._as_it_is:
            # mode="clip" is faster than "raise"; the indices are valid, so nothing is clipped.
            np.take(self.a, rows, axis=0, out=into, mode="clip")
            return
        with np.errstate(over="ignore", invalid="ignore"):
            for begin, end in self._parts(len(rows)):
                into[begin:end] = self.a[rows[begin:end]]

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return the rows begin … end - 1, without a copy if no conversion is needed."""
        with np.errstate(over="ignore", invalid="ignore"):
            part = self.a[begin:end] if self.index is None else self.a[self.index[begin:end]]
            return np.ascontiguousarray(part, self.dtype).reshape((end - begin, *self.sample))

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows in blocks of a few MB."""
        for begin, end in self._parts(len(self)):
            yield self.read(begin, end)

    def pieces(self, most: int) -> Iterator[np.ndarray]:
        """Yield evenly spaced blocks, the first and the last included; all, if they are at most so many."""
        parts = list(self._parts(len(self)))
        for i in sorted({round(i * (len(parts) - 1) / (most - 1)) for i in range(most)}):
            yield self.read(*parts[i])

    def select(self, rows: np.ndarray) -> Rows:
        """Return a view of the rows with these indices."""
        return type(self)(self.a, self.dtype, self.sample, rows if self.index is None else self.index[rows])

    def _parts(self, n: int) -> Iterator[tuple[int, int]]:
        step = max(1, BLOCK // max(1, self.row_bytes))
        for begin in range(0, n, step):
            yield begin, min(begin + step, n)


class OneHot(Rows):
    """Class indices, (N, …), read as one-hot rows."""

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        classes = self.a[rows if self.index is None else self.index[rows]]
        out[...] = 0.0
        np.put_along_axis(out, classes[..., None], 1.0, axis=-1)
