"""Initialisers: their bits, their variances, and their names."""

from __future__ import annotations

import hashlib
import re

import numpy as np
import pytest

from bpxp.core.random import INIT, HostRandom
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import (
    INITIALIZERS,
    Dense,
    GlorotUniform,
    HeNormal,
    LecunNormal,
    Normal,
    Orthogonal,
    ScaledNormal,
    Zeros,
    get_initializer,
)


def draw(name, shape=(300, 200), seed=0):
    return get_initializer(name).draw(HostRandom(seed, (INIT, 0)), shape, fan_in=shape[0], fan_out=shape[1])


def test_bits_of_the_default_are_golden():
    """The promise that a seed gives the same network everywhere: no library function rounds in its making."""
    W = draw("glorot_uniform", (784, 30)).astype("<f4")
    assert hashlib.sha256(W.tobytes()).hexdigest() == "b4cc33aa76753d7d84033510d7cd0bbee5a313ef0cbb8c600db8dac978cb71a6"


@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("normal", 1.0),
        ("scaled_normal", 1 / 300),
        ("glorot_uniform", 2 / 500),
        ("glorot_normal", 2 / 500),
        ("lecun_uniform", 1 / 300),
        ("lecun_normal", 1 / 300),
        ("he_uniform", 2 / 300),
        ("he_normal", 2 / 300),
    ],
)
def test_mean_and_variance(name, variance):
    W = draw(name)
    assert W.dtype == np.float64
    assert W.shape == (300, 200)
    # 60,000 numbers: the mean is known to 1/245 of the deviation, the variance to 0.6 %
    assert abs(W.mean()) < 4 * np.sqrt(variance / W.size)
    np.testing.assert_allclose(W.var(), variance, rtol=0.025)
    if name.endswith("uniform"):
        limit = np.sqrt(3 * variance)
        assert limit * 0.999 < W.max() < limit
        assert -limit <= W.min() < -limit * 0.999
    else:
        assert 3.5 < np.abs(W).max() / np.sqrt(variance) < 6.0
        np.testing.assert_allclose(np.mean(W**4) / variance**2, 3.0, rtol=0.1)


def test_std_and_gain_are_used():
    np.testing.assert_array_equal(draw(Normal(0.1)), 0.1 * draw("normal"))
    np.testing.assert_allclose(draw(Orthogonal(2.0)), 2.0 * draw("orthogonal"), rtol=1e-15)
    assert all(type(value) is float for value in (Normal(2).std, Orthogonal(2).gain))


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5), (1, 3), (3, 1)])
def test_orthogonal(shape):
    W = draw("orthogonal", shape)
    assert W.shape == shape
    gram = W.T @ W if shape[0] >= shape[1] else W @ W.T
    np.testing.assert_allclose(gram, np.eye(min(shape)), atol=1e-14)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_orthogonal_weights_are_those_of_the_normal_ones(shape):
    """Column after column (or row after row), each is what the ones before leave of its normal numbers."""
    W = draw("orthogonal", shape)
    tall = W if shape[0] >= shape[1] else W.T
    r = tall.T @ HostRandom(0, (INIT, 0)).normal(tall.shape)
    np.testing.assert_allclose(r, np.triu(r), atol=1e-14)
    assert np.all(np.diagonal(r) > 0.0)


def test_orthogonal_is_uniform_over_the_group_and_takes_kernels():
    corners = [draw("orthogonal", (2, 2), seed)[0, 0] for seed in range(400)]
    assert abs(np.mean(corners)) < 0.15  # without the signs of R it would be about -0.64
    kernel = Orthogonal().draw(HostRandom(0), (3, 3, 2, 5), fan_in=18, fan_out=45)
    assert kernel.shape == (3, 3, 2, 5)
    flat = kernel.reshape(18, 5)
    np.testing.assert_allclose(flat.T @ flat, np.eye(5), atol=1e-14)


@pytest.mark.parametrize("name", INITIALIZERS)
def test_biases(name):
    b = get_initializer(name).bias(HostRandom(0, (INIT, 0, 1)), (1000,))
    if name in ("normal", "scaled_normal"):
        np.testing.assert_allclose(b.std(), 1.0, rtol=0.1)
    else:
        assert np.all(b == 0.0)
    assert not np.any(Zeros().draw(HostRandom(0), (3, 3), fan_in=3, fan_out=3))


@pytest.mark.parametrize("name", [n for n in INITIALIZERS if n != "zeros"])
def test_same_seed_same_bits_and_other_seed_or_place_other_bits(name):
    np.testing.assert_array_equal(draw(name, (5, 4)), draw(name, (5, 4)))
    assert np.all(draw(name, (5, 4)) != draw(name, (5, 4), seed=1))


def test_weights_and_biases_of_a_layer_are_independent():
    params, shape = Dense(4, initializer="normal").init(HostRandom(3), (4,))
    assert shape == (4,)
    assert not np.any(np.isin(params.b, params.W))


def test_short_names_mean_what_torch_means():
    assert get_initializer("xavier") == get_initializer("glorot") == GlorotUniform()
    assert get_initializer("he") == HeNormal()
    assert get_initializer("lecun") == LecunNormal()
    assert get_initializer(ScaledNormal()) == ScaledNormal()


def test_dense_without_an_initializer_is_glorot():
    own, _ = Dense(4).init(HostRandom(3), (5,))
    expected, _ = Dense(4, initializer="glorot_uniform").init(HostRandom(3), (5,))
    np.testing.assert_array_equal(own.W, expected.W)


def test_errors():
    with pytest.raises(InvalidValueError, match=r"init: unknown name: got 'glorott'.*Did you mean 'glorot'\?"):
        get_initializer("glorott")
    for wrong in (None, 1.0, GlorotUniform):
        with pytest.raises(InvalidTypeError, match="neither a name nor an Initializer"):
            get_initializer(wrong)
    for make, where in ((Normal, "Normal(std=…)"), (Orthogonal, "Orthogonal(gain=…)")):
        for wrong in (0.0, -1.0):
            with pytest.raises(InvalidValueError, match=f"{re.escape(where)}: out of range"):
                make(wrong)
        with pytest.raises(InvalidTypeError, match=f"{re.escape(where)}: not a number"):
            make("1")
