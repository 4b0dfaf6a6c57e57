"""Learning rates against tables worked by hand and closed forms, on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bpxp.optim import (
    SGD,
    Constant,
    CosineDecay,
    ExponentialDecay,
    OneCycle,
    Plateau,
    Schedule,
    StepDecay,
    WarmUp,
)


def rates(schedule, backend, steps, dtype="float64"):
    xp = backend.xp
    state = schedule.init(xp.zeros((1,), dtype=getattr(xp, dtype)), xp=xp)
    values = []
    for t in steps:
        rate = schedule.at(xp.full((1,), float(t), dtype=getattr(xp, dtype)), state, xp=xp)
        assert rate.shape == (1,)
        assert rate.dtype == getattr(xp, dtype)
        values.append(float(backend.to_numpy(rate)[0]))
    return values


TABLES = {
    "constant": (Constant(0.3), {0: 0.3, 7: 0.3}),
    "staircase": (StepDecay(0.8, 3, factor=0.5), {0: 0.8, 2: 0.8, 3: 0.4, 5: 0.4, 6: 0.2, 8: 0.2, 9: 0.1}),
    "exponential": (ExponentialDecay(0.8, 0.5), {0: 0.8, 1: 0.4, 2: 0.2, 5: 0.025}),
    # cos 0, π/3, π/2, 2π/3, π = 1, 1/2, 0, -1/2, -1
    "cosine": (CosineDecay(0.8, 6), {0: 0.8, 2: 0.6, 3: 0.4, 4: 0.2, 6: 0.0, 7: 0.0, 100: 0.0}),
    "cosine with floor": (CosineDecay(0.9, 6, floor=0.1), {0: 0.9, 2: 0.7, 3: 0.5, 4: 0.3, 6: 0.1, 60: 0.1}),
    # Up from 0.1 to 1 in 4 steps (0.5 · 10 - 1), down to 0.01 in 5.
    "one cycle": (
        OneCycle(1.0, 10, rise=0.5, start=10.0, end=10.0),
        {
            0: 0.1,
            1: 1 - 0.9 * (1 + math.cos(math.pi / 4)) / 2,
            2: 0.55,
            4: 1.0,
            9: 0.01,
            50: 0.01,
            5: 0.01 + 0.99 * (1 + math.cos(math.pi / 5)) / 2,
        },
    ),
    "one cycle, linear": (
        OneCycle(1.0, 10, rise=0.5, start=10.0, end=10.0, shape="linear"),
        {0: 0.1, 1: 0.325, 2: 0.55, 3: 0.775, 4: 1.0, 9: 0.01},
    ),
    "warm-up": (WarmUp(0.8, 3), {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 0.8, 99: 0.8}),
    # The staircase's own steps begin at t = 1.
    "warm-up of stairs": (WarmUp(StepDecay(0.8, 2, factor=0.5), 1), {0: 0.4, 1: 0.8, 2: 0.8, 3: 0.4, 4: 0.4, 5: 0.2}),
    "warm-up twice": (WarmUp(WarmUp(0.8, 1), 1), {0: 0.2, 1: 0.4, 2: 0.8, 3: 0.8}),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", TABLES)
def test_by_hand(backend, case, dtype):
    schedule, table = TABLES[case]
    # A handful of roundings of numbers that are at most the peak; π in float32 is one of them.
    eps = float(np.finfo(dtype).eps)
    assert rates(schedule, backend, table, dtype) == pytest.approx(list(table.values()), rel=8 * eps, abs=2 * eps)


def test_float32_far_out(backend):
    # Stairs begin where they should after millions of steps, and powers stay accurate.
    every, n = 7, 200_000
    around = [every * n - 1, every * n, every * n + 1]
    stairs = rates(StepDecay(1.0, every, factor=1 - 2.0**-20), backend, around, "float32")
    assert stairs[0] > stairs[1] == stairs[2]
    (rate,) = rates(ExponentialDecay(1.0, 0.9999), backend, [20_000], "float32")
    # The exponent is -2.00010: rounded once or twice, to 2.4e-7; exp adds its own.
    assert rate == pytest.approx(0.9999**20_000, rel=5e-7)
    # 1e-6 of the peak, not lost beside it.
    (rate,) = rates(OneCycle(1.0, 1000), backend, [999], "float32")
    assert rate == pytest.approx(1 / 25e4, rel=2.0**-22)


def test_one_cycle_rises_to_its_peak_and_falls(backend):
    values = rates(OneCycle(0.5, 40, rise=0.25), backend, range(45))
    assert values[9] == max(values) == pytest.approx(0.5)
    assert values[0] == pytest.approx(0.02)
    assert values[:10] == sorted(values[:10])
    assert values[9:] == sorted(values[9:], reverse=True)
    assert min(values) == values[39] == values[44] == pytest.approx(0.5 / 25e4)


def observe(optimizer, backend, metrics, dtype="float64"):
    """Return the rate that the update after each epoch's metric uses."""
    xp = backend.xp
    params = (backend.asarray(np.zeros(1, dtype)),)
    state = optimizer.init(params, xp=xp)
    used = []
    for metric in metrics:
        state = optimizer.observe(state, backend.asarray(np.full((1,), metric, dtype)), xp=xp)
        params, state = optimizer.update(params, (backend.asarray(np.zeros(1, dtype)),), state, xp=xp)
        used.append(float(backend.to_numpy(state.learning_rate)[0]))
    return used


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_plateau_by_hand(backend, dtype):
    #          best 3  2  -  -↓   -    1   -   -↓    -     -↓
    metrics = [3.0, 2.0, 2.0, 5.0, 2.5, 1.0, 1.0, 1.0, 7.0, 7.0]
    wanted = [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert observe(SGD(Plateau(1.0, factor=0.5, patience=2)), backend, metrics, dtype) == wanted


def test_plateau_options(backend):
    # Patience 1: the first epoch that is not better; the very first one always is.
    assert observe(SGD(Plateau(1.0, 0.5, 1)), backend, [3.0, 3.0, 3.0, 2.0]) == [1.0, 0.5, 0.25, 0.25]
    # Better by no more than 0.5 is not better, and the best stays what it was.
    assert observe(SGD(Plateau(1.0, 0.5, 1, min_delta=0.5)), backend, [3.0, 2.5, 2.4]) == [1.0, 0.5, 0.5]
    assert observe(SGD(Plateau(1.0, 0.5, 1, floor=0.4)), backend, [1.0, 1.0, 1.0, 1.0]) == [1.0, 0.5, 0.4, 0.4]
    # NaN is never better, and is not remembered; neither is infinity.
    assert observe(SGD(Plateau(1.0, 0.5, 1)), backend, [2.0, math.nan, math.inf, 1.0, 1.5]) == [
        1.0,
        0.5,
        0.25,
        0.25,
        0.125,
    ]
    # A negative metric (a log likelihood's), and the warm-up passes it on.
    assert observe(SGD(WarmUp(Plateau(1.0, 0.5, 1), 1)), backend, [-1.0, -2.0, -1.0]) == [0.5, 1.0, 0.5]


def test_other_schedules_do_not_look_at_the_metric(backend):
    assert observe(SGD(0.5), backend, [1.0, 1.0, 1.0]) == [0.5] * 3
    assert observe(SGD(StepDecay(0.5, 2, 0.5)), backend, [1.0, 1.0, 1.0]) == [0.5, 0.5, 0.25]


def test_a_schedule_with_a_memory_may_ignore_the_metric(backend):
    class Remembers(Schedule):
        def init(self, like, /, *, xp):
            return (xp.full((1,), 0.5, dtype=like.dtype),)

        def at(self, t, state, /, *, xp):
            return state[0]

    assert observe(SGD(Remembers()), backend, [1.0, 1.0]) == [0.5, 0.5]


def test_the_base_has_no_rate(backend):
    with pytest.raises(NotImplementedError):
        SGD(Schedule()).init((), xp=backend.xp)


def test_stairs_begin_in_time_where_a_division_is_a_multiplication(backend):
    # What torch does on a GPU, x / n = x · (1/n) with 1/n rounded: floor(49 · (1/49)) would be 0.
    class Reciprocal:
        def __init__(self, value):
            self.value = value

        def __add__(self, other):
            return Reciprocal(self.value + other)

        def __truediv__(self, n):
            return self.value * (1.0 / n)

    assert 49.0 * (1.0 / 49) < 1.0
    t = Reciprocal(backend.asarray(np.full((1,), 49.0)))
    rate = StepDecay(1.0, 49, 0.5).at(t, (), xp=backend.xp)
    assert backend.to_numpy(rate).tolist() == [0.5]


def test_schedules_are_values():
    assert CosineDecay(0.1, 10) == CosineDecay(0.1, 10) != CosineDecay(0.1, 11)
    assert len({WarmUp(0.1, 2), WarmUp(Constant(0.1), 2), SGD(Plateau(0.1)), SGD(Plateau(0.1))}) == 2
    assert type(StepDecay(np.float64(0.1), np.int64(3)).learning_rate) is float
