"""Leading axes: a layer or loss of vectors does to (batch, …, n) what it does to the rows of a matrix."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves
from bpxp.nn import ACTIVATIONS, LOSSES, BinaryCrossEntropy, Dense, SoftmaxCrossEntropy, one_hot
from bpxp.verify import check_equations

XP = bpxp.backends.get_backend("numpy").xp
LEADING = [(4, 3), (2, 3, 2), (3, 1)]
CASES = {**LOSSES, "smoothed": SoftmaxCrossEntropy(0.1), "weighted": BinaryCrossEntropy((0.5, 1.0, 2.0), 0.1)}


@pytest.mark.parametrize("leading", LEADING, ids=str)
def test_dense_is_the_same_bits_as_on_rows(leading, rng):
    layer = Dense(5)
    params, out = layer.init(HostRandom(0), (*leading[1:], 4))
    assert out == (*leading[1:], 5)
    x, delta = rng.standard_normal((*leading, 4)), rng.standard_normal((*leading, 5))
    z, cache = layer.forward(params, x, xp=XP)
    dx, grads = layer.backward(params, cache, delta, xp=XP)
    rows, own = layer.forward(params, x.reshape(-1, 4), xp=XP)
    d_rows, own_grads = layer.backward(params, own, delta.reshape(-1, 5), xp=XP)
    assert z.shape == delta.shape
    assert dx.shape == x.shape
    for mine, theirs in zip(leaves((z, dx, grads)), leaves((rows, d_rows, own_grads)), strict=True):
        np.testing.assert_array_equal(mine.reshape(theirs.shape), theirs)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dense_on_every_backend(agrees_with_numpy, backend, dtype, rng):
    params, _ = Dense(3).init(HostRandom(1), (2, 4))
    x, delta = rng.standard_normal((5, 2, 4)), rng.standard_normal((5, 2, 3))
    agrees_with_numpy(backend, Dense(3), params, x, delta, dtype)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_acts_on_each_number(name, rng):
    z, da = rng.standard_normal((3, 2, 4)), rng.standard_normal((3, 2, 4))
    a, cache = ACTIVATIONS[name].forward((), z, xp=XP)
    dz, _ = ACTIVATIONS[name].backward((), cache, da, xp=XP)
    rows, own = ACTIVATIONS[name].forward((), z.reshape(6, 4), xp=XP)
    d_rows, _ = ACTIVATIONS[name].backward((), own, da.reshape(6, 4), xp=XP)
    np.testing.assert_array_equal(a.reshape(6, 4), rows)
    np.testing.assert_array_equal(dz.reshape(6, 4), d_rows)


def targets(loss, rng, shape):
    match loss.targets:
        case "classes":
            return rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
        case "values":
            return rng.standard_normal(shape)
        case _:
            return rng.integers(0, 2, shape).astype(float)


@pytest.mark.parametrize("leading", LEADING, ids=str)
@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_the_mean_over_samples_of_the_mean_over_positions(name, leading, rng):
    """So a sample counts once: J is that of all positions as rows, each with the weight of its sample."""
    loss, shape = CASES[name], (*leading, 3)
    z, y, w = rng.standard_normal(shape), targets(CASES[name], rng, (*leading, 3)), rng.uniform(0.5, 2.0, leading[0])
    for weight in (None, w):
        J, delta = loss(z, y, weight, xp=XP)
        each = [loss(z[n], y[n], xp=XP)[0] for n in range(leading[0])] if len(leading) == 2 else None
        rows = y.reshape(-1) if y.ndim < z.ndim else y.reshape(-1, 3)
        count = int(np.prod(leading[1:]))
        same, d_rows = loss(z.reshape(-1, 3), rows, None if weight is None else np.repeat(w, count), xp=XP)
        assert J.shape == (1,)
        np.testing.assert_allclose(J, same, rtol=1e-14)
        np.testing.assert_allclose(delta, d_rows.reshape(shape), rtol=1e-13, atol=1e-17)
        if each is not None:
            np.testing.assert_allclose(J, np.average(each, axis=0, weights=weight), rtol=1e-14)


@pytest.mark.parametrize("name", CASES)
def test_delta_is_the_derivative_of_the_loss(name, rng, slope):
    loss, shape = CASES[name], (2, 4, 3)
    z, y, w = rng.standard_normal(shape), targets(CASES[name], rng, shape), np.array([0.5, 2.0])
    if name in ("mean_absolute_error", "huber"):
        y = z + rng.choice([-3.0, -0.5, 0.5, 3.0], shape)  # away from the kinks
    _, delta = loss(z, y, w, xp=XP)
    for _ in range(5):
        d = rng.standard_normal(shape) / 5
        np.testing.assert_allclose(
            np.sum(delta * d), slope(lambda t, d=d: loss(z + t * d, y, w, xp=XP)[0][0]), rtol=1e-8
        )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_a_loss_on_every_backend(name, backend, on, dtype, rng):
    loss, shape = CASES[name], (3, 2, 3)
    z, y, w = rng.standard_normal(shape), targets(CASES[name], rng, shape), np.array([0.5, 2.0, 0.0])
    expected = loss(z, y, w, xp=XP)
    y_there = on(backend, y, "int32" if y.dtype.kind == "i" else dtype)
    found = loss(on(backend, z, dtype), y_there, on(backend, w, dtype), xp=backend.xp)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(backend.to_numpy(mine), theirs, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("thing", [Dense(3), *ACTIVATIONS.values()], ids=repr)
def test_the_equations_of_layers_hold_with_n_over_all_leading_axes(thing, backend):
    if backend.name == "numpy":
        assert check_equations(thing, (2, 3, 4)).worst < 1e-12


@pytest.mark.parametrize("name", CASES)
def test_the_equations_of_losses_hold_with_n_over_all_leading_axes(name):
    assert check_equations(CASES[name], (2, 3, 3), backend="numpy").worst < 1e-12
    assert check_equations(CASES[name], (2, 2, 2, 3), backend="numpy").worst < 1e-12


def test_targets_of_another_shape_are_refused(backend, on):
    z = on(backend, np.zeros((4, 2, 3)), "float32")
    for name, loss in CASES.items():
        wrong = np.zeros(4, np.int32) if loss.targets == "classes" else np.zeros((4, 3), np.float32)
        with pytest.raises(ValueError, match=r"got y of shape \(4"):
            loss(z, on(backend, wrong), xp=backend.xp)
        assert name in CASES
    index = on(backend, np.array([[0, 2], [5, 1]], np.int32))
    rows = backend.to_numpy(one_hot(index, 3, dtype=backend.xp.float32, xp=backend.xp))
    np.testing.assert_array_equal(rows, [[[1, 0, 0], [0, 0, 1]], [[0, 0, 0], [0, 1, 0]]])
