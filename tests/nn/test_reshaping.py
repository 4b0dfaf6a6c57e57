"""Layers that only change the shape: order of the numbers, the way back, and shapes that do not fit."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import Flatten, Reshape
from bpxp.saving import registry

XP = bpxp.backends.get_backend("numpy").xp


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Flatten(), (24,)),
        (Reshape((6, 4)), (6, 4)),
        (Reshape((1, 24)), (1, 24)),
        (Reshape((3, -1, 2)), (3, 4, 2)),
        (Reshape(-1), (24,)),
    ],
    ids=repr,
)
def test_there_and_back(layer, shape, backend, on, rng):
    assert layer.init(HostRandom(0), (2, 3, 4)) == ((), shape)
    x, dy = rng.standard_normal((5, 2, 3, 4)), rng.standard_normal((5, *shape))
    y, cache = layer.forward((), on(backend, x), xp=backend.xp)
    dx, grads = layer.backward((), cache, on(backend, dy), xp=backend.xp)
    np.testing.assert_array_equal(backend.to_numpy(y), x.reshape(5, *shape))
    np.testing.assert_array_equal(backend.to_numpy(dx), dy.reshape(5, 2, 3, 4))
    assert grads == ()
    assert cache.shape[0] == 0  # only the shape is kept


def test_nothing_is_left_of_an_empty_batch():
    y, cache = Flatten().forward((), np.zeros((0, 2, 3)), xp=XP)
    assert y.shape == (0, 6)
    assert Flatten().backward((), cache, y, xp=XP)[0].shape == (0, 2, 3)


def test_a_shape_is_a_tuple_of_ints():
    for given in (3, np.int32(3), [3], (np.int64(3),)):
        shape = Reshape(given).shape
        assert shape == (3,)
        assert type(shape) is tuple
        assert type(shape[0]) is int


def test_shapes_that_do_not_fit():
    with pytest.raises(InvalidValueError, match=r"2 · 3 = 6 numbers do not fill 4 · 2 = 8"):
        Reshape((4, 2)).init(HostRandom(0), (2, 3))
    with pytest.raises(InvalidValueError, match=r"2 · 3 = 6 numbers do not fill 4 · \?"):
        Reshape((4, -1)).init(HostRandom(0), (2, 3))
    with pytest.raises(InvalidValueError, match=r"2 · 3 = 6 numbers do not fill 3 · 1 = 3"):
        Reshape((3, 1)).init(HostRandom(0), (2, 3))
    for shape, error in [
        ((), InvalidValueError),
        ((0, 2), InvalidValueError),
        ((-1, -1), InvalidValueError),
        ((2.0, 3), InvalidTypeError),
        ("23", InvalidTypeError),
        ((True, 3), InvalidTypeError),
    ]:
        expected = "sizes >= 1, of which one may be -1" if error is InvalidValueError else "a tuple of ints"
        with pytest.raises(error, match=rf"Reshape\(shape=…\): not a shape: got .*, expected {expected}\."):
            Reshape(shape)


def test_description_and_back():
    for layer in (Flatten(), Reshape((2, -1))):
        assert registry.build(registry.describe(layer)) == layer
