"""The shape ledger says what the equations name, and costs that can be worked out by hand."""

from __future__ import annotations

import dataclasses
import tracemalloc

import pytest

import bpxp
from bpxp import nn
from bpxp.backends import get_backend


def test_shapes_of_a_dense_layer(backend):
    ledger = bpxp.Network([784, 30, 10], backend=backend, seed=0).summary()
    first = {entry.name: (entry.symbols, entry.shape) for entry in ledger.layers[0].entries}
    assert first == {
        "x": ("(batch, n_in)", "(batch, 784)"),
        "W": ("(n_in, n_out)", "(784, 30)"),
        "b": ("(n_out,)", "(30,)"),
        "z": ("(batch, n_out)", "(batch, 30)"),
        "a": ("(batch, n_out)", "(batch, 30)"),
        "delta": ("(batch, n_out)", "(batch, 30)"),
        "dW": ("(n_in, n_out)", "(784, 30)"),
        "db": ("(n_out,)", "(30,)"),
    }


def test_costs_of_two_dense_layers(backend):
    ledger = bpxp.Network([784, 30, 10], backend=backend, seed=0).summary()
    first, second = ledger.layers
    assert (first.parameters, second.parameters, ledger.parameters) == (784 * 30 + 30, 310, 23860)
    # Forward 2 n_in n_out; backward as much for dW, and again for dx, which the first layer does not compute.
    assert (first.forward_flops, first.backward_flops) == (2 * 784 * 30, 2 * 784 * 30)
    assert (second.forward_flops, second.backward_flops) == (600, 1200)
    # The first keeps x and a; the second x, which is that same a.
    assert (first.kept_bytes, second.kept_bytes) == (4 * (784 + 30), 0)


def test_as_text(backend):
    net = bpxp.Network([4, nn.ReLU(), 3, nn.Tanh(), 2], backend=backend, seed=0)
    text = str(net.summary())
    assert "1  Dense(3), Identity: 15 parameters, 24 FLOP forward, 24 FLOP backward" in text
    assert "0  ReLU: 0 parameters" in text
    assert text.endswith(
        f"23 parameters, float32, backend {backend.name}; per sample 36 FLOP forward, 48 FLOP backward, "
        "236 B moved outside of matrix products, 28 B kept for it"
    )


def test_float64_keeps_twice_the_bytes(backend):
    single, double = (
        sum(
            layer.kept_bytes for layer in bpxp.Network([4, 3, 2], backend=backend, dtype=dtype, seed=0).summary().layers
        )
        for dtype in ("float32", "float64")
    )
    assert double == 2 * single


# ---------------------------------------------------------------- nothing runs


def test_it_allocates_no_batch_and_copies_no_parameters(backend, monkeypatch):
    layers = [nn.Conv2D(8, 3, activation="relu"), nn.MaxPool2D(2), nn.Flatten(), 1000, 10]
    net = bpxp.Network(layers, input_shape=(64, 64, 3), backend=backend, seed=0)
    net.summary()  # imports

    def copied(a, /):
        raise AssertionError("copied to the host")

    monkeypatch.setattr(net.backend, "to_numpy", copied)
    tracemalloc.start()
    try:
        ledger = net.summary()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ledger.parameters == net.size == 7_699_234
    assert peak < 2 * 64 * 64 * 3 * 4  # less than two samples of the input; parameters take 31 MB


@dataclasses.dataclass(frozen=True)
class Curious:
    """Doubles positive batches: looks at numbers, and so do the gradients of its width."""

    units: int
    forwards: bool = True

    def init(self, rng, in_shape, /):
        return (rng.normal((*in_shape, self.units)),), (self.units,)

    def forward(self, params, x, /, *, xp):
        if self.forwards and bool(xp.any(x > 0.0)):
            x = x * 2.0
        return xp.matmul(x, params[0]), x

    def backward(self, params, x, delta, /, *, xp):
        bool(xp.any(x > 0.0))
        return xp.matmul(delta, xp.matrix_transpose(params[0])), (xp.matmul(xp.matrix_transpose(x), delta),)


@pytest.mark.parametrize("forwards", [True, False])
def test_a_layer_that_looks_at_numbers_has_a_summary_without_its_costs(forwards):
    net = bpxp.Network([4, nn.Dense(5), Curious(3, forwards), 2], backend=get_backend("numpy"), seed=0)
    ledger = net.summary()
    first, own, last = ledger.layers
    assert [entry.shape for entry in own.entries] == ["(batch, 5)", "(5, 3)", "(batch, 3)", "(batch, 3)", "(5, 3)"]
    assert [entry.shape for entry in last.entries if entry.name in ("x", "dW")] == ["(batch, 3)", "(3, 2)"]
    assert (first.forward_flops, first.backward_flops, last.forward_flops, last.backward_flops) == (40, 40, 12, 24)
    assert (own.parameters, own.backward_flops) == (15, 0)
    assert not first.not_counted
    text = str(ledger)
    assert "1  Curious(3): 15 parameters, costs not counted (it has no numbers to look at" in text
    assert text.endswith("kept for it, without 1 layer that is not counted")
