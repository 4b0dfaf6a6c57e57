"""Numerical derivatives, with the step sizes that float64 deserves; and layers run on every backend."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import bpxp.backends
from bpxp.core import checks
from bpxp.core.memory import Memory
from bpxp.core.tree import leaves, tree_map

EPS = 1e-3


@pytest.fixture(scope="session")
def slope() -> Callable[..., np.ndarray]:
    """``slope(f)`` is df(t)/dt at 0 by four-point differences: the error is h⁴ f⁽⁵⁾/30, and the rounding 1e-13."""

    def differences(f: Callable[[float], np.ndarray], h: float = EPS) -> np.ndarray:
        return (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)

    return differences


@pytest.fixture(scope="session")
def check_layer(slope) -> Callable[..., None]:
    """``check_layer(layer, params, x, rng, **context)``: dx and every gradient along random directions, on NumPy."""
    xp = bpxp.backends.get_backend("numpy").xp

    def check(layer, params, x, rng, **context):
        y, cache = layer.forward(params, x, xp=xp, **context)
        dy = rng.standard_normal(y.shape)
        dx, grads = layer.backward(params, cache, dy, xp=xp)
        place, found = leaves((params, x)), leaves((grads, dx))
        for i, (p, g) in enumerate(zip(place, found, strict=True)):
            for _ in range(3):
                d = rng.uniform(0.1, 1.0, p.shape) * rng.choice([-1, 1], p.shape) / 5

                def f(t, i=i, d=d):
                    moved = iter([*place[:i], place[i] + t * d, *place[i + 1 :]])
                    own = tree_map(lambda _: next(moved), (params, x))
                    return np.sum(dy * layer.forward(*own, xp=xp, **context)[0])

                np.testing.assert_allclose(np.sum(g * d), slope(f), rtol=1e-7, atol=1e-9)

    return check


@pytest.fixture(scope="session")
def run_layer(on) -> Callable[..., tuple[np.ndarray, ...]]:
    """``run_layer(backend, layer, params, x, dy, dtype, **context)``: y, dx and gradients, compiled, as host arrays.

    The inputs are read-only where the library can say so; backward is run twice, and `gradients` has to agree.
    """

    def run(backend, layer, params, x, dy, dtype="float64", **context):
        xp, key = backend.xp, context.pop("key", None)
        arrays = {name: a for name, a in context.items() if name in ("stats", "present") and a is not None}
        static = {name: a for name, a in context.items() if name not in arrays}

        def step(_, data):
            params, x, dy, arrays, key = data
            given = {**static, **arrays, **({} if key is None else {"key": key})}
            y, cache = layer.forward(params, x, xp=xp, **given)
            dx, grads = layer.backward(params, cache, dy, xp=xp)
            again = layer.backward(params, cache, dy, xp=xp)
            alone = layer.gradients(params, cache, dy, xp=xp) if hasattr(layer, "gradients") else grads
            return y, dx, grads, again, alone

        def bring(tree):
            return tree_map(lambda a: on(backend, a, dtype), tree)

        own_key = None if key is None else tree_map(lambda a: on(backend, a), key)
        own = (*bring((params, x, dy)), {name: bring(a) for name, a in arrays.items()}, own_key)
        y, dx, grads, again, alone = backend.compile(step)((), own)
        assert all(a.dtype == getattr(xp, dtype) for a in leaves((y, dx, grads)))
        y, dx, grads, again, alone = tree_map(backend.to_numpy, (y, dx, grads, again, alone))
        for one, other in zip(leaves((dx, grads, grads)), leaves((*again, alone)), strict=True):
            np.testing.assert_array_equal(one, other)
        return y, dx, *leaves(grads)

    return run


@pytest.fixture(scope="session")
def agrees_with_numpy(run_layer) -> Callable[..., None]:
    """Compare what `run_layer` finds on a backend with NumPy's float64."""
    reference = bpxp.backends.get_backend("numpy")

    def check(backend, layer, params, x, dy, dtype, **context):
        expected = run_layer(reference, layer, params, x, dy, "float64", **context)
        found = run_layer(backend, layer, params, x, dy, dtype, **context)
        rtol = 1e-12 if dtype == "float64" else 1e-5
        for mine, theirs in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=rtol * np.max(np.abs(theirs), initial=0.0))

    return check


@pytest.fixture
def room_for(monkeypatch) -> Callable[[int], None]:
    """``room_for(n)`` lets the machine have memory for n parameters, and be asked however few are wanted."""

    def give(parameters: int) -> None:
        monkeypatch.setattr(checks, "PLENTY", 0)
        monkeypatch.setattr(checks, "host_memory", lambda: Memory(8 * parameters, 8 * parameters))

    return give
