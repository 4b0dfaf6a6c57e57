"""Fifty steps of every rule beside torch.optim, with gradients from 1e-7 to 1e3."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bpxp.core.tree import leaves  # noqa: E402
from bpxp.optim import SGD, Adagrad, Adam, AdamW, OneCycle, RMSprop  # noqa: E402

STEPS = 50
SHAPES = [(6, 4), (4,)]
RULES = {
    "sgd": (SGD(0.1), torch.optim.SGD, {"lr": 0.1}),
    "momentum": (SGD(0.1, momentum=0.9), torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    "nesterov": (
        SGD(0.1, momentum=0.9, nesterov=True),
        torch.optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    ),
    "sgd l2": (SGD(0.1, l2=0.3, decay_biases=True), torch.optim.SGD, {"lr": 0.1, "weight_decay": 0.3}),
    "rmsprop": (RMSprop(), torch.optim.RMSprop, {}),
    "rmsprop 0.9": (RMSprop(0.1, alpha=0.9, epsilon=1e-3), torch.optim.RMSprop, {"lr": 0.1, "alpha": 0.9, "eps": 1e-3}),
    "adagrad": (Adagrad(), torch.optim.Adagrad, {}),
    "adam": (Adam(), torch.optim.Adam, {}),
    "adam 0.5": (
        Adam(0.1, beta1=0.5, beta2=0.9, epsilon=1e-5),
        torch.optim.Adam,
        {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-5},
    ),
    "adam l2": (Adam(l2=0.3, decay_biases=True), torch.optim.Adam, {"weight_decay": 0.3}),
    "adamw": (AdamW(decay_biases=True), torch.optim.AdamW, {}),
    "adamw 0.5": (
        AdamW(0.1, weight_decay=0.5, decay_biases=True),
        torch.optim.AdamW,
        {"lr": 0.1, "weight_decay": 0.5},
    ),
}


def problem(rng):
    """Parameters of size 1, and gradients whose size differs from component to component; float32 numbers."""
    params = [rng.normal(size=shape).astype("float32") for shape in SHAPES]
    sizes = [10.0 ** rng.uniform(-7, 3, size=shape) for shape in SHAPES]
    gradients = [[(size * rng.normal(size=size.shape)).astype("float32") for size in sizes] for _ in range(STEPS)]
    return params, gradients


def by_torch(make, options, params, gradients):
    """Return the parameters before the first step and after each, in float64."""
    tensors = [torch.tensor(p, dtype=torch.float64) for p in params]
    optimizer = make(tensors, **options)
    path = [[t.numpy().copy() for t in tensors]]
    for grads in gradients:
        for tensor, g in zip(tensors, grads, strict=True):
            tensor.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        path.append([t.numpy().copy() for t in tensors])
    return path


def by_bpxp(optimizer, backend, params, gradients, dtype):
    def bring(arrays):
        return tuple(backend.asarray(a.astype(dtype)) for a in arrays)

    current = bring(params)
    state = optimizer.init(current, xp=backend.xp)
    path = [params]
    for grads in gradients:
        current, state = optimizer.update(current, bring(grads), state, xp=backend.xp)
        path.append([backend.to_numpy(a) for a in leaves(current)])
    return path


@pytest.mark.parametrize("rule", RULES)
def test_float64(backend, rng, rule):
    ours, make, options = RULES[rule]
    params, gradients = problem(rng)
    expected = by_torch(make, options, params, gradients)
    got = by_bpxp(ours, backend, params, gradients, "float64")
    for theirs, mine in zip(expected, got, strict=True):
        for a, b in zip(theirs, mine, strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-10, atol=0)


@pytest.mark.parametrize("rule", RULES)
def test_float32_within_its_roundings(backend, rng, rule):
    # Each step rounds a parameter once (half an eps of it), and its change some hundred times at most: the moments
    # are sums of up to 50 terms that are rounded twice a step. Errors do not grow from step to step: p acts back on
    # its own change only through the decay, which shrinks them.
    ours, make, options = RULES[rule]
    params, gradients = problem(rng)
    expected = by_torch(make, options, params, gradients)
    got = by_bpxp(ours, backend, params, gradients, "float32")
    eps = float(np.finfo("float32").eps) / 2
    for leaf in range(len(SHAPES)):
        path = np.stack([point[leaf] for point in expected])
        bound = STEPS * eps * (np.abs(path).max(axis=0) + 100 * np.abs(np.diff(path, axis=0)).max(axis=0))
        mine = np.stack([point[leaf] for point in got])
        assert mine.dtype == np.float32
        assert (np.abs(mine - path) <= bound).all()


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_one_cycle_rises_as_torch(backend, shape):
    # torch's linear strategy is linear on the way down as well: only the way up is compared.
    steps, top = 20, 9
    tensor = torch.zeros(1, dtype=torch.float64)
    optimizer = torch.optim.SGD([tensor], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        0.5,
        total_steps=steps,
        pct_start=0.5,
        anneal_strategy="cos" if shape == "cosine" else "linear",
        cycle_momentum=False,
    )
    xp = backend.xp
    ours = OneCycle(0.5, steps, rise=0.5, shape=shape)
    for t in range(steps):
        if shape == "cosine" or t <= top:
            rate = ours.at(xp.full((1,), float(t), dtype=xp.float64), (), xp=xp)
            assert float(backend.to_numpy(rate)[0]) == pytest.approx(theirs.get_last_lr()[0], rel=1e-10)
        optimizer.step()
        if t < steps - 1:
            theirs.step()
