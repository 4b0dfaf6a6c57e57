"""The network: shapes, purity of what is read, evaluation, the way to other backends."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

import bpxp
from bpxp import nn


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


class Asks(bpxp.nn.Flatten):
    """Asks for a number on its way."""

    def forward(self, params, x, /, *, xp):
        assert float(x[0, 0, 0, 0]) == float(x[0, 0, 0, 0])
        return super().forward(params, x, xp=xp)


@pytest.mark.parametrize("size", [28, 90])
def test_no_more_images_at_a_time_than_there_is_room_for(rng, size, monkeypatch):
    monkeypatch.setenv("BPXP_THREADS", "keep")  # else the forward pass runs once more, for the size of its products
    layers = [bpxp.nn.Conv2D(4, 3, padding="same"), bpxp.nn.Flatten(), 3]
    net = bpxp.Network(layers, input_shape=(size, size, 1), backend="numpy", seed=0)
    x, y = rng.random((40, size, size, 1)).astype(np.float32), rng.integers(0, 3, 40)
    shapes = []

    def forward(self, params, x, /, **context):
        shapes.append(x.shape[0])
        return right(self, params, x, **context)

    right = bpxp.nn.Sequential.forward
    each = 4 * size * size * (1 + 4 + 9)  # at least x, z and the patches; the padded image and copies come on top
    monkeypatch.setattr(net.xp, "workspace", 20 * each // 32)
    whole = net.to("strict").logits(x)
    monkeypatch.setattr(bpxp.nn.Sequential, "forward", forward)
    logits = net.logits(x)
    assert shapes[0] == 1  # for its shapes
    assert 8 <= shapes[1] <= 20
    assert sum(shapes[1:]) == 40
    np.testing.assert_allclose(logits, net.to("strict").backend.to_numpy(whole), rtol=1e-4, atol=1e-5)
    shapes.clear()
    net.evaluate(x, y)
    assert set(shapes) == {net._chunk}
    monkeypatch.setattr(net.xp, "workspace", 1)
    assert net.to(net.backend)._chunk == 1
    assert net.to("strict")._chunk == 1000


def test_a_layer_that_asks_for_numbers_gets_them_when_a_network_predicts(rng):
    net = bpxp.Network([Asks(), 3], input_shape=(2, 2, 1), backend="numpy", seed=0)
    assert net.predict(rng.random((1200, 2, 2, 1))).shape == (1200,)


def test_evaluation_weighs_the_loss(net, batch):
    x, y = batch
    weight = np.arange(7.0)
    proba = net.backend.to_numpy(net.predict_proba(x)).astype(np.float64)
    losses = -np.log(proba[np.arange(7), y])
    assert net.evaluate(x, y, weight=weight)["loss"] == pytest.approx(
        float((losses * weight).sum() / weight.sum()), rel=1e-5
    )


def test_pixels_are_scaled_wherever_they_enter(backend, rng):
    net = bpxp.Network([4, 5, 3], backend=backend, seed=3, pixels=True)
    pixels, y = rng.integers(0, 256, (6, 4)).astype(np.uint8), rng.integers(0, 3, 6)
    scaled = pixels.astype(np.float32) / np.float32(255.0)
    np.testing.assert_allclose(
        net.backend.to_numpy(net.logits(pixels)), net.backend.to_numpy(net.logits(scaled)), rtol=1e-5, atol=1e-6
    )
    assert net.evaluate(pixels, y)["loss"] == pytest.approx(net.evaluate(scaled, y)["loss"], rel=1e-5)
    a, b = (net.loss_and_gradients(x, y)[1][0].W for x in (pixels, scaled))
    np.testing.assert_allclose(net.backend.to_numpy(a), net.backend.to_numpy(b), rtol=1e-5, atol=1e-7)


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
    vectors = (train.x.reshape(len(train), 64) * np.float32(1 / 255)).astype(np.float32)
    assert net.evaluate(train) == net.evaluate(train.x, train.y) == net.evaluate(vectors, train.y)
    for x in (train, train.x, train.x[..., 0], net.backend.asarray(train.x)):
        assert np.array_equal(net.backend.to_numpy(net.predict(x)), net.backend.to_numpy(net.predict(vectors)))


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


def test_float64(backend, batch):
    net = bpxp.Network([4, 5, 3], backend=backend, dtype="float64", seed=0)
    _, grads = net.loss_and_gradients(*batch)
    assert {net.backend.to_numpy(a).dtype.name for own in (*net.params, *grads) for a in own} == {"float64"}


def test_summary_and_repr(net):
    assert "43 parameters" in str(net.summary())
    assert "4 -> 5 -> 3" in repr(net)


# ---------------------------------------------------------------- activations in the list


def activations(net):
    return [type(getattr(layer, "activation", layer)).__name__ for layer in net.layers]


@pytest.mark.parametrize(
    "layers",
    [
        [4, 5, nn.ReLU(), 3],
        [4, nn.Dense(5), nn.ReLU(), 3],
        [4, nn.Dense(5, "relu"), 3],
        [4, 5, nn.Dropout(0.0), nn.ReLU(), 3],
    ],
)
def test_an_activation_in_the_list_replaces_the_default(backend, rng, tmp_path, layers):
    net = bpxp.Network(layers, hidden="tanh", backend=backend, dtype="float64", seed=0)
    x = rng.normal(size=(6, 4))
    hidden, out = (p for p in net.params if len(p))
    W, b, V, c = (backend.to_numpy(a) for a in (hidden.W, hidden.b, out.W, out.b))
    expected = np.maximum(x @ W + b, 0.0) @ V + c
    np.testing.assert_allclose(backend.to_numpy(net.logits(x)), expected, rtol=1e-12)
    net.save(tmp_path / "net.bpxp")
    again = bpxp.Network.load(tmp_path / "net.bpxp", backend=backend)
    assert again.layers == net.layers
    assert np.array_equal(backend.to_numpy(again.logits(x)), backend.to_numpy(net.logits(x)))
    assert "Tanh" not in str(net.summary())


def test_which_layers_have_the_default(backend):
    layers = [
        nn.Conv2D(2, 3),
        nn.BatchNorm(),
        nn.ReLU(),
        nn.Conv2D(2, 1),
        nn.MaxPool2D(2),
        nn.Flatten(),
        4,
        3,
        nn.Tanh(),
    ]
    net = bpxp.Network(layers, input_shape=(8, 8, 1), loss="mean_squared_error", backend=backend, seed=0)
    names = ["Identity", "BatchNorm", "ReLU", "Sigmoid", "MaxPool2D", "Flatten", "Sigmoid", "Identity", "Tanh"]
    assert activations(net) == names
    assert repr(net).startswith("<Network 8 -> 8 -> 1 -> Conv2D -> BatchNorm -> ReLU -> Conv2D")
    # A container stands on its own: what follows it says nothing about the layer before.
    net = bpxp.Network([4, 4, nn.Residual(nn.Dense(4)), nn.ReLU(), 3], backend=backend, seed=0)
    assert activations(net) == ["Sigmoid", "Residual", "ReLU", "Identity"]


def test_two_activations_of_the_output_are_refused():
    with pytest.raises(ValueError, match=r"got ReLU\(\) at the end, and Sigmoid\(\).*E005"):
        bpxp.Network([4, 3, nn.ReLU()], output="sigmoid", loss="mean_squared_error", backend="numpy")
    with pytest.raises(TypeError, match=r"got str 'relu'. Fix: nn.ReLU\(\)"):
        bpxp.Network([4, 5, "relu", 3], backend="numpy")
