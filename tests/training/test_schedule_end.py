"""A schedule that has ended, or vanished, long before the fit: a warning before the first step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import bpxp
from bpxp import optim
from bpxp.callbacks import Checkpoint
from bpxp.errors import BpxpWarning
from bpxp.optim import CosineDecay, ExponentialDecay, OneCycle, Plateau, StepDecay, WarmUp
from bpxp.optim.schedules import Schedule

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3  # 6 mini-batches of 10


@dataclass(frozen=True)
class Own(Schedule):
    """A schedule of the user's own: 1/(1 + t)^6."""

    def at(self, t, state, /, *, xp):
        return 0.1 / (1.0 + t) ** 6


def fit(schedule, net=None, *, epochs=10, **options):
    net = net or bpxp.Network([4, 3], backend="numpy", seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(schedule), progress=False, callbacks=options.pop("callbacks", ()))
    return trainer.fit((X, Y), epochs=epochs, batch_size=10, **options)


@pytest.mark.parametrize(
    ("schedule", "fixed", "text"),
    [
        (
            CosineDecay(0.5, 10),
            CosineDecay(0.5, 60),
            r"ends with step 10, the fit with step 60.*CosineDecay\(…, steps=60\)",
        ),
        (CosineDecay(0.5, 10, floor=0.1), CosineDecay(0.5, 60, floor=0.1), "an epoch has 6"),
        (OneCycle(0.5, 10), OneCycle(0.5, 60), r"OneCycle\(…, steps=60\)"),
        (WarmUp(CosineDecay(0.5, 8), 2), WarmUp(CosineDecay(0.5, 58), 2), r"ends with step 10,.*steps=58\)"),
        (
            ExponentialDecay(0.5, 0.5),
            ExponentialDecay(0.5, 0.5 ** (1 / 6)),
            "has fallen from 0.5 to 4.66e-10 when half",
        ),
        (WarmUp(ExponentialDecay(0.5, 0.5), 2), WarmUp(ExponentialDecay(0.5, 0.9), 2), "a schedule counts steps"),
        (StepDecay(0.5, 3), StepDecay(0.5, 18), "an epoch has 6, the fit 60"),
        (Own(), 0.1, "has fallen from 0.1"),
    ],
)
def test_a_schedule_in_epochs(schedule, fixed, text):
    with pytest.warns(BpxpWarning, match=rf"fit\(epochs=…\).*{text}.*W011"):
        fit(schedule)
    fit(fixed)


@pytest.mark.parametrize(
    "schedule",
    [0.5, CosineDecay(0.5, 40), OneCycle(0.5, 60), WarmUp(0.5, 5), WarmUp(CosineDecay(0.5, 55), 5), StepDecay(0.5, 30),
     ExponentialDecay(0.5, 0.95), Plateau(0.5), CosineDecay(0.5, 1000)],
)  # fmt: skip
def test_no_warning_for_one_that_fits(schedule):
    fit(schedule)


def test_later_fits_and_resumed_ones(tmp_path):
    net, schedule = bpxp.Network([4, 3], backend="numpy", seed=0), CosineDecay(0.5, 60)
    path = tmp_path / "run-{epoch}.bpxp"
    fit(schedule, net, callbacks=[Checkpoint(path)])
    again = bpxp.Network([4, 3], backend="numpy", seed=0)
    fit(schedule, again, resume=tmp_path / "run-8.bpxp")  # the last fifth of the schedule is left
    assert np.array_equal(net.params[0].W, again.params[0].W)
    with pytest.warns(BpxpWarning, match=r"ends with step 60, the fit with step 120. Fix: CosineDecay\(…, steps=60\)"):
        fit(schedule, net)  # all of it is done
    fit(CosineDecay(0.4, 60), net)  # another begins anew
    fit(schedule, net, epochs=0)
