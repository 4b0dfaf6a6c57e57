"""Dense, losses and whole networks on (batch, time, features), against PyTorch's, which put the classes second."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves

torch = pytest.importorskip("torch")
F = torch.nn.functional
XP = bpxp.get_backend("numpy").xp


@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 3, 4, 5)], ids=str)
def test_dense_is_torchs_linear(shape, rng):
    layer = nn.Dense(6)
    params, _ = layer.init(HostRandom(0), shape[1:])
    x, delta = rng.standard_normal(shape), rng.standard_normal((*shape[:-1], 6))
    z, cache = layer.forward(params, x, xp=XP)
    dx, grads = layer.backward(params, cache, delta, xp=XP)
    leaf, W, b = (torch.tensor(a, requires_grad=True) for a in (x, params.W.T, params.b))
    out = F.linear(leaf, W, b)
    out.backward(torch.tensor(delta))
    theirs = out.detach(), leaf.grad, W.grad.T, b.grad
    for mine, their in zip((z, dx, *grads), theirs, strict=True):
        np.testing.assert_allclose(mine, their.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(4, 3, 5), (2, 3, 4, 5)], ids=str)
def test_softmax_cross_entropy_is_torchs_with_classes_moved(shape, smoothing, rng):
    z, y = 2.0 * rng.standard_normal(shape), rng.integers(0, shape[-1], shape[:-1])
    J, delta = nn.SoftmaxCrossEntropy(smoothing)(z, y.astype(np.int32), xp=XP)
    leaf = torch.tensor(z, requires_grad=True)
    value = F.cross_entropy(leaf.moveaxis(-1, 1), torch.tensor(y), label_smoothing=smoothing)
    value.backward()
    np.testing.assert_allclose(J[0], value.item(), rtol=1e-12)
    np.testing.assert_allclose(delta, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


def test_weights_are_those_of_samples(rng):
    z, y, w = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3)), rng.uniform(0.1, 2.0, 4)
    J, delta = nn.SoftmaxCrossEntropy()(z, y.astype(np.int32), w, xp=XP)
    leaf = torch.tensor(z, requires_grad=True)
    each = F.cross_entropy(leaf.moveaxis(-1, 1), torch.tensor(y), reduction="none").mean(dim=1)
    value = (each * torch.tensor(w)).sum() / w.sum()
    value.backward()
    np.testing.assert_allclose(J[0], value.item(), rtol=1e-12)
    np.testing.assert_allclose(delta, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        (nn.MeanSquaredError(), F.mse_loss),
        (nn.MeanAbsoluteError(), F.l1_loss),
        (nn.Huber(0.7), lambda z, y: F.huber_loss(z, y, delta=0.7)),
        (nn.Poisson(), F.poisson_nll_loss),
        (nn.BinaryCrossEntropy(), lambda z, y: 5 * F.binary_cross_entropy_with_logits(z, y)),
    ],
    ids=lambda a: type(a).__name__ if isinstance(a, nn.Loss) else "",
)
def test_other_losses(loss, theirs, rng):
    z, y = rng.standard_normal((4, 3, 5)), (rng.random((4, 3, 5)) < 0.5).astype(float)
    J, delta = loss(z, y, xp=XP)
    leaf = torch.tensor(z, requires_grad=True)
    value = theirs(leaf, torch.tensor(y))
    value.backward()
    np.testing.assert_allclose(J[0], value.item(), rtol=1e-12)
    np.testing.assert_allclose(delta, leaf.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("per_position", [False, True])
def test_a_network_of_symbols(per_position, rng):
    """Embedding, dense layers and a loss at each position, or of the flattened sample, by automatic differentiation."""
    end = [3] if per_position else [nn.Flatten(), 2]
    layers = [nn.Embedding(5, 4), nn.Dense(3, "tanh"), *end]
    net = bpxp.Network(layers, input_shape=(6,), dtype="float64", backend="numpy", seed=0)
    x = rng.integers(0, 5, (7, 6))
    y = rng.integers(0, 3, (7, 6)) if per_position else rng.integers(0, 2, 7)
    loss, grads = net.loss_and_gradients(x, y)
    tensors = [torch.tensor(a, requires_grad=True) for a in leaves(net.params)]
    table, W, b, V, c = tensors
    hidden = torch.tanh(table[torch.tensor(x)] @ W + b)
    logits = (hidden if per_position else hidden.flatten(1)) @ V + c
    value = F.cross_entropy(logits.moveaxis(-1, 1), torch.tensor(y))
    value.backward()
    np.testing.assert_allclose(float(loss), value.item(), rtol=1e-12)
    for mine, tensor in zip(leaves(grads), tensors, strict=True):
        np.testing.assert_allclose(mine, tensor.grad.numpy(), rtol=1e-10, atol=1e-14)
