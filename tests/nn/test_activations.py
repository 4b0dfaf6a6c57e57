"""Each activation against its definition in extended precision, its derivative against differences, and its manners."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bpxp.backends
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import ACTIVATIONS, ELU, GELU, SELU, HardSigmoid, LeakyReLU, ReLU, Sigmoid, SiLU, get_activation

CASES = {
    **ACTIVATIONS,
    "leaky_relu_0": LeakyReLU(0.0),
    "leaky_relu_1": LeakyReLU(1.0),
    "elu_0.3": ELU(0.3),
    "elu_0": ELU(0.0),
    "gelu_tanh": GELU("tanh"),
}
NAMES = list(CASES)

# a and da/dz in NumPy's longest precision; overflow inside of the naive forms has the right limit.
ERFC = np.vectorize(math.erfc, otypes=[np.longdouble])
LAMBDA, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def sigma(z):
    e = np.exp(-np.abs(z))
    return np.where(z > 0, 1, e) / (1 + e)


def plus(z):
    return np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))


def gate(z):
    return np.tanh(plus(z))


def tail(u):
    return ERFC(np.minimum(u, 40.0) / math.sqrt(2.0)) / 2


def density(z):
    return np.exp(-(np.minimum(np.abs(z), 200) ** 2) / 2) / np.sqrt(2 * np.longdouble(np.pi))


def tanh_gate(z):
    z = np.clip(z, -50, 50)
    return sigma(2 * np.sqrt(2 / np.longdouble(np.pi)) * (z + np.longdouble(0.044715) * z**3))


def tanh_gelu_slope(z):
    g, c = tanh_gate(z), np.clip(z, -50, 50)
    return g + c * g * tanh_gate(-z) * 2 * np.sqrt(2 / np.longdouble(np.pi)) * (1 + 3 * np.longdouble(0.044715) * c**2)


def elu(alpha, scale=1.0):
    low = lambda z: np.minimum(z, 0)  # noqa: E731
    return (
        lambda z: scale * np.where(z > 0, z, alpha * np.expm1(low(z))),
        lambda z: scale * np.where(z > 0, 1.0, alpha * np.exp(low(z))),
    )


def leaky(slope):
    return lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1.0, slope)


DEFINITIONS = {
    "identity": (lambda z: z, lambda z: np.ones_like(z)),
    "sigmoid": (sigma, lambda z: sigma(z) * sigma(-z)),
    "tanh": (np.tanh, lambda z: 4 * sigma(2 * z) * sigma(-2 * z)),
    "relu": leaky(0.0),
    "leaky_relu": leaky(0.01),
    "leaky_relu_0": leaky(0.0),
    "leaky_relu_1": leaky(1.0),
    "elu": elu(1.0),
    "elu_0.3": elu(0.3),
    "elu_0": elu(0.0),
    "selu": elu(ALPHA, LAMBDA),
    "gelu": (
        lambda z: np.maximum(z, 0) - np.abs(z) * tail(np.abs(z)),
        lambda z: np.where(z > 0, 1 - tail(np.abs(z)), tail(np.abs(z))) + z * density(z),
    ),
    "gelu_tanh": (lambda z: z * tanh_gate(z), tanh_gelu_slope),
    "silu": (lambda z: z * sigma(z), lambda z: sigma(z) * (1 + z * sigma(-z))),
    "softplus": (plus, sigma),
    "softsign": (lambda z: z / (1 + np.abs(z)), lambda z: 1 / (1 + np.abs(z)) ** 2),
    "hard_sigmoid": (lambda z: np.clip(z + 3, 0, 6) / 6, lambda z: np.where(np.abs(z) < 3, 1 / 6, 0)),
    "mish": (
        lambda z: z * gate(z),
        lambda z: gate(z) + z * sigma(z) / np.cosh(np.minimum(plus(z), 5000)) ** 2,
    ),
}


# Every array has this size, so that JAX compiles an operation once and not once for each test.
SIZE = 271


def padded(z, dtype="float64"):
    return np.concatenate([np.asarray(z, dtype), np.zeros(SIZE - len(z), dtype)])


def both(backend, activation, z, da):
    xp = backend.xp
    a, cache = activation.forward((), z, xp=xp)
    dz, nothing = activation.backward((), cache, da, xp=xp)
    assert nothing == ()
    return a, dz


@pytest.mark.parametrize("name", NAMES)
def test_gradient_is_that_of_the_function(name, backend, on, rng, slope):
    z = 2.0 * rng.standard_normal(SIZE)
    for kink in (-3.0, 0.0, 3.0):
        z += 0.02 * (np.abs(z - kink) < 0.01)
    da = rng.standard_normal(z.shape)
    activation, xp = CASES[name], backend.xp

    def f(t):
        return backend.to_numpy(activation.forward((), on(backend, z + t), xp=xp)[0])

    _, dz = both(backend, activation, on(backend, z), on(backend, da))
    np.testing.assert_allclose(backend.to_numpy(dz), da * slope(f), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["sigmoid", "tanh"])
def test_gradient_by_complex_step(name, rng):
    activation, backend = CASES[name], bpxp.backends.get_backend("numpy")
    z = rng.standard_normal(50)
    _, dz = both(backend, activation, z, np.ones(50))
    stepped = activation.forward((), z + 1e-30j, xp=backend.xp)[0].imag / 1e-30
    np.testing.assert_allclose(dz, stepped, rtol=1e-12)


def extremes(dtype):
    info = np.finfo(dtype)
    # twice the smallest normal number: some libraries flush what is smaller
    sizes = [0.0, 2.0 * info.tiny, 1e-8, 0.5, 1.0, 3.0, 8.0, 17.0, 40.0, 88.0, 104.0, 709.0, 746.0, 1e4, info.max / 2]
    z = np.asarray(sizes, dtype)
    return np.concatenate([-z[::-1], z])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_derivative_are_right_for_every_size(name, dtype, backend, on):
    z = np.concatenate([extremes(dtype), np.linspace(-12.0, 12.0, SIZE - 30, dtype=dtype)])
    a, dz = both(backend, CASES[name], on(backend, z), on(backend, np.ones_like(z)))
    eps = np.finfo(dtype).eps
    with np.errstate(all="ignore"):
        value, derivative = (f(z.astype(np.longdouble)) for f in DEFINITIONS[name])
    np.testing.assert_allclose(backend.to_numpy(a), value.astype(dtype), rtol=16 * eps, atol=8 * eps)
    np.testing.assert_allclose(backend.to_numpy(dz), derivative.astype(dtype), rtol=16 * eps, atol=24 * eps)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [n for n in NAMES if n != "selu"])
def test_largest_number_stays_finite(name, dtype, backend, on):
    z = padded([-np.finfo(dtype).max, np.finfo(dtype).max], dtype)
    a, dz = both(backend, CASES[name], on(backend, z), on(backend, np.ones_like(z)))
    assert np.all(np.isfinite(backend.to_numpy(a)))
    assert np.all(np.isfinite(backend.to_numpy(dz)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["silu", "mish", "gelu", "softplus"])
def test_tail_keeps_its_relative_accuracy(name, dtype, backend, on):
    z = -np.linspace(1.0, 12.0 if dtype == "float32" else 37.0, SIZE, dtype=dtype)
    a, _ = both(backend, CASES[name], on(backend, z), on(backend, np.ones_like(z)))
    value = DEFINITIONS[name][0](z.astype(np.longdouble))
    error = np.abs(backend.to_numpy(a) / value - 1.0) / np.finfo(dtype).eps
    assert np.all(error < 8.0 + z.astype(float) ** 2), error.max()


@pytest.mark.parametrize(
    ("activation", "z", "slopes"),
    [
        (ReLU(), [0.0, -0.0], [0.0, 0.0]),
        (LeakyReLU(), [0.0, -0.0], [0.01, 0.01]),
        (LeakyReLU(0.0), [0.0, 1.0, -1.0], [0.0, 1.0, 0.0]),
        (ELU(0.3), [0.0, -0.0], [0.3, 0.3]),
        (SELU(), [0.0, -0.0], [1.7580993408473766, 1.7580993408473766]),
        (HardSigmoid(), [-3.0, 3.0, np.nextafter(-3.0, 0.0), np.nextafter(3.0, 0.0)], [0.0, 0.0, 1 / 6, 1 / 6]),
    ],
)
def test_derivative_at_kinks(activation, z, slopes, backend, on):
    _, dz = both(backend, activation, on(backend, padded(z)), on(backend, np.ones(SIZE)))
    np.testing.assert_allclose(backend.to_numpy(dz)[: len(z)], slopes, rtol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_and_caches_are_only_read(name, backend, on, rng):
    z, da = rng.standard_normal((2, 4, 3)).astype(np.float32)
    own_z, own_da, xp = on(backend, z), on(backend, da), backend.xp
    activation = CASES[name]
    a, cache = activation.forward((), own_z, xp=xp)
    first = backend.to_numpy(a)
    dz, _ = activation.backward((), cache, own_da, xp=xp)
    again, _ = activation.backward((), cache, own_da, xp=xp)
    assert a.dtype == dz.dtype == xp.float32
    assert a.shape == dz.shape == own_z.shape
    np.testing.assert_array_equal(backend.to_numpy(dz), backend.to_numpy(again))
    np.testing.assert_array_equal(backend.to_numpy(a), first)
    np.testing.assert_array_equal(backend.to_numpy(own_z), z)
    np.testing.assert_array_equal(backend.to_numpy(own_da), da)
    if backend.name == "numpy":
        assert not np.shares_memory(a, own_z)
        for other in (own_z, own_da, a, *(cache if isinstance(cache, tuple) else [cache])):
            assert other is None or not np.shares_memory(dz, other)


def test_hyper_parameters_are_python_floats():
    assert type(LeakyReLU(np.float64(0.1)).slope) is float
    assert type(ELU(2).alpha) is float
    assert LeakyReLU(0.5) == LeakyReLU(0.5) != LeakyReLU(0.25)
    assert hash(ELU(0.5)) == hash(ELU(0.5))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: LeakyReLU(-0.1), r"LeakyReLU\(slope=…\).*got -0.1"),
        (lambda: LeakyReLU(1.1), r"LeakyReLU\(slope=…\).*got 1.1"),
        (lambda: ELU(-1.0), r"ELU\(alpha=…\).*got -1.0"),
        (lambda: GELU("exact"), r"GELU\(approximate=…\).*got 'exact', expected 'none' or 'tanh'"),
    ],
)
def test_hyper_parameters_out_of_range(make, text):
    with pytest.raises(InvalidValueError, match=text):
        make()


def test_activation_by_name_or_object():
    assert get_activation("relu") == ReLU()
    assert get_activation(SiLU()) == SiLU()
    assert all(get_activation(name) is activation for name, activation in ACTIVATIONS.items())


def test_unknown_name_is_one_message_with_the_nearest():
    with pytest.raises(InvalidValueError, match="Did you mean 'relu'") as caught:
        get_activation("rel")
    assert str(caught.value).startswith("activation: unknown name: got 'rel', expected one of identity, sigmoid, ")
    assert str(caught.value).endswith(" Did you mean 'relu'? Nothing was changed. [BPX-E003]")
    with pytest.raises(InvalidValueError, match=r"mish\. Nothing was changed\. \[BPX-E003\]$"):
        get_activation("qqqqq")


@pytest.mark.parametrize("name", ["softmax", "Softmax", "log_softmax"])
def test_softmax_is_refused_with_the_reason(name):
    with pytest.raises(InvalidValueError, match="losses take logits") as caught:
        get_activation(name)
    assert "predict_proba" in str(caught.value)


@pytest.mark.parametrize("wrong", [None, 3, ReLU, Sigmoid])
def test_neither_name_nor_activation(wrong):
    with pytest.raises(InvalidTypeError, match="neither a name nor an Activation"):
        get_activation(wrong)
