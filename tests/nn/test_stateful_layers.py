"""Networks with random layers and running statistics: training, evaluation, padding, files, other backends."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.core.tree import leaves


def network(backend, *, dtype="float32", seed=1):
    layers = [
        4,
        nn.Dense(8, activation="relu"),
        nn.BatchNorm(),
        nn.Dropout(0.25),
        nn.Residual([nn.Dense(8), nn.Dropout(0.5)]),
        3,
    ]
    return bpxp.Network(layers, hidden="tanh", backend=backend, seed=seed, dtype=dtype)


@pytest.fixture
def data(rng):
    x = rng.normal(size=(23, 4)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int32) + (x[:, 2] > 0)


def everything(net):
    return [net.backend.to_numpy(a) for a in leaves((net.params, net.stats, net.key))]


def fit(net, data, epochs, **options):
    return bpxp.Trainer(net, optim.SGD(0.1, momentum=0.9), progress=False).fit(
        data, epochs=epochs, batch_size=5, **options
    )


def test_training_moves_statistics_and_key_and_evaluation_does_not(backend, data):
    net = network(backend)
    before = everything(net)
    net.evaluate(*data)
    net.predict(data[0])
    net.loss_and_gradients(*data)
    assert all(np.array_equal(a, b) for a, b in zip(before, everything(net), strict=True))
    fit(net, data, 2)
    assert net._steps == 10
    assert not any(np.array_equal(a, b) for a, b in zip(before[:-3], everything(net)[:-3], strict=True))


def test_evaluation_is_deterministic_and_independent_of_the_batch(backend, data):
    net = network(backend)
    fit(net, data, 1)
    x, _ = data
    whole = backend.to_numpy(net.logits(x))
    assert np.array_equal(whole, backend.to_numpy(net.logits(x)))
    alone = np.concatenate([backend.to_numpy(net.logits(x[i : i + 1])) for i in range(len(x))])
    np.testing.assert_allclose(whole, alone, rtol=1e-5, atol=1e-6)


def test_the_same_masks_on_every_backend(backend, data):
    reference, net = network("numpy"), network(backend)
    histories = [fit(n, data, 3, validation=data) for n in (reference, net)]
    for column in ("loss", "validation_loss"):
        np.testing.assert_allclose(histories[0][column], histories[1][column], rtol=1e-4)
    for a, b in zip(everything(reference), everything(net), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_samples_that_fill_up_the_last_batch_do_not_count(backend, data):
    # The last batch of an epoch, as the trainer pads it, against the same step on the three samples alone.
    x, y = data
    padded, alone = network(backend), network(backend)
    for net in (padded, alone):  # the same statistics and the same place in the masks
        fit(net, (x[:20], y[:20]), 1, shuffle=False)
    bpxp.Trainer(padded, optim.SGD(0.1), progress=False).fit((x[20:], y[20:]), epochs=1, batch_size=3, shuffle=False)
    alone.gradient_descent((x[20:], y[20:]), learning_rate=0.1)
    for a, b in zip(everything(padded), everything(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_padding_in_an_epoch_equals_steps_by_hand(backend, data):
    x, y = data
    net, by_hand = (
        bpxp.Network([4, nn.Dense(8, activation="relu"), nn.BatchNorm(), 3], backend=backend, seed=1) for _ in range(2)
    )
    bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit(data, epochs=2, batch_size=5, shuffle=False)
    for _ in range(2):
        for i in range(0, 23, 5):
            by_hand.gradient_descent((x[i : i + 5], y[i : i + 5]), learning_rate=0.1)
    for a, b in zip(everything(net), everything(by_hand), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_gradients_with_frozen_masks_and_batch_statistics(backend, data):
    net = network(backend, dtype="float64")
    report = bpxp.verify.check_gradients(net, data[0][:6], data[1][:6])
    assert report.worst < 1e-7
    assert {"1/gamma", "1/beta", "x"} <= {check.name for check in report.checks}


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(backend, data, tmp_path):
    net = network(backend)
    plain = bpxp.Trainer(net, optim.SGD(0.1), progress=False)
    plain.fit(data, epochs=2, batch_size=5)
    net.save(tmp_path / "net.bpxp")
    other = bpxp.Network.load(tmp_path / "net.bpxp", backend=backend)
    assert all(np.array_equal(a, b) for a, b in zip(everything(net), everything(other), strict=True))
    plain.fit(data, epochs=2, batch_size=5)
    bpxp.Trainer(other, optim.SGD(0.1), progress=False).fit(data, epochs=2, batch_size=5)
    assert all(np.array_equal(a, b) for a, b in zip(everything(net), everything(other), strict=True))


def test_to_another_backend_takes_everything_along(backend, data):
    net = network(backend)
    fit(net, data, 1)
    other = net.to("numpy")
    assert all(np.array_equal(a, b) for a, b in zip(everything(net), everything(other), strict=True))
    np.testing.assert_allclose(backend.to_numpy(net.logits(data[0])), other.logits(data[0]), rtol=1e-4, atol=1e-5)


def test_other_seed_other_masks(backend, data):
    losses = {float(fit(network(backend, seed=s), data, 1)[0]["loss"]) for s in (1, 2, 3)}
    assert len(losses) == 3


def test_ledger_of_stateful_layers(backend):
    text = str(network(backend).summary())
    assert "1  BatchNorm" in text
    assert "dgamma" in text
