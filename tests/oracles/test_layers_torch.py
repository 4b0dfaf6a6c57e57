"""Normalisation, embedding, dropout and residual blocks against PyTorch's own modules."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom, make_key
from bpxp.nn import BatchNorm, Dense, Dropout, Embedding, EmbeddingParams, LayerNorm, NormParams, Residual

torch = pytest.importorskip("torch")
XP = bpxp.backends.get_backend("numpy").xp


def channels_first(a):
    return torch.tensor(np.moveaxis(a, -1, 1))


def channels_last(t):
    return np.moveaxis(t.detach().numpy(), 1, -1)


def close(own, their):
    np.testing.assert_allclose(own, their, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("momentum", [0.1, 0.7])
@pytest.mark.parametrize("shape", [(6, 3), (5, 4, 3), (4, 5, 3, 2)])
def test_batch_norm_over_several_steps(shape, momentum, rng):
    c = shape[-1]
    module = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}[len(shape)]
    theirs = module(c, eps=1e-3, momentum=momentum, dtype=torch.float64)
    params = NormParams(rng.uniform(0.5, 2.0, c), rng.standard_normal(c))
    with torch.no_grad():
        theirs.weight[:], theirs.bias[:] = torch.tensor(params.gamma), torch.tensor(params.beta)
    own = BatchNorm(momentum=momentum, epsilon=1e-3)
    stats = own.init_stats(params)
    for training in (True, True, True, False):
        x, dy = 3.0 * rng.standard_normal(shape) + 1.0, rng.standard_normal(shape)
        theirs.train(training)
        theirs.zero_grad()
        leaf = channels_first(x).requires_grad_()
        output = theirs(leaf)
        output.backward(channels_first(dy))
        y, cache = own.forward(params, x, xp=XP, training=training, stats=stats)
        dx, grads = own.backward(params, cache, dy, xp=XP)
        if training:
            stats = own.advance(stats, cache, xp=XP)
        close(y, channels_last(output))
        close(dx, channels_last(leaf.grad))
        close(grads.gamma, theirs.weight.grad.numpy())
        close(grads.beta, theirs.bias.grad.numpy())
        close(stats.mean, theirs.running_mean.numpy())
        close(stats.var, theirs.running_var.numpy())


def test_absent_samples_are_a_smaller_batch(rng):
    x, dy = rng.standard_normal((5, 4, 4, 2)), rng.standard_normal((5, 4, 4, 2))
    dy[3:] = 0.0
    theirs = torch.nn.BatchNorm2d(2, dtype=torch.float64)
    leaf = channels_first(x[:3]).requires_grad_()
    output = theirs(leaf)
    output.backward(channels_first(dy[:3]))
    own = BatchNorm()
    params, _ = own.init(HostRandom(0), (4, 4, 2))
    y, cache = own.forward(params, x, xp=XP, training=True, present=np.array([1.0, 1.0, 1.0, 0.0, 0.0]))
    dx, grads = own.backward(params, cache, dy, xp=XP)
    stats = own.advance(own.init_stats(params), cache, xp=XP)
    close(y[:3], channels_last(output))
    close(dx[:3], channels_last(leaf.grad))
    close(grads.gamma, theirs.weight.grad.numpy())
    close(stats.mean, theirs.running_mean.numpy())
    close(stats.var, theirs.running_var.numpy())


@pytest.mark.parametrize("shape", [(6, 5), (4, 3, 5), (3, 4, 3, 5)])
def test_layer_norm(shape, rng):
    params = NormParams(rng.uniform(0.5, 2.0, 5), rng.standard_normal(5))
    x, dy = rng.standard_normal(shape), rng.standard_normal(shape)
    theirs = torch.nn.LayerNorm(5, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight[:], theirs.bias[:] = torch.tensor(params.gamma), torch.tensor(params.beta)
    leaf = torch.tensor(x, requires_grad=True)
    output = theirs(leaf)
    output.backward(torch.tensor(dy))
    y, cache = LayerNorm().forward(params, x, xp=XP)
    dx, grads = LayerNorm().backward(params, cache, dy, xp=XP)
    close(y, output.detach().numpy())
    close(dx, leaf.grad.numpy())
    close(grads.gamma, theirs.weight.grad.numpy())
    close(grads.beta, theirs.bias.grad.numpy())


def test_embedding(rng):
    W, x, dy = rng.standard_normal((7, 3)), rng.integers(0, 7, (5, 4)), rng.standard_normal((5, 4, 3))
    table = torch.tensor(W, requires_grad=True)
    output = torch.nn.functional.embedding(torch.tensor(x), table)
    output.backward(torch.tensor(dy))
    layer = Embedding(7, 3)
    y, cache = layer.forward(EmbeddingParams(W), x.astype(float), xp=XP)
    close(y, output.detach().numpy())
    close(layer.gradients(EmbeddingParams(W), cache, dy, xp=XP).W, table.grad.numpy())


def test_dropout_keeps_the_mean_and_the_variance_of_torch(rng):
    n, rate = 200_000, 0.3
    torch.manual_seed(0)
    theirs = torch.nn.functional.dropout(torch.ones(n, dtype=torch.float64), rate).numpy()
    own, _ = Dropout(rate).forward((), np.ones((n // 8, 8)), xp=XP, key=make_key(0))
    sigma = np.sqrt(rate / (1.0 - rate) / n)
    assert abs(own.mean() - theirs.mean()) < 5.0 * np.sqrt(2.0) * sigma
    np.testing.assert_allclose(own.var(), theirs.var(), rtol=0.02)


def test_residual(rng):
    layer = Residual([Dense(6, "tanh"), Dense(4)])
    params, _ = layer.init(HostRandom(0), (4,))
    x, dy = rng.standard_normal((5, 4)), rng.standard_normal((5, 4))
    leaf = torch.tensor(x, requires_grad=True)
    first, second = ([torch.tensor(a, requires_grad=True) for a in own] for own in params)
    output = leaf + (torch.tanh(leaf @ first[0] + first[1]) @ second[0] + second[1])
    output.backward(torch.tensor(dy))
    y, caches = layer.forward(params, x, xp=XP)
    dx, grads = layer.backward(params, caches, dy, xp=XP)
    close(y, output.detach().numpy())
    close(dx, leaf.grad.numpy())
    for own, their in zip((*grads[0], *grads[1]), (*first, *second), strict=True):
        close(own, their.grad.numpy())
