"""Resolution: a warning where numbers that differ become equal in the network's dtype."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.backends.dlpack import is_host_array
from bpxp.data.validation.inputs import BLOCK, adopt, as_host
from bpxp.errors import warn

LEVELS = 1 << 14  # numbers of the dtype in a feature's range: where there are as many, rounding does not matter
SEEN = 1 << 16  # samples in which equal numbers are counted
LOST = 0.25  # share of the different numbers that is worth a warning


def warn_collapsed(x: Any, backend: Backend, dtype: str, where: str) -> None:
    """Warn if the dtype rounds a feature away: seconds since 1970, or large identifiers, whose range is small."""
    x = as_host(x, where) if is_host_array(x) else adopt(x, backend, where)
    plain = not isinstance(x, np.ndarray) and x.dtype in (getattr(backend.xp, dtype), backend.xp.uint8)
    if x.ndim < 2 or 0 in x.shape or plain:
        return
    n, shape = x.shape[0], tuple(x.shape[1:])
    if x.ndim > 2:
        x = x.reshape(n, -1) if isinstance(x, np.ndarray) else backend.xp.reshape(x, (n, -1))
    head = _on_host(x[: min(n, SEEN, max(2, 4 * BLOCK // x.shape[1])), :], backend)
    if head.dtype.kind not in "iuf" or np.can_cast(head.dtype, dtype, "safe"):
        return
    with np.errstate(all="ignore"):
        for column in map(int, _narrow(head, dtype)):
            if not _narrow(_on_host(x[:, column : column + 1], backend), dtype).size:
                continue
            seen = head[:, column]
            different, left = len(np.unique(seen)), len(np.unique(seen.astype(dtype)))
            if left < (1.0 - LOST) * different:
                place = ", ".join(map(str, np.unravel_index(column, shape)))
                what = f"{different} different numbers in x[:, {place}] become {left} in {dtype}"
                warn(where, what, code="W010", fix="x - x.mean(axis=0), or Network(…, dtype='float64')")
                return


def _on_host(a: Array, backend: Backend) -> np.ndarray:
    return a if isinstance(a, np.ndarray) else backend.to_numpy(a)


def _narrow(x: np.ndarray, dtype: str) -> np.ndarray:
    """Return the columns in whose range the dtype has few numbers, and that are not constant."""
    low, high = x.min(axis=0), x.max(axis=0)
    width = high.astype(np.float64) - low.astype(np.float64)
    largest = np.maximum(np.abs(low.astype(np.float64)), np.abs(high.astype(np.float64)))
    return np.flatnonzero((high > low) & (width < LEVELS * np.spacing(largest.astype(dtype))))
