"""Arrays that a user holds: they are snapshots, on every backend, whatever is trained afterwards."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
from helpers.small_runs import NETWORKS

import bpxp
from bpxp import optim
from bpxp.backends.captured import CapturedStep
from bpxp.core.tree import leaves, tree_map
from bpxp.errors import FixedAttributeError, InvalidValueError

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(24, 12)).astype(np.float32), np.arange(24) % 3
LAYERS = [12, bpxp.nn.BatchNorm(), 7, bpxp.nn.Dropout(0.3), 3]


@pytest.fixture(autouse=True)
def captured_soon(monkeypatch):
    monkeypatch.setattr(CapturedStep, "WORTH", 2)


@pytest.fixture(params=["as it is", "its steps reuse their state"])
def place(backend, request, monkeypatch):
    """Each backend; NumPy's also as if it had CUDA graphs, of which all steps write the same buffers."""
    if request.param == "as it is":
        return backend
    if backend.name != "numpy":
        pytest.skip("a graph of NumPy's arrays is enough")
    own = copy.copy(backend)
    own.reuses_state, own.compile = True, functools.partial(Reusing, backend)
    return own


class Reusing:
    """A step that returns its state in buffers of its own, and writes them in its next call."""

    def __init__(self, backend, step):
        self.run, self.buffers = backend.compile(step), {}

    def __call__(self, state, data, /, *, count=1):
        if not leaves(state):
            return self.run(state, data, count=count)
        shapes = tuple(a.shape for a in leaves(state))
        buffers = self.buffers.setdefault(shapes, [np.empty_like(a) for a in leaves(state)])
        for own, a in zip(buffers, [np.array(a) for a in leaves(state)], strict=True):
            own[...] = a
        rest = iter(buffers)
        state = tree_map(lambda a: next(rest), state)
        after = self.run(state, data, count=count)
        for own, a in zip(buffers, [np.array(a) for a in leaves(after)], strict=True):
            own[...] = a
        return state


def network(place, layers=LAYERS):
    return bpxp.Network(layers, backend=place, seed=1)


def fit(net, epochs=2, optimizer=None, **options):
    optimizer = optimizer or optim.SGD(0.1, momentum=0.9, average=0.9)
    trainer = bpxp.Trainer(net, optimizer, progress=False, **options)
    trainer.fit((X, Y), epochs=epochs, batch_size=8)
    return trainer


def descend(net):
    for _ in range(3):
        net.gradient_descent((X[:8], Y[:8]), 0.5)


def bits(net, tree):
    return [net.backend.to_numpy(a).tobytes() for a in leaves(tree)]


def everything(net):
    return bits(net, (net.params, net.stats, net.key, net.opt_state or ()))


HELD = {
    "params": lambda net, trainer: net.params,
    "one weight": lambda net, trainer: net.params[-1].W,
    "a view of it": lambda net, trainer: net.params[-1].W[1:, :],
    "stats": lambda net, trainer: net.stats,
    "key": lambda net, trainer: net.key,
    "opt_state": lambda net, trainer: net.opt_state,
    "state of the run": lambda net, trainer: trainer.run.state,
}
TRAINED = {
    "a fit": fit,
    "a fit of the same trainer": lambda net: None,
    "steps": descend,
    "steps, looked at": lambda net: [descend(net), net.predict(X), descend(net)],
    "another optimizer": lambda net: fit(net, optimizer=optim.Adam(0.1)),
}


@pytest.mark.parametrize("how", TRAINED)
def test_what_is_held_stays(place, how):
    net = network(place)
    trainer = fit(net)
    for again in range(2):
        held = {what: take(net, trainer) for what, take in HELD.items()}
        before = {what: bits(net, tree) for what, tree in held.items()}
        changed = everything(net)
        if how == "a fit of the same trainer":
            trainer.fit((X, Y), epochs=1, batch_size=8)
        else:
            TRAINED[how](net)
        assert {what: bits(net, tree) for what, tree in held.items()} == before, again
        assert everything(net) != changed


