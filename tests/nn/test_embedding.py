"""Embedding: rows of a table, and a gradient that adds up what each row was used for."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.errors import InvalidTypeError, InvalidValueError, ParameterMemoryError
from bpxp.nn import Embedding, EmbeddingParams, GlorotUniform, HeNormal, Normal
from bpxp.nn import embedding as module

NUMPY = bpxp.backends.get_backend("numpy")
XP = NUMPY.xp


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_lookup_and_gradient_by_loops(shape, dtype, backend, rng, run_layer):
    layer = Embedding(5, 2)
    W, x = rng.standard_normal((5, 2)).astype(dtype), rng.integers(0, 5, shape)
    dy = rng.standard_normal((*shape, 2)).astype(dtype)
    y, dx, dW = run_layer(backend, layer, EmbeddingParams(W), x, dy, dtype)
    np.testing.assert_array_equal(y, W[x])
    np.testing.assert_array_equal(dx, np.zeros(shape))
    expected = np.zeros((5, 2))
    for place in np.ndindex(*shape):
        expected[x[place]] += dy[place]
    np.testing.assert_allclose(dW, expected, rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6)


def test_gradients(rng, check_layer):
    layer = Embedding(5, 3)
    params, shape = layer.init(HostRandom(0), (4,))
    assert shape == (4, 3)
    assert params.W.shape == (5, 3)
    check_layer(layer, params, rng.integers(0, 5, (7, 4)).astype(float), rng)


def test_blocks_of_the_table_change_nothing(monkeypatch, rng):
    layer = Embedding(11, 2)
    params, _ = layer.init(HostRandom(0), (4,))
    x, dy = rng.integers(0, 11, (7, 4)).astype(float), rng.standard_normal((7, 4, 2))
    _, cache = layer.forward(params, x, xp=XP)
    whole = layer.gradients(params, cache, dy, xp=XP)
    for size in (1, 60, 28 * 6, 28 * 11):
        monkeypatch.setattr(module, "ONE_HOT", size)
        np.testing.assert_allclose(layer.gradients(params, cache, dy, xp=XP).W, whole.W, rtol=1e-13, atol=1e-14)


def test_numbers_are_rounded_and_strangers_are_nan(backend, on):
    layer = Embedding(3, 2)
    W = np.arange(6.0).reshape(3, 2)
    x = np.array([[0.0, 1.001, 1.999, -0.001, 2.0], [-1.0, 3.0, 1e9, -1e9, 2.6]])
    y, _ = layer.forward(EmbeddingParams(on(backend, W)), on(backend, x), xp=backend.xp)
    found = backend.to_numpy(y)
    np.testing.assert_array_equal(found[0], W[[0, 1, 2, 0, 2]])
    assert np.all(np.isnan(found[1]))


def test_how_it_starts():
    W = Embedding(300, 40).init(HostRandom(0), (1,))[0].W
    assert abs(W.std() - 1.0) < 5.0 / np.sqrt(2 * W.size)
    assert abs(Embedding(300, 40, "zeros").init(HostRandom(0), (1,))[0].W).max() == 0.0
    assert Embedding(3, 2) == Embedding(3, 2, "normal")
    assert hash(Embedding(3, 2)) == hash(Embedding(3, 2, "normal"))
    assert Embedding(3, 2).initializer == Normal()
    he = HeNormal().draw(HostRandom(0).at(0), (300, 40), fan_in=300, fan_out=40)
    np.testing.assert_array_equal(Embedding(300, 40, "he").init(HostRandom(0), (1,))[0].W, he)
    glorot = GlorotUniform().draw(HostRandom(0).at(0), (300, 40), fan_in=300, fan_out=40)
    np.testing.assert_array_equal(Embedding(300, 40, "glorot").init(HostRandom(0), (1,))[0].W, glorot)


def test_numbers_of_any_type_become_ints():
    layer = Embedding(np.int64(2**24), np.int32(2))
    assert (layer.count, layer.dim) == (2**24, 2)
    assert type(layer.count) is type(layer.dim) is int


def test_a_table_that_is_too_large(room_for):
    room_for(6)
    Embedding(3, 2).init(HostRandom(0), (1,))
    with pytest.raises(ParameterMemoryError, match=r"^Embedding\(4, 2\): needs"):
        Embedding(4, 2).init(HostRandom(0), (1,))


def test_nonsense_is_refused():
    for count, dim in ((0, 2), (3, -1), (2**24 + 1, 2)):
        with pytest.raises(InvalidValueError, match=r"^Embedding\((count|dim)=…\): "):
            Embedding(count, dim)
    for count, dim in ((2.0, 2), (3, True)):
        with pytest.raises(InvalidTypeError, match=r"^Embedding\((count|dim)=…\): "):
            Embedding(count, dim)
    with pytest.raises(InvalidValueError, match="unknown name"):
        Embedding(3, 2, "nrmal")
