"""The network: shapes, purity of what is read, evaluation, the way to other backends."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.errors import BpxpError, InvalidTypeError, InvalidValueError


@pytest.fixture
def net(backend):
    return bpxp.Network([4, 5, 3], backend=backend, seed=3)


@pytest.fixture
def batch(rng):
    return rng.normal(size=(7, 4)).astype(np.float32), rng.integers(0, 3, 7)


def flat(net):
    return np.concatenate([net.backend.to_numpy(a).ravel() for own in net.params for a in own])


def test_initial_parameters_are_the_same_bits_everywhere(net):
    # D0: a golden hash, so that another platform or NumPy cannot drift unnoticed.
    golden = "752a780de069e8d5"
    assert hashlib.sha256(flat(net).tobytes()).hexdigest()[:16] == golden


def test_seed_changes_parameters_and_none_draws_one(backend):
    a, b = (bpxp.Network([4, 5, 3], backend=backend, seed=s) for s in (1, 2))
    assert not np.array_equal(flat(a), flat(b))
    c = bpxp.Network([4, 5, 3], backend=backend)
    again = bpxp.Network([4, 5, 3], backend=backend, seed=c.seed)
    assert np.array_equal(flat(c), flat(again))


def test_loss_and_gradients_change_nothing(net, batch, readonly):
    before = flat(net)
    x, y = readonly(batch[0]), readonly(batch[1])
    first = net.loss_and_gradients(x, y)
    second = net.loss_and_gradients(x, y)
    assert np.array_equal(flat(net), before)
    for own, other in zip(first[1], second[1], strict=True):
        for a, b in zip(own, other, strict=True):
            assert np.array_equal(net.backend.to_numpy(a), net.backend.to_numpy(b))
    assert first[0].shape == ()


def test_gradients_are_of_the_mean_over_the_batch(net, batch):
    x, y = batch
    _, whole = net.loss_and_gradients(x, y)
    _, left = net.loss_and_gradients(x[:3], y[:3])
    _, right = net.loss_and_gradients(x[3:], y[3:])
    for w, a, b in zip(whole[0], left[0], right[0], strict=True):
        mean = (3 * net.backend.to_numpy(a) + 4 * net.backend.to_numpy(b)) / 7
        np.testing.assert_allclose(net.backend.to_numpy(w), mean, rtol=2e-5, atol=1e-7)


def test_weights_count_like_repeated_samples(net, batch):
    x, y = batch
    loss, grads = net.loss_and_gradients(x[:3], y[:3], [1, 2, 0])
    repeated, grads2 = net.loss_and_gradients(x[[0, 1, 1]], y[[0, 1, 1]])
    assert float(net.backend.to_numpy(loss)) == pytest.approx(float(net.backend.to_numpy(repeated)), rel=1e-6)
    a, b = (net.backend.to_numpy(g[0].W) for g in (grads, grads2))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_gradient_descent_moves_against_the_gradient(net, batch, readonly):
    before = [net.backend.to_numpy(a) for own in net.params for a in own]
    _, grads = net.loss_and_gradients(*batch)
    wanted = [p - 0.25 * net.backend.to_numpy(g) for p, g in zip(before, [a for o in grads for a in o], strict=True)]
    net.gradient_descent((readonly(batch[0]), readonly(batch[1])), learning_rate=0.25)
    for own, want in zip([a for o in net.params for a in o], wanted, strict=True):
        np.testing.assert_allclose(net.backend.to_numpy(own), want, rtol=1e-6, atol=1e-7)


def test_learning_rate_of_gradient_descent_is_felt_at_each_call(backend, batch):
    a, b = (bpxp.Network([4, 5, 3], backend=backend, seed=3) for _ in range(2))
    for rate in (0.5, 0.25):
        a.gradient_descent(batch, learning_rate=rate)
    for _ in range(2):
        b.gradient_descent(batch, learning_rate=0.5)
    assert not np.allclose(flat(a), flat(b))


def test_predictions(net, batch):
    x, _ = batch
    proba = net.backend.to_numpy(net.predict_proba(x))
    assert proba.shape == (7, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0, rtol=1e-6)
    assert np.array_equal(net.backend.to_numpy(net.predict(x)), proba.argmax(axis=1))
    logits = net.backend.to_numpy(net.logits(x))
    np.testing.assert_allclose(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), proba, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 999, 1000, 1001, 2500])
def test_chunks_of_prediction_and_evaluation_join(backend, rng, n):
    net = bpxp.Network([4, 5, 3], backend=backend, seed=3)
    x, y = rng.normal(size=(n, 4)).astype(np.float32), rng.integers(0, 3, n)
    proba = net.backend.to_numpy(net.predict_proba(x)).astype(np.float64)
    assert proba.shape == (n, 3)
    found = net.evaluate(x, y)
    assert found["loss"] == pytest.approx(float(-np.log(proba[np.arange(n), y]).mean()), rel=1e-4)
    assert found["accuracy"] == pytest.approx(float((proba.argmax(axis=1) == y).mean()))


def test_evaluation_weighs_the_loss(net, batch):
    x, y = batch
    weight = np.arange(7.0)
    proba = net.backend.to_numpy(net.predict_proba(x)).astype(np.float64)
    losses = -np.log(proba[np.arange(7), y])
    assert net.evaluate(x, y, weight=weight)["loss"] == pytest.approx(
        float((losses * weight).sum() / weight.sum()), rel=1e-5
    )


def test_pixels_are_scaled_wherever_they_enter(backend, rng):
    net = bpxp.Network([4, 5, 3], backend=backend, seed=3)
    pixels, y = rng.integers(0, 256, (6, 4)).astype(np.uint8), rng.integers(0, 3, 6)
    scaled = pixels.astype(np.float32) / np.float32(255.0)
    np.testing.assert_allclose(
        net.backend.to_numpy(net.logits(pixels)), net.backend.to_numpy(net.logits(scaled)), rtol=1e-5, atol=1e-6
    )
    assert net.evaluate(pixels, y)["loss"] == pytest.approx(net.evaluate(scaled, y)["loss"], rel=1e-5)
    a, b = (net.loss_and_gradients(x, y)[1][0].W for x in (pixels, scaled))
    np.testing.assert_allclose(net.backend.to_numpy(a), net.backend.to_numpy(b), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.tolist(),
        np.asfortranarray,
        lambda x: x[::-1][::-1],
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.float64),
    ],
    ids=["list", "fortran", "negative strides", "strided", "big-endian", "float64"],
)
def test_accepted_layouts_equal_the_plain_case(net, batch, make):
    x, y = batch
    plain, other = net.loss_and_gradients(x, y), net.loss_and_gradients(make(x), y)
    assert net.backend.to_numpy(plain[0]) == net.backend.to_numpy(other[0])
    a, b = (net.backend.to_numpy(r[1][0].W) for r in (plain, other))
    assert np.array_equal(a, b)


def test_other_targets_of_classes_equal_indices(net, batch):
    x, y = batch
    plain = float(net.backend.to_numpy(net.loss_and_gradients(x, y)[0]))
    for other in (y.tolist(), y.astype(np.float32), y.astype(np.uint8), np.eye(3)[y], np.eye(3, dtype=bool)[y]):
        assert float(net.backend.to_numpy(net.loss_and_gradients(x, other)[0])) == pytest.approx(plain, rel=1e-6)


def test_multi_label_network(backend, rng):
    net = bpxp.Network([4, 6, 3], loss="binary_cross_entropy", backend=backend, seed=0)
    x, y = rng.normal(size=(8, 4)), (rng.random((8, 3)) > 0.5).astype(float)
    first = float(net.backend.to_numpy(net.loss_and_gradients(x, y)[0]))
    for _ in range(50):
        net.gradient_descent((x, y), learning_rate=1.0)
    assert float(net.backend.to_numpy(net.loss_and_gradients(x, y)[0])) < 0.7 * first
    answers = net.backend.to_numpy(net.predict(x))
    assert set(np.unique(answers)) <= {0, 1}
    assert np.array_equal(answers, (net.backend.to_numpy(net.predict_proba(x)) > 0.5).astype(int))


def test_datasets_of_images_become_vectors(net):
    train, _ = bpxp.data.digits()
    net = bpxp.Network([64, 8, 10], backend=net.backend, seed=0)
    vectors = train.x.reshape(len(train), 64)
    assert net.evaluate(train) == net.evaluate(vectors, train.y)
    assert np.array_equal(net.backend.to_numpy(net.predict(train)), net.backend.to_numpy(net.predict(vectors)))


def test_layers_stand_among_sizes(backend):
    net = bpxp.Network([4, nn.Dense(6, activation="relu"), nn.Tanh(), 5, 3], hidden="silu", backend=backend, seed=0)
    kinds = [type(getattr(layer, "activation", None)).__name__ for layer in net.layers]
    assert kinds == ["ReLU", "NoneType", "SiLU", "Identity"]
    assert [len(own) for own in net.params] == [2, 0, 2, 2]
    x, y = np.ones((3, 4)), [0, 1, 2]
    net.gradient_descent((x, y), learning_rate=0.1)
    assert net.predict_proba(x).shape == (3, 3)


def test_input_shape_makes_every_entry_a_layer(backend):
    net = bpxp.Network([5, 3], input_shape=4, backend=backend, seed=3)
    assert np.array_equal(flat(net), flat(bpxp.Network([4, 5, 3], backend=backend, seed=3)))


def test_to_another_backend_keeps_the_parameters(net, batch):
    other = net.to("numpy")
    assert np.array_equal(flat(other), flat(net))
    before = flat(net)
    other.gradient_descent(batch, learning_rate=0.5)
    assert np.array_equal(flat(net), before)


def test_params_can_be_set_and_are_copied(net, batch):
    mine = tuple(type(own)(*(np.ones(a.shape, np.float32) for a in own)) for own in net.params)
    net.params = mine
    net.gradient_descent(batch, learning_rate=0.5)
    assert all((a == 1.0).all() for own in mine for a in own)


def test_params_of_another_shape_are_refused(net):
    first, second = net.params
    before = flat(net)
    with pytest.raises(InvalidValueError, match=r"1/b has the wrong shape: got shape \(4,\), expected shape \(3,\)"):
        net.params = (first, type(second)(second.W, np.zeros(4)))
    with pytest.raises(InvalidValueError, match="another structure"):
        net.params = (first,)
    assert np.array_equal(flat(net), before)


def test_float64(backend, batch):
    net = bpxp.Network([4, 5, 3], backend=backend, dtype="float64", seed=0)
    _, grads = net.loss_and_gradients(*batch)
    assert {net.backend.to_numpy(a).dtype.name for own in (*net.params, *grads) for a in own} == {"float64"}


def test_summary_and_repr(net):
    assert "43 parameters" in str(net.summary())
    assert "4 → 5 → 3" in repr(net)


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("layers", "error", "text"),
    [
        ([784], ValueError, r"needs at least 2 sizes \(input, output\), got 1: \[784\]"),
        ([], ValueError, r"needs at least 2 sizes \(input, output\), got 0"),
        ([784, 0, 10], ValueError, r"sizes\[1\] must be >= 1, got 0"),
        ([784, -3, 10], ValueError, r"sizes\[1\] must be >= 1, got -3"),
        ([784, 30.5, 10], TypeError, r"sizes\[1\] must be an int or a layer, got float 30.5"),
        ([784, True, 10], TypeError, r"sizes\[1\].*bool"),
        ("784,30,10", TypeError, r"sequence of ints.*got str.*Fix: Network\(\[784, 30, 10\]\)"),
        (784, TypeError, "sequence of ints"),
        ([4, nn.Dense, 3], TypeError, r"sizes\[1\].*got Dense. Fix: Dense\(…\)"),
        ([nn.Dense(3)], ValueError, r"input_shape=\(28, 28, 1\)"),
        ([4, 10**6, 10**6], MemoryError, "needs .* GiB of parameters, .* GiB available"),
    ],
)
def test_bad_sizes(layers, error, text):
    with pytest.raises(error, match=text) as caught:
        bpxp.Network(layers, backend="numpy")
    assert isinstance(caught.value, BpxpError)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"hidden": "rel"}, ValueError, "one of .*relu.*Did you mean 'relu'"),
        ({"hidden": 3}, TypeError, "neither a name nor an Activation"),
        ({"hidden": "softmax"}, ValueError, "logits"),
        ({"loss": "cross_entropy"}, ValueError, "one of .*softmax_cross_entropy"),
        ({"init": "glorott"}, ValueError, "Did you mean 'glorot"),
        ({"output": "relu"}, ValueError, "output ReLU.*take logits"),
        ({"output": "sigmoid", "loss": "binary_cross_entropy"}, ValueError, "twice"),
        ({"dtype": "int32"}, TypeError, "floating dtype among float32, float64"),
        ({"dtype": "float16"}, TypeError, "floating dtype among float32, float64"),
        ({"seed": "abc"}, TypeError, "int, SeedSequence, Generator or None"),
        ({"seed": -1}, ValueError, ">= 0"),
        ({"seed": True}, TypeError, "bool"),
        ({"input_shape": (2, 0)}, ValueError, r"input_shape\[1\]"),
        ({"input_shape": "8"}, TypeError, "a tuple of ints"),
        ({"input_shape": (2, 2)}, ValueError, "Flatten"),
    ],
)
def test_bad_options(options, error, text):
    layers = [3, 2] if "input_shape" in options else [4, 3, 2]
    with pytest.raises(error, match=text) as caught:
        bpxp.Network(layers, **{"backend": "numpy", **options})
    assert isinstance(caught.value, BpxpError)


def test_softmax_of_one_output_is_refused():
    with pytest.raises(InvalidValueError, match="softmax over 1 class is constant"):
        bpxp.Network([4, 1], backend="numpy")
    bpxp.Network([4, 1], backend="numpy", loss="binary_cross_entropy")


def test_float64_on_a_device_without_it():
    pytest.importorskip("array_api_strict")
    with pytest.raises(InvalidValueError, match="no float64; use dtype='float32'|has no float64.*dtype='float32'"):
        bpxp.Network([4, 3], backend="strict:no_float64", dtype="float64")
    bpxp.Network([4, 3], backend="strict:no_float64").evaluate(np.ones((2, 4)), [0, 1])


@pytest.mark.parametrize("rate", [0, -0.1, float("nan"), float("inf")])
def test_bad_learning_rates(net, batch, rate):
    before = flat(net)
    with pytest.raises(InvalidValueError, match="finite number > 0"):
        net.gradient_descent(batch, learning_rate=rate)
    assert np.array_equal(flat(net), before)


def test_learning_rate_as_text(net, batch):
    with pytest.raises(InvalidTypeError, match="got str '0.1'"):
        net.gradient_descent(batch, learning_rate="0.1")


def test_data_that_is_neither_dataset_nor_pair(net):
    with pytest.raises(InvalidTypeError, match=r"a Dataset or a pair \(x, y\)"):
        net.gradient_descent(np.ones((3, 4)), learning_rate=0.1)
