"""Relations of images: a convolution is loops, is a dense layer, and is itself seen another way; so is a pool."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from operations.relation import SEEDS, close, equal, relation
from operations.ways import NUMPY, both_ways

from bpxp import nn
from bpxp.core.random import HostRandom
from bpxp.errors import InvalidValueError
from bpxp.nn import AvgPool2D, Conv2D, ConvParams, Dense, DenseParams, MaxPool2D

SMALL = st.integers(1, 3)


def given(layer, shape, seed, batch=2):
    """Return params, x and dy for the layer; an example in which no window fits is left out."""
    rng = np.random.default_rng(seed)
    try:
        params, out = layer.init(HostRandom(0), shape)
    except InvalidValueError:
        assume(False)
    own = ConvParams(*(rng.standard_normal(a.shape) for a in params)) if params else ()
    return own, rng.standard_normal((batch, *shape)), rng.standard_normal((batch, *out))


def run(layer, params, x, dy):
    """Return y, dx and the gradients."""
    return both_ways(layer, params, x, dy, {}, NUMPY)


@st.composite
def windows(draw):
    """Draw (kernel, stride, padding, dilation, image) of two axes."""
    pairs = st.tuples(SMALL, SMALL)
    padding = draw(st.one_of(st.just("same"), st.tuples(st.integers(0, 2), st.integers(0, 2))))
    return draw(pairs), draw(pairs), padding, draw(st.tuples(st.integers(1, 2), st.integers(1, 2))), draw(
        st.tuples(st.integers(1, 6), st.integers(1, 6))
    )  # fmt: skip


def loops(layer, params, x, dy):
    """What the layer computes, with the channels first and each number by itself: (y, dW, db, dx)."""
    X, dY = np.moveaxis(x, 3, 1), np.moveaxis(dy, 3, 1)
    W = np.transpose(params.W, (3, 2, 0, 1))
    rows, columns = layer.grid(x.shape[1:])
    Y, dW, dX = np.zeros(dY.shape), np.zeros(W.shape), np.zeros(X.shape)
    for f, p, q in itertools.product(range(Y.shape[1]), range(Y.shape[2]), range(Y.shape[3])):
        Y[:, f, p, q] += params.b[f]
        first = f * layer.groups // layer.filters * W.shape[1]
        for c, i, j in itertools.product(range(W.shape[1]), range(W.shape[2]), range(W.shape[3])):
            h = p * rows.stride + i * rows.dilation - rows.before
            w = q * columns.stride + j * columns.dilation - columns.before
            if 0 <= h < X.shape[2] and 0 <= w < X.shape[3]:
                Y[:, f, p, q] += X[:, first + c, h, w] * W[f, c, i, j]
                dW[f, c, i, j] += np.sum(X[:, first + c, h, w] * dY[:, f, p, q])
                dX[:, first + c, h, w] += dY[:, f, p, q] * W[f, c, i, j]
    return np.moveaxis(Y, 1, 3), np.transpose(dW, (2, 3, 1, 0)), dY.sum((0, 2, 3)), np.moveaxis(dX, 1, 3)


@relation(where=windows(), channels=SMALL, filters=SMALL, groups=st.integers(1, 2), seed=SEEDS)
def test_a_convolution_is_loops_over_channels_first(where, channels, filters, groups, seed):
    kernel, stride, padding, dilation, (height, width) = where
    layer = Conv2D(groups * filters, kernel, stride, padding, dilation, groups)
    params, x, dy = given(layer, (height, width, groups * channels), seed)
    assume(dy.size * params.W.size <= 3000)  # loops are slow
    y, dx, grads = run(layer, params, x, dy)
    close((y, grads.W, grads.b, dx), loops(layer, params, x, dy), 1e-12)


@relation(height=st.integers(1, 5), width=st.integers(1, 5), channels=st.integers(1, 6), filters=SMALL, seed=SEEDS)
def test_windows_of_one_pixel_are_a_dense_layer_for_each(height, width, channels, filters, seed):
    params, x, dy = given(Conv2D(filters, 1), (height, width, channels), seed)
    y, dx, grads = run(Conv2D(filters, 1), params, x, dy)
    dense = DenseParams(params.W[0, 0], params.b)
    z, dz, g = run(Dense(filters), dense, x.reshape(-1, channels), dy.reshape(-1, filters))
    close((y, dx, grads.W, grads.b), (z.reshape(y.shape), dz.reshape(x.shape), g.W[None, None], g.b), 1e-12)


@relation(height=st.integers(1, 5), width=st.integers(1, 5), channels=st.integers(1, 6), filters=SMALL, seed=SEEDS)
def test_a_window_as_large_as_the_image_is_a_dense_layer(height, width, channels, filters, seed):
    layer = Conv2D(filters, (height, width))
    params, x, dy = given(layer, (height, width, channels), seed)
    y, dx, grads = run(layer, params, x, dy)
    dense = DenseParams(params.W.reshape(-1, filters), params.b)
    z, dz, g = run(Dense(filters), dense, x.reshape(len(x), -1), dy.reshape(len(x), -1))
    close((y[:, 0, 0], dx, grads.W, grads.b), (z, dz.reshape(x.shape), g.W.reshape(params.W.shape), g.b), 1e-12)


def turned(a, axes=(1, 2)):
    return np.swapaxes(a, *axes)


@relation(where=windows(), channels=st.integers(1, 5), filters=SMALL, seed=SEEDS)
def test_height_and_width_may_be_exchanged(where, channels, filters, seed):
    kernel, stride, padding, dilation, shape = where
    one = Conv2D(filters, kernel, stride, padding, dilation)
    if padding != "same":
        padding = padding[::-1]
    other = Conv2D(filters, kernel[::-1], stride[::-1], padding, dilation[::-1])
    params, x, dy = given(one, (*shape, channels), seed)
    y, dx, grads = run(one, params, x, dy)
    z, dz, g = run(other, ConvParams(turned(params.W, (0, 1)), params.b), turned(x), turned(dy))
    close((z, dz, g.W, g.b), (turned(y), turned(dx), turned(grads.W, (0, 1)), grads.b), 1e-12)


@relation(where=windows(), channels=SMALL, seed=SEEDS)
def test_padding_is_zeros_around_the_image(where, channels, seed):
    kernel, stride, padding, dilation, shape = where
    layer = Conv2D(2, kernel, stride, padding, dilation)
    params, x, dy = given(layer, (*shape, channels), seed)
    rows, columns = layer.grid(x.shape[1:])
    wide = np.pad(x, ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0)))
    y, dx, grads = run(layer, params, x, dy)
    z, dz, g = run(Conv2D(2, kernel, stride, "valid", dilation), params, wide, dy)
    inner = dz[:, rows.before : rows.before + shape[0], columns.before : columns.before + shape[1]]
    close((y, dx, grads), (z, inner, g), 1e-12)


@relation(where=windows(), channels=st.integers(1, 5), seed=SEEDS)
def test_a_stride_takes_some_windows_of_all(where, channels, seed):
    kernel, (s, t), _, dilation, shape = where
    few, every = Conv2D(2, kernel, (s, t), 1, dilation), Conv2D(2, kernel, 1, 1, dilation)
    params, x, dy = given(few, (*shape, channels), seed)
    y, dx, grads = run(few, params, x, dy)
    z, _ = every.forward(params, x, xp=NUMPY)
    between = np.zeros(z.shape)
    between[:, ::s, ::t] = dy
    z, dz, g = run(every, params, x, between)
    close((y, dx, grads), (z[:, ::s, ::t], dz, g), 1e-12)


@relation(where=windows(), channels=st.integers(1, 5), seed=SEEDS)
def test_a_dilated_kernel_has_zeros_between_its_taps(where, channels, seed):
    kernel, stride, padding, (d, e), shape = where
    layer = Conv2D(2, kernel, stride, padding, (d, e))
    params, x, dy = given(layer, (*shape, channels), seed)
    W = np.zeros((d * (kernel[0] - 1) + 1, e * (kernel[1] - 1) + 1, *params.W.shape[2:]))
    W[::d, ::e] = params.W
    y, dx, grads = run(layer, params, x, dy)
    z, dz, g = run(Conv2D(2, W.shape[:2], stride, padding), ConvParams(W, params.b), x, dy)
    close((y, dx, grads.W, grads.b), (z, dz, g.W[::d, ::e], g.b), 1e-12)


@relation(where=windows(), groups=st.integers(2, 3), channels=SMALL, filters=SMALL, seed=SEEDS)
def test_groups_are_convolutions_side_by_side(where, groups, channels, filters, seed):
    kernel, stride, padding, dilation, shape = where
    layer = Conv2D(groups * filters, kernel, stride, padding, dilation, groups)
    params, x, dy = given(layer, (*shape, groups * channels), seed)
    y, dx, grads = run(layer, params, x, dy)
    for k in range(groups):
        own, seen = slice(k * filters, (k + 1) * filters), slice(k * channels, (k + 1) * channels)
        alone = ConvParams(params.W[..., own], params.b[own])
        z, dz, g = run(Conv2D(filters, kernel, stride, padding, dilation), alone, x[..., seen], dy[..., own])
        close((y[..., own], dx[..., seen], grads.W[..., own], grads.b[own]), (z, dz, g.W, g.b), 1e-12)


@relation(shift=st.tuples(st.integers(0, 2), st.integers(0, 2)), channels=st.integers(1, 5), seed=SEEDS)
def test_an_image_that_moves_moves_what_is_seen(shift, channels, seed):
    layer = Conv2D(2, (2, 3))
    params, x, _ = given(layer, (4, 5, channels), seed)
    wide = np.pad(x, ((0, 0), (shift[0], 2 - shift[0]), (shift[1], 2 - shift[1]), (0, 0)))
    y, z = (layer.forward(params, a, xp=NUMPY)[0] for a in (x, wide))
    close(z[:, shift[0] : shift[0] + 3, shift[1] : shift[1] + 3], y, 1e-13)


# --- pools


def pool(kind, where):
    kernel, stride, padding, _, _ = where
    if padding != "same":
        padding = tuple(min(p, k // 2) for p, k in zip(padding, kernel, strict=True))
    return kind(kernel, stride, padding)


@relation(where=windows(), channels=SMALL, seed=SEEDS)
def test_a_mean_is_a_convolution_of_each_channel(where, channels, seed):
    layer = pool(AvgPool2D, where)
    kh, kw = layer.pool
    _, x, dy = given(layer, (*where[4], channels), seed)
    conv = Conv2D(channels, layer.pool, layer.stride, layer.padding, groups=channels)
    params = ConvParams(np.full((kh, kw, 1, channels), 1.0 / (kh * kw)), np.zeros(channels))
    y, dx, _ = run(layer, (), x, dy)
    z, dz, _ = run(conv, params, x, dy)
    close((y, dx), (z, dz), 1e-12)


@relation(where=windows(), channels=SMALL, seed=SEEDS)
def test_a_maximum_by_loops_gives_to_the_first(where, channels, seed):
    """Of few different numbers, so that there are ties."""
    layer = pool(MaxPool2D, where)
    _, x, dy = given(layer, (*where[4], channels), seed)
    x = np.round(x)
    rows, columns = layer.grid(x.shape[1:])
    y, dx, _ = run(layer, (), x, dy)
    z, dz = np.empty(dy.shape), np.zeros(x.shape)
    for n, p, q, c in np.ndindex(*dy.shape):
        seen = [
            (x[n, h, w, c], -h, -w)
            for h in range(p * rows.stride - rows.before, p * rows.stride - rows.before + rows.kernel)
            for w in range(q * columns.stride - columns.before, q * columns.stride - columns.before + columns.kernel)
            if 0 <= h < rows.n and 0 <= w < columns.n
        ]
        z[n, p, q, c], h, w = max(seen)
        dz[n, -h, -w, c] += dy[n, p, q, c]
    equal(y, z)
    close(dx, dz, 1e-13)


@relation(where=windows(), channels=SMALL, seed=SEEDS, name=st.sampled_from(["relu", "sigmoid", "leaky_relu", "tanh"]))
def test_a_function_that_never_falls_may_come_before_or_after_a_maximum(where, channels, seed, name):
    layer, f = pool(MaxPool2D, where), nn.get_activation(name)
    _, x, _ = given(layer, (*where[4], channels), seed)
    one = layer.forward((), f.forward((), x, xp=NUMPY)[0], xp=NUMPY)[0]
    equal(one, f.forward((), layer.forward((), x, xp=NUMPY)[0], xp=NUMPY)[0])


@relation(shape=st.tuples(SMALL, SMALL, SMALL), seed=SEEDS)
def test_the_mean_of_an_image_is_a_window_as_large_as_it(shape, seed):
    layer = nn.GlobalAvgPool2D()
    _, x, dy = given(layer, shape, seed)
    y, dx, _ = run(layer, (), x, dy)
    z, dz, _ = run(AvgPool2D(shape[:2]), (), x, dy[:, None, None, :])
    close((y, dx), (z[:, 0, 0], dz), 1e-13)
