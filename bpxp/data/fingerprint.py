"""A fingerprint of a data set: SHA-256 of all its bytes, or of evenly spaced blocks of a large one."""

from __future__ import annotations

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.data.rows import Rows

WHOLE = 256 << 20  # bytes that are hashed as a whole, in about a quarter of a second
PIECE = 16 << 20  # bytes on the host at a time


def fingerprint(a: Array | Rows, backend: Backend, whole: int | None = WHOLE, piece: int = PIECE) -> str:
    """Return the SHA-256 of the dtype, shape and bytes of (n, …) samples, n > 0, the same on every device.

    An array is copied to the host in blocks of `piece` bytes. Of one larger than `whole` bytes only so many are hashed:
    evenly spaced blocks, the first and last included; None hashes all.
    """
    import hashlib

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