def test_what_numpy_makes_of_an_array_stays(place):
    net = network(place)
    if "device1" in net.backend.name or "cuda" in net.backend.name or "cupy" in net.backend.name:
        pytest.skip("it is on a device")
    for train in (fit, descend, fit):
        held = [np.asarray(a) for a in leaves(net.params)]
        before = [a.tobytes() for a in held]
        train(net)
        assert [a.tobytes() for a in held] == before


@pytest.mark.parametrize("whole", [False, True])
def test_weights_of_each_epoch_can_be_kept(place, whole):
    class Keep(bpxp.callbacks.Callback):
        def __init__(self):
            self.kept, self.whole = [], whole

        def on_epoch_end(self, trainer, row):
            net = trainer.net
            self.kept.append((net.params, net.stats, net.opt_state) if self.whole else (net.params, net.stats))

    keep, net = Keep(), network(place)
    fit(net, epochs=3, callbacks=[keep])
    for epochs, kept in enumerate(keep.kept, 1):
        alone = network(place)
        fit(alone, epochs=epochs)
        arrays = alone.params, alone.stats, alone.opt_state
        assert bits(net, kept) == bits(alone, arrays[: len(kept)])


def test_what_is_assigned_is_the_users(place):
    net = network(place)
    mine = tree_map(lambda a: np.ones(a.shape, np.float32), net.params)
    theirs = tree_map(net.backend.asarray, mine)
    for given in (mine, theirs):
        net.params = given
        fit(net)
        descend(net)
        assert all((net.backend.to_numpy(a) == 1.0).all() for a in leaves(theirs))
        assert all((a == 1.0).all() for a in leaves(mine))
    net.params = mine
    for a in leaves(mine):
        a *= 0.0
    assert all((net.backend.to_numpy(a) == 1.0).all() for a in leaves(net.params))


def test_what_is_written_in_place_between_fits_counts(backend):
    if "jax" in backend.name:
        pytest.skip("arrays of JAX cannot be written")
    written, assigned = network(backend), network(backend)
    for net in (written, assigned):
        fit(net, optimizer=optim.SGD(0.1))
    for a in leaves(written.params):
        a *= 0.5
    assigned.params = tree_map(lambda a: a * 0.5, assigned.params)
    for train in (fit, descend):
        for net in (written, assigned):
            train(net)
        assert bits(written, written.params) == bits(assigned, assigned.params)


def test_what_is_not_lent_is_written_in_place():
    net = network("numpy")
    descend(net)
    before = net._held.now
    for _ in range(5):
        descend(net)
        net.predict(X)
        net.evaluate(X, Y)
        net.loss_and_gradients(X, Y)
    assert all(map(lambda a, b: a is b, leaves(net._held.now.params), leaves(before.params)))
    net.params  # noqa: B018  it is lent
    descend(net)
    assert not any(map(lambda a, b: a is b, leaves(net._held.now.params), leaves(before.params)))


@pytest.mark.parametrize("train", [descend, fit])
def test_what_is_being_read_stays_meanwhile(place, train):
    net = network(place)
    descend(net)
    with net._held as now:
        before = bits(net, now[:3])
        train(net)
        assert bits(net, now[:3]) == before
    assert bits(net, (net.params, net.stats, net.key)) != before


# ---------------------------------------------------------------- a moving average


@pytest.mark.parametrize("how", ["assigned", "steps"])
def test_an_average_begins_anew_from_other_parameters(place, how):
    # After a fit the network holds the average, the optimizer's state the parameters that it is the average of.
    net, fresh = network(place, [12, 3]), network(place, [12, 3])
    rule = optim.SGD(0.1, average=0.9)
    fit(net, epochs=1, optimizer=rule)
    if how == "steps":
        descend(net)
    else:
        net.params = tree_map(lambda a: a * 0.5, net.params)
    fresh.params, fresh.epoch = net.params, net.epoch
    for other in (net, fresh):
        fit(other, epochs=1, optimizer=rule)
    assert bits(net, (net.params, net.opt_state.average)) == bits(fresh, (fresh.params, fresh.opt_state.average))


