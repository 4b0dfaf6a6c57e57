"""Layers in a row: the same on every backend, pure, and nothing computed that is not needed."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import (
    LOSSES,
    Activation,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dense,
    DenseParams,
    Flatten,
    Identity,
    MaxPool2D,
    ReLU,
    Sequential,
    Tanh,
)
from bpxp.nn.sequential import activation_of

NUMPY = bpxp.backends.get_backend("numpy")
KINKS = {"relu": (0.0,), "leaky_relu": (0.0,), "selu": (0.0,), "hard_sigmoid": (-3.0, 3.0)}


def network(activation, loss, batch, n_out, seed):
    """A Dense-activation-Dense network, its parameters, x and y: no pre-activation and no error is near a kink."""
    rng = np.random.default_rng(seed)
    model = Sequential((Dense(4, activation, "normal"), Dense(n_out, initializer="normal")))
    for attempt in range(1000):
        params, shape = model.init(HostRandom(seed, (attempt,)), (3,))
        x = rng.standard_normal((batch, 3))
        z, _ = model.layers[0].forward(params[0], x, xp=NUMPY.xp)
        if all(np.min(np.abs(z - kink)) > 0.03 for kink in KINKS.get(activation, ())):
            break
    assert shape == (n_out,)
    logits, _ = model.forward(params, x, xp=NUMPY.xp)
    y = {
        "classes": lambda: rng.integers(0, n_out, batch).astype(np.int32),
        "labels": lambda: (rng.random((batch, n_out)) < 0.5).astype(float),
        "counts": lambda: rng.poisson(2.0, (batch, n_out)).astype(float),
        "values": lambda: logits + rng.choice([-2.0, -0.5, 0.5, 2.0], logits.shape),
    }[LOSSES[loss].targets]()
    return model, params, x, y


def value_and_gradients(model, loss, params, x, y, xp):
    logits, caches = model.forward(params, x, xp=xp)
    value, delta = LOSSES[loss](logits, y, xp=xp)
    dx, grads = model.backward(params, caches, delta, xp=xp)
    return value, dx, grads


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("activation", "loss"),
    [("sigmoid", "softmax_cross_entropy"), ("relu", "binary_cross_entropy"), ("gelu", "huber"), ("elu", "poisson")],
)
def test_every_backend_agrees_with_numpy(activation, loss, dtype, backend, on):
    model, params, x, y = network(activation, loss, 7, 3, 3)
    expected = value_and_gradients(model, loss, params, x, y, NUMPY.xp)
    own_params = tree_map(lambda p: on(backend, p, dtype), params)
    target = on(backend, y) if y.dtype == np.int32 else on(backend, y, dtype)
    own = value_and_gradients(model, loss, own_params, on(backend, x, dtype), target, backend.xp)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    for mine, theirs in zip(leaves(own), leaves(expected), strict=True):
        assert mine.dtype == getattr(backend.xp, dtype)
        np.testing.assert_allclose(backend.to_numpy(mine), theirs, rtol=rtol, atol=rtol * np.max(np.abs(theirs)))


def test_backward_writes_into_nothing_and_gradients_share_nothing(backend, on):
    model, params, x, y = network("tanh", "softmax_cross_entropy", 5, 3, 5)
    params, own_x, own_y = tree_map(lambda p: on(backend, p), params), on(backend, x), on(backend, y)
    xp = backend.xp
    logits, caches = model.forward(params, own_x, xp=xp)
    _, delta = LOSSES["softmax_cross_entropy"](logits, own_y, xp=xp)
    first, again = (model.backward(params, caches, delta, xp=xp) for _ in range(2))
    lowest = model.gradients(params, caches, delta, xp=xp)
    for a, b in zip(leaves(first), leaves(again), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
    for a, b in zip(leaves(first[1]), leaves(lowest), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))
    if backend.name == "numpy":
        others = [own_x, own_y, delta, logits, *leaves(params), *leaves(caches)]
        grads = leaves(first)
        for i, g in enumerate(grads):
            assert not any(np.shares_memory(g, other) for other in [*others, *grads[:i]] if other is not None)


def test_identity_is_left_out():
    assert activation_of(Dense(3, "identity")) is None
    assert activation_of(Dense(3, Identity())) is None
    assert activation_of(Dense(3)) is None
    assert activation_of(Dense(3, "tanh")) == Tanh()
    model = Sequential((Dense(3, "identity"),))
    params, _ = model.init(HostRandom(0), (2,))
    _, caches = model.forward(params, np.ones((1, 2)), xp=NUMPY.xp)
    assert caches[0][1] is None


def test_activation_may_stand_as_a_layer_of_its_own(rng):
    x, delta = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    fused = Sequential((Dense(5, "relu", "normal"), Dense(2, None, "normal")))
    apart = Sequential((Dense(5, None, "normal"), ReLU(), Dense(2, None, "normal")))
    params, shape = fused.init(HostRandom(0), (3,))
    assert shape == (2,)
    separate = (params[0], (), params[1])
    a, caches = fused.forward(params, x, xp=NUMPY.xp)
    b, others = apart.forward(separate, x, xp=NUMPY.xp)
    np.testing.assert_array_equal(a, b)
    grads = fused.gradients(params, caches, delta, xp=NUMPY.xp)
    same = apart.gradients(separate, others, delta, xp=NUMPY.xp)
    for one, other in zip(leaves(grads), leaves(same), strict=True):
        np.testing.assert_array_equal(one, other)


def test_gradients_below_the_first_parameters_are_not_computed(rng):
    class Explosive(ReLU):
        def backward(self, params, cache, da, /, *, xp):
            raise AssertionError("dx is not needed")

    model = Sequential((Explosive(), Dense(2)))
    params, _ = model.init(HostRandom(0), (3,))
    _, caches = model.forward(params, rng.standard_normal((4, 3)), xp=NUMPY.xp)
    grads = model.gradients(params, caches, np.ones((4, 2)), xp=NUMPY.xp)
    assert grads[0] == ()
    assert grads[1].W.shape == (3, 2)
    bare = Sequential((ReLU(),))
    assert bare.gradients(((),), (None,), None, xp=NUMPY.xp) == ((),)


def test_a_first_layer_that_knows_no_shorter_way_goes_backward(rng):
    class Scaled(Activation):
        """y = a x, of one's own: it has no `gradients`."""

        def init(self, rng, in_shape, /):
            return (rng.uniform(in_shape),), in_shape

        def forward(self, params, x, /, *, xp):
            return params[0] * x, x

        def backward(self, params, x, dy, /, *, xp):
            return params[0] * dy, (xp.sum(x * dy, axis=0),)

    model = Sequential((Scaled(), Dense(2)))
    params, _ = model.init(HostRandom(0), (3,))
    _, caches = model.forward(params, rng.standard_normal((4, 3)), xp=NUMPY.xp)
    dy = rng.standard_normal((4, 2))
    grads, wanted = model.gradients(params, caches, dy, xp=NUMPY.xp), model.backward(params, caches, dy, xp=NUMPY.xp)[1]
    for one, other in zip(leaves(grads), leaves(wanted), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_activation_is_given_no_parameters(rng):
    given = []

    class Watching(Tanh):
        def forward(self, params, z, /, *, xp):
            given.append(params)
            return super().forward(params, z, xp=xp)

        def backward(self, params, cache, da, /, *, xp):
            given.append(params)
            return super().backward(params, cache, da, xp=xp)

    model = Sequential((Dense(3, Watching()), Dense(2, Watching())))
    params, _ = model.init(HostRandom(0), (3,))
    _, caches = model.forward(params, rng.standard_normal((4, 3)), xp=NUMPY.xp)
    model.gradients(params, caches, rng.standard_normal((4, 2)), xp=NUMPY.xp)
    assert given == [()] * 4


def test_trees_of_another_network_are_refused(rng):
    model = Sequential((Dense(3), BatchNorm()))
    params, _ = model.init(HostRandom(0), (3,))
    stats, x = model.init_stats(params), rng.standard_normal((4, 3))
    _, caches = model.forward(params, x, xp=NUMPY.xp, training=True, stats=stats)
    for call in (
        lambda: model.forward(params[:1], x, xp=NUMPY.xp),
        lambda: model.init_stats(params[:1]),
        lambda: model.advance(stats[:1], caches, xp=NUMPY.xp),
        lambda: model.advance(stats, caches[:1], xp=NUMPY.xp),
    ):
        with pytest.raises(ValueError, match=r"zip\(\) argument"):
            call()


def test_dense_is_the_formula(backend, on, rng):
    W, b = rng.standard_normal((3, 2)), rng.standard_normal(2)
    x, delta = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    params = DenseParams(on(backend, W), on(backend, b))
    dense, xp = Dense(2), backend.xp
    z, cache = dense.forward(params, on(backend, x), xp=xp)
    dx, grads = dense.backward(params, cache, on(backend, delta), xp=xp)
    loops = {"z": np.zeros((4, 2)), "dW": np.zeros((3, 2)), "db": np.zeros(2), "dx": np.zeros((4, 3))}
    for n, i, j in np.ndindex(4, 3, 2):
        loops["z"][n, j] += x[n, i] * W[i, j] + b[j] / 3
        loops["dW"][i, j] += x[n, i] * delta[n, j]
        loops["db"][j] += delta[n, j] / 3
        loops["dx"][n, i] += delta[n, j] * W[i, j]
    for name, own in {"z": z, "dW": grads.W, "db": grads.b, "dx": dx}.items():
        np.testing.assert_allclose(backend.to_numpy(own), loops[name], rtol=1e-13, atol=1e-14)


def test_dense_resolves_names_and_refuses_nonsense():
    dense = Dense(3, "relu", "he")
    assert dense.activation == ReLU()
    assert dense == Dense(3, ReLU(), "he_normal")
    assert hash(dense) == hash(Dense(3, ReLU(), "he_normal"))
    for units, error in [
        (0, InvalidValueError),
        (-1, InvalidValueError),
        (2.5, InvalidTypeError),
        (True, InvalidTypeError),
    ]:
        with pytest.raises(error, match=r"Dense\(units=…\)"):
            Dense(units)
    with pytest.raises(InvalidValueError, match="losses take logits"):
        Dense(3, "softmax")
    with pytest.raises(InvalidValueError, match="Did you mean 'he'"):
        Dense(3, initializer="hee")
    with pytest.raises(InvalidValueError, match="at least one axis"):
        Dense(3).init(HostRandom(0), ())


@pytest.mark.parametrize("pool", [MaxPool2D(2), MaxPool2D(3, 2, 1)], ids=["side by side", "overlap"])
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh"])
def test_max_pooling_after_an_activation_is_the_same_bits_in_either_order(activation, pool, backend):
    """The composition that `Sequential` may turn round, against the layers called one by one; with ties, and with 0."""
    xp, rng = backend.xp, np.random.default_rng(3)
    conv = Conv2D(3, 1, activation=activation)
    model = Sequential((conv, pool, Flatten()))
    host, _ = model.init(HostRandom(3), (7, 6, 2))
    params = tree_map(lambda p: backend.asarray(p.astype(np.float32)), host)
    x = backend.asarray(rng.integers(-1, 2, (2, 7, 6, 2)).astype(np.float32))

    y, caches = model.forward(params, x, xp=xp)
    z, conv_cache = conv.forward(params[0], x, xp=xp)
    a, kept = conv.activation.forward((), z, xp=xp)
    pooled, pool_cache = pool.forward((), a, xp=xp)
    np.testing.assert_array_equal(backend.to_numpy(y), backend.to_numpy(xp.reshape(pooled, y.shape)))

    dy = backend.asarray(rng.standard_normal(y.shape).astype(np.float32))
    dx, grads = model.backward(params, caches, dy, xp=xp)
    da, _ = pool.backward((), pool_cache, xp.reshape(dy, pooled.shape), xp=xp)
    dz, _ = conv.activation.backward((), kept, da, xp=xp)
    expected, expected_grads = conv.backward(params[0], conv_cache, dz, xp=xp)
    np.testing.assert_array_equal(backend.to_numpy(dx), backend.to_numpy(expected))
    for g, other in zip(leaves(grads[0]), leaves(expected_grads), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(g), backend.to_numpy(other))


def test_only_what_never_decreases_waits_behind_max_pooling():
    relu, tanh = Conv2D(2, 1, activation="relu"), Conv2D(2, 1, activation="tanh")
    assert [a is not None for _, a, _ in Sequential((relu, MaxPool2D(2)))._plan] == [False, True]
    assert [a is not None for _, a, _ in Sequential((tanh, MaxPool2D(2)))._plan] == [True, False]
    assert [a is not None for _, a, _ in Sequential((relu, AvgPool2D(2)))._plan] == [True, False]
