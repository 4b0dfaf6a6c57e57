"""Numbers that differ, and become equal in the network's dtype: a warning, and none where rounding does not matter."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import bpxp
from bpxp.data import Dataset
from bpxp.errors import BpxpWarning

N = 200
Y = np.arange(N) % 2
SECONDS = 1.7e9 + np.arange(float(N))[:, None]
COLLAPSED = {
    "seconds since 1970": (SECONDS, 3),
    "identifiers": (10**9 + np.arange(N)[:, None], 4),
    "identifiers of 64 bits": (np.uint64(2**63) + np.arange(N, dtype=np.uint64)[:, None], 1),
    "as a list": (SECONDS.tolist(), 3),
    "metres on a map": (5_000_000.0 + np.linspace(0.0, 10.0, N)[:, None], 21),
    "one column of three": (np.hstack([np.zeros((N, 1)), SECONDS, np.ones((N, 1))]), 3),
}


def fit(x, *, dtype="float32", backend="numpy", **options):
    features = len(x[0]) if isinstance(x, list) else x.shape[1]
    net = bpxp.Network([features, 2], dtype=dtype, backend=backend, seed=0)
    bpxp.Trainer(net, bpxp.optim.SGD(1e-30), progress=False).fit((x, Y), epochs=1, **options)


@pytest.mark.parametrize("name", COLLAPSED)
def test_a_warning_and_its_fixes(name):
    x, left = COLLAPSED[name]
    with pytest.warns(
        BpxpWarning, match=rf"fit: x: 200 different numbers in x\[:, \d\] become {left} in float32.*W010"
    ):
        fit(x)
    x = np.asarray(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(x - x.mean(axis=0))
        if x.dtype != np.uint64:
            fit(x, dtype="float64")


def test_on_every_backend_and_on_the_host(backend):
    for data in (SECONDS, backend.asarray(SECONDS)):
        with pytest.warns(BpxpWarning, match=r"x\[:, 0\]"):
            fit(data, backend=backend)
    net = bpxp.Network([1, 2], backend=backend, seed=0)
    with pytest.warns(BpxpWarning, match="evaluate: x: 200 different"):
        net.evaluate(Dataset(SECONDS, Y, resident=False))
    images = np.broadcast_to(SECONDS[:, :, None, None], (N, 2, 2, 1))
    net = bpxp.Network([bpxp.nn.Flatten(), 2], input_shape=(2, 2, 1), backend=backend, seed=0)
    with pytest.warns(BpxpWarning, match=r"x\[:, 0, 0, 0\]"):
        net.evaluate(images, Y)


def test_no_warning_where_nothing_is_lost():
    rng = np.random.default_rng(0)
    for x in (
        rng.normal(size=(N, 3)),
        300.0 + rng.normal(size=(N, 3)),  # kelvin
        1.7e9 + 86400.0 * np.arange(N)[:, None],  # days
        np.full((N, 1), 1.7e9 + 1.0),
        np.where(rng.random((N, 1)) < 0.5, 1e9, 1e9 + 1000.0),
        rng.integers(0, 2**31, (N, 2)),
        SECONDS.astype(np.float32),
        (1000 + np.arange(N)[:, None]).astype(np.int16),
        1e-30 * rng.random((N, 1)),
    ):
        fit(x)
    # Many numbers in a range that float32 divides finely: some become equal, and it does not matter.
    x = 1e5 + 1e3 * rng.random((20_000, 1))
    net = bpxp.Network([1, 2], backend="numpy", seed=0)
    net.evaluate(x, np.zeros(len(x), int))
