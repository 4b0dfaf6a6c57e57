"""Of the suites themselves: one that finds nothing here would find nothing anywhere."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
from operations import (
    test_bad_inputs,
    test_extremes,
    test_gradients,
    test_kinks,
    test_options,
    test_purity,
    test_values,
)
from operations.table import RECORDS

import bpxp.backends
from bpxp import nn, optim

NUMPY = bpxp.backends.get_backend("numpy")


@dataclass(frozen=True)
class Wrong(nn.Tanh):
    """A tanh with one mistake."""

    mistake: str = ""

    def forward(self, params, z, /, *, xp):
        if self.mistake == "overflow":
            e = xp.exp(z)
            a = (e - 1.0 / e) / (e + 1.0 / e)
            return a, a
        a, _ = super().forward(params, z, xp=xp)
        if self.mistake == "wide":
            a = xp.astype(a, xp.float64)
        return a, a

    def backward(self, params, a, da, /, *, xp):
        dz, _ = super().backward(params, a, da, xp=xp)
        match self.mistake:
            case "a millionth":
                dz *= 1.000001
            case "alias":
                dz = da
            case "writes":
                a *= dz
            case "random":
                dz = dz + 1e-12 * np.random.default_rng().standard_normal(dz.shape)
        return dz, ()


@dataclass(frozen=True)
class WrongBias(nn.Dense):
    """The gradient of the bias is not summed."""

    def gradients(self, params, x, delta, /, *, xp):
        dW, _ = super().gradients(params, x, delta, xp=xp)
        return nn.DenseParams(dW, delta)


@dataclass(frozen=True)
class Forgetful(optim.SGD):
    """Takes a momentum, and does nothing with it."""

    def slots(self, params, /, *, xp):
        return ()


@dataclass(frozen=True)
class Credulous(nn.LeakyReLU):
    """Takes every slope, and has the slope 1 at 0."""

    def __post_init__(self):
        pass

    def backward(self, params, a, da, /, *, xp):
        return da * np.where(a >= 0.0, 1.0, self.slope), ()


def tanh(mistake):
    return dataclasses.replace(RECORDS["Tanh"], thing=Wrong(mistake))


@pytest.mark.parametrize(
    ("mistake", "suite", "says"),
    [
        ("a millionth", lambda record, on: test_gradients.test_layers(record), "differences differ by"),
        ("alias", lambda record, on: test_purity.test_layers(record, NUMPY, on), "shares_memory|shares"),
        ("writes", lambda record, on: test_purity.test_layers(record, NUMPY, on), "backward twice"),
        ("random", lambda record, on: test_purity.test_layers(record, NUMPY, on), "backward twice"),
        ("wide", lambda record, on: test_values.test_layers_agree_with_numpy(record, "float32", NUMPY, on), "all"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_activation(mistake, suite, says, on):
    suite(tanh(""), on)
    with pytest.raises(AssertionError, match=says):
        suite(tanh(mistake), on)


def test_an_overflow(on, monkeypatch):
    monkeypatch.setitem(RECORDS, "Tanh", tanh("overflow"))
    with pytest.raises((RuntimeWarning, AssertionError)):
        test_extremes.test_activations_of_every_size(RECORDS["Tanh"], "float64", NUMPY, on, {"float64": False})


def test_a_gradient_of_another_shape():
    record = dataclasses.replace(RECORDS["Dense"], thing=WrongBias(3))
    with pytest.raises(AssertionError, match=r"a gradient of shape \(1, 3\) for \(3,\)"):
        test_gradients.test_layers(record)


def test_an_option_that_is_ignored():
    record = dataclasses.replace(RECORDS["SGD"], thing=Forgetful(0.1, l2=0.01))
    with pytest.raises(AssertionError, match="momentum=0.9 changes nothing"):
        test_options.test_each_option_has_an_effect(record)


def test_a_kink_and_a_value_that_is_not_refused(on):
    record = dataclasses.replace(RECORDS["LeakyReLU"], thing=Credulous(0.01))
    with pytest.raises(AssertionError):
        test_kinks.test_activations(record, NUMPY, on)
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_bad_inputs.test_bad_options_are_refused(record)
