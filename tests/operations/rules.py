"""The table: optimizers and schedules; the equations that they state are their reference."""

from __future__ import annotations

import numpy as np
from operations.record import COUNTS, OfRule, Refusal, numbers

from bpxp import optim

RATE = (*numbers("> 0"), [0.1])
MEMORY = (*numbers(">= 0"), 1.0)
OFF = tuple(value for value in numbers("> 0") if value is not None)  # None: an option that is off

# What every rule has. An average is a result of its own; clipping and decay change the parameters.
SURROUNDINGS = {
    "learning_rate": (0.2, optim.StepDecay(0.1, 2)),
    "l1": (0.1,),
    "l2": (0.2,),
    "weight_decay": (0.3,),
    "decay_biases": (True,),
    "clip_norm": (0.5,),
    "clip_value": (0.5,),
    "average": (0.5,),
}
WRONG = {
    "learning_rate": RATE,
    "l1": numbers(">= 0"),
    "l2": numbers(">= 0"),
    "weight_decay": numbers(">= 0"),
    "clip_norm": OFF,
    "clip_value": OFF,
    "average": (*OFF, 1.0),
}


def rule(name, thing, options=(), bad=(), **more):
    return OfRule(name, thing, options={**SURROUNDINGS, **dict(options)}, bad={**WRONG, **dict(bad)}, **more)


def refused(call, text):
    return Refusal(call, ValueError, text)


def broadcast(thing):
    """A gradient of another shape is never broadcast to its parameter's."""

    def call():
        params = (np.ones((2, 3)),)
        return thing.update(params, (np.ones((1, 3)),), thing.init(params, xp=np), xp=np)

    return refused(call, r"gradient \(1, 3\), expected \(2, 3\)")


# With a small penalty, so that whether biases are decayed makes a difference to each.
OPTIMIZERS = [
    rule(
        "SGD",
        optim.SGD(0.1, l2=0.01),
        {"momentum": (0.9,), "nesterov": ()},
        {"momentum": MEMORY},
        names=("Optimizer", "OptState", "OPTIMIZERS"),
        refuses=(
            refused(lambda: optim.SGD(nesterov=True), r"momentum 0.*Fix: SGD\(…, momentum=0.9, nesterov=True\)"),
            broadcast(optim.SGD()),
        ),
    ),
    rule("SGD with momentum", optim.SGD(0.1, momentum=0.5, l2=0.01), {"momentum": (0.9, 0.0), "nesterov": (True,)}),
    rule(
        "SGD, Nesterov, all options",
        optim.SGD(
            optim.WarmUp(optim.OneCycle(0.5, 9), 2), 0.9, True, l1=0.1, l2=0.2, weight_decay=0.3, clip_norm=2.0,
            clip_value=0.7, average=0.6,
        ),
        {
            "learning_rate": (0.1,), "momentum": (0.5,), "nesterov": (False,), "l1": (0.0,), "l2": (0.0,),
            "weight_decay": (0.0,), "clip_norm": (None, 0.3), "clip_value": (None,), "average": (0.9,),
        },
    ),
    rule(
        "RMSprop",
        optim.RMSprop(0.1, l2=0.01),
        {"alpha": (0.9,), "epsilon": (1e-2,)},
        {"alpha": MEMORY, "epsilon": numbers("> 0")},
        refuses=(broadcast(optim.RMSprop()),),
    ),
    rule(
        "Adagrad",
        optim.Adagrad(0.1, l2=0.01),
        {"epsilon": (1e-2,)},
        {"epsilon": numbers("> 0")},
        refuses=(broadcast(optim.Adagrad()),),
    ),
    rule(
        "Adam",
        optim.Adam(0.1, l2=0.01),
        {"beta1": (0.5, 0.0), "beta2": (0.9,), "epsilon": (1e-2,)},
        {"beta1": MEMORY, "beta2": MEMORY, "epsilon": numbers("> 0")},
        refuses=(broadcast(optim.Adam()),),
    ),
    rule(
        "AdamW",
        optim.AdamW(0.1, weight_decay=0.1),
        {"beta1": (0.5, 0.0), "beta2": (0.9,), "epsilon": (1e-2,), "weight_decay": (0.0, 0.3)},
        {"beta1": MEMORY, "beta2": MEMORY, "epsilon": numbers("> 0")},
        refuses=(broadcast(optim.AdamW()),),
    ),
]  # fmt: skip


def schedule(name, thing, options, bad=(), **more):
    wrong = {"learning_rate": RATE} if "learning_rate" in options else {}
    return OfRule(name, thing, options=options, bad={**wrong, **dict(bad)}, **more)


SCHEDULES = [
    schedule("Constant", optim.Constant(0.1), {"learning_rate": (0.2,)}, names=("Schedule",)),
    schedule(
        "StepDecay",
        optim.StepDecay(0.1, every=7, factor=0.5),
        {"learning_rate": (0.2,), "every": (6,), "factor": (0.4,)},
        {"every": COUNTS, "factor": (*numbers("> 0"), 1.5)},
    ),
    schedule(
        "ExponentialDecay",
        optim.ExponentialDecay(0.1, 0.9),
        {"learning_rate": (0.2,), "decay": (0.8, 1.0)},
        {"decay": (*numbers("> 0"), 1.5)},
    ),
    schedule(
        "CosineDecay",
        optim.CosineDecay(0.1, steps=30, floor=0.01),
        {"learning_rate": (0.2,), "steps": (20,), "floor": (0.0,)},
        {"steps": COUNTS, "floor": (*numbers(">= 0"), 0.2)},
    ),
    schedule(
        "OneCycle",
        optim.OneCycle(0.1, steps=40),
        {"learning_rate": (0.2,), "steps": (30,), "rise": (0.5,), "start": (5.0,), "end": (10.0,), "shape": ("linear",)},
        {
            "steps": (*COUNTS, 3),
            "rise": (*numbers("> 0"), 1.0),
            "start": (*numbers(), 0.5),
            "end": (*numbers(), 0.5),
            "shape": ("liner", 3),
        },
    ),
    schedule(
        "OneCycle, linear",
        optim.OneCycle(0.5, 30, rise=0.4, start=5.0, end=100.0, shape="linear"),
        {"shape": ("cosine",)},
    ),
    schedule(
        "WarmUp",
        optim.WarmUp(optim.CosineDecay(0.1, steps=30), steps=5),
        {"schedule": (0.1, optim.Constant(0.2)), "steps": (4,)},
        {"schedule": RATE, "steps": COUNTS},
        refuses=(Refusal(lambda: optim.WarmUp(optim.Constant, 3), TypeError, r"Fix: Constant\(…\)"),),
    ),
    schedule("WarmUp of a number", optim.WarmUp(0.1, 3), {"schedule": (0.2,), "steps": (4,)}),
    schedule(
        "Plateau",
        optim.Plateau(0.1, factor=0.5, patience=2, min_delta=0.1, floor=0.04),
        {"learning_rate": (0.2,), "factor": (0.6,), "patience": (3,), "min_delta": (0.0,), "floor": (0.0,)},
        {
            "factor": (*numbers("> 0"), 1.0),
            "patience": COUNTS,
            "min_delta": numbers(">= 0"),
            "floor": (*numbers(">= 0"), 1.0),
        },
    ),
]  # fmt: skip
