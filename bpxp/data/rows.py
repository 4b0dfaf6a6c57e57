"""Rows of a host array, which may be a file larger than memory: converted as they are read, and never all at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

BLOCK = 4 << 20  # bytes that are looked at, or converted, at a time


class Rows:
    """What is read of an array row by row.

    Parameters
    ----------
    a : ndarray, shape (N, …)
        Of any layout, dtype and byte order; also a memory map. It is only read.
    dtype : dtype
        As which the numbers are read.
    sample : tuple of int, optional
        Shape as which a row is read; default: as it is.
    index : array of int, shape (n,), optional
        Which rows of `a` these are; default: all.

    Attributes
    ----------
    shape : tuple of int
        (n, *sample).
    """

    def __init__(
        self, a: np.ndarray, dtype: np.dtype, sample: tuple[int, ...] | None = None, index: np.ndarray | None = None
    ) -> None:
        self.a, self.dtype, self.index = a, np.dtype(dtype), index
        self.sample: tuple[int, ...] = a.shape[1:] if sample is None else sample
        self.shape = (len(a) if index is None else len(index), *self.sample)
        # NumPy's `take` copies the whole array first if it is of another layout.
        self._as_it_is = a.dtype == self.dtype and a.flags.c_contiguous and a.flags.aligned

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.sample)

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        """Write the rows of these numbers, each in 0 … n - 1, into `out`, (len(rows), *sample), in C order."""
        if self.index is not None:
            rows = self.index[rows]
        into = out.reshape((len(rows), *self.a.shape[1:]))
        if self._as_it_is:
            np.take(
                self.a, rows, axis=0, out=into, mode="clip"
            )  # which is quicker than to raise, and nothing is clipped
            return
        with np.errstate(over="ignore", invalid="ignore"):
            for begin, end in self._parts(len(rows)):
                into[begin:end] = self.a[rows[begin:end]]

    def read(self, begin: int, end: int) -> np.ndarray:
        """Return the rows begin … end - 1; if they lie there as they are read, without a copy."""
        with np.errstate(over="ignore", invalid="ignore"):
            part = self.a[begin:end] if self.index is None else self.a[self.index[begin:end]]
            return np.ascontiguousarray(part, self.dtype).reshape((end - begin, *self.sample))

    def blocks(self) -> Iterator[np.ndarray]:
        """Yield all rows, a few MB at a time."""
        for begin, end in self._parts(len(self)):
            yield self.read(begin, end)

    def select(self, rows: np.ndarray) -> Rows:
        """Return the rows of these numbers, to be read in the same way."""
        return type(self)(self.a, self.dtype, self.sample, rows if self.index is None else self.index[rows])

    def _parts(self, n: int) -> Iterator[tuple[int, int]]:
        step = max(1, BLOCK // max(1, self.row_bytes))
        for begin in range(0, n, step):
            yield begin, min(begin + step, n)


class OneHot(Rows):
    """Class indices, (N,), that are read as rows with a 1 where the class is."""

    def take(self, rows: np.ndarray, out: np.ndarray) -> None:
        classes = self.a[rows if self.index is None else self.index[rows]]
        out[...] = 0.0
        out[np.arange(len(rows)), classes] = 1.0
