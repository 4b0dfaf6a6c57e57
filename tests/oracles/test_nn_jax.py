"""Losses and metrics under `jax.jit`. Their derivatives are compared in `test_four_ways.py`."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.metrics import METRICS
from bpxp.nn import LOSSES, BinaryCrossEntropy, SoftmaxCrossEntropy

jax = pytest.importorskip("jax")

BACKEND = bpxp.backends.get_backend("jax:cpu")
XP = BACKEND.xp
HOST = bpxp.backends.get_backend("numpy").xp
LOSS_CASES = {
    **LOSSES,
    "softmax_smoothed": SoftmaxCrossEntropy(0.1),
    "binary_weighted": BinaryCrossEntropy((3.0, 0.5, 1.0), 0.1),
}


@pytest.fixture(autouse=True)
def double_precision():
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def targets_of(loss, rng):
    return {
        "classes": lambda: rng.integers(0, 3, 6).astype(np.int32),
        "labels": lambda: np.where(rng.random((6, 3)) < 0.2, np.nan, np.round(rng.random((6, 3)))),
        "counts": lambda: rng.poisson(2.0, (6, 3)).astype(float),
        "values": lambda: rng.standard_normal((6, 3)),
    }[loss.targets]()


@pytest.mark.parametrize("name", LOSS_CASES)
def test_loss_under_jit(name, rng):
    loss = LOSS_CASES[name]
    z, y, weight = 2.0 * rng.standard_normal((6, 3)), targets_of(loss, rng), rng.random(6)

    @jax.jit
    def own(z, y, weight):
        value, delta = loss(z, y, weight, xp=XP)
        return value, delta, loss.activate(z, xp=XP)

    value, delta, activated = own(*(BACKEND.asarray(a) for a in (z, y, weight)))
    host_value, host_delta = loss(z, y, weight, xp=HOST)
    np.testing.assert_allclose(value, host_value, rtol=1e-12)
    np.testing.assert_allclose(delta, host_delta, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(activated, loss.activate(z, xp=HOST), rtol=1e-13)


@pytest.mark.parametrize("name", METRICS)
def test_metric_under_jit(name, rng):
    metric = METRICS[name]
    loss = LOSSES[
        "binary_cross_entropy" if name in ("label_accuracy", "exact_match", "f1") else "softmax_cross_entropy"
    ]
    z, y, weight = rng.standard_normal((6, 3)), targets_of(loss, rng), np.array([1.0, 2.0, 0.0, 1.0, 1.0, 1.0])

    @jax.jit
    def own(z, y, weight):
        return metric.update(metric.init(3, xp=XP, dtype=XP.float32), z, y, weight, xp=XP)

    found = metric.result(tuple(BACKEND.to_numpy(c) for c in own(*(BACKEND.asarray(a) for a in (z, y, weight)))))
    assert found == metric.result(metric.update(metric.init(3, xp=HOST, dtype=HOST.float32), z, y, weight, xp=HOST))
