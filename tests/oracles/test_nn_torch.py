"""Activations, losses and whole networks against PyTorch's own functions and its automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.nn import (
    ACTIVATIONS,
    ELU,
    GELU,
    LOSSES,
    BinaryCrossEntropy,
    Dense,
    Huber,
    LeakyReLU,
    Sequential,
    SoftmaxCrossEntropy,
)

torch = pytest.importorskip("torch")
F = torch.nn.functional
XP = bpxp.backends.get_backend("numpy").xp

THEIRS = {
    "identity": (ACTIVATIONS["identity"], lambda z: z * 1.0),
    "sigmoid": (ACTIVATIONS["sigmoid"], torch.sigmoid),
    "tanh": (ACTIVATIONS["tanh"], torch.tanh),
    "relu": (ACTIVATIONS["relu"], F.relu),
    "leaky_relu": (ACTIVATIONS["leaky_relu"], F.leaky_relu),
    "leaky_relu_0.3": (LeakyReLU(0.3), lambda z: F.leaky_relu(z, 0.3)),
    "elu": (ACTIVATIONS["elu"], F.elu),
    "elu_0.4": (ELU(0.4), lambda z: F.elu(z, 0.4)),
    "selu": (ACTIVATIONS["selu"], F.selu),
    "gelu": (ACTIVATIONS["gelu"], F.gelu),
    "gelu_tanh": (GELU("tanh"), lambda z: F.gelu(z, approximate="tanh")),
    "silu": (ACTIVATIONS["silu"], F.silu),
    "softplus": (ACTIVATIONS["softplus"], lambda z: F.softplus(z, threshold=1000)),
    "softsign": (ACTIVATIONS["softsign"], F.softsign),
    # F.hardsigmoid's derivative in float64 is the float32 number 1/6: its definition is the better oracle
    "hard_sigmoid": (ACTIVATIONS["hard_sigmoid"], lambda z: F.relu6(z + 3) / 6),
    "mish": (ACTIVATIONS["mish"], F.mish),
}


def test_every_activation_and_loss_has_an_oracle():
    assert set(ACTIVATIONS) <= set(THEIRS)
    assert set(LOSSES) == {"softmax_cross_entropy", "binary_cross_entropy", *REGRESSION} - {"huber_2"}


@pytest.mark.parametrize("name", THEIRS)
def test_activation(name, rng):
    own, their = THEIRS[name]
    z, da = 3.0 * rng.standard_normal((20, 30)), rng.standard_normal((20, 30))
    a, cache = own.forward((), z, xp=XP)
    dz, _ = own.backward((), cache, da, xp=XP)
    leaf = torch.tensor(z, requires_grad=True)
    output = their(leaf)
    output.backward(torch.tensor(da))
    np.testing.assert_allclose(a, output.detach().numpy(), rtol=1e-10, atol=1e-14)
    np.testing.assert_allclose(dz, leaf.grad.numpy(), rtol=1e-10, atol=1e-14)


def mean(each, weight):
    """The weighted mean of one loss per sample, as bpxp defines it."""
    w = torch.ones(len(each), dtype=each.dtype) if weight is None else torch.tensor(weight)
    return (w * each).sum() / w.sum()


def compare(loss, z, y, weight, their):
    value, delta = loss(z, y, weight, xp=XP)
    leaf = torch.tensor(z, requires_grad=True)
    expected = mean(their(leaf), weight)
    expected.backward()
    np.testing.assert_allclose(value[0], expected.item(), rtol=1e-10)
    np.testing.assert_allclose(delta, leaf.grad.numpy(), rtol=1e-10, atol=1e-15)


@pytest.fixture(params=[False, True], ids=["plain", "weighted"])
def weight(request, rng):
    return np.concatenate([[0.0], rng.random(8)]) if request.param else None


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_softmax_cross_entropy(smoothing, weight, rng):
    z, y = 3.0 * rng.standard_normal((9, 5)), rng.integers(0, 5, 9)
    soft = rng.dirichlet(np.ones(5), 9)
    loss = SoftmaxCrossEntropy(smoothing)
    for targets in (y, soft):
        compare(
            loss,
            z,
            targets,
            weight,
            lambda leaf, t=targets: F.cross_entropy(leaf, torch.tensor(t), reduction="none", label_smoothing=smoothing),
        )


@pytest.mark.parametrize("pos_weight", [1.0, 2.5, (1.0, 0.2, 3.0, 1.0, 5.0)])
def test_binary_cross_entropy(pos_weight, weight, rng):
    z, y = 3.0 * rng.standard_normal((9, 5)), rng.random((9, 5))
    p = torch.tensor(pos_weight, dtype=torch.float64).expand(5)
    compare(
        BinaryCrossEntropy(pos_weight),
        z,
        y,
        weight,
        lambda leaf: F.binary_cross_entropy_with_logits(leaf, torch.tensor(y), pos_weight=p, reduction="none").sum(1),
    )


REGRESSION = {
    "mean_squared_error": (LOSSES["mean_squared_error"], lambda z, y: F.mse_loss(z, y, reduction="none")),
    "mean_absolute_error": (LOSSES["mean_absolute_error"], lambda z, y: F.l1_loss(z, y, reduction="none")),
    "huber": (LOSSES["huber"], lambda z, y: F.huber_loss(z, y, reduction="none")),
    "huber_2": (Huber(2.0), lambda z, y: F.huber_loss(z, y, delta=2.0, reduction="none")),
    "poisson": (LOSSES["poisson"], lambda z, y: F.poisson_nll_loss(z, y, log_input=True, full=False, reduction="none")),
}


@pytest.mark.parametrize("name", REGRESSION)
def test_regression(name, weight, rng):
    loss, their = REGRESSION[name]
    z, y = 2.0 * rng.standard_normal((9, 5)), rng.poisson(2.0, (9, 5)).astype(float)
    z[1, :2], y[1, :2] = [1.0, 2.0], [1.0, 1.0]  # at the kinks
    compare(loss, z, y, weight, lambda leaf: their(leaf, torch.tensor(y)).mean(1))
    if weight is None:
        value, _ = loss(z, y, xp=XP)
        np.testing.assert_allclose(value[0], their(torch.tensor(z), torch.tensor(y)).mean().item(), rtol=1e-10)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_network(activation, rng):
    model = Sequential((Dense(7, activation, "normal"), Dense(6, activation, "normal"), Dense(3, None, "normal")))
    params, _ = model.init(HostRandom(11), (4,))
    x, y = rng.standard_normal((8, 4)), rng.integers(0, 3, 8)
    logits, caches = model.forward(params, x, xp=XP)
    value, delta = SoftmaxCrossEntropy()(logits, y, xp=XP)
    dx, grads = model.backward(params, caches, delta, xp=XP)

    own = tree_map(lambda p: torch.tensor(p, requires_grad=True), params)
    start = torch.tensor(x, requires_grad=True)
    _, their = THEIRS[activation]
    h = start
    for layer in own[:2]:
        h = their(h @ layer.W + layer.b)
    expected = F.cross_entropy(h @ own[2].W + own[2].b, torch.tensor(y))
    expected.backward()
    np.testing.assert_allclose(value[0], expected.item(), rtol=1e-10)
    np.testing.assert_allclose(dx, start.grad.numpy(), rtol=1e-10, atol=1e-14)
    for mine, leaf in zip(leaves(grads), leaves(own), strict=True):
        np.testing.assert_allclose(mine, leaf.grad.numpy(), rtol=1e-10, atol=1e-14)
