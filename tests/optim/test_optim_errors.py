"""Wrong hyper-parameters are refused where they are written; names, and the registry."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bpxp.optim
from bpxp.errors import BpxpError
from bpxp.optim import (
    OPTIMIZERS,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Constant,
    CosineDecay,
    OneCycle,
    Optimizer,
    Plateau,
    RMSprop,
    StepDecay,
    WarmUp,
    get_optimizer,
)
from bpxp.optim.schedules import as_schedule

RULES = [SGD, RMSprop, Adagrad, Adam, AdamW, Constant, Plateau]


@pytest.mark.parametrize("make", RULES)
@pytest.mark.parametrize("rate", [-0.1, 0, 0.0, math.nan, math.inf])
def test_a_learning_rate_that_cannot_work(make, rate):
    with pytest.raises(ValueError, match=rf"{make.__name__}\(learning_rate=….*a finite number > 0") as caught:
        make(rate)
    assert isinstance(caught.value, BpxpError)


@pytest.mark.parametrize("make", RULES)
@pytest.mark.parametrize("rate", ["0.1", True, None, [0.1], np.ones(1), StepDecay], ids=str)
def test_a_learning_rate_of_another_type(make, rate):
    kind = type(rate).__name__
    with pytest.raises(TypeError, match=rf"learning_rate.*got {kind}") as caught:
        make(rate)
    assert isinstance(caught.value, BpxpError)


WRONG = {
    "momentum=1.5": lambda: SGD(0.1, momentum=1.5),
    "momentum=-0.1": lambda: SGD(0.1, momentum=-0.1),
    "momentum=1.0": lambda: SGD(0.1, momentum=1.0),
    "beta1=1.0": lambda: Adam(beta1=1.0),
    "beta2=1.0": lambda: Adam(beta2=1.0),
    "beta2=-1": lambda: AdamW(beta2=-1),
    "alpha=1": lambda: RMSprop(alpha=1),
}


@pytest.mark.parametrize("case", WRONG)
def test_memories_are_in_0_1(case):
    with pytest.raises(ValueError, match=rf"\({case.split('=')[0]}=….*\[0, 1\)"):
        WRONG[case]()


@pytest.mark.parametrize("name", ["l1", "l2", "weight_decay"])
@pytest.mark.parametrize("rule", [SGD, Adam, AdamW])
def test_penalties_are_not_negative(rule, name):
    with pytest.raises(ValueError, match=rf"{rule.__name__}\({name}=….*got -1.0.*>= 0"):
        rule(0.1, **{name: -1})
    with pytest.raises(TypeError, match="not a number"):
        rule(0.1, **{name: "0.1"})


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("SGD(clip_norm=0.0)", r"clip_norm=….*> 0"),
        ("SGD(clip_value=-1.0)", r"clip_value=….*> 0"),
        ("SGD(average=0.0)", r"average=….*\(0, 1\)"),
        ("SGD(average=1.0)", r"average=….*\(0, 1\)"),
        ("Adam(epsilon=0.0)", r"epsilon=….*> 0"),
        ("RMSprop(epsilon=-1.0)", r"epsilon=….*> 0"),
        ("Adagrad(epsilon=0.0)", r"epsilon=….*> 0"),
        ("SGD(nesterov=True)", r"momentum 0.*Fix: SGD\(…, momentum=0.9, nesterov=True\)"),
        ("StepDecay(0.1, 0)", r"^StepDecay\(every=….*>= 1"),
        ("StepDecay(0.1, 3, factor=1.5)", r"factor=….*\(0, 1\]"),
        ("ExponentialDecay(0.1, 0.0)", r"decay=….*\(0, 1\]"),
        ("CosineDecay(0.1, -1)", r"steps=….*>= 1"),
        ("CosineDecay(0.1, 10, floor=0.2)", r"floor=….*\[0, 0.1\]"),
        ("OneCycle(0.1, 100, rise=1.0)", r"rise=….*\(0, 1\)"),
        ("OneCycle(0.1, 100, start=0.5)", r"start=….*>= 1"),
        ("OneCycle(0.1, 100, end=0.5)", r"end=….*>= 1"),
        ("OneCycle(0.1, 3)", r"too few steps.*got rise \* steps = 0.9.*Fix: steps=4"),
        ("OneCycle(0.1, 4, rise=0.25)", r"too few steps.*got rise \* steps = 1,.*Fix: steps=5"),
        ('OneCycle(0.1, 100, shape="liner")', r"'cosine' or 'linear'.*Did you mean 'linear'\?"),
        ("WarmUp(0.1, 0)", r"steps=….*>= 1"),
        ("WarmUp(-0.1, 5)", r"^WarmUp\(schedule=….*> 0"),
        ("Plateau(0.1, factor=1.0)", r"factor=….*\(0, 1\)"),
        ("Plateau(0.1, patience=0)", r"patience=….*>= 1"),
        ("Plateau(0.1, min_delta=-1.0)", r"min_delta=….*>= 0"),
        ("Plateau(0.1, floor=1.0)", r"floor=….*\[0, 0.1\]"),
    ],
)
def test_other_values_that_cannot_work(call, text):
    with pytest.raises(ValueError, match=text):
        eval(call, dict(vars(bpxp.optim)))


@pytest.mark.parametrize("call", ["StepDecay(0.1, 2.5)", "WarmUp(0.1, '3')", "WarmUp('0.1', 3)", "SGD(momentum='0.9')"])
def test_other_types_that_cannot_work(call):
    with pytest.raises(TypeError, match=r"got (float|str)"):
        eval(call, dict(vars(bpxp.optim)))


def test_a_class_is_no_schedule():
    with pytest.raises(TypeError, match=r"Fix: Constant\(…\)"):
        WarmUp(Constant, 3)
    with pytest.raises(TypeError, match=r"^learning_rate: a class, not a schedule: got Constant"):
        as_schedule(Constant)


def test_the_suggested_steps_of_a_cycle_work():
    OneCycle(0.1, 4)


def test_numbers_become_python_floats():
    # np.float64 would widen float32 arrays.
    optimizer = AdamW(np.float64(0.1), beta1=np.float64(0.5), l2=np.float32(0.5), clip_norm=1, average=np.float64(0.5))
    for name in ("learning_rate", "beta1", "beta2", "epsilon", "l1", "l2", "weight_decay", "clip_norm", "average"):
        assert type(getattr(optimizer, name)) is float


def test_options_that_are_off_are_the_default():
    off = {"l1": 0.0, "l2": 0.0, "decay_biases": False, "clip_norm": None, "clip_value": None, "average": None}
    for rule in (SGD, RMSprop, Adagrad, Adam):
        assert rule(0.1, weight_decay=0.0, **off) == rule(0.1)
    assert AdamW(0.1, weight_decay=0.01, **off) == AdamW(0.1)


def test_options_are_keyword_only():
    with pytest.raises(TypeError):
        Optimizer(0.1, 0.2)
    assert SGD(0.1, 0.9) == SGD(learning_rate=0.1, momentum=0.9)
    assert Adam(0.1, 0.8, 0.9, 1e-7) == Adam(learning_rate=0.1, beta1=0.8, beta2=0.9, epsilon=1e-7)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_by_name(name):
    assert get_optimizer(name) is OPTIMIZERS[name]
    changed = get_optimizer(name, learning_rate=0.25)
    assert type(changed) is type(OPTIMIZERS[name])
    assert changed.learning_rate == 0.25
    assert hash(changed) != hash(OPTIMIZERS[name])


def test_names_mean_what_they_say():
    assert list(OPTIMIZERS) == ["sgd", "momentum", "nesterov", "rmsprop", "adagrad", "adam", "adamw"]
    assert OPTIMIZERS["sgd"] == SGD()
    assert OPTIMIZERS["momentum"] == SGD(0.01, momentum=0.9)
    assert OPTIMIZERS["nesterov"] == SGD(0.01, momentum=0.9, nesterov=True)
    assert OPTIMIZERS["adamw"].weight_decay == 0.01


def test_an_object_is_taken_as_it_is():
    mine = Adam(0.1, l2=0.5)
    assert get_optimizer(mine) is mine
    assert get_optimizer(mine, CosineDecay(0.1, 5)) == Adam(CosineDecay(0.1, 5), l2=0.5)


def test_an_unknown_name():
    with pytest.raises(
        ValueError, match=r"^optimizer: unknown name: got 'adm', expected one of sgd, .*Did you mean 'adam'\?"
    ):
        get_optimizer("adm")
    with pytest.raises(ValueError, match="> 0"):
        get_optimizer("adam", -1.0)


@pytest.mark.parametrize("thing", [Adam, 0.1, None], ids=str)
def test_neither_name_nor_optimizer(thing):
    with pytest.raises(TypeError, match=r"Fix: optimizer=bpxp.optim.Adam\(0.001\)"):
        get_optimizer(thing)


def test_everything_public_exists():
    assert all(hasattr(bpxp.optim, name) for name in bpxp.optim.__all__)