# ---------------------------------------------------------------- what may be assigned


def test_a_state_of_another_optimizer_is_refused(backend):
    net = network(backend, [12, 3])
    fit(net, epochs=1)
    before = everything(net)
    with pytest.raises(InvalidValueError, match=r"Network\.opt_state: another structure") as caught:
        net.opt_state = optim.Adam(0.1).init(net.params, xp=net.xp)
    assert caught.value.code == "BPX-E016"
    with pytest.raises(InvalidValueError, match=r"Network\.stats: another structure"):
        net.stats = (net.params[0].W,)
    assert everything(net) == before


def test_the_state_of_the_optimizer_is_copied_and_counts(backend):
    net, other = network(backend, [12, 3]), network(backend, [12, 3])
    for each in (net, other):
        fit(each, epochs=1, optimizer=optim.Adam(0.1))
    mine = tree_map(backend.to_numpy, net.opt_state)
    net.opt_state = mine
    assert [a.dtype for a in leaves(net.opt_state)] == [a.dtype for a in leaves(other.opt_state)]
    for each in (net, other):
        fit(each, epochs=1, optimizer=optim.Adam(0.1))
    assert everything(net) == everything(other)


@pytest.mark.parametrize("name", ["layers", "model", "loss", "spec", "dtype", "input_shape", "key", "backend", "xp"])
def test_what_a_network_is_made_of_cannot_be_replaced(name):
    net = network("numpy", [12, 3])
    old = getattr(net, name)
    with pytest.raises(FixedAttributeError, match=rf"Network\.{name}: .*Fix: new = ") as caught:
        setattr(net, name, old)
    assert isinstance(caught.value, AttributeError)
    assert getattr(net, name) is old or name == "key"
    if "net.to" in caught.value.fix:  # the fixes work
        new = net.to("numpy")
    else:
        new = bpxp.Network([12, 3], loss="binary_cross_entropy", backend="numpy")
        new.params = net.params
    assert bits(new, new.params) == bits(net, net.params)


# ---------------------------------------------------------------- copies

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "to": lambda net: net.to(net.backend),
}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", ["dropout", "batch norm"])
def test_a_copy_is_a_network_of_its_own(backend, how, name, nightly):
    if "jax" in backend.name and not nightly and (name == "batch norm" or how == "copy"):
        pytest.skip("at night: it compiles for seconds")
    layers, _ = NETWORKS[name]
    net, same = network(backend, layers), network(backend, layers)
    for each in (net, same):
        fit(each, epochs=1)
        descend(each)
    other = COPIES[how](net)
    before = everything(net)
    assert bits(other, other.params) == bits(net, net.params)
    assert other.evaluate(X, Y) == net.evaluate(X, Y)
    other.gradient_descent((X, Y), 1.0)
    fit(other, epochs=1)
    assert everything(net) == before
    if how == "to":  # it has no state of an optimizer
        return
    again = COPIES[how](net)
    for each in (net, same, again):
        fit(each, epochs=1)
    assert everything(net) == everything(same) == everything(again)
    assert again.epoch == net.epoch


def test_a_backend_is_copied_and_pickled_by_its_name(backend):
    assert copy.deepcopy(backend) is backend
    assert pickle.loads(pickle.dumps(backend)) is backend
    other = copy.copy(backend)
    assert other is not backend
    assert vars(other) == vars(backend)


class Mine(type(bpxp.get_backend("numpy"))):
    """A backend of the user's own."""

    def __reduce__(self):
        return Mine, ()


def test_a_backend_of_the_users_own_is_its_own():
    net = bpxp.Network([12, 3], backend=Mine(), seed=0)
    assert copy.deepcopy(net).backend is net.backend
    assert type(pickle.loads(pickle.dumps(net)).backend) is Mine
