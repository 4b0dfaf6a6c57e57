"""Values: what every backend computes in each dtype, against NumPy's float64 and against the reference of the record."""

from __future__ import annotations

import numpy as np
import pytest
from operations.table import ACTIVATIONS, FUNCTIONS, INITIALIZERS, LAYERS, LOSSES, METRICS, over
from operations.ways import NUMPY, put, samples, split

from bpxp.core.random import INIT, HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.nn import INITIALIZERS as BY_NAME

LIMITS = {"float64": 1e-12, "float32": 1e-5}


def close(found, expected, limit, where):
    """Compare trees of arrays: the error relative to the largest entry of each."""
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape, where
        error = np.max(np.abs(a - b), initial=0.0) / max(float(np.max(np.abs(b), initial=0.0)), 1e-3)
        assert error <= limit, f"{where}: {error:.1e}"


def bring(backend, on, dtype):
    """Bring host arrays to the backend: floating ones in the dtype, read-only where the library can say so."""
    return lambda a: on(backend, a, dtype if np.asarray(a).dtype.kind == "f" else None)


@pytest.mark.parametrize("dtype", LIMITS)
@over(LAYERS, ACTIVATIONS)
def test_layers_agree_with_numpy(record, dtype, backend, on):
    """Compiled, as in a step: values, gradients, and the running statistics after it."""
    for layer, params, x, dy, context in samples(record):
        arrays, static = split(context)
        training = bool(context.get("training") or context.get("key"))

        def step(_, data, layer=layer, static=static, training=training, xp=backend.xp):
            params, x, dy, arrays = data
            y, cache = layer.forward(params, x, xp=xp, **arrays, **static)
            dx, grads = layer.backward(params, cache, dy, xp=xp)
            return y, dx, grads, advanced(layer, arrays, cache, xp, training)

        y, cache = layer.forward(params, x, xp=NUMPY, **context)
        dx, grads = layer.backward(params, cache, dy, xp=NUMPY)
        expected = y, dx, grads, advanced(layer, arrays, cache, NUMPY, training)
        own = bring(backend, on, dtype)
        given = (*put((params, x, dy), own), {name: put(a, own) for name, a in arrays.items()})
        found = backend.compile(step)((), given)
        assert all(a.dtype == getattr(backend.xp, dtype) for a in leaves(found))
        close(tree_map(backend.to_numpy, found), expected, LIMITS[dtype], f"{record}, {static}")


def advanced(layer, arrays, cache, xp, training):
    """The running statistics after a step, from a copy: `advance` owns what it gets."""
    if "stats" not in arrays or not training:
        return ()
    return layer.advance(tree_map(lambda a: xp.asarray(a, copy=True), arrays["stats"]), cache, xp=xp)


@pytest.mark.parametrize("dtype", LIMITS)
@over(LOSSES)
def test_losses_agree_with_numpy(record, dtype, backend, on):
    z, y = record.draw(np.random.default_rng(1), 5, 3)
    z = z.astype(dtype).astype(float)
    own = bring(backend, on, dtype)
    y = y if y.dtype.kind == "i" else y.astype(dtype).astype(float)
    for weight in (None, np.array([1.0, 0.0, 2.5, 0.25, 1.0])):
        value, delta = record.thing(z, y, weight, xp=NUMPY)
        expected = value, delta, record.thing.activate(z, xp=NUMPY)
        logits, targets, w = put((z, y, weight), own)
        found = (*record.thing(logits, targets, w, xp=backend.xp), record.thing.activate(logits, xp=backend.xp))
        assert all(a.dtype == getattr(backend.xp, dtype) for a in found)
        assert found[0].shape == (1,)
        close(tuple(map(backend.to_numpy, found)), expected, LIMITS[dtype], str(record))


@pytest.mark.parametrize("dtype", LIMITS)
@over([record for record in (*FUNCTIONS, *METRICS) if record.call])
def test_functions_agree_with_their_reference(record, dtype, backend, on):
    arrays = record.draw(np.random.default_rng(2))
    arrays = tuple(a.astype(dtype) if a.dtype.kind == "f" else a for a in arrays)
    expected = record.reference(*(a.astype(float) if a.dtype.kind == "f" else a for a in arrays))
    found = record.call(backend.xp, *(on(backend, a) for a in arrays))
    found, expected = as_tuple(found), as_tuple(expected)
    assert {str(a.dtype).rpartition(".")[2] for a in found} <= {dtype, "int32", "int64"}
    host = tuple(a if isinstance(a, np.ndarray) else backend.to_numpy(a) for a in found)
    close(host, tuple(np.asarray(a, dtype=float) for a in expected), LIMITS[dtype], str(record))


def as_tuple(a):
    return a if isinstance(a, tuple) else tuple(a) if isinstance(a, list) else (a,)


# --- initialisers draw on the host


@over(INITIALIZERS)
def test_initialisers_have_the_deviation_of_their_reference(record):
    for shape in ((400, 150), (100, 600)):
        fan_in, fan_out = shape
        rng = HostRandom(0, (INIT, 0))
        W = record.thing.draw(rng.at(0), shape, fan_in=fan_in, fan_out=fan_out)
        b = record.thing.bias(rng.at(1), (50_000,))
        std = record.std(fan_in, fan_out)
        assert W.dtype == b.dtype == np.float64
        assert W.shape == shape
        # 60,000 numbers: the mean is known to 1/245 of the deviation, the deviation to 0.3 %
        assert abs(W.mean()) <= 5 * std / np.sqrt(W.size)
        np.testing.assert_allclose(W.std(), std, rtol=0.015)
        np.testing.assert_allclose(b.std(), record.bias_std, rtol=0.02)
        if record.bounded:
            limit = np.sqrt(3.0) * std
            assert limit * 0.999 < np.max(np.abs(W)) <= limit
        np.testing.assert_array_equal(W, record.thing.draw(rng.at(0), shape, fan_in=fan_in, fan_out=fan_out))
        if std:
            assert not np.array_equal(W, record.thing.draw(rng.at(2), shape, fan_in=fan_in, fan_out=fan_out))


def test_short_names_mean_what_they_say():
    found = {name: type(thing).__name__ for name, thing in BY_NAME.items()}
    assert found["he"] == "HeNormal"
    assert found["glorot"] == found["xavier"] == "GlorotUniform"
    assert found["lecun"] == "LecunNormal"
