"""Zeros, subnormals, ±1e4 and the largest numbers: values and slopes against mpmath, and a warning is an error."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from mpmath import mp
from operations.table import ACTIVATIONS, LOSSES, RECORDS, over

SIZE = 271  # of every array, so that JAX compiles an operation once and not once for each test
BATCH = 240
COUNTED = {"values": 0, "error": 0.0}


def compare(found, expected, eps, rtol, atol):
    """Compare numbers, within so many eps of their size or of 1; count them, and note the worst."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(found, expected, rtol=rtol * eps, atol=atol * eps)
    COUNTED["values"] += expected.size
    error = np.abs(found.astype(float) - expected) / np.maximum(np.abs(expected.astype(float)), 1.0)
    COUNTED["error"] = max(COUNTED["error"], float(np.max(error)) / eps)


def host(numbers, dtype):
    """Return mpmath's numbers rounded to the dtype once; what is too large is infinite there."""
    with np.errstate(over="ignore"):
        return np.array([float(a) for a in numbers]).astype(dtype)


def sizes(dtype, top=1.0):
    """Return numbers of all sizes with both signs, the least and the largest among them."""
    info = np.finfo(dtype)
    few = [0.0, info.smallest_subnormal, info.tiny / 2, info.tiny, 1e-30, 1e-8, 1e-4, 0.5, 1.0, 3.0, 8.0, 17.0, 40.0]
    few += [88.0, 104.0, 709.0, 746.0, 1e4, np.sqrt(info.max), info.max / 2, info.max * top]
    z = np.asarray([a for a in few if a <= info.max * top], dtype)
    z = np.concatenate([-z[::-1], z])
    rest = np.linspace(-12.0, 12.0, SIZE - len(z), dtype=dtype)
    return np.concatenate([z, rest])


@pytest.fixture(scope="module")
def flushed(backend):
    """Whether the library takes subnormal numbers of a dtype for 0: then it is given 0 in the first place.

    XLA does, and CuPy's kernels of float32.
    """

    def flushes(dtype):
        tiny = backend.asarray(np.full(SIZE, np.finfo(dtype).smallest_subnormal, dtype))
        return bool(np.all(backend.to_numpy(tiny * 1.0) == 0.0))

    return {dtype: flushes(dtype) for dtype in ("float32", "float64")}


def without_subnormals(z, flushed):
    return np.where(np.abs(z) < np.finfo(z.dtype).tiny, 0.0 * z, z) if flushed else z


@functools.cache
def of_activation(name, dtype, flushed):
    """Return z, and value and slope of its exact numbers."""
    record = RECORDS[name]
    z = without_subnormals(sizes(dtype, record.top), flushed)
    with mp.workdps(40):
        exactly = [mp.mpf(float(v)) for v in z]
        return z, host(map(record.value, exactly), dtype), host(map(record.slope, exactly), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@over(ACTIVATIONS)
def test_activations_of_every_size(record, dtype, backend, on, flushed):
    z, value, slope = of_activation(record.name, dtype, flushed[dtype])
    a, cache = record.thing.forward((), on(backend, z), xp=backend.xp)
    dz, _ = record.thing.backward((), cache, on(backend, np.ones_like(z)), xp=backend.xp)
    eps = np.finfo(dtype).eps
    compare(backend.to_numpy(a), value, eps, 16, 8)
    compare(backend.to_numpy(dz), slope, eps, 16, 24)


# Of these the tail is a small number of its own, and not what is left of a large one.
TAILS = {"SiLU": 37.0, "Mish": 37.0, "GELU": 37.0, "Softplus": 37.0, "GELU by tanh": 5.0}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", TAILS)
def test_tails_keep_their_relative_accuracy(name, dtype, backend, on):
    z = -np.linspace(1.0, min(TAILS[name], 12.0 if dtype == "float32" else 37.0), SIZE, dtype=dtype)
    a, _ = RECORDS[name].thing.forward((), on(backend, z), xp=backend.xp)
    with mp.workdps(40):
        value = [RECORDS[name].value(mp.mpf(float(v))) for v in z]
        error = [abs(mp.mpf(float(b)) / v - 1) for b, v in zip(backend.to_numpy(a), value, strict=True)]
    # e^-u has the relative error of u times a rounding, e^(-u²/2) that of u²
    assert np.all(host(error, float) < (8.0 + z.astype(float) ** 2) * np.finfo(dtype).eps)


def logits(top, dtype, n_out, rng):
    """Return rows that mix all sizes up to `top`, with both signs, and rows of one size alone."""
    few = [0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).tiny, 1e-8, 0.5, 1.0, 20.0, 40.0, 100.0, 709.0]
    few = [a for a in (*few, 1e4, np.sqrt(np.finfo(dtype).max) / 8, top / 2, top) if a <= top]
    mixed = rng.choice(few, (BATCH - 2 * len(few), n_out)) * rng.choice([-1.0, 1.0], (BATCH - 2 * len(few), n_out))
    alone = np.repeat(few, n_out).reshape(-1, n_out)
    return np.concatenate([mixed, alone, -alone]).astype(dtype)


