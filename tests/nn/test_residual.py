"""Residual blocks: y = x + branch(x), with all that a branch may use."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom, make_key
from bpxp.core.tree import leaves, tree_map
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import BatchNorm, Conv2D, Dense, Dropout, Flatten, LayerNorm, Residual, Sequential, Sigmoid, Tanh

NUMPY = bpxp.backends.get_backend("numpy")
XP = NUMPY.xp
BUSY = Residual([Dense(6, "tanh"), BatchNorm(), Dropout(0.3), Dense(4)])


def start(layer, shape=(4,)):
    params, out_shape = layer.init(HostRandom(0), shape)
    assert out_shape == shape
    return params


def test_the_sum(rng):
    x = rng.standard_normal((5, 4))
    branch = Sequential((Dense(6, "tanh"), Dense(4)))
    params = start(branch)
    for layer in (Residual(branch), Residual(list(branch.layers)), Residual(branch.layers)):
        assert layer == Residual(branch)
        y, _ = layer.forward(params, x, xp=XP)
        np.testing.assert_array_equal(y, x + branch.forward(params, x, xp=XP)[0])
    single = Residual(Dense(4, "tanh"))
    y, _ = single.forward(params := start(single), x, xp=XP)
    np.testing.assert_allclose(y, x + np.tanh(x @ params[0].W + params[0].b), rtol=1e-14)
    np.testing.assert_array_equal(Residual(Sigmoid()).forward(((),), 0.0 * x, xp=XP)[0], 0.5)


def test_gradients(rng, check_layer):
    x = rng.standard_normal((5, 4))
    plain = Residual([Dense(6, "tanh"), LayerNorm(), Dense(4, "sigmoid")])
    check_layer(plain, start(plain), x, rng)
    nested = Residual([Dense(4, "tanh"), Residual(Dense(4))])
    check_layer(nested, start(nested), x, rng)
    context = {"training": True, "key": make_key(0), "present": np.array([1.0, 1.0, 1.0, 1.0, 0.0])}
    check_layer(BUSY, start(BUSY), x, rng, **context)


def test_every_backend_agrees_with_numpy(backend, rng, agrees_with_numpy):
    x, dy = rng.standard_normal((2, 5, 4))
    agrees_with_numpy(backend, BUSY, start(BUSY), x, dy, "float64", training=True, key=make_key(0))


def test_what_the_branch_uses_reaches_it(rng):
    assert Residual(Dense(4)).uses == frozenset()
    assert BUSY.uses == {"training", "stats", "present", "key"}
    model = Sequential((Dense(4, "tanh"), BUSY))
    assert model.uses == BUSY.uses
    params, _ = model.init(HostRandom(0), (4,))
    stats = model.init_stats(params)
    assert [len(leaves(own)) for own in stats] == [0, 2]
    key, x = make_key(0), rng.standard_normal((5, 4))
    _, caches = model.forward(params, x, xp=XP, training=True, key=key, stats=stats)
    mask = caches[1][0][2][0]
    np.testing.assert_array_equal(mask, Dropout(0.3).forward((), np.ones((5, 6)), xp=XP, key=key.at(1, 2))[0])
    before = tree_map(np.copy, stats)
    after = model.advance(stats, caches, xp=XP)
    norm, _ = caches[1][0][1]
    expected = BatchNorm().advance(before[1][1], norm, xp=XP)
    for a, b in zip(after[1][1], expected, strict=True):
        np.testing.assert_array_equal(a, b)
    evaluated, _ = model.forward(params, x, xp=XP, stats=after)
    one, _ = model.forward(params, x[2:3], xp=XP, stats=after)
    np.testing.assert_allclose(one[0], evaluated[2], rtol=1e-13)


def test_gradients_of_a_first_block_spare_dx(rng):
    class Explosive(Dense):
        def backward(self, params, cache, dy, /, *, xp):
            raise AssertionError("dx is not needed")

    model = Sequential((Tanh(), Residual([Tanh(), Residual(Sigmoid()), Explosive(3)]), Dense(2)))
    params, _ = model.init(HostRandom(0), (3,))
    x, dy = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    _, caches = model.forward(params, x, xp=XP)
    grads = model.gradients(params, caches, dy, xp=XP)
    assert grads[0] == ()
    assert grads[1][:2] == ((), ((),))
    plain = Sequential((Tanh(), Residual([Tanh(), Residual(Sigmoid()), Dense(3)]), Dense(2)))
    for a, b in zip(leaves(grads), leaves(plain.backward(params, caches, dy, xp=XP)[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def test_analytic_if_the_whole_branch_is():
    assert Residual([Dense(4, "tanh"), Dense(4)]).analytic
    assert not Residual([Dense(4, "relu"), Dense(4)]).analytic


def test_shapes_that_do_not_add_up():
    sizes = "axis {0} of x is {1}, axis {0} of the branch's output is {2}"
    for branch, shape, first, fix in (
        (Dense(5), (4,), sizes.format(0, 4, 5), "Fix: 4 outputs in the branch's last layer."),
        (Conv2D(5, 3, padding="same"), (4, 4, 3), sizes.format(2, 3, 5), "Fix: 3 outputs in the branch's last layer."),
        (Conv2D(3, 3), (4, 4, 3), sizes.format(0, 4, 2), "Fix: padding='same' and stride 1 in the branch."),
        (Flatten(), (4, 3), "2 axes and 1 axes", None),
    ):
        with pytest.raises(InvalidValueError, match=r"Residual: y = x \+ branch\(x\) does not add up") as caught:
            Residual(branch).init(HostRandom(0), shape)
        text = str(caught.value)
        assert first in text
        assert fix in text if fix else "Fix" not in text
    with pytest.raises(InvalidTypeError, match=r"Residual\(branch=…\)"):
        Residual([])
    for wrong in (4, [Dense(4), 4], Dense, "tanh"):
        with pytest.raises(InvalidTypeError, match=r"Residual\(branch=…\)"):
            Residual(wrong)
