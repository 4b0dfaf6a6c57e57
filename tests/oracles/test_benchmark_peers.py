"""The peers of the benchmarks do the work of bpxp: from the same parameters they come to the same losses."""

from __future__ import annotations

import argparse

import numpy as np
import pytest

from benchmarks.peers.bpxp_fit import Bpxp
from benchmarks.peers.work import Work

RULES = [("sgd", 0.5), ("adam", 0.01)]
EPOCHS = 4


def work(rule: str, rate: float, **more) -> Work:
    # One mini-batch is the epoch: its order does not matter.
    return Work(**{"net": "784-12-10", "batch": 64, "samples": 64, "optimizer": rule, "learning_rate": rate, **more})


def own(task: Work) -> tuple[list[np.ndarray], list[float]]:
    """Return bpxp's initial parameters, W and b in turn, and its losses."""
    peer = Bpxp(task, argparse.Namespace(backend="numpy", pixels=False, streamed=False, whole=False))
    start = [np.array(a) for p in peer.net.params for a in p]
    return start, losses(peer)


def losses(peer) -> list[float]:
    found: list[float] = []
    peer.train(EPOCHS, lambda seconds, loss: bool(found.append(loss)))
    return found


@pytest.mark.parametrize(("rule", "rate"), RULES)
@pytest.mark.parametrize("batches", ["index", "slice", "loader", "mapped", "graph"])
def test_torch(rule, rate, batches):
    torch = pytest.importorskip("torch")
    from benchmarks.peers.torch_eager import Torch
    from benchmarks.peers.torch_graph import TorchGraph

    task = work(rule, rate)
    start, expected = own(task)
    how = argparse.Namespace(device="cpu", batches="index" if batches == "graph" else batches, compile=None)
    how.channels_last, how.workers = False, 0
    peer = (TorchGraph if batches == "graph" else Torch)(task, how)
    with torch.no_grad():
        for p, a in zip(peer.net.parameters(), start, strict=True):
            p.copy_(torch.from_numpy(a.T.copy()))
    np.testing.assert_allclose(losses(peer), expected, rtol=1e-4)


@pytest.mark.parametrize(("rule", "rate", "scan"), [(*RULES[0], True), (*RULES[1], False)])
def test_jax(rule, rate, scan):
    jax = pytest.importorskip("jax")
    pytest.importorskip("optax")
    from benchmarks.peers.jax_optax import Optax

    task = work(rule, rate)
    start, expected = own(task)
    peer = Optax(task, argparse.Namespace(scan=scan))
    params = [(jax.numpy.asarray(W), jax.numpy.asarray(b)) for W, b in zip(start[::2], start[1::2], strict=True)]
    peer.state = (params, peer.rule.init(params), jax.numpy.zeros((), "float32"))
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in whole numbers
        found = losses(peer)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize(("rule", "rate"), RULES)
def test_thinc(rule, rate):
    pytest.importorskip("thinc")
    from benchmarks.peers.thinc_mlp import Thinc

    task = work(rule, rate)
    start, expected = own(task)
    peer = Thinc(task, argparse.Namespace())
    layers = [layer for layer in peer.net.walk() if layer.has_param("W")]
    for layer, W, b in zip(layers, start[::2], start[1::2], strict=True):
        layer.set_param("W", W.T.copy())
        layer.set_param("b", b)
    np.testing.assert_allclose(losses(peer), expected, rtol=1e-4)


def test_convolutional_networks_have_the_same_parameters():
    torch = pytest.importorskip("torch")
    from benchmarks.peers.torch_eager import network

    task = work("sgd", 0.05, net="28x28x1-conv4-conv6-10")
    start, _ = own(task)
    assert sum(p.numel() for p in network(task).parameters()) == sum(a.size for a in start)
    assert isinstance(network(task)[0], torch.nn.Conv2d)
