"""Convolution and pooling against PyTorch, values and gradients; its ties, its padding, its "same"."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves
from bpxp.errors import InvalidValueError
from bpxp.nn import AvgPool2D, Conv2D, ConvParams, Dense, Flatten, MaxPool2D, Sequential, SoftmaxCrossEntropy

torch = pytest.importorskip("torch")
F = torch.nn.functional
XP = bpxp.backends.get_backend("numpy").xp


def images(a):
    """(batch, height, width, channels) as PyTorch has it, with a gradient."""
    return torch.tensor(np.moveaxis(a, 3, 1), requires_grad=True)


def kernels(W):
    return torch.tensor(np.transpose(W, (3, 2, 0, 1)), requires_grad=True)


def back(tensor):
    return np.moveaxis(tensor.detach().numpy(), 1, 3)


def close(own, their):
    np.testing.assert_allclose(own, their, rtol=1e-10, atol=1e-12)


def compare_conv(layer, shape, rng, padding):
    params, out = layer.init(HostRandom(0), shape)
    W, b = rng.standard_normal(params.W.shape), rng.standard_normal(layer.filters)
    x, delta = rng.standard_normal((2, *shape)), rng.standard_normal((2, *out))
    z, cache = layer.forward(ConvParams(W, b), x, xp=XP)
    dx, grads = layer.backward(ConvParams(W, b), cache, delta, xp=XP)
    tx, tW, tb = images(x), kernels(W), torch.tensor(b, requires_grad=True)
    their = F.conv2d(tx, tW, tb, layer.stride, padding, layer.dilation, layer.groups)
    their.backward(torch.tensor(np.moveaxis(delta, 3, 1)))
    close(z, back(their))
    close(dx, back(tx.grad))
    close(grads.W, np.transpose(tW.grad.numpy(), (2, 3, 1, 0)))
    close(grads.b, tb.grad.numpy())


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_conv(kernel, rng):
    for stride, padding, dilation, (channels, groups) in itertools.product(
        (1, 2, 3), (0, 1, 2), (1, 2), ((1, 1), (4, 1), (4, 2), (4, 4))
    ):
        layer = Conv2D(4, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
        try:
            compare_conv(layer, (9, 6, channels), rng, padding)
        except InvalidValueError:
            assert dilation * (kernel - 1) + 1 > 6 + 2 * padding


@pytest.mark.filterwarnings("ignore:Using padding='same'")  # of even kernels: it copies
def test_conv_same(rng):
    for kernel, dilation in itertools.product((1, 2, 3, (2, 5)), (1, 2)):
        compare_conv(Conv2D(3, kernel, padding="same", dilation=dilation), (5, 6, 2), rng, "same")


POOLS = [p for p in itertools.product((1, 2, 3, (2, 4)), (1, 2, (3, 1)), (0, 1)) if p[0] != 1 or not p[2]]


@pytest.mark.parametrize("ties", [False, True], ids=["values", "ties"])
def test_pooling(ties, rng):
    for pool, stride, padding in POOLS:
        x = rng.standard_normal((2, 7, 6, 3))
        x = np.round(x) + 0.0 if ties else x
        for layer, function in (
            (MaxPool2D(pool, stride, padding), F.max_pool2d),
            (AvgPool2D(pool, stride, padding), F.avg_pool2d),
        ):
            y, cache = layer.forward((), x, xp=XP)
            dy = rng.standard_normal(y.shape)
            dx, _ = layer.backward((), cache, dy, xp=XP)
            tx = images(x)
            their = function(tx, pool, stride, padding)
            their.backward(torch.tensor(np.moveaxis(dy, 3, 1)))
            close(y, back(their))
            close(dx, back(tx.grad))


def test_small_network(rng):
    model = Sequential(
        (
            Conv2D(4, 3, padding="same", activation="relu"),
            MaxPool2D(2),
            Conv2D(5, 3, padding="same", activation="relu"),
            MaxPool2D(3, 2, 1),
            Flatten(),
            Dense(3),
        )
    )
    params, _ = model.init(HostRandom(5), (8, 6, 1))
    x, y = np.maximum(rng.standard_normal((4, 8, 6, 1)), 0.0), rng.integers(0, 3, 4)  # black borders: ties
    logits, caches = model.forward(params, x, xp=XP)
    value, delta = SoftmaxCrossEntropy()(logits, y, xp=XP)
    dx, grads = model.backward(params, caches, delta, xp=XP)

    own = [kernels(a) if a.ndim == 4 else torch.tensor(a, requires_grad=True) for a in leaves(params)]
    h = tx = images(x)
    h = F.max_pool2d(F.relu(F.conv2d(h, own[0], own[1], padding="same")), 2)
    h = F.max_pool2d(F.relu(F.conv2d(h, own[2], own[3], padding="same")), 3, 2, 1)
    h = h.permute(0, 2, 3, 1).flatten(1) @ own[4] + own[5]
    loss = F.cross_entropy(h, torch.tensor(y))
    loss.backward()
    close(value[0], loss.item())
    close(dx, back(tx.grad))
    for mine, their in zip(leaves(grads), own, strict=True):
        grad = their.grad.numpy()
        close(mine, np.transpose(grad, (2, 3, 1, 0)) if grad.ndim == 4 else grad)
