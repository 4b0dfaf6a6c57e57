"""Optimizers and learning rates: update rules, penalties, clipping, schedules, and the registry of rules by name."""

from __future__ import annotations

import dataclasses
from typing import Any

from bpxp.core.checks import resolve
from bpxp.optim.adagrad import Adagrad
from bpxp.optim.adam import Adam
from bpxp.optim.adamw import AdamW
from bpxp.optim.clipping import clip_by_norm, clip_by_value
from bpxp.optim.optimizer import Optimizer, OptState
from bpxp.optim.plateau import Plateau
from bpxp.optim.rmsprop import RMSprop
from bpxp.optim.schedules import Constant, CosineDecay, ExponentialDecay, OneCycle, Schedule, StepDecay, WarmUp
from bpxp.optim.sgd import SGD

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "CosineDecay",
    "ExponentialDecay",
    "OneCycle",
    "OptState",
    "Optimizer",
    "Plateau",
    "RMSprop",
    "Schedule",
    "StepDecay",
    "WarmUp",
    "clip_by_norm",
    "clip_by_value",
    "get_optimizer",
]

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(),
    # With μ = 0.9 a steady gradient moves ten times as far.
    "momentum": SGD(0.01, momentum=0.9),
    "nesterov": SGD(0.01, momentum=0.9, nesterov=True),
    "rmsprop": RMSprop(),
    "adagrad": Adagrad(),
    "adam": Adam(),
    "adamw": AdamW(),
}


def get_optimizer(optimizer: Any, learning_rate: float | Schedule | None = None) -> Optimizer:
    """Return an optimizer by its name, or the given object.

    Parameters
    ----------
    optimizer : str or Optimizer
        A key of `OPTIMIZERS`.
    learning_rate : float, Schedule or None, optional
        Replaces the optimizer's own, if given.

    Raises
    ------
    InvalidValueError
        For an unknown name (with the nearest one), or a wrong learning rate.
    InvalidTypeError
        For anything that is neither.
    """
    found: Optimizer = resolve(optimizer, Optimizer, OPTIMIZERS, "optimizer", fix="optimizer=bpxp.optim.Adam(0.001)")
    return found if learning_rate is None else dataclasses.replace(found, learning_rate=learning_rate)
