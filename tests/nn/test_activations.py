"""Activations: their hyper-parameters, and how they are found by name. What they compute is in `tests/operations`."""

from __future__ import annotations

import numpy as np
import pytest

from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import ACTIVATIONS, ELU, GELU, LeakyReLU, ReLU, Sigmoid, SiLU, get_activation


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
    with pytest.raises(InvalidValueError, match=f"^{text}"):
        make()


def test_activation_by_name_or_object():
    assert get_activation("relu") == ReLU()
    assert get_activation(SiLU()) == SiLU()
    assert all(get_activation(name) is activation for name, activation in ACTIVATIONS.items())


def test_unknown_name_is_one_message_with_the_nearest():
    with pytest.raises(InvalidValueError, match="Did you mean 'relu'") as caught:
        get_activation("rel")
    assert str(caught.value).startswith("activation: unknown name: got 'rel', expected one of identity, sigmoid, ")
    assert str(caught.value).endswith(" Did you mean 'relu'? [BPX-E003]")
    with pytest.raises(InvalidValueError, match=r"mish\. \[BPX-E003\]$"):
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
