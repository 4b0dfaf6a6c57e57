"""What stays from step to step, from epoch to epoch and in a run that is resumed: waits, keys, masks, optimizer states."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers.small_runs import Cut

import bpxp
from bpxp import nn, optim
from bpxp.callbacks import Callback, Checkpoint, EarlyStopping
from bpxp.core.tree import leaves

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(24, 6)).astype(np.float32), np.arange(24) % 3
WRONG = (Y + 1) % 3  # a validation set with other labels: its loss rises as that of the training falls


def bits(net, tree):
    return [net.backend.to_numpy(a).tobytes() for a in leaves(tree)]


# ---------------------------------------------------------------- Plateau watches the validation


def plateau(losses, rate, factor, patience):
    """Return the learning rate of each epoch, by the definition of the schedule."""
    best, waited, rates = math.inf, 0, [rate]
    for loss in losses[:-1]:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited >= patience:
            rate, waited = rate * factor, 0
        rates.append(rate)
    return rates


@pytest.mark.parametrize("validation", [None, (X, WRONG), 0.5])
@pytest.mark.parametrize("evaluate_train", [False, True])
def test_plateau_watches_the_validation_loss_where_there_is_one(backend, validation, evaluate_train):
    net = bpxp.Network([6, 3], backend=backend, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(optim.Plateau(0.25, factor=0.5, patience=2)), progress=False)
    targets = rng.permutation(Y) if validation == 0.5 else Y
    history = trainer.fit(X, targets, epochs=12, batch_size=6, validation=validation, evaluate_train=evaluate_train)
    watched = history["loss" if validation is None else "validation_loss"]
    assert history["learning_rate"] == plateau(watched, 0.25, 0.5, 2)
    if validation is not None and validation != 0.5:  # the two losses lead to other rates: the test can tell
        assert history["learning_rate"] != plateau(history["loss"], 0.25, 0.5, 2)


@pytest.mark.parametrize("cut", [3, 4, 5, 6])
def test_plateau_waits_on_after_a_resume(backend, tmp_path, cut):
    def fit(epochs, **options):
        net = bpxp.Network([6, 3], backend=backend, seed=0)
        rule = optim.SGD(optim.Plateau(0.25, factor=0.5, patience=3))
        trainer = bpxp.Trainer(net, rule, callbacks=[Checkpoint(tmp_path / "run.bpxp")], progress=False)
        return trainer.fit(X, Y, epochs=epochs, batch_size=6, validation=(X, WRONG), **options)["learning_rate"]

    whole = fit(9)
    fit(cut)
    assert fit(9, resume=tmp_path / "run.bpxp") == whole
    assert len(set(whole)) > 2


# ---------------------------------------------------------------- EarlyStopping waits on


class Script(Callback):
    """Writes given numbers into the history."""

    def __init__(self, *values):
        self.values = values

    def on_epoch_end(self, trainer, row):
        row["score"] = self.values[row["epoch"] - 1]


SCORES = 5.0, 3.0, 4.0, 3.5, 2.9, 3.1, 2.95, 4.0, 3.0, 1.0, 1.0


@pytest.mark.parametrize("cut", range(1, 8))
@pytest.mark.parametrize(
    ("options", "ends", "best"), [({}, 8, 5), ({"min_delta": 0.2}, 5, 2), ({"restore_best": False}, 8, 5)]
)
def test_a_resumed_early_stopping_has_waited_as_long_as_before(tmp_path, cut, options, ends, best):
    if cut >= ends:
        pytest.skip("it has ended by then")
    path = tmp_path / "run.bpxp"

    def fit(epochs, **how):
        net = bpxp.Network([6, 3], backend="numpy", seed=0)
        stopping = EarlyStopping("score", mode="min", patience=3, **options)
        trainer = bpxp.Trainer(
            net, optim.Adam(0.01), callbacks=[Script(*SCORES), stopping, Checkpoint(path)], progress=False
        )
        history = trainer.fit(X, Y, epochs=epochs, batch_size=6, **how)
        return len(history), stopping.best_epoch, trainer.stop, bits(net, net.params)

    whole = fit(len(SCORES))
    assert whole[:2] == (ends, best)
    fit(cut)
    assert fit(len(SCORES), resume=path) == whole


# ---------------------------------------------------------------- masks


def dropping(backend, capture=True):
    """Return a network whose gradient says which inputs were dropped: of ones, through one matrix."""
    net = bpxp.Network(
        [nn.Dropout(0.5), nn.Dense(1, "identity")],
        input_shape=(40,),
        loss="mean_squared_error",
        backend=backend,
        seed=3,
    )
    net.capture = capture
    return net


ONES, FAR = np.ones((1, 40), np.float32), np.full((1, 1), 1000.0, np.float32)


def weights(net):
    return net.backend.to_numpy(net.params[1].W)[:, 0]


def masks_of_descent(net, count):
    found = []
    for _ in range(count):
        before = weights(net)
        net.gradient_descent((ONES, FAR), 1e-3)
        found.append(tuple(weights(net) != before))
    return found


def test_each_call_of_gradient_descent_has_a_mask_of_its_own(backend):
    net = dropping(backend)
    masks = masks_of_descent(net, 60)
    assert len(set(masks)) == 60
    assert 0.4 < np.mean(masks) < 0.6
    assert net._steps == 60
    assert masks_of_descent(dropping(backend, capture=False), 60) == masks


class Masks(Callback):
    """Notes which inputs were dropped in each step."""

    steps = 1

    def __init__(self):
        self.found, self.before = [], None

    def on_fit_begin(self, trainer):
        self.before = weights(trainer.net)

    def on_pause(self, trainer, why):
        if why in ("steps", "epoch"):
            now = weights(trainer.net)
            self.found.append(tuple(now != self.before))
            self.before = now


def masks_of_fit(net, epochs, batches=4, callbacks=(), **options):
    seen = Masks()
    trainer = bpxp.Trainer(net, optim.SGD(1e-3), callbacks=[seen, *callbacks], progress=False)
    data = np.repeat(ONES, batches, 0), np.repeat(FAR, batches, 0)
    try:
        trainer.fit(data, epochs=epochs, batch_size=1, **options)
    except Cut.Now:
        seen.cut = True
    return seen.found


def test_each_step_of_a_fit_has_the_mask_of_its_number(backend):
    # The masks are a function of the steps counted, however they are taken.
    wanted = masks_of_descent(dropping(backend), 48)
    net = dropping(backend)
    assert masks_of_fit(net, 10) == wanted[:40]
    assert masks_of_descent(net, 3) == wanted[40:43]
    assert masks_of_fit(net, 1) == wanted[43:47]


@pytest.mark.parametrize("before", [0, 3, 5])
@pytest.mark.parametrize("cut", [1, 3, 4, 5, 6, 8, 9, 11])
def test_a_resumed_run_has_the_masks_of_the_steps_counted(backend, tmp_path, before, cut):
    # Steps of gradient_descent before the fit count, too: neither the place in the epoch nor that in the run is the key.
    wanted = masks_of_descent(dropping(backend), before + 12)[before:]
    path = tmp_path / "run.bpxp"
    net = dropping(backend)
    masks_of_descent(net, before)
    done = masks_of_fit(net, 3, callbacks=[Checkpoint(path, steps=1), Cut(cut)])
    assert done == wanted[: len(done)]
    again = dropping(backend)
    resumed = masks_of_fit(again, 3, callbacks=[Checkpoint(path, steps=1)], resume=path)
    assert resumed == wanted[-len(resumed) :]
    assert len(done) + len(resumed) >= 12
    assert again._steps == before + 12


# ---------------------------------------------------------------- the optimizer's state


@pytest.mark.parametrize("average", [None, 0.9])
def test_a_network_elsewhere_has_no_optimizer(backend, average):
    net = bpxp.Network([6, nn.BatchNorm(), nn.Dropout(0.5), 3], backend=backend, seed=0)
    rule = optim.Adam(0.01, average=average)
    bpxp.Trainer(net, rule, progress=False).fit(X, Y, epochs=2, batch_size=6)
    state = bits(net, net.opt_state), bits(net, net.params), bits(net, net.stats), net._steps
    other = net.to(backend)
    assert (other.optimizer, other.opt_state) == (None, None)
    assert (other.epoch, other._steps, other.seed) == (net.epoch, net._steps, net.seed)
    assert (bits(other, other.params), bits(other, other.stats)) == state[1:3]
    bpxp.Trainer(other, rule, progress=False).fit(X, Y, epochs=1, batch_size=6)
    other.gradient_descent(X, Y, 0.1)
    # Nothing is shared: the first is as it was, and goes on with its own state.
    assert (bits(net, net.opt_state), bits(net, net.params), bits(net, net.stats), net._steps) == state
    bpxp.Trainer(net, rule, progress=False).fit(X, Y, epochs=1, batch_size=6)
    new = bpxp.Network([6, nn.BatchNorm(), nn.Dropout(0.5), 3], backend=backend, seed=0)
    bpxp.Trainer(new, rule, progress=False).fit(X, Y, epochs=2, batch_size=6)
    bpxp.Trainer(new, rule, progress=False).fit(X, Y, epochs=1, batch_size=6)
    assert bits(net, net.params) == bits(new, new.params)
