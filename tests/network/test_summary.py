"""The shape ledger says what the equations name, and costs that can be worked out by hand."""

from __future__ import annotations

import bpxp
from bpxp import nn


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
    assert "1  Dense(3), Sigmoid: 15 parameters, 24 FLOP forward, 24 FLOP backward" in text
    assert "0  ReLU: 0 parameters" in text
    assert text.endswith(
        f"23 parameters, float32, backend {backend.name}; per sample 36 FLOP forward, 48 FLOP backward, 40 B kept for it"
    )


def test_float64_keeps_twice_the_bytes(backend):
    single, double = (
        sum(
            layer.kept_bytes for layer in bpxp.Network([4, 3, 2], backend=backend, dtype=dtype, seed=0).summary().layers
        )
        for dtype in ("float32", "float64")
    )
    assert double == 2 * single
