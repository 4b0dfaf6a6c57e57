"""The same functions under `jax.jit`, and their derivatives against `jax.grad` of the forward code itself."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.metrics import METRICS
from bpxp.nn import ACTIVATIONS, GELU, LOSSES, BinaryCrossEntropy, Dense, Sequential, SoftmaxCrossEntropy
from bpxp.random import HostRandom
from bpxp.tree import leaves, tree_map

jax = pytest.importorskip("jax")

BACKEND = bpxp.backends.get_backend("jax:cpu")
XP = BACKEND.xp
HOST = bpxp.backends.get_backend("numpy").xp
ACTIVATION_CASES = {**ACTIVATIONS, "gelu_tanh": GELU("tanh")}
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


@pytest.mark.parametrize("name", ACTIVATION_CASES)
def test_activation_under_jit_and_grad(name, rng):
    activation = ACTIVATION_CASES[name]
    z, da = 2.0 * rng.standard_normal((6, 5)), rng.standard_normal((6, 5))

    @jax.jit
    def own(z, da):
        a, cache = activation.forward((), z, xp=XP)
        dz, _ = activation.backward((), cache, da, xp=XP)
        _, expected = jax.vjp(lambda t: activation.forward((), t, xp=XP)[0], z)
        return a, dz, expected(da)[0]

    a, dz, expected = own(BACKEND.asarray(z), BACKEND.asarray(da))
    np.testing.assert_allclose(dz, expected, rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(a, activation.forward((), z, xp=HOST)[0], rtol=1e-13, atol=1e-15)


def targets_of(loss, rng):
    return {
        "classes": lambda: rng.integers(0, 3, 6).astype(np.int32),
        "labels": lambda: np.where(rng.random((6, 3)) < 0.2, np.nan, np.round(rng.random((6, 3)))),
        "counts": lambda: rng.poisson(2.0, (6, 3)).astype(float),
        "values": lambda: rng.standard_normal((6, 3)),
    }[loss.targets]()


@pytest.mark.parametrize("name", LOSS_CASES)
def test_loss_under_jit_and_grad(name, rng):
    loss = LOSS_CASES[name]
    z, y, weight = 2.0 * rng.standard_normal((6, 3)), targets_of(loss, rng), rng.random(6)

    @jax.jit
    def own(z, y, weight):
        value, delta = loss(z, y, weight, xp=XP)
        return value, delta, jax.grad(lambda t: loss(t, y, weight, xp=XP)[0][0])(z), loss.activate(z, xp=XP)

    value, delta, expected, activated = own(*(BACKEND.asarray(a) for a in (z, y, weight)))
    np.testing.assert_allclose(delta, expected, rtol=1e-10, atol=1e-15)
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


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "gelu"])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "poisson"])
def test_network_against_grad(activation, loss, rng):
    model, loss = Sequential((Dense(5, activation, "normal"), Dense(3, None, "he"))), LOSSES[loss]
    params, _ = model.init(HostRandom(2), (4,))
    params = tree_map(BACKEND.asarray, params)
    x, y = BACKEND.asarray(rng.standard_normal((6, 4))), BACKEND.asarray(targets_of(loss, rng))

    @jax.jit
    def own(params):
        logits, caches = model.forward(params, x, xp=XP)
        _, delta = loss(logits, y, xp=XP)
        grads = model.gradients(params, caches, delta, xp=XP)
        return grads, jax.grad(lambda p: loss(model.forward(p, x, xp=XP)[0], y, xp=XP)[0][0])(params)

    for mine, theirs in zip(*(leaves(tree) for tree in own(params)), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-10, atol=1e-14)
