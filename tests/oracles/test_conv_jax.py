"""Convolution and pooling against JAX: lax.conv_general_dilated, lax.reduce_window and jax.vjp."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.nn import AvgPool2D, Conv2D, ConvParams, MaxPool2D

jax = pytest.importorskip("jax")
XP = bpxp.backends.get_backend("numpy").xp
LAYOUT = ("NHWC", "HWIO", "NHWC")

LAYERS = [
    Conv2D(4, 3, padding="same"),
    Conv2D(4, (4, 3), padding="same", stride=(3, 2)),
    Conv2D(6, (2, 3), stride=2, padding=((1, 0), (2, 1)), dilation=(1, 2), groups=3),
]


@pytest.mark.parametrize("layer", LAYERS, ids=["same", "same, strides", "everything"])
def test_conv(layer, rng):
    shape = (8, 9, 3)
    params, out = layer.init(HostRandom(0), shape)
    W, b = rng.standard_normal(params.W.shape), rng.standard_normal(layer.filters)
    x, delta = rng.standard_normal((2, *shape)), rng.standard_normal((2, *out))
    z, cache = layer.forward(ConvParams(W, b), x, xp=XP)
    dx, grads = layer.backward(ConvParams(W, b), cache, delta, xp=XP)

    def their(x, W, b):
        padding = "SAME" if layer.padding == "same" else layer.padding
        z = jax.lax.conv_general_dilated(
            x,
            W,
            layer.stride,
            padding,
            rhs_dilation=layer.dilation,
            feature_group_count=layer.groups,
            dimension_numbers=LAYOUT,
        )
        return z + b

    @jax.jit
    def everything(x, W, b, delta):
        z, pull = jax.vjp(their, x, W, b)
        return z, *pull(delta)

    for own, expected in zip((z, dx, *grads), everything(x, W, b, delta), strict=True):
        np.testing.assert_allclose(own, np.asarray(expected), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "layer", [MaxPool2D(2), MaxPool2D(3, 2, "same"), AvgPool2D(3, 2, "same")], ids=["max", "max same", "mean same"]
)
def test_pooling(layer, rng):
    x = rng.standard_normal((2, 7, 8, 3))
    y, cache = layer.forward((), x, xp=XP)
    dy = rng.standard_normal(y.shape)
    dx, _ = layer.backward((), cache, dy, xp=XP)
    largest = isinstance(layer, MaxPool2D)
    start, combine = (-np.inf, jax.lax.max) if largest else (0.0, jax.lax.add)
    padding = layer.padding.upper() if isinstance(layer.padding, str) else "VALID"

    def their(x):
        sums = jax.lax.reduce_window(x, start, combine, (1, *layer.pool, 1), (1, *layer.stride, 1), padding)
        return sums if largest else sums / (layer.pool[0] * layer.pool[1])

    @jax.jit
    def everything(x, dy):
        y, pull = jax.vjp(their, x)
        return y, *pull(dy)

    for own, expected in zip((y, dx), everything(x, dy), strict=True):
        np.testing.assert_allclose(own, np.asarray(expected), rtol=1e-10, atol=1e-12)
