"""Convolution: which way it takes, what it keeps for that, and how much memory it takes at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.nn import Conv2D, ConvParams

XP = bpxp.backends.get_backend("numpy").xp


def example(layer, shape, batch, rng):
    """params, x and delta for the layer, float64."""
    params, out = layer.init(HostRandom(0), shape)
    params = ConvParams(*(rng.standard_normal(a.shape) for a in params))
    return params, rng.standard_normal((batch, *shape)), rng.standard_normal((batch, *out))


def spied(**own):
    """NumPy's namespace with its own idea of some things."""
    return SimpleNamespace(**{**vars(XP), **own})


@pytest.mark.parametrize(
    ("layer", "shape", "turned"),
    [
        (Conv2D(2, 3, padding="same"), (5, 6, 4), True),
        (Conv2D(2, 3, padding=2), (5, 6, 4), True),  # as much padding as a rotated kernel can have
        (Conv2D(2, 3, padding=3), (5, 6, 4), False),
        (Conv2D(2, 2, dilation=2, padding=2), (5, 6, 4), True),
        (Conv2D(4, (4, 1)), (9, 2, 4), True),  # 1.5 times as many windows
        (Conv2D(4, (4, 1)), (8, 2, 4), False),  # more than 1.5 times
        (Conv2D(4, (1, 4)), (2, 9, 4), True),
        (Conv2D(4, (1, 4)), (2, 8, 4), False),
        (Conv2D(6, 3, padding="same"), (5, 6, 4), True),  # 1.5 times as many filters as channels
        (Conv2D(7, 3, padding="same"), (5, 6, 4), False),
        (Conv2D(2, (4, 1)), (8, 2, 4), True),  # more windows, but fewer filters
        (Conv2D(2, 3, padding="same", stride=2), (9, 9, 4), False),
        (Conv2D(2, 3, padding="same", stride=(1, 2)), (9, 9, 4), False),
        (Conv2D(2, 3, padding=2, groups=2), (9, 9, 4), False),
        (Conv2D(2, 1), (5, 6, 4), False),
    ],
    ids=repr,
)
def test_dx_is_a_convolution_where_that_is_little_work(layer, shape, turned, rng):
    params, x, delta = example(layer, shape, 2, rng)
    flips = []

    def flip(*args, **options):
        flips.append(args)
        return XP.flip(*args, **options)

    layer.backward(params, x, delta, xp=spied(flip=flip))
    assert len(flips) == turned
    layer.backward(params, x, delta, xp=spied(flip=flip, fuses=True))  # what is gathered costs no memory
    assert len(flips) == turned


@pytest.mark.parametrize(
    ("layer", "channels", "tables"),
    [
        (Conv2D(4, 2, padding=1), 4, 2),  # for x, and for delta
        (Conv2D(4, 3, padding="same"), 4, 1),  # the same for both
        (Conv2D(4, 2, padding=1), 3, 1),  # few channels are copied as images
        (Conv2D(3, 2, padding=1), 4, 1),
        (Conv2D(3, 3, padding="same"), 3, 0),
        (Conv2D(3, 3, padding="same", groups=3), 3, 2),
        (Conv2D(3, 1), 4, 0),  # all that is there, in its order
        (Conv2D(3, 1), 3, 0),
        (Conv2D(4, 1, stride=(1, 2)), 4, 2),
        (Conv2D(4, 1, stride=(2, 1)), 4, 2),
        (Conv2D(4, 1, padding=1), 4, 2),
        (Conv2D(4, (1, 2)), 4, 2),
        (Conv2D(4, (2, 1)), 4, 2),
    ],
    ids=repr,
)
def test_tables_of_pixels_are_made_where_pixels_are_gathered(layer, channels, tables, rng):
    params, x, delta = example(layer, (4, 5, channels), 2, rng)
    xp = spied(memo={})
    layer.forward(params, x, xp=xp)
    layer.backward(params, x, delta, xp=xp)
    assert len(xp.memo) == tables


@pytest.mark.parametrize(
    ("layer", "channels", "worth"),
    [
        (Conv2D(2, 3, stride=2, padding=1), 5, 1),
        (Conv2D(2, (2, 3), dilation=(2, 1)), 4, 1),
        (Conv2D(4, 3, stride=2, padding=1, groups=2), 6, 1),
        (Conv2D(2, 2), 3, 4),  # copies of images are read and written in long runs
        (Conv2D(2, 2, padding="same"), 1, 4),
    ],
    ids=repr,
)
def test_patches_fill_the_workspace_and_no_more(layer, channels, worth, rng):
    batch = 9
    params, x, delta = example(layer, (6, 7, channels), batch, rng)
    sizes = []

    def matmul(a, b):
        sizes.append(max(a.nbytes, b.nbytes))
        return XP.matmul(a, b)

    each = x.itemsize * layer.kernel[0] * layer.kernel[1] * channels * delta.shape[1] * delta.shape[2]
    for samples in (1, 2, 4, batch):
        for room in (samples * each // worth, ((samples + 1) * each - 1) // worth):
            sizes.clear()
            xp = spied(matmul=matmul, workspace=room)
            layer.forward(params, x, xp=xp)
            layer.gradients(params, x, delta, xp=xp)
            assert sizes == 2 * [each * min(samples, batch - i) for i in range(0, batch, samples)]


def test_what_is_given_back_is_made_for_as_many_samples(rng):
    layer = Conv2D(2, 3, stride=2, padding=1)
    params, x, delta = example(layer, (6, 7, 5), 9, rng)
    rows = []

    def matmul(a, b):
        rows.append(a.shape[0])
        return XP.matmul(a, b)

    windows = delta.shape[1] * delta.shape[2]
    layer.backward(params, x, delta, xp=spied(matmul=matmul, workspace=4 * 8 * 45 * windows))
    assert rows[:3] == [n * (windows + 1) for n in (4, 4, 1)]  # with a row of zeros for each sample