def targets(loss, z, rng):
    match loss.targets:
        case "classes":
            return rng.integers(0, z.shape[1], len(z)).astype(np.int32)
        case "labels":
            return rng.choice([0.0, 1.0, 0.25, np.nan], z.shape).astype(z.dtype)
        case "counts":
            return rng.poisson(2.0, z.shape).astype(z.dtype)
        case _:
            return rng.choice([0.0, 1.0, -2.5, 1e-8], z.shape).astype(z.dtype)


@functools.cache
def of_loss(name, dtype, flushed):
    """Return z, y, the exact J_n and ∂J_n/∂z of each sample."""
    record, rng = RECORDS[name], np.random.default_rng(3)
    top = float(np.asarray(record.top(np.finfo(dtype)), dtype))
    z = without_subnormals(logits(top, dtype, 3, rng), flushed)
    y = targets(record.thing, z, rng)
    with mp.workdps(40):
        rows = [[mp.mpf(float(v)) for v in row] for row in z]
        wanted = [int(t) if y.ndim == 1 else [mp.mpf(float(v)) for v in t] for t in y]
        J = [record.value(row, t) for row, t in zip(rows, wanted, strict=True)]
        slope = [record.slope(row, t) for row, t in zip(rows, wanted, strict=True)]
        return z, y, J, np.stack([host(row, dtype) for row in slope])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@over(LOSSES)
def test_losses_of_every_size(record, dtype, backend, on, flushed):
    """Each sample alone, by a weight of 1 among weights of 0; and the mean of all."""
    z, y, J, slope = of_loss(record.name, dtype, flushed[dtype])
    xp, eps = backend.xp, np.finfo(dtype).eps
    own, wanted = on(backend, z), on(backend, y)
    value, delta = record.thing(own, wanted, xp=xp)
    with mp.workdps(40):
        mean = float(mp.fsum(J) / len(J))
        largest = float(max(map(abs, J)))
    # a sum of numbers of all sizes: its rounding is one of the largest
    np.testing.assert_allclose(backend.to_numpy(value), [mean], rtol=32 * eps, atol=eps * largest)
    compare(BATCH * backend.to_numpy(delta), slope, eps, 32, 16)
    for n in range(0, BATCH, 1 if backend.name == "numpy" else 24):
        only = np.zeros(BATCH, dtype)
        only[n] = 1.0
        value, delta = record.thing(own, wanted, on(backend, only), xp=xp)
        # a loss near 0 is the rounding of the 1 in log(1 + …)
        compare(backend.to_numpy(value), host([J[n]], dtype), eps, 32, 16)
        compare(backend.to_numpy(delta)[n], slope[n], eps, 32, 16)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [20.0, 40.0, 100.0, 1e3, 1e4, 1e30])
def test_a_confident_mistake_costs_its_logit(size, dtype, backend, on):
    """A logarithm clipped at 1e-7 would say 16.1 from here on, and one at 1e-15 34.5."""
    z = np.array([[size, 0.0, -size, -size]] * 5, dtype)
    rounding = 4 * np.finfo(dtype).eps
    softmax, binary = RECORDS["SoftmaxCrossEntropy"].thing, RECORDS["BinaryCrossEntropy"].thing
    value, _ = softmax(on(backend, z), on(backend, np.ones(5, np.int32)), xp=backend.xp)
    np.testing.assert_allclose(backend.to_numpy(value), [size + np.exp(-size)], rtol=rounding)
    y = np.array([[0.0, 1.0, 0.0, 0.0]] * 5, dtype)
    value, _ = binary(on(backend, z), on(backend, y), xp=backend.xp)
    np.testing.assert_allclose(backend.to_numpy(value), [size + np.log(2.0) + 3 * np.exp(-size)], rtol=rounding)


def test_values_are_counted(promise):
    """Of a run of this whole file, on the backends that were asked for."""
    if COUNTED["values"]:
        what = "Activations and losses of zeros, subnormals, ±1e4 and the largest numbers against mpmath, float32 and float64"
        worst = f"{COUNTED['error']:.1f} eps of the larger of 1 and the value"
        promise(what, f"{COUNTED['values']:,} numbers, worst error {worst}, 0 warnings")
