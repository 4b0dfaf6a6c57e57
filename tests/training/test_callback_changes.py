"""What a callback does to the network of its fit: it counts from the next step on, or it is refused by name."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.backends.captured import CapturedStep
from bpxp.callbacks import Callback, Checkpoint, EarlyStopping
from bpxp.core.tree import leaves, tree_map
from bpxp.data.order import epoch_order
from bpxp.errors import DivergenceError, FitInProgressError, FixedAttributeError, InvalidValueError

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(24, 5)).astype(np.float32), np.arange(24) % 3
BATCH, STEPS = 8, 3
LAYERS = [5, nn.BatchNorm(), 4, nn.Dropout(0.3), 3]
RULE = optim.SGD(0.1, momentum=0.9)


@pytest.fixture(autouse=True)
def captured_soon(monkeypatch):
    monkeypatch.setattr(CapturedStep, "WORTH", 2)


def network(backend, layers=LAYERS):
    return bpxp.Network(layers, backend=backend, seed=1)


def fit(net, epochs, *callbacks, rule=RULE, **options):
    trainer = bpxp.Trainer(net, rule, callbacks=callbacks, progress=False)
    return trainer.fit((X, Y), epochs=epochs, batch_size=BATCH, **options)


def bits(net):
    arrays = leaves((net.params, net.stats, net.key, net.opt_state))
    return [net.backend.to_numpy(a).tobytes() for a in arrays], net.epoch


class Do(Callback):
    """Does something to the network at a moment, once."""

    def __init__(self, moment, change, when=1):
        self.change, self.when = change, when
        setattr(self, moment, self.at)

    def at(self, trainer, *args):
        if self.change is not None and trainer.net.epoch == self.when:
            change, self.change = self.change, None
            self.result = change(trainer.net)


def halved(tree):
    return tree_map(lambda a: a * 0.5, tree)


def assign_params(net):
    net.params = halved(net.params)


def assign_numpy(net):
    net.params = tree_map(lambda a: 0.5 * net.backend.to_numpy(a), net.params)


def assign_another(net):
    net.params = network("numpy").params


def assign_stats(net):
    net.stats = halved(net.stats)


def assign_rate(net):
    net.opt_state = net.opt_state._replace(learning_rate=net.opt_state.learning_rate * 0.1)


def assign_slots(net):
    net.opt_state = net.opt_state._replace(slots=halved(net.opt_state.slots))


def assign_nothing(net):
    net.opt_state = None


def descend(net):
    for _ in range(2):
        net.gradient_descent((X[:BATCH], Y[:BATCH]), 0.5)
        net.predict(X)


def assign_twice(net):
    assign_params(net)
    descend(net)
    assign_params(net)
    assign_rate(net)


def write(net):
    for a in leaves((net.params, net.stats)):
        a *= 0.5


CHANGES = [
    assign_params,
    assign_numpy,
    assign_another,
    assign_stats,
    assign_rate,
    assign_slots,
    assign_nothing,
    descend,
    assign_twice,
    write,
]


@pytest.mark.parametrize("moment", ["on_epoch_end", "on_pause"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_counts(backend, moment, change, nightly):
    if "jax" in backend.name and (change is write or (moment == "on_pause" and not nightly)):
        pytest.skip("arrays of JAX cannot be written" if change is write else "at night: it compiles for seconds")
    # One fit of two epochs is two fits of one: what is done between them is what the callback has to do.
    net, apart = network(backend), network(backend)
    callback = Do(moment, change)
    fit(net, 2, callback)
    assert callback.change is None
    fit(apart, 1)
    change(apart)
    fit(apart, 1)
    assert bits(net) == bits(apart)


@pytest.mark.parametrize("change", [assign_params, descend, assign_rate])
def test_a_change_before_the_first_step_counts(backend, change):
    net, apart = network(backend), network(backend)
    for each in (net, apart):
        fit(each, 1)
    change(apart)
    fit(apart, 1)
    fit(net, 1, Do("on_fit_begin", change))
    assert bits(net) == bits(apart)


@pytest.mark.parametrize("change", [assign_params, descend, assign_rate, assign_nothing])
@pytest.mark.parametrize("moment", ["on_epoch_end", "on_pause", "on_fit_end"])
def test_a_change_after_the_last_step_counts(moment, change):
    net, apart = network("numpy"), network("numpy")
    fit(apart, 1)
    change(apart)
    fit(net, 1, Do(moment, change))
    if change is assign_nothing and moment != "on_fit_end":  # the state of a fit is begun anew
        apart.opt_state = RULE.init(apart.params, xp=apart.xp)
    assert [np.asarray(a).tolist() for a in leaves((net.params, net.opt_state))] == [
        np.asarray(a).tolist() for a in leaves((apart.params, apart.opt_state))
    ]


@pytest.mark.parametrize("change", [assign_params, write, descend, assign_rate])
def test_a_change_within_an_epoch_counts(change):
    # By hand: the mini-batches of the epoch in their order.
    layers, rule = [5, 3], optim.SGD(0.1)
    net, apart = network("numpy", layers), network("numpy", layers)

    class Second(Callback):
        steps = 2

        def on_pause(self, trainer, why):
            if why == "steps":
                change(trainer.net)

    fit(net, 1, Second(), rule=rule)
    order, rate = epoch_order(apart.seed, 0, len(X), BATCH, shuffle=True), 0.1
    for i in range(STEPS):
        rows = order[i * BATCH : (i + 1) * BATCH]
        apart.gradient_descent((X[rows], Y[rows]), rate)
        if i == 1 and change is assign_rate:
            rate = float(np.float32(0.1) * np.float32(0.1))
        elif i == 1:
            change(apart)
    for a, b in zip(leaves(net.params), leaves(apart.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_state_of_the_run_that_is_assigned_counts(backend):
    net, apart = network(backend), network(backend)

    class Slower(Callback):
        def on_epoch_end(self, trainer, row):
            run = trainer.run
            held = run.state
            run.state = held._replace(opt=held.opt._replace(learning_rate=held.opt.learning_rate * 0.1))
            self.held = held, [trainer.net.backend.to_numpy(a).tobytes() for a in leaves(held)]

    slower = Slower()
    fit(net, 2, slower)
    fit(apart, 1)
    assign_rate(apart)
    fit(apart, 1)
    assign_rate(apart)
    assert bits(net) == bits(apart)
    state, before = slower.held
    fit(net, 1)
    assert [backend.to_numpy(a).tobytes() for a in leaves(state)] == before


@pytest.mark.parametrize("rule", [optim.SGD(0.1, average=0.9), optim.Adam(0.01, average=0.5)])
def test_with_an_average_both_begin_anew(backend, rule):
    net, apart = network(backend, [5, 3]), network(backend, [5, 3])
    fit(net, 2, Do("on_epoch_end", assign_params), rule=rule)
    fit(apart, 1, rule=rule)
    assign_params(apart)
    fit(apart, 1, rule=rule)
    assert bits(net) == bits(apart)


def test_an_average_after_an_assignment_by_hand():
    net, p = network("numpy", [5, 3]), network("numpy", [5, 3])
    fit(net, 2, Do("on_epoch_end", assign_small), rule=optim.SGD(0.1, average=0.9))
    assign_small(p)
    mean = tree_map(lambda a: a.astype(np.float64), p.params)
    order = epoch_order(net.seed, 1, len(X), BATCH, shuffle=True)
    for i in range(STEPS):
        rows = order[i * BATCH : (i + 1) * BATCH]
        p.gradient_descent((X[rows], Y[rows]), 0.1)
        mean = tree_map(lambda a, b: 0.9 * a + 0.1 * b, mean, p.params)
    for a, b in zip(leaves(net.params), leaves(mean), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def assign_small(net):
    net.params = tree_map(lambda a: a * 0.25, network("numpy", [5, 3]).params)


def test_weights_can_be_clipped_after_each_epoch(backend):
    class Clip(Callback):
        def on_epoch_end(self, trainer, row):
            clip = lambda a: np.clip(trainer.net.backend.to_numpy(a), -0.125, 0.125)  # noqa: E731
            trainer.net.params = tree_map(clip, trainer.net.params)

    net = network(backend, [5, 4, 3])
    fit(net, 4, Clip(), rule=optim.SGD(1.0))
    assert max(float(np.abs(backend.to_numpy(a)).max()) for a in leaves(net.params)) == 0.125


def test_what_was_changed_is_saved_and_goes_on(backend, tmp_path, nightly):
    if "jax" in backend.name and not nightly:
        pytest.skip("at night: it compiles for seconds")
    path = tmp_path / "run.bpxp"

    class Halve(Callback):
        def on_epoch_end(self, trainer, row):
            assign_params(trainer.net)

    net, again = network(backend), network(backend)
    fit(net, 3, Halve(), Checkpoint(tmp_path / "e{epoch}.bpxp"))
    fit(again, 3, Halve(), resume=tmp_path / "e2.bpxp")
    assert bits(again) == bits(net)
    best = Checkpoint(path, monitor="loss")
    fit(net, 1, Halve(), best)
    saved = bpxp.Network.load(path, backend=backend)
    assert [backend.to_numpy(a).tolist() for a in leaves(saved.params)] == [
        backend.to_numpy(a).tolist() for a in leaves(net.params)
    ]


def test_a_step_that_diverges_after_a_change_is_found(backend, monkeypatch):
    if "jax" in backend.name:
        pytest.skip("the same code, and it compiles for seconds")
    net = bpxp.Network([5, 4, 3], hidden="relu", backend=backend, seed=1)

    def spoil(net):
        net.params = tree_map(lambda a: np.full(a.shape, 1e30, np.float32), net.params)

    with pytest.raises(DivergenceError) as caught:
        fit(net, 4, Do("on_epoch_end", spoil, when=2), rule=optim.SGD(0.1))
    assert (caught.value.epoch, caught.value.step) == (3, 1)
    assert caught.value.layer is not None


def test_early_stopping_brings_back_what_the_callbacks_left(backend):
    net = network(backend, [5, 3])
    kept = []

    class Note(Callback):
        def on_epoch_end(self, trainer, row):
            row["score"] = [1.0, 3.0, 2.0][len(kept)]
            assign_params(trainer.net)
            kept.append(trainer.net.params)

    fit(net, 3, Note(), EarlyStopping("score", patience=9, mode="max"))
    assert [backend.to_numpy(a).tolist() for a in leaves(net.params)] == [
        backend.to_numpy(a).tolist() for a in leaves(kept[1])
    ]


# ---------------------------------------------------------------- what is refused


def refused(backend, what, error):
    net, seen = network(backend, [5, 3]), []

    class Try(Callback):
        def on_epoch_end(self, trainer, row):
            with pytest.raises(error) as caught:
                what(trainer)
            seen.append(caught.value)

    plain = network(backend, [5, 3])
    fit(net, 2, Try())
    fit(plain, 2)
    assert bits(net) == bits(plain)
    return seen[0]


def replace(name, value=None, of_net=False):
    return lambda trainer: setattr(trainer.net if of_net else trainer, name, value or getattr(trainer, name, None))


def test_another_network_or_optimizer_is_refused(backend):
    error = refused(backend, replace("optimizer", optim.SGD(0.01)), FitInProgressError)
    assert (error.code, error.where) == ("BPX-E051", "Trainer.optimizer")
    error = refused(backend, replace("net", network("numpy", [5, 3])), FitInProgressError)
    assert error.where == "Trainer.net"
    assert error.fix == "trainer.net.params = other.params"
    error = refused(backend, replace("optimizer", optim.SGD(0.01), of_net=True), FitInProgressError)
    assert error.where == "Network.optimizer"


def test_the_fix_for_another_optimizer_works():
    net, apart = network("numpy", [5, 3]), network("numpy", [5, 3])

    class Stop(Callback):
        def on_epoch_end(self, trainer, row):
            trainer.stop = "another optimizer"

    trainer = bpxp.Trainer(net, optim.SGD(0.1), callbacks=[Stop()], progress=False)
    trainer.fit((X, Y), epochs=5, batch_size=BATCH)
    trainer.optimizer = "adam"  # between fits it is taken
    trainer.fit((X, Y), epochs=1, batch_size=BATCH)
    fit(apart, 1, rule=optim.SGD(0.1))
    fit(apart, 1, rule="adam")
    assert bits(net) == bits(apart)
    with pytest.raises(ValueError, match="unknown"):
        trainer.optimizer = "adem"


def test_what_a_network_is_made_of_is_refused():
    for name in ("layers", "loss", "model", "backend"):
        error = refused("numpy", replace(name, "anything", of_net=True), FixedAttributeError)
        assert error.code == "BPX-E058"
    error = refused("numpy", lambda trainer: setattr(trainer.net, "opt_state", trainer.net.params), InvalidValueError)
    assert error.where == "Network.opt_state"


def in_a_thread(what):
    def run(trainer):
        errors = []

        def work():
            try:
                what(trainer.net)
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        raise errors[0]

    return run


@pytest.mark.parametrize("change", [assign_params, assign_stats, assign_nothing, descend])
def test_another_thread_may_not_change_the_network(change):
    error = refused("numpy", in_a_thread(change), FitInProgressError)
    assert error.code == "BPX-E051"
    assert "another thread" in error.what


def test_a_callback_that_forbids_the_fit_leaves_the_network_as_it_was():
    class Forbid(Callback):
        def on_fit_begin(self, trainer):
            trainer.net.predict(X)
            raise ZeroDivisionError

    net = network("numpy")
    fit(net, 1)
    before, optimizer = bits(net), net.optimizer
    with pytest.raises(ZeroDivisionError):
        fit(net, 1, Forbid(), rule=optim.Adam(0.1))
    assert (bits(net), net.optimizer) == (before, optimizer)
    assert not net.training
    assign_params(net)
    fit(net, 1)


# ---------------------------------------------------------------- copies made in a callback


def saved_and_loaded(net, path):
    net.save(path)
    return bpxp.Network.load(path, backend=net.backend)


COPIES = {
    "deepcopy": lambda net, path: copy.deepcopy(net),
    "copy": lambda net, path: copy.copy(net),
    "pickle": lambda net, path: pickle.loads(pickle.dumps(net)),
    "to": lambda net, path: net.to(net.backend),
    "to numpy": lambda net, path: net.to("numpy"),
    "save and load": saved_and_loaded,
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("moment", ["on_epoch_end", "on_batches"])
def test_a_copy_made_in_a_callback(backend, how, moment, tmp_path, nightly):
    if "jax" in backend.name and not nightly and (moment == "on_batches" or how in ("copy", "to")):
        pytest.skip("at night: it compiles for seconds")
    path = tmp_path / "net.bpxp"

    def change(net):
        before = [net.backend.to_numpy(a).tobytes() for a in leaves((net.params, net.stats))]
        other = COPIES[how](net, path)
        return other, before, copy.copy(other)

    net, plain = network(backend), network(backend)
    callback = Do(moment, change)
    fit(net, 3, callback)
    other, before, kept = callback.result
    assert not other.training
    assert [other.backend.to_numpy(a).tobytes() for a in leaves((other.params, other.stats))] == before
    assert other.evaluate(X, Y) == kept.evaluate(X, Y)
    fit(other, 1)  # it can be trained
    assert [kept.backend.to_numpy(a).tobytes() for a in leaves((kept.params, kept.stats))] == before
    fit(plain, 3)
    assert bits(net) == bits(plain)  # the fit did not notice


@pytest.mark.parametrize("how", ["deepcopy", "copy", "pickle"])
def test_a_copy_goes_on_as_the_fit_does(backend, how, nightly):
    if "jax" in backend.name and not nightly and how != "deepcopy":
        pytest.skip("at night: it compiles for seconds")
    net = network(backend)
    callback = Do("on_epoch_end", lambda net: COPIES[how](net, None))
    fit(net, 3, callback)
    fit(callback.result, 2)
    assert bits(callback.result) == bits(net)


def test_a_copy_trained_within_the_callback_leaves_the_fit_alone(backend):
    net, plain = network(backend, [5, 3]), network(backend, [5, 3])

    class Probe(Callback):
        def on_epoch_end(self, trainer, row):
            fit(copy.deepcopy(trainer.net), 1)

    fit(net, 2, Probe())
    fit(plain, 2)
    assert bits(net) == bits(plain)
