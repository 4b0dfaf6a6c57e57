"""A network that is read while it is trained, from other threads: never torn, never deleted, the bits of some moment."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import sys
import threading

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.backends.captured import CapturedStep
from bpxp.callbacks import Callback
from bpxp.core.tree import leaves, tree_map

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(60, 40)).astype(np.float32), np.arange(60) % 3
FEW, LABELS = X[:9], Y[:9]
LAYERS = [40, nn.BatchNorm(), 50, 3]
RULE = optim.Adam(0.01)


@pytest.fixture(autouse=True)
def eager_to_switch(monkeypatch):
    monkeypatch.setattr(CapturedStep, "WORTH", 2)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def network(backend, layers=LAYERS):
    return bpxp.Network(layers, backend=backend, seed=1)


def bits(net, tree):
    return b"".join(net.backend.to_numpy(a).tobytes() for a in leaves(tree))


def copied(how):
    def read(net, path):
        other = how(net)
        return bits(other, (other.params, other.stats))

    return read


def saved(net, path):
    net.save(path)
    return copied(lambda net: bpxp.Network.load(path, backend=net.backend))(net, path)


READ = {
    "params": lambda net, path: bits(net, net._held.lend()[:2]),
    "predict": lambda net, path: bits(net, net.predict_proba(FEW)),
    "evaluate": lambda net, path: net.evaluate(FEW, LABELS)["loss"],
    "gradients": lambda net, path: bits(net, net.loss_and_gradients(FEW, LABELS)[1]),
    "to": copied(lambda net: net.to(net.backend)),
    "deepcopy": copied(copy.deepcopy),
    "pickle": copied(lambda net: pickle.loads(pickle.dumps(net))),
    "save": saved,
}


class Reader(threading.Thread):
    """Reads as often as it can until it is told to end, and keeps what it found, or the error."""

    def __init__(self, read):
        super().__init__()
        self.read, self.found, self.error, self.over = read, set(), None, False
        self.times = 0

    def run(self):
        try:
            while not self.over:
                self.found.add(self.read())
                self.times += 1
        except BaseException as error:
            self.error = error

    def check(self):
        if self.error is not None:
            raise self.error

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over = True
        self.join()


class Moments(Callback):
    """Notes what can be read at the beginning and after each epoch."""

    def __init__(self, read):
        self.read, self.seen = read, []

    def on_fit_begin(self, trainer):
        self.seen.append(self.read(trainer.net))

    def on_epoch_end(self, trainer, row):
        self.seen.append(self.read(trainer.net))


class Wait(Callback):
    """Waits until others have read once more."""

    def __init__(self, *readers):
        self.readers = readers

    def on_epoch_end(self, trainer, row):
        for reader in self.readers:
            before = reader.times
            while reader.times < before + 2 and reader.error is None:
                threading.Event().wait(1e-3)


def fit(net, *callbacks, epochs=4, rule=RULE):
    bpxp.Trainer(net, rule, callbacks=callbacks, progress=False).fit((X, Y), epochs=epochs, batch_size=4)


@pytest.mark.parametrize("what", READ)
def test_a_network_is_read_during_its_fit(backend, what, tmp_path, nightly):
    if "jax" in backend.name and not nightly and what not in ("params", "predict", "evaluate", "deepcopy"):
        pytest.skip("at night: it compiles for seconds")
    plain, net = network(backend), network(backend)
    moments = Moments(lambda net: READ[what](net, tmp_path / "a.bpxp"))
    fit(plain, moments)
    READ[what](net, tmp_path / "b.bpxp")  # what it takes is compiled
    reader = Reader(lambda: READ[what](net, tmp_path / "b.bpxp"))
    with reader:
        fit(net, Wait(reader))
    reader.check()
    assert reader.found <= set(moments.seen), f"{len(reader.found - set(moments.seen))} of {len(reader.found)} torn"
    assert len(reader.found) > 1
    arrays = [(each.params, each.stats, each.opt_state) for each in (net, plain)]
    assert bits(net, arrays[0]) == bits(plain, arrays[1])  # and the fit has not noticed


def test_other_threads_see_the_ends_of_epochs(backend):
    # Callbacks see each step at which they are called; what they look at others see from then on.
    net = network(backend, [40, 3])
    seen = []

    class Look(Callback):
        steps = 5

        def __init__(self, own):
            self.own = own

        def on_pause(self, trainer, why):
            if why == "steps":
                box = []
                here = bits(trainer.net, trainer.net.params) if self.own else None
                thread = threading.Thread(target=lambda: box.append(bits(trainer.net, trainer.net.params)))
                thread.start()
                thread.join()
                seen.append((trainer.run.done, box[0], here))

    before = bits(net, net.params)
    fit(net, Look(own=False), epochs=1)
    assert [(done, other == before) for done, other, _ in seen] == [(5, True), (10, True)]
    seen.clear()
    fit(net, Look(own=True), epochs=1)
    assert [done for done, other, here in seen if other == here] == [5, 10]
    assert seen[0][1] != seen[1][1]


def test_the_state_of_the_optimizer_is_the_fits(backend):
    net = network(backend, [40, 3])
    found = []

    class Look(Callback):
        def on_epoch_end(self, trainer, row):
            thread = threading.Thread(target=lambda: found.append(trainer.net.opt_state))
            thread.start()
            thread.join()

    fit(net, Look(), epochs=2)
    assert found == [None, None]
    assert net.opt_state is not None


def test_steps_and_readers_in_turn(backend, nightly):
    # Each prediction has the bits of the parameters after some step.
    net, plain = network(backend), network(backend)
    steps = 200 if nightly else 60
    allowed = {bits(plain, plain.predict_proba(FEW))}
    for _ in range(steps):
        plain.gradient_descent((X, Y), 0.1)
        allowed.add(bits(plain, plain.predict_proba(FEW)))
    net.predict(FEW)
    reader = Reader(lambda: bits(net, net.predict_proba(FEW)))
    with reader:
        for _ in range(steps):
            net.gradient_descent((X, Y), 0.1)
    reader.check()
    assert reader.found <= allowed
    assert bits(net, net.params) == bits(plain, plain.params)


def test_steps_of_several_threads_are_steps_one_after_another(backend):
    net, plain = network(backend), network(backend)
    for _ in range(40):
        plain.gradient_descent((X, Y), 0.1)
    net.predict(FEW)

    def work():
        for _ in range(10):
            net.gradient_descent((X, Y), 0.1)

    together(work, 4)
    assert bits(net, net.params) == bits(plain, plain.params)


def together(work, count):
    """Run in so many threads, and raise what one of them raised."""
    errors = []

    def guarded(*args):
        try:
            work(*args)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_parameters_are_assigned_while_others_read(backend):
    net = network(backend, [40, 3])
    both = [tree_map(lambda a, value=value: np.full(a.shape, value, np.float32), net.params) for value in (0.0, 1.0)]
    net.params = both[0]
    reader = Reader(lambda: bits(net, net.params))
    allowed = set()
    with reader:
        for i in range(60):
            net.params = both[i % 2]
            allowed.add(bits(net, net.params))
    reader.check()
    assert reader.found <= allowed


def test_one_fit_at_a_time(backend):
    net = network(backend, [40, 3])
    refused = []

    def work():
        try:
            fit(net, epochs=2)
        except bpxp.errors.FitInProgressError:
            refused.append(1)

    together(work, 4)
    assert not net.training
    assert net.epoch == 2 * (4 - len(refused))


def test_networks_in_eight_threads_have_the_bits_of_one_after_another(backend, nightly):
    """10,000 calls at night: fits of networks of their own, and predictions and evaluations of one that is shared."""
    if "jax" in backend.name and not nightly:
        pytest.skip("at night: it compiles for seconds")
    shared = network(backend)
    rounds = {"numpy": 312, "torch": 312}.get(backend.name, 20) if nightly else 6
    data = [(X[i : i + 30], Y[i : i + 30]) for i in range(8)]

    def calls(i, rounds):
        """Return what four calls a round give: a fit, two questions to the network of all, and one to its own."""
        own, found = bpxp.Network([40, 8, 3], backend=backend, seed=i), []
        trainer = bpxp.Trainer(own, RULE, progress=False)
        for _ in range(rounds):
            trainer.fit(data[i], epochs=1, batch_size=10)
            found.append(bits(own, own.params))
            found.append(bits(shared, shared.predict_proba(data[i][0])))
            found.append(shared.evaluate(*data[i])["loss"])
            found.append(bits(own, own.predict_proba(data[i][0])))
        return found

    expected = [calls(i, rounds) for i in range(8)]
    found, numbers = {}, iter(range(8))

    def work():
        i = next(numbers)
        found[i] = calls(i, rounds)

    together(work, 8)
    assert [found[i] for i in range(8)] == expected
    assert shared.eager_steps == {}


def test_a_copy_while_another_thread_uses_the_network_for_the_first_time(backend):
    # Properties that are cached at first use appear in an object while it is copied.
    errors = []
    for _ in range(40):
        net = network(backend, [40, 3])
        reader = Reader(lambda net=net: copied(copy.deepcopy)(net, None))
        with reader:
            for name in ("ids", "probabilities", "takes_ids"):
                getattr(net.spec, name)
            net._learn(dataclasses.replace(net.spec))
            net.size  # noqa: B018
            net._chunk  # noqa: B018
        errors.append(reader.error)
    assert errors == [None] * 40
