"""Fingerprints change with every byte, on every device, and with every hashed block of a large array."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from bpxp.backends import get_backend
from bpxp.data.fingerprint import fingerprint
from bpxp.data.rows import Rows

X = np.arange(1000 * 12, dtype=np.float32).reshape(1000, 3, 4)
NUMPY = get_backend("numpy")


@pytest.mark.parametrize("a", [X, X.astype(np.uint8), np.arange(7, dtype=np.int32)], ids=["images", "pixels", "labels"])
def test_the_same_wherever_the_data_are(backend, on, a):
    wanted = fingerprint(a, NUMPY)
    assert fingerprint(on(backend, a), backend) == wanted
    assert fingerprint(on(backend, a), backend, piece=1000) == wanted
    assert fingerprint(Rows(a, a.dtype), backend) == wanted
    assert fingerprint(Rows(a[::-1], a.dtype, index=np.arange(len(a))[::-1]), backend, piece=1000) == wanted


def test_every_number_counts():
    found = {fingerprint(X, NUMPY, piece=1000)}
    for i in range(0, len(X), 7):
        other = X.copy()
        other[i, i % 3, i % 4] += 1.0
        found.add(fingerprint(other, NUMPY, piece=1000))
    assert len(found) == 1 + len(range(0, len(X), 7))


def test_dtype_and_shape_count():
    others = (X, X.view(np.int32), X.reshape(1000, 12), X[:-1])
    assert len({fingerprint(a, NUMPY) for a in others}) == 4


def test_of_very_many_the_first_the_last_and_some_between():
    def changed(i):
        other = X.copy()
        other[i] += 1.0
        return fingerprint(other, NUMPY, whole=5 * 480, piece=480)  # five pieces of ten rows

    same = fingerprint(X, NUMPY, whole=5 * 480, piece=480)
    noticed = [i for i in range(0, 1000, 10) if changed(i) != same]
    assert noticed == [0, 240, 490, 740, 990]


def test_it_takes_a_piece_of_memory():
    rows = Rows(np.ones((100_000, 100), np.int8), np.float32)  # 40 MB, when they are read
    tracemalloc.start()
    try:
        fingerprint(rows, NUMPY, piece=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
