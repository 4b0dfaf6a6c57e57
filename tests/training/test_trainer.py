"""The trainer: epochs, the short last batch, weights, resuming by calling again, evaluation."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import optim
from bpxp.data.order import epoch_order
from bpxp.errors import InvalidTypeError, InvalidValueError


@pytest.fixture
def data(rng):
    x = rng.normal(size=(23, 4)).astype(np.float32)
    return x, (x[:, 0] > x[:, 1]).astype(np.int32) + (x[:, 2] > 0)


def network(backend, **options):
    return bpxp.Network([4, 6, 3], backend=backend, seed=1, **options)


def flat(net):
    return np.concatenate([net.backend.to_numpy(a).ravel() for own in net.params for a in own])


def fit(net, data, optimizer=None, epochs=3, callbacks=(), **options):
    trainer = bpxp.Trainer(net, optimizer or optim.SGD(0.3), progress=False, callbacks=callbacks)
    return trainer.fit(data, epochs=epochs, **{"batch_size": 5, **options})


def test_an_epoch_is_gradient_descent_over_its_batches(backend, data):
    # 23 samples in batches of 5: the last has 3, and its gradient is the mean of 3.
    net, by_hand = network(backend), network(backend)
    fit(net, data, epochs=2)
    x, y = data
    for epoch in range(2):
        order = epoch_order(by_hand.seed, epoch, 23, 5)[:23]
        for i in range(0, 23, 5):
            rows = order[i : i + 5]
            by_hand.gradient_descent((x[rows], y[rows]), learning_rate=0.3)
    np.testing.assert_allclose(flat(net), flat(by_hand), rtol=2e-5, atol=1e-6)


def test_loss_of_an_epoch_is_the_mean_over_its_samples(backend, data):
    # With a vanishing learning rate it is the loss of the network as it stands, however the batches fall.
    for size in (1, 5, 23):
        net = network(backend)
        history = fit(net, data, optim.SGD(1e-30), epochs=1, batch_size=size)
        assert history[-1]["loss"] == pytest.approx(net.evaluate(*data)["loss"], rel=1e-5)


def test_weights_of_samples_and_classes(backend, data):
    # Weights 0, 1 and 2 are a data set in which samples are missing or stand twice, if the batch is all there is.
    x, y = data
    weight = np.arange(23) % 3
    rows = np.repeat(np.arange(23), weight)
    a, b, c = network(backend), network(backend), network(backend)
    fit(a, data, weight=weight, batch_size=23, shuffle=False)
    fit(b, (x[rows], y[rows]), batch_size=len(rows), shuffle=False)
    np.testing.assert_allclose(flat(a), flat(b), rtol=2e-5, atol=1e-6)
    fit(c, data, batch_size=23, shuffle=False, class_weight={0: 0.5, 1: 2.0})
    table = np.array([0.5, 2.0, 1.0])
    d = network(backend)
    fit(d, data, batch_size=23, shuffle=False, weight=table[y])
    np.testing.assert_allclose(flat(c), flat(d), rtol=1e-6)
    e, f = network(backend), network(backend)
    fit(e, data, class_weight="balanced")
    fit(f, data, class_weight=23 / (3 * np.bincount(y, minlength=3)))
    np.testing.assert_allclose(flat(e), flat(f), rtol=1e-6)


def test_one_fit_of_four_epochs_is_four_fits_of_one(backend, data):
    for optimizer in (
        optim.Adam(0.01),
        optim.SGD(0.1, momentum=0.9, average=0.5),
        optim.SGD(optim.StepDecay(0.5, every=3, factor=0.5)),
    ):
        once, often = network(backend), network(backend)
        whole = fit(once, data, optimizer, epochs=4)
        parts = [fit(often, data, optimizer, epochs=1)[0] for _ in range(4)]
        assert np.array_equal(flat(once), flat(often))
        assert [row["epoch"] for row in parts] == whole["epoch"] == [1, 2, 3, 4]
        assert [row["loss"] for row in parts] == whole["loss"]


def test_another_optimizer_starts_afresh(backend, data):
    net = network(backend)
    fit(net, data, optim.SGD(0.1, momentum=0.9), epochs=1)
    fit(net, data, optim.Adam(0.01), epochs=1)
    assert int(backend.to_numpy(net.opt_state.t)[0]) == 5


def test_same_seed_same_run_and_shuffle_has_an_effect(backend, data):
    a, b, c = network(backend), network(backend), network(backend)
    fit(a, data)
    fit(b, data)
    fit(c, data, shuffle=False)
    assert np.array_equal(flat(a), flat(b))
    assert not np.allclose(flat(a), flat(c))


def test_batch_size_one_and_all(backend, data):
    for size in (1, 23):
        history = fit(network(backend), data, batch_size=size, epochs=2)
        assert history[1]["loss"] < history[0]["loss"]


def test_history_columns_and_validation(backend, data):
    net = network(backend)
    x, y = data
    history = fit(net, (x[:15], y[:15]), validation=(x[15:], y[15:]), evaluate_train=True)
    columns = "epoch loss train_loss train_accuracy validation_loss validation_accuracy learning_rate seconds"
    assert history.columns == columns.split()
    found = net.evaluate(x[15:], y[15:])
    assert (history[-1]["validation_loss"], history[-1]["validation_accuracy"]) == (found["loss"], found["accuracy"])
    assert history[-1]["train_loss"] == net.evaluate(x[:15], y[:15])["loss"]
    assert history["learning_rate"] == pytest.approx([0.3] * 3)
    with pytest.raises(KeyError, match="the columns are epoch, loss"):
        history["acc"]


def test_a_fraction_is_set_aside(backend, data):
    net = network(backend)
    seen = fit(net, data, validation=0.25, batch_size=17, epochs=1)
    assert "validation_loss" in seen.columns
    assert int(backend.to_numpy(net.opt_state.t)[0]) == 1  # 23 - 6 samples: one batch of 17


def test_metrics_are_chosen(backend, data):
    net = network(backend)
    trainer = bpxp.Trainer(net, optim.SGD(0.3), metrics=[bpxp.metrics.TopK(2), "precision_recall_f1"], progress=False)
    row = trainer.fit(data, epochs=1, validation=data)[0]
    assert {"validation_top2_accuracy", "validation_class_f1"} <= set(row)


def test_regression_has_no_accuracy(backend, rng):
    net = bpxp.Network([4, 6, 2], loss="mean_squared_error", backend=backend, seed=0)
    x = rng.normal(size=(20, 4))
    history = fit(net, (x, x[:, :2]), epochs=30, validation=(x, x[:, :2]))
    assert history.columns == ["epoch", "loss", "validation_loss", "learning_rate", "seconds"]
    assert history[-1]["validation_loss"] < 0.5 * history[0]["validation_loss"]


def test_plateau_sees_the_validation_loss(backend, data):
    # A rate so small that nothing improves by 1: after each epoch but the first the rate is halved.
    rate = optim.Plateau(1e-9, factor=0.5, patience=1, min_delta=1.0)
    history = fit(network(backend), data, optim.SGD(rate), epochs=4, validation=data)
    assert history["learning_rate"] == pytest.approx([1e-9, 1e-9, 0.5e-9, 0.25e-9], rel=1e-5)


def test_schedules_are_felt(backend, data):
    net = network(backend)
    history = fit(net, data, optim.SGD(optim.ExponentialDecay(0.4, 0.9)), epochs=3)
    # Five steps an epoch: the last of an epoch is step 4, 9, 14.
    assert history["learning_rate"] == pytest.approx([0.4 * 0.9**t for t in (4, 9, 14)], rel=1e-5)


def test_average_is_what_is_evaluated_and_kept(backend, data):
    net = network(backend)
    plain = network(backend)
    history = fit(net, data, optim.SGD(0.3, average=0.9), validation=data)
    fit(plain, data, optim.SGD(0.3))
    assert not np.allclose(flat(net), flat(plain))
    assert history[-1]["validation_loss"] == net.evaluate(*data)["loss"]
    raw = np.concatenate([backend.to_numpy(a).ravel() for own in net.opt_state.average for a in own])
    np.testing.assert_allclose(raw, flat(plain), rtol=1e-6)


def test_inputs_are_not_written(backend, data, readonly):
    x, y = readonly(data[0]), readonly(data[1])
    before = x.copy()
    fit(network(backend), (x, y), weight=readonly(np.ones(23)))
    assert np.array_equal(x, before)


def test_zero_epochs(backend, data):
    net = network(backend)
    before = flat(net)
    assert len(fit(net, data, epochs=0)) == 0
    assert np.array_equal(flat(net), before)


def test_trainer_of_something_else():
    with pytest.raises(InvalidTypeError, match="not a Network"):
        bpxp.Trainer([4, 3], progress=False)
    with pytest.raises(InvalidValueError, match="Did you mean 'adam'"):
        bpxp.Trainer(bpxp.Network([4, 3], backend="numpy"), "adamm")
