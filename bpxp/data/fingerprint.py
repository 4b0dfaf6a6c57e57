"""What tells data from other data: a digest of all their bytes, or of an even choice where there are very many."""

from __future__ import annotations

import hashlib

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.data.rows import Rows

WHOLE = 256 << 20  # bytes that are hashed as a whole, in about a quarter of a second
PIECE = 16 << 20  # bytes on the host at a time


def fingerprint(a: Array | Rows, backend: Backend, whole: int | None = WHOLE, piece: int = PIECE) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes, wherever it is: the same for the same numbers.

    Parameters
    ----------
    a : array or Rows, (n, …), n > 0
        Of the backend, or rows on the host. It travels to the host piece by piece.
    backend : Backend
    whole : int or None, optional
        Of an array that has more bytes, only so many are hashed: pieces at equal distances, from the first to the last.
        None hashes all.
    piece : int, optional
        Bytes.
    """
    n = int(a.shape[0])

    def read(begin: int, end: int) -> np.ndarray:
        return a.read(begin, end) if isinstance(a, Rows) else backend.to_numpy(a[begin:end, ...])

    row = read(0, 1)
    found = hashlib.sha256(f"{row.dtype.str}{tuple(a.shape)}".encode())
    step = max(1, piece // max(1, row.nbytes))
    begins = np.arange(0, n, step)
    if whole is not None and n * row.nbytes > whole:
        begins = begins[np.unique(np.linspace(0, len(begins) - 1, max(2, whole // piece)).astype(np.int64))]
    for begin in begins.tolist():
        part = np.ascontiguousarray(read(begin, min(begin + step, n)))
        found.update(part.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
