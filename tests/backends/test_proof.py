"""Where a plan and the eager step part: each of the answers, with planted faults."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captured_steps import HOSTS, Lab, Planned, State, Written

from bpxp.backends.proof import first_difference


@pytest.fixture(params=HOSTS, scope="module")
def lab(request):
    pytest.importorskip(request.param)
    return Lab(request.param)


def traced(state, data, xp):
    kind = xp.result_type(data, state.w)
    a = xp.exp(data * 2.0)
    ones = xp.ones((4,), dtype=kind)
    w, total = state
    w += a[:] * ones
    part = xp.sum(a, keepdims=True)
    total += part
    return State(w, total * 0.5)


def answer(lab, eager=traced, change=lambda done: done):
    planned = Planned(lab, traced, lab.start(), lab.quarters)
    planned.plan.done = [change(one) for one in planned.plan.done]
    state = lab.start()
    arguments = [*lab.start(), lab.quarters]
    before = [lab.host(a).copy() for a in arguments]
    found = first_difference(Written(eager, xp=lab.xp), planned.plan, state, lab.quarters, arguments)
    for a, b in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(lab.host(a), b)
    return found


def test_a_step_that_is_the_same(lab):
    assert answer(lab) == "an operator after the last function of xp"


def replaced(**calls):
    """Return a change of the calls of some operations."""

    def change(one):
        name = one.operation.name
        return one._replace(call=one.call._replace(function=calls[name])) if name in calls else one

    return change


def test_a_call_that_computes_something_else(lab):
    def half(x, into=None, out=None):
        lab.library.copy(out if into is None else into, x)

    def nothing(*inputs, **keywords):
        pass

    assert answer(lab, change=replaced(exp=half)) == "exp computed into a buffer"
    assert answer(lab, change=replaced(sum=nothing)) == "sum computed into a buffer"
    assert answer(lab, change=replaced(multiply=nothing)) == "multiply computed into a buffer"


def test_another_function(lab):
    def step(state, data, xp):
        a = xp.sin(data)
        return State(state.w + a, state.total)

    assert answer(lab, step) == "xp.sin where xp.exp was traced"


def test_fewer_functions(lab):
    def step(state, data, xp):
        xp.exp(data * 2.0)
        xp.ones((4,), dtype=xp.float64)
        return state

    assert answer(lab, step) == "xp.nothing where xp.sum was traced"
    assert answer(lab, lambda state, data, xp: state) == "xp.nothing where xp.exp was traced"


def test_another_result(lab):
    def by_a_number(state, data, xp):
        return State(state.w + xp.exp(data * 3.0), state.total)

    def by_a_write(state, data, xp):
        a = xp.exp(data * 2.0)
        ones = xp.ones((4,), dtype=xp.float64)
        a *= 2.0
        return State(state.w + ones, xp.sum(a, keepdims=True))

    def by_a_shape(state, data, xp):
        a = xp.exp(data * 2.0)
        xp.ones((4,), dtype=xp.float64)
        return State(state.w, state.total + xp.sum(a))

    def by_a_dtype(state, data, xp):
        xp.exp(data * 2.0)
        xp.ones((4,), dtype=xp.float32)
        return state

    words = "the result of xp.{}, or of the operators before it"
    assert answer(lab, by_a_number) == words.format("exp")
    assert answer(lab, by_a_write) == words.format("sum")
    assert answer(lab, by_a_shape) == words.format("sum")
    assert answer(lab, by_a_dtype) == words.format("ones")


def test_what_is_written_later_was_heard_before(lab):
    """The results are copied: the eager step writes into them afterwards."""

    def step(state, data, xp):
        a = xp.exp(data * 2.0)
        a += 1.0
        return State(state.w + a, xp.sum(a, keepdims=True))

    planned = Planned(lab, step, lab.start(), lab.quarters)
    arguments = [*lab.start(), lab.quarters]
    found = first_difference(Written(step, xp=lab.xp), planned.plan, lab.start(), lab.quarters, arguments)
    assert found == "an operator after the last function of xp"


def test_an_array_may_be_a_keyword():
    lab = Lab("numpy")

    def step(state, data, xp):
        return State(state.w + xp.roll(data, shift=xp.ones((1,), dtype=xp.int64)), state.total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    found = first_difference(
        Written(step, xp=lab.xp), planned.plan, *[lab.start(), lab.quarters], [*lab.start(), lab.quarters]
    )
    assert found == "an operator after the last function of xp"


def test_a_difference_of_an_operator_shows_at_the_next_function(lab):
    def step(state, data, xp):
        a = xp.exp(data * 2.0)
        xp.ones((4,), dtype=xp.float64)
        return State(state.w, xp.sum(a - 1.0, keepdims=True))

    assert answer(lab, step) == "the result of xp.sum, or of the operators before it"
