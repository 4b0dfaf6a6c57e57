"""Pooling against slow loops, ties included, and the ways in which it must be linear."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest

import bpxp
import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import AvgPool2D, GlobalAvgPool2D, MaxPool2D

XP = bpxp.backends.get_backend("numpy").xp


def loops(layer, x, dy):
    """Return y and dx, one window at a time; the first maximum of a window, row by row, takes all."""
    rows, columns = layer.grid(x.shape[1:])
    largest = isinstance(layer, MaxPool2D)
    ends = ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0))
    padded = np.pad(x, ends, constant_values=-np.inf if largest else 0.0)
    y, dpadded = np.zeros(dy.shape), np.zeros(padded.shape)
    for n, i, j, c in np.ndindex(dy.shape):
        top, left = i * rows.stride, j * columns.stride
        window = padded[n, top : top + rows.kernel, left : left + columns.kernel, c]
        if largest:
            r, q = np.unravel_index(np.argmax(window), window.shape)
            y[n, i, j, c] = window[r, q]
            dpadded[n, top + r, left + q, c] += dy[n, i, j, c]
        else:
            y[n, i, j, c] = window.mean()
            dpadded[n, top : top + rows.kernel, left : left + columns.kernel, c] += dy[n, i, j, c] / window.size
    dx = dpadded[:, rows.before : rows.before + rows.n, columns.before : columns.before + columns.n]
    return y, dx


def run(layer, x, dy, xp):
    y, cache = layer.forward((), x, xp=xp)
    dx, grads = layer.backward((), cache, dy, xp=xp)
    assert grads == ()
    return y, dx


def compiled(backend, function):
    """The function as the backend would run it within a step: traced on JAX, as it is elsewhere."""
    if not backend.name.startswith("jax"):
        return function
    import jax

    return jax.jit(function)


@pytest.mark.parametrize("kind", [MaxPool2D, AvgPool2D])
@pytest.mark.parametrize("ties", [False, True], ids=["values", "ties"])
def test_grid_of_windows_strides_and_paddings(kind, ties, rng):
    for pool, stride, padding, batch in itertools.product((1, 2, 3, 4), (1, 2, 3, 4), (0, 1, 2), (1, 3)):
        if 2 * padding > pool:
            with pytest.raises(InvalidValueError, match=r"2 p = \d > k = \d"):
                kind(pool, stride, padding)
            continue
        layer = kind(pool, stride, padding)
        _, out = layer.init(HostRandom(0), (7, 6, 2))
        x = rng.integers(0, 3, (batch, 7, 6, 2)).astype(float) if ties else rng.standard_normal((batch, 7, 6, 2))
        dy = rng.standard_normal((batch, *out))
        y, dx = run(layer, x, dy, XP)
        expected_y, expected_dx = loops(layer, x, dy)
        np.testing.assert_allclose(y, expected_y, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(dx, expected_dx, rtol=1e-13, atol=1e-14)
        if kind is AvgPool2D:  # linear: 〈A v, dy〉 = 〈v, Aᵀ dy〉
            np.testing.assert_allclose(np.sum(y * dy), np.sum(x * dx), rtol=1e-12, atol=1e-12)


CASES = {
    "side by side": (MaxPool2D(2), (4, 6, 3)),
    "something left over": (MaxPool2D(2), (5, 7, 3)),
    "something added": (MaxPool2D(2, padding="same"), (5, 7, 3)),
    "overlap": (MaxPool2D(3, 2, 1), (6, 7, 3)),
    "uneven": (MaxPool2D((2, 3), (1, 2), ((1, 0), (0, 1))), (5, 6, 3)),
    "same": (MaxPool2D(3, 2, "same"), (6, 7, 3)),
    "mean side by side": (AvgPool2D(2), (4, 6, 3)),
    "mean overlap": (AvgPool2D(3, 2, 1), (6, 7, 3)),
}


@pytest.mark.parametrize("name", CASES)
def test_every_backend(name, backend, on, rng):
    if backend.name.startswith("jax") and name in ("side by side", "something left over", "same", "mean side by side"):
        pytest.skip("each compilation takes seconds, and these are a part of the others")
    layer, shape = CASES[name]
    _, out = layer.init(HostRandom(0), shape)
    x, dy = rng.integers(-2, 3, (2, *shape)) * 1.0, rng.standard_normal((2, *out))
    for dtype in ("float64",) if backend.name.startswith("jax") else ("float64", "float32"):
        own = compiled(backend, lambda x, dy: run(layer, x, dy, backend.xp))(*(on(backend, a, dtype) for a in (x, dy)))
        for mine, theirs in zip(own, loops(layer, x, dy), strict=True):
            assert mine.dtype == getattr(backend.xp, dtype)
            rtol = 1e-12 if dtype == "float64" else 1e-5
            np.testing.assert_allclose(backend.to_numpy(mine), theirs, rtol=rtol, atol=rtol)


def test_global_mean(backend, on, rng):
    layer = GlobalAvgPool2D()
    assert layer.init(HostRandom(0), (4, 5, 3)) == ((), (3,))
    x, dy = rng.standard_normal((2, 4, 5, 3)), rng.standard_normal((2, 3))
    y, dx = compiled(backend, lambda x, dy: run(layer, x, dy, backend.xp))(on(backend, x), on(backend, dy))
    np.testing.assert_allclose(backend.to_numpy(y), x.mean((1, 2)), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(backend.to_numpy(dx), np.broadcast_to(dy[:, None, None] / 20, x.shape), rtol=1e-12)


def test_one_window_over_all_is_the_global_mean(rng):
    x, dy = rng.standard_normal((2, 4, 5, 3)), rng.standard_normal((2, 3))
    y, dx = run(AvgPool2D((4, 5)), x, dy[:, None, None], XP)
    globally, dglobally = run(GlobalAvgPool2D(), x, dy, XP)
    np.testing.assert_allclose(y[:, 0, 0], globally, rtol=1e-13)
    np.testing.assert_allclose(dx, dglobally, rtol=1e-13)


def test_all_equal_goes_to_the_first_pixel_of_each_window():
    _, dx = run(MaxPool2D(2), np.zeros((1, 4, 4, 1)), np.ones((1, 2, 2, 1)), XP)
    np.testing.assert_array_equal(dx[0, :, :, 0], np.kron(np.ones((2, 2)), [[1.0, 0.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    "layer", [MaxPool2D(2), MaxPool2D(3, 2, 1), MaxPool2D(1), AvgPool2D(2), AvgPool2D(1), GlobalAvgPool2D()], ids=repr
)
def test_inputs_are_only_read_and_results_are_new(layer, rng, readonly):
    x = readonly(rng.standard_normal((2, 6, 6, 3)))
    y, cache = layer.forward((), x, xp=XP)
    dy = readonly(rng.standard_normal(y.shape))
    dx, _ = layer.backward((), cache, dy, xp=XP)
    np.testing.assert_array_equal(dx, layer.backward((), cache, dy, xp=XP)[0])
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations([x, y, dy, dx], 2))


@pytest.mark.parametrize(
    ("layer", "samples"),
    [
        (MaxPool2D(3, 2), [4, 4, 1]),
        (MaxPool2D((3, 2), 2), [4, 4, 1]),
        (MaxPool2D(2, 1, "same"), [4, 4, 1]),
        (MaxPool2D(2), [9]),
    ],
)
def test_what_overlapping_windows_give_back_is_made_for_some_samples_at_a_time(layer, samples, rng):
    x = rng.standard_normal((9, 6, 6, 3))
    y, cache = layer.forward((), x, xp=XP)
    dy, sizes = rng.standard_normal(y.shape), []
    _, taps, windows, channels = cache.first.shape
    grid = layer.grid((6, 6))
    rows = windows if layer == MaxPool2D(2) else windows + 1  # and one of zeros
    ways = math.prod(-(-axis.kernel // axis.stride) for axis in grid)

    def take(a, *args, **options):
        sizes.append(a.shape)
        return XP.take(a, *args, **options)

    own = SimpleNamespace(**{**vars(XP), "take": take, "workspace": (5 * taps * rows * channels - 1) * x.itemsize})
    dx, _ = layer.backward((), cache, dy, xp=own)
    assert sizes == [(n, taps * rows, channels) for n in samples for _ in range(ways)]
    np.testing.assert_array_equal(dx, layer.backward((), cache, dy, xp=XP)[0])


def test_averages_keep_no_image_and_a_maximum_keeps_who_won(rng):
    x = rng.standard_normal((2, 6, 8, 3)).astype(np.float32)
    for layer in (AvgPool2D(2), GlobalAvgPool2D()):
        kept = layer.forward((), x, xp=XP)[1]
        assert (kept.shape, kept.dtype) == ((0, 6, 8, 3), np.float32)
    kept = MaxPool2D((2, 4)).forward((), x, xp=XP)[1]
    assert (kept.like.shape, kept.like.dtype) == ((0, 6, 8, 3), np.float32)
    assert (kept.first.shape, kept.first.dtype) == ((2, 8, 6, 3), np.bool_)


def test_windows_that_do_not_fit():
    with pytest.raises(
        InvalidValueError, match=r"height out = .* = floor\(\(2 \+ 0 \+ 0 - 1·\(3 - 1\) - 1\)/3\) \+ 1 = 0"
    ):
        MaxPool2D(3).init(HostRandom(0), (2, 5, 1))
    with pytest.raises(InvalidValueError, match=r"^AvgPool2D\(\(3, 3\)\): .*expected \(height, width, channels\)"):
        AvgPool2D(3).init(HostRandom(0), (5, 1))
    with pytest.raises(InvalidValueError, match=r"^GlobalAvgPool2D\(\): .*expected \(height, width, channels\)"):
        GlobalAvgPool2D().init(HostRandom(0), (5,))
    for arguments, error in [
        ({"pool": 0}, InvalidValueError),
        ({"pool": 2.0}, InvalidTypeError),
        ({"stride": 0}, InvalidValueError),
        ({"padding": "round"}, InvalidValueError),
        ({"padding": ((0, 2), (0, 0))}, InvalidValueError),
        ({"padding": (0, 2)}, InvalidValueError),
        ({"padding": (2, 0), "pool": (2, 4)}, InvalidValueError),
        ({"padding": (0, 2), "pool": (4, 2)}, InvalidValueError),
    ]:
        with pytest.raises(error, match=rf"^MaxPool2D\({next(iter(arguments))}=…\): "):
            MaxPool2D(**arguments)


def test_names_are_resolved_once():
    assert MaxPool2D(2) == MaxPool2D((2, 2), (2, 2), ((0, 0), (0, 0)))
    assert hash(AvgPool2D(3, 2)) == hash(AvgPool2D((3, 3), (2, 2)))
    assert MaxPool2D(2) != AvgPool2D(2)
