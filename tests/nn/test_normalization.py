"""Batch and layer normalisation: gradients, running statistics, absent samples, and evaluation that knows no batch."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.errors import InvalidTypeError, InvalidValueError, ParameterMemoryError
from bpxp.nn import BatchNorm, LayerNorm, NormParams, RunningStats

NUMPY = bpxp.backends.get_backend("numpy")
XP = NUMPY.xp
SHAPES = [(7, 3), (4, 5, 3), (3, 4, 5, 2), (3, 2, 2, 1)]


def drawn(shape, rng):
    """Parameters, statistics, x and dy, all away from their first values."""
    c = shape[-1]
    params = NormParams(rng.uniform(0.5, 2.0, c), rng.standard_normal(c))
    stats = RunningStats(rng.standard_normal(c), rng.uniform(0.5, 2.0, c))
    return params, stats, 3.0 * rng.standard_normal(shape) + 1.0, rng.standard_normal(shape)


def present_of(shape):
    """The last sample only fills up the batch."""
    return np.array([1.0] * (shape[0] - 1) + [0.0])


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients(shape, rng, check_layer):
    params, stats, x, _ = drawn(shape, rng)
    check_layer(BatchNorm(), params, x, rng, training=True, stats=stats)
    check_layer(BatchNorm(epsilon=0.3), params, x, rng, training=True, present=present_of(shape))
    check_layer(BatchNorm(), params, x, rng, training=False, stats=stats, present=present_of(shape))
    check_layer(LayerNorm(epsilon=0.3), params, x, rng)


@pytest.mark.parametrize(("layer", "context"), [(BatchNorm(), {"training": True}), (LayerNorm(), {})])
def test_dx_by_complex_step(layer, context, rng):
    assert layer.analytic
    params, _, x, dy = drawn((5, 4, 3), rng)
    _, cache = layer.forward(params, x, xp=XP, **context)
    dx, _ = layer.backward(params, cache, dy, xp=XP)
    for place in np.ndindex(*x.shape):
        moved = x.astype(complex)
        moved[place] += 1e-30j
        y, _ = layer.forward(params, moved, xp=XP, **context)
        np.testing.assert_allclose(dx[place], np.sum(dy * y.imag) / 1e-30, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["training", "absent", "evaluation", "layer"])
def test_every_backend_agrees_with_numpy(mode, dtype, backend, rng, agrees_with_numpy):
    shape = (5, 3, 4, 2)
    params, stats, x, dy = drawn(shape, rng)
    context = {
        "training": {"training": True, "stats": stats},
        "absent": {"training": True, "stats": stats, "present": present_of(shape)},
        "evaluation": {"training": False, "stats": stats},
        "layer": {},
    }[mode]
    agrees_with_numpy(backend, LayerNorm() if mode == "layer" else BatchNorm(), params, x, dy, dtype, **context)


@pytest.mark.parametrize("shape", SHAPES)
def test_output_is_normalised(shape, rng):
    params, _, x, _ = drawn(shape, rng)
    axes = tuple(range(len(shape) - 1))
    y, _ = BatchNorm(epsilon=1e-12).forward(params, x, xp=XP, training=True)
    np.testing.assert_allclose(y.mean(axis=axes), params.beta, atol=1e-9)
    np.testing.assert_allclose(y.std(axis=axes), params.gamma, rtol=1e-9)
    if shape[-1] > 1:
        ones = NormParams(np.ones(shape[-1]), np.zeros(shape[-1]))
        y, _ = LayerNorm(epsilon=1e-12).forward(ones, x, xp=XP)
        np.testing.assert_allclose(y.mean(axis=-1), 0.0, atol=1e-9)
        np.testing.assert_allclose(y.std(axis=-1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
def test_evaluation_normalises_by_the_running_statistics(shape, rng):
    params, stats, x, _ = drawn(shape, rng)
    y, _ = BatchNorm(epsilon=0.3).forward(params, x, xp=XP, stats=stats)
    expected = params.gamma * (x - stats.mean) / np.sqrt(stats.var + 0.3) + params.beta
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-13)


def advance(backend, on, layer, params, stats, x, dtype="float64", **context):
    """One training step's statistics on a backend, from donated stats."""
    xp = backend.xp
    own = tree_map(lambda a: backend.asarray(np.array(a, dtype)), stats)
    given = tree_map(lambda a: on(backend, a, dtype), (params, x))
    present = on(backend, context["present"], dtype) if context else None

    def step(stats, data):
        params, x, present = data
        _, cache = layer.forward(params, x, xp=xp, training=True, stats=stats, present=present)
        return layer.advance(stats, cache, xp=xp)

    return tree_map(backend.to_numpy, backend.compile(step)(own, (*given, present)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics(dtype, backend, on, rng):
    shape = (4, 3, 2, 3)
    params, stats, x, _ = drawn(shape, rng)
    rtol = 1e-12 if dtype == "float64" else 1e-5
    found = advance(backend, on, BatchNorm(momentum=0.3), params, stats, x, dtype)
    assert all(a.dtype == dtype for a in found)
    values = x.reshape(-1, 3)
    np.testing.assert_allclose(found.mean, 0.7 * stats.mean + 0.3 * values.mean(axis=0), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.var, 0.7 * stats.var + 0.3 * values.var(axis=0, ddof=1), rtol=rtol)
    # with an absent sample: those of the batch without it
    found = advance(backend, on, BatchNorm(momentum=0.3), params, stats, x, dtype, present=present_of(shape))
    assert all(a.dtype == dtype for a in found)
    values = x[:-1].reshape(-1, 3)
    np.testing.assert_allclose(found.mean, 0.7 * stats.mean + 0.3 * values.mean(axis=0), rtol=rtol, atol=rtol)
    np.testing.assert_allclose(found.var, 0.7 * stats.var + 0.3 * values.var(axis=0, ddof=1), rtol=rtol)


def test_two_values_are_the_fewest_that_teach_something(backend, on, rng):
    params, stats, x, _ = drawn((3, 2), rng)
    found = advance(backend, on, BatchNorm(momentum=0.3), params, stats, x, present=present_of((3, 2)))
    np.testing.assert_allclose(found.mean, 0.7 * stats.mean + 0.3 * x[:2].mean(axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.var, 0.7 * stats.var + 0.3 * x[:2].var(axis=0, ddof=1), rtol=1e-12)


def test_first_statistics():
    layer = BatchNorm()
    params, shape = layer.init(HostRandom(0), (4, 4, 3))
    assert shape == (4, 4, 3)
    stats = layer.init_stats(params)
    for found, expected in zip((*params, *stats), (1.0, 0.0, 0.0, 1.0), strict=True):
        np.testing.assert_array_equal(found, np.full(3, expected))
    assert len({id(a) for a in (*params, *stats)}) == 4
    drawn = NormParams(np.array([0.0, 2.0, -3.0]), np.ones(3))
    for found, expected in zip(layer.init_stats(drawn), (0.0, 1.0), strict=True):
        np.testing.assert_array_equal(found, np.full(3, expected))


@pytest.mark.parametrize("shape", SHAPES)
def test_absent_samples_change_nothing(shape, rng):
    params, stats, x, dy = drawn(shape, rng)
    layer, present = BatchNorm(), present_of(shape)
    dy[-1] = 0.0  # the loss gives them the weight 0
    small, kept = layer.forward(params, x[:-1], xp=XP, training=True)
    dx, grads = layer.backward(params, kept, dy[:-1], xp=XP)
    for fill in (x[-1], x[0], 100.0):
        x[-1] = fill
        y, cache = layer.forward(params, x, xp=XP, training=True, present=present)
        np.testing.assert_allclose(y[:-1], small, rtol=1e-12, atol=1e-13)
        assert cache.batch[3].shape == (1,)
        own_dx, own_grads = layer.backward(params, cache, dy, xp=XP)
        np.testing.assert_allclose(own_dx[:-1], dx, rtol=1e-11, atol=1e-13)
        np.testing.assert_array_equal(own_dx[-1], 0.0)
        for a, b in zip(own_grads, grads, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)
    _, cache = layer.forward(params, x, xp=XP, stats=stats)
    assert layer.advance(stats, cache, xp=XP) is stats  # an evaluation teaches nothing


def test_a_single_present_value_teaches_nothing(backend, on, rng, run_layer):
    params, stats, x, dy = drawn((3, 2), rng)
    dy[1:] = 0.0
    present = np.array([1.0, 0.0, 0.0])
    y, dx, *_ = run_layer(backend, BatchNorm(), params, x, dy, training=True, present=present)
    np.testing.assert_allclose(y[0], params.beta, rtol=1e-12)
    np.testing.assert_allclose(dx, 0.0, atol=1e-9)
    found = advance(backend, on, BatchNorm(), params, stats, x, present=present)
    for a, b in zip(found, stats, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_batch_of_one_value_is_refused_by_name():
    params, _ = BatchNorm().init(HostRandom(0), (3,))
    with pytest.raises(InvalidValueError, match=r"BatchNorm: one value per channel.*shape \(1, 3\)"):
        BatchNorm().forward(params, np.ones((1, 3)), xp=XP, training=True)
    with pytest.raises(InvalidValueError, match="BatchNorm"):
        BatchNorm().forward(params, np.ones((1, 1, 1, 3)), xp=XP, training=True)
    y, _ = BatchNorm().forward(params, np.arange(6.0).reshape(1, 2, 1, 3), xp=XP, training=True)
    assert np.all(np.isfinite(y))
    BatchNorm().forward(params, np.ones((1, 3)), xp=XP, stats=BatchNorm().init_stats(params))
    with pytest.raises(InvalidValueError, match="running statistics"):
        BatchNorm().forward(params, np.ones((2, 3)), xp=XP, training=False)


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm()])
def test_evaluation_does_not_depend_on_the_batch(layer, backend, on, rng):
    params, stats, x, _ = drawn((6, 2, 3), rng)
    own, stats = tree_map(lambda a: on(backend, a), params), tree_map(lambda a: on(backend, a), stats)
    context = {"training": False, "stats": stats} if isinstance(layer, BatchNorm) else {}

    run = backend.compile(lambda _, data: layer.forward(own, data, xp=backend.xp, **context)[0])

    def y(x):
        return backend.to_numpy(run((), on(backend, x)))

    whole = y(x)
    np.testing.assert_array_equal(y(x), whole)
    for n in range(6):
        np.testing.assert_allclose(y(x[n : n + 1])[0], whole[n], rtol=1e-14, atol=1e-15)


def test_variance_beside_a_large_mean(backend, run_layer, rng):
    noise = rng.standard_normal((64, 4, 4, 2))
    x = (1e3 + noise).astype(np.float32)
    params = NormParams(np.ones(2), np.zeros(2))
    expected, *_ = run_layer(NUMPY, BatchNorm(), params, x, noise, "float64", training=True)
    found, *_ = run_layer(backend, BatchNorm(), params, x, noise, "float32", training=True)
    # An error of one rounding of the mean, 6e-5, against a deviation of 1.
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_gradients_share_memory_with_nothing(rng):
    for layer, context in ((BatchNorm(), {"training": True}), (LayerNorm(), {})):
        params, _, x, dy = drawn((5, 3), rng)
        y, cache = layer.forward(params, x, xp=XP, **context)
        dx, grads = layer.backward(params, cache, dy, xp=XP)
        kept = [a for a in leaves(cache) if isinstance(a, np.ndarray)]
        for i, a in enumerate([dx, *grads]):
            assert not any(np.shares_memory(a, b) for b in [*kept, x, y, dy, *params, *[dx, *grads][:i]])


def test_nonsense_is_refused():
    for make, where in (
        (lambda v: BatchNorm(momentum=v), r"^BatchNorm\(momentum=…\): "),
        (lambda v: BatchNorm(epsilon=v), r"^BatchNorm\(epsilon=…\): "),
        (lambda v: LayerNorm(epsilon=v), r"^LayerNorm\(epsilon=…\): "),
    ):
        for value in (0.0, -1.0, np.nan):
            with pytest.raises(InvalidValueError, match=where):
                make(value)
        with pytest.raises(InvalidTypeError, match=where):
            make("0.1")
    with pytest.raises(InvalidValueError, match="momentum"):
        BatchNorm(momentum=1.1)


@pytest.mark.parametrize("layer", [BatchNorm(), LayerNorm()])
def test_samples_that_cannot_be_normalised(layer, room_for):
    where = type(layer).__name__
    with pytest.raises(InvalidValueError, match=f"^{where}: a sample needs a last axis"):
        layer.init(HostRandom(0), ())
    room_for(6)
    layer.init(HostRandom(0), (5, 3))
    with pytest.raises(ParameterMemoryError, match=f"^{where}: needs"):
        layer.init(HostRandom(0), (5, 4))
