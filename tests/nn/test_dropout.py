"""Dropout: a frozen mask has the right gradient; the mask is the same bits everywhere, and never twice the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom, make_key
from bpxp.core.threefry import LEVELS, bernoulli, level
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import Dense, Dropout, Sequential

NUMPY = bpxp.backends.get_backend("numpy")
XP = NUMPY.xp


def masked(rate, key, shape):
    """What ones become."""
    return Dropout(rate).forward((), np.ones(shape), xp=XP, key=key)[0]


@pytest.mark.parametrize("shape", [(5, 7), (3, 4, 5, 2)])
def test_gradient_with_a_frozen_mask(shape, rng, check_layer):
    x = rng.standard_normal(shape)
    x.flat[:4] = 0.0  # a zero is not a value that was left out
    check_layer(Dropout(0.4), (), x, rng, key=make_key(1))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_on_every_backend(dtype, backend, rng, run_layer):
    x, dy = rng.standard_normal((2, 9, 5))
    key = make_key(4, step=3)
    mask = bernoulli(key, (9, 5), 0.7, dtype=XP.float64, xp=XP)
    factor = mask * (LEVELS / level(0.7))
    y, dx = run_layer(backend, Dropout(0.3), (), x, dy, dtype, key=key)
    np.testing.assert_array_equal(y, x.astype(dtype) * factor.astype(dtype))
    np.testing.assert_array_equal(dx, dy.astype(dtype) * factor.astype(dtype))


@pytest.mark.parametrize("layer", [Dropout(0.5), Dropout(0.0), Dropout(1e-7)])
def test_evaluation_and_rate_zero_change_nothing(layer, backend, rng, run_layer):
    x, dy = rng.standard_normal((2, 4, 3))
    keys = [None] if layer.rate == 0.5 else [None, make_key(0)]
    for key in keys:
        y, dx = run_layer(backend, layer, (), x, dy, key=key)
        np.testing.assert_array_equal(y, x)
        np.testing.assert_array_equal(dx, dy)
    y, cache = layer.forward((), x, xp=XP)
    dx, _ = layer.backward((), cache, dy, xp=XP)
    assert not np.shares_memory(y, x)
    assert not np.shares_memory(dx, dy)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_mean_stays(rate):
    n = 90_000
    y = masked(rate, make_key(5), (n // 9, 9))
    kept = level(1.0 - rate) / LEVELS
    assert set(np.unique(y)) == {0.0, 1.0 / kept}
    assert abs(y.mean() - 1.0) < 5.0 * math.sqrt((1.0 - kept) / kept / n)


def test_masks_differ_between_steps_seeds_and_layers():
    shape = (20, 20)
    keys = [make_key(0), make_key(0, step=1), make_key(1), make_key(0).at(0), make_key(0).at(1), make_key(0).at(0, 0)]
    masks = [masked(0.5, key, shape) > 0.0 for key in keys]
    for i, a in enumerate(masks):
        assert np.array_equal(a, masked(0.5, keys[i], shape) > 0.0)
        # Independent fair masks agree in half of 400 places, give or take 10.
        assert all(abs(np.sum(a == b) - 200) < 50 for b in masks[:i])


def test_each_layer_of_a_network_has_its_own_mask():
    model = Sequential((Dropout(0.5), Dropout(0.5), Sequential((Dropout(0.5),))))
    assert model.uses == {"key"}
    key, x = make_key(0), np.ones((8, 50))
    params, _ = model.init(HostRandom(0), (50,))
    _, caches = model.forward(params, x, xp=XP, key=key)
    masks = [caches[0][0], caches[1][0], caches[2][0][0][0]]
    for place, mask in zip([(0,), (1,), (2, 0)], masks, strict=True):
        np.testing.assert_array_equal(mask, masked(0.5, key.at(*place), x.shape))
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])


def test_evaluation_does_not_depend_on_the_batch(rng):
    model = Sequential((Dense(6, "tanh"), Dropout(0.5), Dense(2)))
    params, _ = model.init(HostRandom(0), (3,))
    x = rng.standard_normal((5, 3))
    whole, _ = model.forward(params, x, xp=XP, training=False, key=None)
    np.testing.assert_array_equal(model.forward(params, x, xp=XP)[0], whole)
    for n in range(5):
        np.testing.assert_allclose(model.forward(params, x[n : n + 1], xp=XP)[0][0], whole[n], rtol=1e-14)


def test_another_step_is_no_other_compilation(backend):
    traced = []

    def step(key, x):
        traced.append(1)
        y, _ = Dropout(0.5).forward((), x, xp=backend.xp, key=key.at(3))
        count = key.step
        count += 1
        return key._replace(step=count), y

    run, seen = backend.compile(lambda state, x: step(state[0], x)), []
    key = make_key(0)
    state = key._replace(**{name: backend.asarray(getattr(key, name).copy()) for name in ("k0", "k1", "step")}), None
    x = backend.asarray(np.ones((4, 8), np.float32))
    state = (state[0], x * 1.0)
    for i in range(3):
        state = run(state, x)
        seen.append(backend.to_numpy(state[1]))
        np.testing.assert_array_equal(seen[-1], masked(0.5, make_key(0, step=i).at(3), (4, 8)).astype(np.float32))
    assert len(traced) == (1 if backend.name.startswith("jax") else 3)


def test_nonsense_is_refused():
    with pytest.raises(InvalidValueError, match=r"1\.0 would drop everything.*\[0, 1\)"):
        Dropout(1.0)
    for rate in (-0.1, 1.5, 50, math.nan):
        with pytest.raises(InvalidValueError, match=r"Dropout\(rate=…\)"):
            Dropout(rate)
    for rate in ("0.5", True, None):
        with pytest.raises(InvalidTypeError, match=r"Dropout\(rate=…\)"):
            Dropout(rate)
    assert Dropout() == Dropout(0.5)
    assert hash(Dropout(0.2)) == hash(Dropout(0.2))
