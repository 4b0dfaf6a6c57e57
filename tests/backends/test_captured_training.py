"""Training with compiled steps is training with eager ones, to the bit, on every backend that captures."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
from helpers.numpy_graph import Graph
from helpers.small_runs import NETWORKS, OPTIMIZERS

import bpxp
from bpxp import optim
from bpxp.backends.base import eager
from bpxp.backends.cuda_graph import CapturedGraph
from bpxp.core.tree import leaves


def library(backend):
    return backend.name.partition(":")[0]


# XLA rounds otherwise than one operation at a time; array-api-strict compiles nothing.
ASKED = [name for name in os.environ.get("BPXP_TEST_BACKENDS", "numpy").split(",") if name[:3] not in ("jax", "str")]


@pytest.fixture(params=["graph", *ASKED])
def both_ways(request, monkeypatch):
    """A backend, and how to let it run steps as they are written; NumPy also with graphs as above."""
    if request.param == "graph":
        backend = copy.copy(bpxp.get_backend("numpy"))
        backend.compile = lambda step: Graph(step, backend.xp)
    else:
        backend = bpxp.get_backend(request.param)
    compile, made = backend.compile, []

    def compiled(step):
        made.append(compile(step))
        return made[-1]

    def use(written):
        made.clear()
        monkeypatch.setattr(backend, "compile", eager if written else compiled)

    return backend, use, made


def graphs(backend, made):
    """Return what was recorded; on a GPU something has to be."""
    found = [getattr(run, "run", run) for run in made]
    reasons = {getattr(run, "reason", "") for run in found} - {"", "it has no state"}
    assert not reasons
    recorded = [run for run in found if getattr(run, "plays", None) or getattr(run, "plans", None)]
    assert recorded or backend.name == "torch"
    return recorded


def trained(backend, layers, shape, optimizer, n=61, batch=4, epochs=3, **options):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape), dtype=np.float32), rng.integers(0, 3, n)
    net = bpxp.Network(layers, input_shape=shape, hidden="relu", backend=backend, seed=5)
    history = bpxp.Trainer(net, optimizer, progress=False).fit(
        (x, y), epochs=epochs, batch_size=batch, validation=(x[:9], y[:9]), **options
    )
    arrays = [backend.to_numpy(a).tobytes() for a in leaves((net.params, net.stats, net.key))]
    return net, arrays, [*history["loss"], *history["validation_loss"]]


def same_bits(both_ways, *arguments, **options):
    backend, use, made = both_ways
    use(written=True)
    _, arrays, losses = trained(backend, *arguments, **options)
    use(written=False)
    _, own, values = trained(backend, *arguments, **options)
    assert own == arrays
    assert values == losses
    graphs(backend, made)


@pytest.mark.parametrize("batch", [7, 61], ids=["a short last batch", "one whole batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_run_is_the_same_bits(name, batch, both_ways):
    same_bits(both_ways, *NETWORKS[name], optim.SGD(0.1), batch=batch, epochs=3 if batch == 7 else 20)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__} {getattr(o, 'momentum', '')}")
def test_every_optimizer_is_the_same_bits(optimizer, both_ways):
    same_bits(both_ways, *NETWORKS["dense"], optimizer)


def test_augmentation_on_the_way_is_the_same_bits(both_ways):
    moves = [bpxp.data.augment.Affine(degrees=10, shift=1), bpxp.data.augment.Mixup(0.3)]
    same_bits(both_ways, *NETWORKS["images"], optim.SGD(0.1), augment=moves)


def test_other_data_another_rate_and_single_steps_are_the_same_bits(both_ways, rng):
    backend, use, made = both_ways
    pairs = [(rng.random((30, 12), dtype=np.float32), rng.integers(0, 3, 30)) for _ in range(2)]
    results = []
    for written in (True, False):
        use(written)
        net = bpxp.Network([12, 7, 3], backend=backend, seed=2)
        for rate in (0.5, 0.05):
            for pair in pairs:
                bpxp.Trainer(net, optim.SGD(rate), progress=False).fit(pair, epochs=3, batch_size=3)
                for i in range(9):
                    net.gradient_descent((pair[0][i : i + 4], pair[1][i : i + 4]), learning_rate=rate / (1 + i // 5))
        results.append([backend.to_numpy(a).tobytes() for a in leaves(net.params)])
    assert results[0] == results[1]
    graphs(backend, made)


def test_a_graph_survives_what_others_do_with_memory(both_ways):
    backend, use, made = both_ways
    use(written=True)
    _, arrays, _ = trained(backend, *NETWORKS["dropout"], optim.Adam(1e-2), epochs=6)
    use(written=False)
    net = None

    class Disturb(bpxp.callbacks.Callback):
        def on_epoch_end(self, trainer, row):
            made = [
                backend.xp.full((size,), float("nan"), dtype=backend.xp.float32) for size in (1, 16, 84, 999, 10**5)
            ]
            del made
            if library(backend) == "cupy":
                import cupy

                cupy.get_default_memory_pool().free_all_blocks()
            elif backend.name.startswith("torch:cuda"):
                import torch

                torch.cuda.empty_cache()

    rng = np.random.default_rng(0)
    x, y = rng.random((61, 12), dtype=np.float32), rng.integers(0, 3, 61)
    net = bpxp.Network(NETWORKS["dropout"][0], input_shape=(12,), hidden="relu", backend=backend, seed=5)
    bpxp.Trainer(net, optim.Adam(1e-2), progress=False, callbacks=[Disturb()]).fit(
        (x, y), epochs=6, batch_size=4, validation=(x[:9], y[:9])
    )
    assert [backend.to_numpy(a).tobytes() for a in leaves((net.params, net.stats, net.key))] == arrays
    graphs(backend, made)


# ---------------------------------------------------------------- PyTorch's part of it, as far as a CPU has it


def test_pytorchs_arrays_are_known_by_their_memory(monkeypatch):
    torch = pytest.importorskip("torch")
    from bpxp.backends.torch.cuda_graph import TorchGraph

    class OnTheCpu(TorchGraph):
        __call__ = CapturedGraph.__call__

        def capture(self, state, data, size):
            return lambda times: [self.work(state, data, size) for _ in range(times)]

        def stream(self):
            return 0

        _warm_up = CapturedGraph._warm_up

    backend = copy.copy(bpxp.get_backend("torch"))
    results, made = [], []
    for written in (True, False):

        def compile(step, written=written):
            made.append(eager(step) if written else OnTheCpu(step, backend.xp, backend.device))
            return made[-1]

        monkeypatch.setattr(backend, "compile", compile)
        results.append(trained(backend, *NETWORKS["images"], optim.SGD(0.1, momentum=0.9, average=0.9))[1:])
    assert results[0] == results[1]
    assert any(getattr(run, "plays", None) for run in made)
    assert not [run.reason for run in made if getattr(run, "reason", "")]

    graph = OnTheCpu(None, backend.xp, backend.device)
    a = torch.arange(6.0)
    b = graph.own(a.reshape(2, 3).T)
    assert b.is_contiguous()
    assert graph.same([(b, a.reshape(2, 3).T)])
    assert not graph.same([(a, a), (a, a + 1e-6)])
    assert graph.same([(a * float("nan"), a * float("nan"))])
    assert graph.place(a[1:])[0] == graph.place(a)[0] != graph.place(b)[0]
    assert graph.place(a[1:]) != graph.place(a)
