"""Pickle, joblib and copies: of networks, trainers, backends, steps and histories, to other processes and other libraries."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from helpers.small_runs import NETWORKS

import bpxp
from bpxp import nn, optim
from bpxp.backends import names
from bpxp.callbacks import Checkpoint, CSVLog, EarlyStopping
from bpxp.core.tree import leaves, named_leaves
from bpxp.errors import BpxpWarning
from bpxp.network.step import TrainingStep

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(24, 12)).astype(np.float32), np.arange(24) % 3


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def joblibbed(thing, tmp_path):
    joblib = pytest.importorskip("joblib")
    joblib.dump(thing, tmp_path / "thing")
    return joblib.load(tmp_path / "thing", mmap_mode="r")  # read-only arrays in a mapped file


WAYS = {
    "pickle": lambda thing, path: pickled(thing),
    "protocol 2": lambda thing, path: pickle.loads(pickle.dumps(thing, 2)),
    "copy": lambda thing, path: copy.copy(thing),
    "deepcopy": lambda thing, path: copy.deepcopy(thing),
    "joblib": joblibbed,
}


def network(backend, kind="dropout"):
    return bpxp.Network(NETWORKS[kind][0], backend=backend, seed=1)


def bits(net):
    arrays = named_leaves((net.params, net.stats, net.opt_state))
    return (
        {name: net.backend.to_numpy(a).tobytes() for name, a in arrays if a is not None},
        net.epoch,
        net._steps,
        net.seed,
    )


def fit(net, epochs=2, callbacks=()):
    trainer = bpxp.Trainer(net, optim.Adam(0.01), callbacks=callbacks, progress=False)
    return trainer, trainer.fit((X, Y), epochs=epochs, batch_size=5)


class Copies(bpxp.callbacks.Callback):
    seen = None

    def on_epoch_end(self, trainer, row):
        self.seen = self.seen or (copy.deepcopy(trainer.net), pickled(trainer), row["loss"])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("used", ["new", "compiled", "fitted"])
def test_a_copy_is_the_same_network_and_trains_on_to_the_same_bits(backend, way, used, tmp_path):
    net = network(backend)
    if used == "compiled":
        net.predict(X)
        net.gradient_descent(X[:5], Y[:5], 0.1)
    if used == "fitted":
        fit(net)
    other = WAYS[way](net, tmp_path)
    assert bits(other) == bits(net)
    assert (other.backend, other.xp) == (net.backend, net.xp)
    assert not {id(a) for a in leaves(other.params)} & {id(a) for a in leaves(net.params)}
    before = bits(net)
    fit(other)
    other.gradient_descent(X[:5], Y[:5], 0.1)
    assert bits(net) == before  # nothing is shared
    fit(net)
    net.gradient_descent(X[:5], Y[:5], 0.1)
    assert bits(other) == bits(net)
    assert np.array_equal(net.backend.to_numpy(net.logits(X)), other.backend.to_numpy(other.logits(X)))


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_kind_of_network(backend, kind):
    layers, shape = NETWORKS[kind]
    net = bpxp.Network(layers, backend=backend, seed=1, input_shape=None if isinstance(layers[0], int) else shape)
    assert bits(pickled(net)) == bits(net)
    assert repr(pickled(net)) == repr(net)


def test_what_a_network_is_stays(backend):
    net = bpxp.Network([3, 4, 2], loss="binary_cross_entropy", dtype="float32", backend=backend, seed=7)
    net.capture = False
    other = pickled(net)
    assert (other.spec, other.capture, other.backend_report) == (net.spec, False, net.backend_report)
    other.capture = True
    assert not net.capture


def test_it_is_hardly_larger_than_its_parameters(backend):
    net = bpxp.Network([784, 100, 10], backend=backend, seed=0)
    x = rng.random((40, 784), dtype=np.float32)
    net.predict(x)
    net.evaluate(x, np.arange(40) % 10)
    for _ in range(40):
        net.gradient_descent((x, np.arange(40) % 10), 0.1)
    trainer = bpxp.Trainer(net, progress=False)
    trainer.fit((x, np.arange(40) % 10), epochs=2)
    for thing in (net, trainer):
        assert len(pickle.dumps(thing)) < 1.1 * 4 * net.size


def test_a_network_that_is_being_fitted_is_copied_as_it_is_then(backend):
    net, copies = network(backend), Copies()
    fit(net, callbacks=[copies])
    other, trainer, loss = copies.seen
    assert not other.training
    assert other.epoch == 1
    assert trainer.history["loss"] == [loss]
    trainer.callbacks.clear()
    assert len(trainer.fit((X, Y), epochs=1)) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_trainer_goes_on(backend, way, tmp_path):
    callbacks = [Checkpoint(tmp_path / "run.bpxp"), CSVLog(tmp_path / "log.csv"), EarlyStopping("loss", patience=9)]
    trainer = bpxp.Trainer(
        network(backend), optim.Adam(0.01), callbacks=callbacks, metrics=["accuracy", bpxp.metrics.TopK(2)]
    )
    trainer.fit((X, Y), epochs=2, batch_size=5, validation=(X, Y))
    other = WAYS[way](trainer, tmp_path)
    assert list(other.history) == list(trainer.history)
    for one in (trainer, other):
        one.fit((X, Y), epochs=2, batch_size=5, validation=(X, Y))
    if way != "copy":  # a shallow copy trains the same network
        assert bits(other.net) == bits(trainer.net)


def test_a_backend_is_pickled_by_its_name(backend):
    for way in (pickled, copy.deepcopy):
        assert way(backend) is bpxp.get_backend(backend.name)
        assert way(backend.xp) is bpxp.get_backend(backend.name).xp
    assert vars(copy.copy(backend)) == vars(backend)


def test_a_backend_of_another_precision():
    pytest.importorskip("torch")
    backend = bpxp.get_backend("torch", matmul="bfloat16")
    assert pickled(backend) is backend
    assert pickled(backend.xp) is backend.xp
    assert pickled(bpxp.get_backend("numpy:eager")).name == "numpy:eager"


def test_a_compiled_step_is_compiled_again(backend):
    model, loss = network(backend).model, nn.SoftmaxCrossEntropy()
    step = TrainingStep(model, loss, optim.SGD(optim.OneCycle(0.1, steps=60)), xp=backend.xp)
    run = backend.compile(step)
    other = pickled(run)
    assert type(other) is type(run)
    assert getattr(other, "step", step) == step
    assert pickled(step) == step


def test_data_sets_and_results(backend):
    if "strict" in backend.name:
        pytest.skip("its arrays are not pickled")
    data = pickled(bpxp.data.Dataset(X, Y).to(backend))
    assert data.backend is backend
    assert np.array_equal(backend.to_numpy(data.x), X)
    net = network(backend)
    for thing in (fit(net)[1], net.summary(), net.backend_report, bpxp.verify.check_gradients(net, X[:3], Y[:3])):
        assert repr(pickled(thing)) == repr(thing)


# ---------------------------------------------------------------- other processes


def predict(net):
    return net.backend.to_numpy(net.predict_proba(X))


def train(net):
    fit(net)
    return net


def test_forked_processes():
    # In a process of its own: threads of the libraries that other tests import do not survive a fork.
    program = (
        "import multiprocessing, numpy as np, bpxp\n"
        "x, y = np.random.default_rng(0).random((64, 8)), np.arange(64) % 3\n"
        "net = bpxp.Network([8, 3], backend='numpy', seed=0)\n"
        "for _ in range(50): net.gradient_descent((x, y), 0.1)\n"
        "with multiprocessing.get_context('fork').Pool(2) as pool:\n"
        "    found = pool.map(net.predict_proba, [x, x])\n"
        "print(all(np.array_equal(a, net.predict_proba(x)) for a in found))\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False, timeout=100
    )
    assert done.stdout == "True\n", done.stderr


def test_spawned_processes(backend):
    net = network(backend)
    fit(net)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(pool.apply(predict, (net,)), predict(net))
        trained = pool.apply(train, (net,))
    assert bits(trained) == bits(train(net))


def test_processes_of_joblib():
    joblib = pytest.importorskip("joblib")
    nets = [bpxp.Network([12, 3], backend="numpy", seed=seed) for seed in range(3)]
    trained = joblib.Parallel(n_jobs=2)(joblib.delayed(train)(net) for net in nets)
    assert [bits(net) for net in trained] == [bits(train(net)) for net in nets]


def test_where_its_library_is_not_installed(monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    net = bpxp.Network([12, 3], backend="torch", seed=0)
    content, numbers = pickle.dumps(net), net.backend.to_numpy(net.logits(X))
    backend = pickle.dumps(net.backend)
    monkeypatch.setattr(names, "_found", {})
    real = names.importlib.util.find_spec
    monkeypatch.setattr(names.importlib.util, "find_spec", lambda name: None if name == "torch" else real(name))
    with pytest.warns(BpxpWarning, match="'torch', which does not work here.*'numpy' now"):
        other = pickle.loads(content)
    assert other.backend.name == other.backend_report.backend == "numpy"
    np.testing.assert_allclose(other.logits(X), numbers, rtol=1e-5, atol=1e-6)
    other.gradient_descent(X, Y, 0.1)
    with pytest.raises(bpxp.errors.BackendNotInstalledError, match="torch"):
        pickle.loads(backend)


def test_a_process_without_the_library(tmp_path):
    pytest.importorskip("torch")
    path = tmp_path / "net.pickle"
    path.write_bytes(pickle.dumps(bpxp.Network([12, 3], backend="torch", seed=0)))
    program = (
        "import sys, pickle, warnings; sys.modules['torch'] = None; warnings.simplefilter('ignore')\n"
        f"print(pickle.load(open({str(path)!r}, 'rb')).backend.name, 'torch' in [m for m in sys.modules if sys.modules[m]])"
    )
    env = os.environ | {"BPXP_BACKEND": "numpy", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env, check=False)
    assert done.stdout == "numpy False\n", done.stderr
