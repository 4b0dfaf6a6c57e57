"""Convolution: against slow loops, against its own transpose, and against the dense layer that it is."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest

import bpxp
import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.errors import InvalidTypeError, InvalidValueError, ParameterMemoryError
from bpxp.nn import Conv2D, ConvParams, ConvWeights, Dense, DenseParams, HeNormal, Normal, Tanh
from bpxp.nn.windows import grid
from bpxp.saving import registry

XP = bpxp.backends.get_backend("numpy").xp


def loops(layer, W, b, x, delta):
    """z, dW, db, dx of the layer as its equations have them: one tap at a time, with the padding written out."""
    rows, columns = layer.grid(x.shape[1:])
    ends = ((0, 0), (rows.before, rows.after), (columns.before, columns.after), (0, 0))
    padded, dpadded = np.pad(x, ends), np.zeros(np.pad(x, ends).shape)
    z, dW = np.zeros((len(x), rows.out, columns.out, W.shape[3])) + b, np.zeros(W.shape)
    c, f = W.shape[2], W.shape[3] // layer.groups
    for g, y, q, r, t in itertools.product(
        range(layer.groups), range(rows.out), range(columns.out), range(W.shape[0]), range(W.shape[1])
    ):
        at = (
            slice(None),
            y * rows.stride + r * rows.dilation,
            q * columns.stride + t * columns.dilation,
            slice(g * c, (g + 1) * c),
        )
        to = slice(g * f, (g + 1) * f)
        z[:, y, q, to] += padded[at] @ W[r, t, :, to]
        dW[r, t, :, to] += padded[at].T @ delta[:, y, q, to]
        dpadded[at] += delta[:, y, q, to] @ W[r, t, :, to].T
    dx = dpadded[:, rows.before : rows.before + rows.n, columns.before : columns.before + columns.n]
    return z, dW, delta.sum((0, 1, 2)), dx


def example(layer, shape, batch, rng):
    """x, delta, W and b for the layer, float64."""
    params, out = layer.init(HostRandom(0), shape)
    W, b = rng.standard_normal(params.W.shape), rng.standard_normal(layer.filters)
    return rng.standard_normal((batch, *shape)), rng.standard_normal((batch, *out)), W, b


def run(layer, params, x, delta, xp):
    z, cache = layer.forward(params, x, xp=xp)
    return z, *layer.backward(params, cache, delta, xp=xp)


def compiled(backend, function):
    """The function as the backend would run it within a step: traced on JAX, as it is elsewhere."""
    if not backend.name.startswith("jax"):
        return function
    import jax

    return jax.jit(function)


def close(own, expected, rtol=1e-12):
    np.testing.assert_allclose(own, expected, rtol=rtol, atol=rtol * max(1.0, np.max(np.abs(expected))))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
def test_grid_of_kernels_strides_paddings_and_dilations(kernel, rng):
    """The complex step on every combination: z is linear in x, and in W and b, so it is exact to rounding."""
    seen = 0
    for stride, padding, dilation, batch, channels in itertools.product((1, 2, 3), (0, 1, 2), (1, 2), (1, 3), (1, 5)):
        layer, shape = Conv2D(2, kernel, stride=stride, padding=padding, dilation=dilation), (7, 6, channels)
        reach = dilation * (kernel - 1) + 1
        if reach > 6 + 2 * padding:
            with pytest.raises(InvalidValueError, match="larger than the padded input"):
                layer.init(HostRandom(0), shape)
            continue
        x, delta, W, b = example(layer, shape, batch, rng)
        z, dx, grads = run(layer, ConvParams(W, b), x, delta, XP)
        assert z.shape[1:3] == tuple((n + 2 * padding - reach) // stride + 1 for n in (7, 6))
        towards = [rng.standard_normal(a.shape) for a in (x, W, b)]
        moved = [a + 1e-30j * d for a, d in zip((x, W, b), towards, strict=True)]
        jv = layer.forward(ConvParams(*moved[1:]), moved[0], xp=XP)[0].imag / 1e-30
        own = sum(np.sum(g * d) for g, d in zip((dx, *grads), towards, strict=True))
        np.testing.assert_allclose(own, np.sum(jv * delta), rtol=1e-12, atol=1e-11)
        # the adjoint identity for x alone: 〈conv v, delta〉 = 〈v, dx〉
        linear = layer.forward(ConvParams(W, 0.0 * b), towards[0], xp=XP)[0]
        np.testing.assert_allclose(np.sum(linear * delta), np.sum(towards[0] * dx), rtol=1e-12, atol=1e-11)
        np.testing.assert_array_equal(layer.gradients(ConvParams(W, b), x, delta, xp=XP).W, grads.W)
        seen += 1
    assert seen >= 40


LAYERS = {
    "lenet": (Conv2D(3, 5), (7, 9, 1)),
    "same": (Conv2D(4, 3, padding="same"), (5, 7, 5)),
    "even kernel, same": (Conv2D(4, 4, padding="same", stride=2), (6, 7, 5)),
    "everything": (
        Conv2D(4, (3, 2), stride=(2, 3), padding=((0, 2), (3, 1)), dilation=(2, 1), groups=2),
        (9, 7, 6),
    ),
    "stride beyond the kernel": (Conv2D(3, 2, stride=3, padding=1), (8, 7, 5)),
    "colours": (Conv2D(2, 3, stride=2, padding=(1, 0), dilation=2), (8, 9, 3)),
    "depthwise": (Conv2D(10, 3, padding="same", groups=5), (5, 4, 5)),
    "groups": (Conv2D(4, 3, padding="same", groups=2), (5, 4, 6)),
    "pointwise": (Conv2D(3, 1), (4, 5, 6)),
    "pointwise groups": (Conv2D(4, 1, groups=2), (4, 5, 6)),
    "pointwise strided": (Conv2D(3, 1, stride=2), (4, 5, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("batch", [1, 3])
def test_slow_loops(name, batch, rng):
    layer, shape = LAYERS[name]
    x, delta, W, b = example(layer, shape, batch, rng)
    z, dx, grads = run(layer, ConvParams(W, b), x, delta, XP)
    for own, expected in zip((z, *grads, dx), loops(layer, W, b, x, delta), strict=True):
        close(own, expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["lenet", "everything", "depthwise", "pointwise", "even kernel, same"])
def test_every_backend(name, dtype, backend, on, rng):
    if backend.name.startswith("jax") and (dtype == "float32") != (name == "everything"):
        pytest.skip("each compilation takes seconds: one dtype for each layer")
    layer, shape = LAYERS[name]
    x, delta, W, b = (on(backend, a, dtype) for a in example(layer, shape, 3, rng))
    own = compiled(backend, lambda *args: run(layer, ConvParams(*args[:2]), *args[2:], backend.xp))(W, b, x, delta)
    expected = loops(layer, *(backend.to_numpy(a).astype(float) for a in (W, b, x, delta)))
    z, dx, grads = own
    for mine, theirs in zip((z, *grads, dx), expected, strict=True):
        assert mine.dtype == getattr(backend.xp, dtype)
        close(backend.to_numpy(mine), theirs, 1e-12 if dtype == "float64" else 1e-5)


def test_without_biases(backend, on, rng):
    layer = Conv2D(4, 3, padding="same", bias=False)
    params, _ = layer.init(HostRandom(0), (4, 5, 5))
    assert isinstance(params, ConvWeights)
    x, delta, W, b = example(layer, (4, 5, 5), 2, rng)
    own = compiled(backend, lambda W, x, delta: run(layer, ConvWeights(W), x, delta, backend.xp))
    z, dx, grads = own(*(on(backend, a) for a in (W, x, delta)))
    assert grads._fields == ("W",)
    for mine, theirs in zip(
        (z, grads.W, dx), np.array(loops(layer, W, 0.0 * b, x, delta), object)[[0, 1, 3]], strict=True
    ):
        close(backend.to_numpy(mine), theirs)


def test_pointwise_is_dense_per_pixel(rng):
    layer = Conv2D(3, 1)
    x, delta, W, b = example(layer, (4, 5, 6), 2, rng)
    z, dx, grads = run(layer, ConvParams(W, b), x, delta, XP)
    flat, dflat = x.reshape(-1, 6), delta.reshape(-1, 3)
    own = run(Dense(3), DenseParams(W[0, 0], b), flat, dflat, XP)
    close(z.reshape(-1, 3), own[0])
    close(dx.reshape(-1, 6), own[1])
    close(grads.W[0, 0], own[2].W)
    close(grads.b, own[2].b)


def test_full_size_is_dense(rng):
    layer = Conv2D(3, (4, 5))
    x, delta, W, b = example(layer, (4, 5, 6), 2, rng)
    z, dx, grads = run(layer, ConvParams(W, b), x, delta, XP)
    dense = run(Dense(3), DenseParams(W.reshape(-1, 3), b), x.reshape(2, -1), delta.reshape(2, 3), XP)
    close(z.reshape(2, 3), dense[0])
    close(dx.reshape(2, -1), dense[1])
    close(grads.W.reshape(-1, 3), dense[2].W)


@pytest.mark.parametrize("name", ["lenet", "same", "everything"])
def test_blocks_of_the_batch_change_nothing(name, rng):
    layer, shape = LAYERS[name]
    x, delta, W, b = example(layer, shape, 7, rng)
    whole = run(layer, ConvParams(W, b), x, delta, SimpleNamespace(**{**vars(XP), "workspace": 1 << 30}))
    for samples in (0, 1, 3, 4):
        taps = layer.kernel[0] * layer.kernel[1] * shape[2]
        room = samples * 8 * taps * delta.shape[1] * delta.shape[2]
        z, dx, grads = run(layer, ConvParams(W, b), x, delta, SimpleNamespace(**{**vars(XP), "workspace": room}))
        for own, expected in zip((z, dx, *grads), (*whole[:2], *whole[2]), strict=True):
            close(own, expected)


def test_same_padding_keeps_the_size():
    for n, kernel, stride, dilation in itertools.product((5, 6, 7, 12), (1, 2, 3, 5), (1, 2, 3), (1, 2)):
        rows, columns = grid((n, n + 1), (kernel, kernel), (stride, stride), (dilation, dilation), "same")
        assert (rows.out, columns.out) == (-(-n // stride), -(-(n + 1) // stride))
        assert 0 <= rows.after - rows.before <= 1


def test_init_draws_with_the_fans_of_the_kernel():
    layer = Conv2D(6, (3, 2), groups=2, initializer="he")
    params, out = layer.init(HostRandom(3), (7, 9, 4))
    assert out == (5, 8, 6)
    expected = HeNormal().draw(HostRandom(3).at(0), (3, 2, 2, 6), fan_in=12, fan_out=18)
    np.testing.assert_array_equal(params.W, expected)
    np.testing.assert_array_equal(params.b, np.zeros(6))
    for initializer in ("glorot_uniform", None):
        params, _ = Conv2D(6, (3, 2), groups=2, initializer=initializer).init(HostRandom(3), (7, 9, 4))
        assert 0.9 < np.max(np.abs(params.W)) / np.sqrt(6.0 / (12 + 18)) <= 1.0
    params, _ = Conv2D(6, (3, 2), initializer="normal").init(HostRandom(3), (7, 9, 4))
    np.testing.assert_array_equal(params.b, Normal().bias(HostRandom(3).at(1), (6,)))
    assert params.b.any()


def test_a_kernel_that_is_too_large(room_for):
    layer = Conv2D(6, (3, 2), groups=2)
    room_for(3 * 2 * 2 * 6)
    layer.init(HostRandom(3), (7, 9, 4))
    room_for(3 * 2 * 2 * 6 - 1)
    with pytest.raises(ParameterMemoryError, match=r"^Conv2D\(6, \(3, 2\)\): "):
        layer.init(HostRandom(3), (7, 9, 4))


def test_backward_writes_into_nothing_and_results_are_new(rng, readonly):
    for name in ("lenet", "same", "pointwise", "everything"):
        layer, shape = LAYERS[name]
        x, delta, W, b = (readonly(a) for a in example(layer, shape, 3, rng))
        params = ConvParams(W, b)
        z, cache = layer.forward(params, x, xp=XP)
        assert cache is x  # all that is kept
        dx, grads = layer.backward(params, cache, delta, xp=XP)
        again, same = layer.backward(params, cache, delta, xp=XP)
        new = [z, dx, *grads]
        for own, other in zip((dx, *grads), (again, *same), strict=True):
            np.testing.assert_array_equal(own, other)
        for i, own in enumerate(new):
            assert not any(np.shares_memory(own, other) for other in [x, delta, W, b, *new[:i]])


@pytest.mark.parametrize(
    ("arguments", "shape", "equation"),
    [
        (
            dict(kernel=5),
            (4, 9, 1),
            r"height out = .* = floor\(\(4 \+ 0 \+ 0 - 1·\(5 - 1\) - 1\)/1\) \+ 1 = 0.*1 more pixels",
        ),
        (
            dict(kernel=3, dilation=4, padding=1),
            (8, 6, 1),
            r"width out = .*floor\(\(6 \+ 1 \+ 1 - 4·\(3 - 1\) - 1\)/1\) \+ 1 = 0",
        ),
        (dict(kernel=3, groups=2), (8, 8, 3), r"channels mod groups = 3 mod 2 = 1.*groups=1"),
        (dict(kernel=3), (64,), r"got shape \(64,\), expected \(height, width, channels\).*Reshape"),
    ],
)
def test_what_does_not_fit_is_the_equation_that_fails(arguments, shape, equation):
    with pytest.raises(InvalidValueError, match=equation):
        Conv2D(4, **arguments).init(HostRandom(0), shape)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (dict(filters=0, kernel=3), InvalidValueError, r"^Conv2D\(filters=…\): "),
        (dict(filters=4, kernel=3, groups=0), InvalidValueError, r"^Conv2D\(groups=…\): "),
        (dict(filters=4, kernel=0), InvalidValueError, r"^Conv2D\(kernel=…\): "),
        (dict(filters=4, kernel=(3, 3, 3)), InvalidValueError, r"^Conv2D\(kernel=…\): "),
        (dict(filters=4, kernel=3, stride=1.5), InvalidTypeError, r"^Conv2D\(stride=…\): "),
        (dict(filters=4, kernel=3, dilation=0), InvalidValueError, r"^Conv2D\(dilation=…\): "),
        (
            dict(filters=4, kernel=3, padding="full"),
            InvalidValueError,
            r"^Conv2D\(padding=…\): not a padding: got 'full'",
        ),
        (dict(filters=4, kernel=3, padding=-1), InvalidValueError, r"^Conv2D\(padding=…\): "),
        (dict(filters=4, kernel=3, padding=(1, 2, 3)), InvalidTypeError, r"^Conv2D\(padding=…\): "),
        (dict(filters=4, kernel=3, padding=True), InvalidTypeError, r"^Conv2D\(padding=…\): "),
        (
            dict(filters=4, kernel=3, groups=3),
            InvalidValueError,
            r"filters mod groups = 4 mod 3 = 1.*filters=6, or groups=1",
        ),
        (dict(filters=4, kernel=3, activation="rulu"), InvalidValueError, r"relu"),
    ],
)
def test_hyper_parameters_are_checked_where_they_are_written(arguments, error, match):
    with pytest.raises(error, match=match):
        Conv2D(**arguments)


def test_what_is_written_is_kept_in_one_form():
    layer = Conv2D(np.int64(4), np.int64(3), groups=np.int64(2), activation="tanh", initializer="normal")
    assert layer == Conv2D(4, (3, 3), (1, 1), "valid", (1, 1), 2, activation=Tanh(), initializer=Normal())
    assert type(layer.filters) is int
    assert type(layer.groups) is int
    assert isinstance(layer.activation, Tanh)
    assert isinstance(layer.initializer, Normal)


def test_within_a_network(tmp_path, rng):
    layers = [
        Conv2D(3, 3, padding=((1, 0), (2, 1)), activation="tanh"),
        bpxp.nn.AvgPool2D(2),
        Conv2D(2, 2, stride=2, activation="tanh", bias=False),
        bpxp.nn.Flatten(),
        3,
    ]
    net = bpxp.Network(layers, input_shape=(8, 7, 2), backend="numpy", seed=1)
    x, y = rng.standard_normal((4, 8, 7, 2)), [0, 1, 2, 1]
    report = bpxp.verify.check_gradients(net, x, y)
    assert report.worst < 1e-12
    assert {check.method.split(", ")[-1] for check in report.checks} == {"complex step"}
    net.save(tmp_path / "net.bpxp")
    loaded = bpxp.Network.load(tmp_path / "net.bpxp", backend="numpy")
    assert loaded.layers == net.layers
    np.testing.assert_array_equal(loaded.logits(x), net.logits(x))
    assert registry.build(registry.describe(layers[0])) == layers[0]
