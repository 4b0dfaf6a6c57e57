"""The order of the samples: a pure function of (seed, epoch), the same on every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.core.checks import positive_int
from bpxp.core.random import ORDER, HostRandom
from bpxp.errors import warn


def epoch_order(seed: int, epoch: int, n: int, batch_size: int, shuffle: bool = True) -> np.ndarray:
    """Return the order of `n` samples in an epoch, padded to whole batches.

    Parameters
    ----------
    seed : int
        As `normalize_seed` returns it.
    epoch : int
        From 0.
    n, batch_size : int
    shuffle : bool, optional
        False takes 0 … n-1 in every epoch.

    Returns
    -------
    ndarray of int32, shape (ceil(n / batch_size) * batch_size,)
        The first n entries are a permutation of 0 … n-1. The padding is 0, a valid index for the gather of the last
        batch; the caller gives these samples weight 0.
    """
    order = np.zeros(-(-n // batch_size) * batch_size, np.int32)
    order[:n] = HostRandom(seed, (ORDER, epoch)).permutation(n) if shuffle else np.arange(n, dtype=np.int32)
    return order


def usable_batch_size(batch_size: Any, n: int, where: str) -> int:
    """Return `batch_size` as an int in 1 … n; a larger one is reduced to n, with a `BpxpWarning`."""
    size = positive_int(batch_size, where)
    if size > n:
        warn(where, f"batch_size {size} > {n} samples; using {n}", code="W003")
        return n
    return size
