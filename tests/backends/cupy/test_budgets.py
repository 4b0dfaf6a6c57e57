"""Budgets of a training step on CuPy, counted on the simulated device: they may only fall."""

from __future__ import annotations

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")

import bpxp  # noqa: E402
from bpxp import nn, optim  # noqa: E402
from bpxp.backends.cupy.cuda_graph import CupyGraph  # noqa: E402
from bpxp.core.tree import leaves  # noqa: E402

MLP = [784, 256, 10]
CNN = [
    nn.Conv2D(16, 3, activation="relu"),
    nn.MaxPool2D(2),
    nn.Conv2D(32, 3, activation="relu"),
    nn.MaxPool2D(2),
    nn.Flatten(),
    10,
]
LENET = [
    nn.Conv2D(6, 5, padding="same", activation="tanh"),
    nn.AvgPool2D(2),
    nn.Conv2D(16, 5, activation="tanh"),
    nn.AvgPool2D(2),
    nn.Flatten(),
    120,
    84,
    10,
]
IMAGE = (28, 28, 1)
SAMPLES = 10 * 64
# Nodes of the graph of one step, 64 samples.
NODES = {
    "784-256-10": (MLP, (784,), optim.SGD(0.1), 61),
    "784-256-10, momentum": (MLP, (784,), optim.SGD(0.1, momentum=0.9), 73),
    "784-256-10, Adam": (MLP, (784,), optim.Adam(1e-3), 137),
    "784-256-10, dropout, Adam": ([784, 256, nn.Dropout(0.5), 10], (784,), optim.Adam(1e-3), 153),
    "conv 16, 32": (CNN, IMAGE, optim.SGD(0.1), 123),
    "LeNet": (LENET, IMAGE, optim.SGD(0.1), 177),
}


@pytest.mark.parametrize("name", NODES)
def test_device_operations_of_a_step(name, cudasim, monkeypatch):
    layers, shape, optimizer, budget = NODES[name]
    rng = np.random.default_rng(0)
    x, y = rng.random((SAMPLES, *shape), dtype=np.float32), rng.integers(0, 10, SAMPLES)
    net = bpxp.Network(layers, input_shape=shape, hidden="relu", backend="cupy", seed=0)
    replayed, call = [], CupyGraph.__call__

    def counted(self, state, data, *, count=1):
        sizes = {8: count >= 8, 1: count % 8 > 0}
        ready = all(size in self.plays for size, needed in sizes.items() if needed)
        with cudasim.counting() as did:
            found = []
            found.append(cudasim.traced(lambda: found.append(call(self, state, data, count=count))))
        if ready and self.plays and type(self.step).__name__ == "TrainingStep":
            replayed.append((count, did, found[1], len(leaves((state, data)))))
        return found[0]

    monkeypatch.setattr(CupyGraph, "__call__", counted)
    trainer = bpxp.Trainer(net, optimizer, progress=False)
    for _ in range(2):
        trainer.fit((x, y), epochs=4, batch_size=64)
    assert net.eager_steps == {}
    assert replayed
    for count, did, _, arrays in replayed:
        # Nothing but graphs, and a state in other arrays that is copied into buffers: no transfer, no wait.
        assert did["graph_launches"] == count // 8 + count % 8
        assert {did[name] for name in ("h2d", "d2h", "syncs", "mallocs", "gemms_without_workspace")} == {0}
        assert did["launches"] + did["d2d"] <= 2 * arrays
    nodes = {int(line.split()[1]) for _, _, lines, _ in replayed for line in lines if line.startswith("graph ")}
    assert min(nodes) <= budget
    assert all(n % min(nodes) == 0 for n in nodes)
