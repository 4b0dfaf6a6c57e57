"""A captured step, rule by rule: when it is captured, proved, kept, given up, and what runs eagerly meanwhile."""

from __future__ import annotations

import copy
import pickle
import threading
import warnings
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.captured_steps import HOSTS, Lab, State, Written

import bpxp
from bpxp.backends import captured
from bpxp.backends.captured import CapturedStep, structure
from bpxp.core.tree import leaves

pytestmark = pytest.mark.timeout(30)  # a lock that is waited for within a test never comes


@pytest.fixture(params=HOSTS)
def lab(request, monkeypatch):
    pytest.importorskip(request.param)
    monkeypatch.setattr(captured, "Constants", Plain)
    monkeypatch.setattr(CapturedStep, "WORTH", 3)
    monkeypatch.setattr(captured, "PROOFS", (5, 5))
    Plain.value = 0
    return Lab(request.param)


class Plain:
    """Constants that are the same until `value` changes: so steps may count their calls."""

    value = 0

    def __init__(self, step):
        self.mine, self.places = Plain.value, [step]

    def same(self):
        return self.mine == Plain.value

    def difference(self):
        return f"value was {self.mine}"


class Counted:
    """A step that counts its eager calls and its traces."""

    def __init__(self, lab, function=lambda s, d, xp: State(s.w + d, s.total + 1.0)):
        self.lab, self.function, self.eager, self.traced = lab, function, 0, 0
        self.run = lab.compile(self)

    def __call__(self, state, data, xp):
        if xp is self.lab.xp:
            self.eager += 1
        else:
            self.traced += 1
        return self.function(state, data, xp)


def test_when_a_step_is_worth_a_capture(lab):
    step = Counted(lab)
    run, state = step.run, lab.start()
    for calls, (eager, traced, plans) in enumerate([(1, 0, 0), (2, 0, 0), (3, 0, 0), (4, 2, 1), (4, 2, 1)]):
        state = run(state, lab.quarters)
        assert (step.eager, step.traced, len(run.plans)) == (eager, traced, plans)
        assert lab.host(state.total) == calls + 1
    assert run.reason == ""
    assert run(state, lab.quarters, count=0) is state
    assert run._constants.places == [run.step]
    run._found = None  # the kind of the last call is not looked up again
    for since in (2, 3):
        state = run(state, lab.quarters)
        assert run._entry.since == since
    assert step.eager == 4


def test_the_class_says_how_many_steps_are_worth_it():
    assert CapturedStep.__dict__["WORTH"] <= 32
    assert (captured.PLANS, captured.CHANGES, captured.PROOFS, captured.ROOM) == (4, 3, (200, 1800), 1 << 24)


def test_several_steps_in_one_call(lab):
    step = Counted(lab)
    state = step.run(lab.start(), lab.quarters, count=8)  # three eager, one proof, four of five of the plan
    assert (step.eager, step.run._entry.left, step.run._entry.since) == (4, 1, 4)
    assert lab.host(state.total) == 8
    state = step.run(state, lab.quarters, count=7)  # one, a proof, five
    assert (step.eager, step.run._entry.left, step.run._entry.since) == (5, 0, 5)
    assert lab.host(state.total) == 15
    np.testing.assert_array_equal(lab.host(state.w), np.arange(4) + 15 * 0.25)
    state = step.run(state, lab.quarters)
    assert (step.eager, step.run._entry.left, step.run._entry.since) == (6, 5, 0)


def test_a_step_without_a_state_plays_once_in_a_call(lab):
    step = Counted(lab, lambda s, d, xp: xp.exp(d))
    for _ in range(9):
        result = step.run((), lab.quarters)
    assert (step.eager, step.run._entry.left) == (4, 0)
    np.testing.assert_array_equal(lab.host(result), lab.host(lab.xp.exp(lab.quarters)))
    step.run((), lab.quarters)
    before = step.eager
    step.run((), lab.quarters, count=2)  # the result is no state that the plan knows
    assert step.eager == before + 1
    several = Counted(lab, lambda s, d, xp: (xp.exp(d), 3, None, (d,)))
    for _ in range(9):
        result = several.run((), lab.quarters)
    assert several.eager == 4
    assert result[1:3] == (3, None)
    assert result[3][0] is lab.quarters


def test_a_plan_does_several_steps_at_once(lab):
    step = Counted(lab)
    state, played = step.run(lab.start(), lab.quarters, count=4), []
    spoiled(step, lambda made, arrays: made, played)
    step.run(state, lab.quarters, count=9)
    assert played == [5, 1, 3]  # the second is a proof


def test_a_plan_is_proved_after_a_random_number_of_steps(lab, monkeypatch):
    monkeypatch.setattr(captured, "PROOFS", (2, 9))
    found = set()
    for _ in range(40):
        step = Counted(lab)
        step.run(lab.start(), lab.quarters, count=4)
        found.add(step.run._entry.left)
    assert found <= set(range(2, 10))
    assert len(found) > 3


def test_a_proof_within_so_many_steps(lab, monkeypatch):
    step = Counted(lab)
    step.run(lab.start(), lab.quarters, count=4)
    monkeypatch.setattr(captured, "PROOFS", (200, 300))
    entry = step.run._entry
    entry.left, entry.since = 100, 150
    step.run.prove_within(50)  # it was proved a moment ago
    assert entry.left == 100
    step.run.prove_within(51)
    assert entry.left < 51
    drawn = []
    step.run._random = SimpleNamespace(randrange=lambda n: drawn.append(n) or 30)
    entry.left = 20
    step.run.prove_within(60)
    assert (entry.left, drawn) == (20, [60])
    entry.left = 40
    step.run.prove_within(60)
    assert entry.left == 30
    entry.proved, entry.left = False, 100
    step.run.prove_within(60)
    assert entry.left == 100
    entry.proved = True
    with step.run._lock:
        step.run.prove_within(60)
        assert entry.left == 100
    step.run.prove_within(60)
    assert entry.left == 30
    assert not step.run._lock.locked()


def arrays_of_size(lab, size):
    return State(lab.array(np.zeros(size)), lab.array(np.zeros(1))), lab.array(np.ones(size))


def test_the_least_recently_used_plan_goes(lab, monkeypatch):
    monkeypatch.setattr(captured, "PROOFS", (500, 500))
    step = Counted(lab)

    def shown(size):
        before = step.traced
        step.run(*arrays_of_size(lab, size), count=6)
        return step.traced > before

    assert [shown(size) for size in (2, 3, 4, 5)] == [True] * 4
    assert len(step.run.plans) == 4
    assert [shown(size) for size in (2, 3, 4, 5, 2)] == [False] * 5
    assert shown(6)  # and 3 goes
    assert len(step.run.plans) == 4
    assert [shown(size) for size in (4, 5, 2, 6)] == [False] * 4
    assert shown(3)  # and 4 goes
    assert shown(4)


def test_other_kinds_are_counted_for_themselves(lab):
    step = Counted(lab)
    for size in (2, 3, 2, 3, 2, 3):
        step.run(*arrays_of_size(lab, size))
    assert (step.eager, step.traced) == (6, 0)
    step.run(*arrays_of_size(lab, 2))
    assert (step.eager, step.traced, len(step.run.plans)) == (7, 2, 1)
    step.run(*arrays_of_size(lab, 3))
    assert len(step.run.plans) == 2


def test_states_of_other_kinds_have_plans_of_their_own(lab, monkeypatch):
    monkeypatch.setattr(captured, "PROOFS", (500, 500))
    step = Counted(lab, lambda s, d, xp: (s[0] * 0.5,))
    wide, narrow = (lab.array(np.ones(4, dtype)) for dtype in ("float64", "float32"))
    for _ in range(2):
        for state in (wide, narrow):
            for data in (lab.quarters, lab.array(np.ones(2))):
                step.run((state,), data, count=6)
    assert (step.traced, len(step.run.plans)) == (8, 4)


def test_constants_that_change(lab):
    step, state = Counted(lab), lab.start()
    for change in range(4):
        Plain.value = change
        state = step.run(state, lab.quarters, count=10)
        assert (len(step.run.plans), step.run.reason) == (1, "")
        assert lab.host(state.total) == 10 * (change + 1)
    Plain.value = 9
    state = step.run(state, lab.quarters, count=10)
    assert (step.run.plans, step.run.reason) == ([], "value was 3")
    assert lab.host(state.total) == 50


def test_constants_that_change_before_the_plan_is_used(lab):
    step = Counted(lab)
    step.run(lab.start(), lab.quarters, count=4)
    Plain.value = 5
    before = step.eager
    step.run(lab.start(), lab.quarters)
    assert (step.eager - before, step.traced) == (1, 2)  # it begins anew
    assert step.run.plans == []


def test_constants_that_change_while_it_is_traced(lab):
    def function(state, data, xp):
        if xp is not lab.xp:
            Plain.value += 1
        return State(state.w + data, state.total)

    step = Counted(lab, function)
    step.run(lab.start(), lab.quarters, count=10)
    assert step.run.reason == "value was 0"
    assert step.eager == 10


def test_where_there_are_no_places_nothing_is_compared(lab, monkeypatch):
    class Nothing(Plain):
        def __init__(self, step):
            self.mine, self.places = Plain.value, []

    monkeypatch.setattr(captured, "Constants", Nothing)
    step = Counted(lab)
    step.run(lab.start(), lab.quarters, count=4)
    Plain.value = 3
    step.run(lab.start(), lab.quarters)
    assert len(step.run.plans) == 1


# ---------------------------------------------------------------- what is given up


def given_up(lab, function, state=None, data=None):
    step = Counted(lab, function)
    for _ in range(6):
        step.run(lab.start() if state is None else state, lab.quarters if data is None else data)
    assert step.run.plans == []
    assert step.run._entries == {}
    return step.run.reason


def test_why_a_step_runs_eagerly(lab):
    assert given_up(lab, lambda s, d, xp: s, (), 3.0) == "its arguments are no arrays of the backend"
    assert given_up(lab, lambda s, d, xp: s, (), [3.0]) == "an argument is a list"
    assert given_up(lab, lambda s, d, xp: tuple(s)) == "its state changes its structure"
    assert given_up(lab, lambda s, d, xp: (s.w, s.total, 1)) == "its state changes its structure"
    assert given_up(lab, lambda s, d, xp: s.w) == "its state changes its structure"
    assert given_up(lab, lambda s, d, xp: (s[0], 2), (lab.array(np.ones(2)), 1)) == "its state changes its structure"
    assert given_up(lab, lambda s, d, xp: State(s.total, s.w)).startswith("its state")


def test_a_state_of_which_numpy_makes_no_copy_of_the_same_layout(lab):
    def function(state, data, xp):
        w = state.w
        w += data
        return state

    step, state = Counted(lab, function), State(lab.array(np.zeros(8))[::2], lab.array(np.zeros(1)))
    step.run(state, lab.quarters, count=8)
    assert step.run.reason == ("its state is not contiguous" if lab.name == "numpy" else "")
    np.testing.assert_array_equal(lab.host(state.w), 2.0)


def test_errors_of_a_library_are_named(lab):
    def function(state, data, xp):
        if xp is not lab.xp:
            raise OSError("no  such\nthing")
        return state

    assert given_up(lab, function) == "OSError: no such thing"


def test_two_traces_that_differ(lab):
    numbers = iter(range(100))

    def function(state, data, xp):
        return State(state.w * float(next(numbers) if xp is not lab.xp else 1), state.total)

    assert given_up(lab, function) == "two traces of it differ: multiply(0.0) once, then multiply(1.0)"


def test_the_memory_of_a_step(lab, monkeypatch):
    def function(state, data, xp):
        return State(state.w + xp.tanh(xp.exp(data)), state.total)

    monkeypatch.setattr(captured, "ROOM", 64)
    step = Counted(lab, function)
    step.run(lab.start(), lab.quarters, count=6)
    assert len(step.run.plans) == 1
    monkeypatch.setattr(captured, "ROOM", 63)
    assert given_up(lab, function) == "its results take more than 0 MiB"
    monkeypatch.setattr(captured, "ROOM", (1 << 20) + 5)
    large = (lab.array(np.full(1 << 17, -9.0)),)
    assert given_up(lab, lambda s, d, xp: (xp.tanh(s[0]) + 1.0,), large) == "its results take more than 1 MiB"


def test_a_function_that_is_switched_off(lab, monkeypatch):
    monkeypatch.setenv("BPXP_CAPTURE", "0")
    step = Counted(lab)
    assert step.run.reason == "capture is switched off"
    state = step.run(lab.start(), lab.quarters, count=9)
    assert (step.eager, step.traced, lab.host(state.total)) == (9, 0, 9)


def test_a_state_that_shares_memory_is_left_for_later(lab):
    def function(state, data, xp):
        w, total = state
        w += data
        total += w[:1]
        return State(w, total)

    step = Counted(lab, function)
    whole = lab.array(np.arange(4.0))
    state = step.run(State(whole, whole[:1]), lab.quarters, count=6)
    assert (step.eager, step.traced, step.run.reason, step.run.plans) == (6, 0, "", [])
    state = step.run(lab.start(), lab.quarters, count=3)
    assert (step.eager, step.traced) == (7, 2)
    whole = lab.array(np.arange(4.0))
    state = step.run(State(whole, whole[:1]), lab.quarters, count=3)  # a plan is there, and not used
    assert step.eager == 10
    expected, other = lab.array(np.arange(4.0)), None
    other = State(expected, expected[:1])
    for _ in range(3):
        other = function(other, lab.quarters, lab.xp)
    np.testing.assert_array_equal(lab.host(state.w), lab.host(other.w))
    state = step.run(lab.start(), lab.quarters)
    assert step.eager == 10


# ---------------------------------------------------------------- proofs that fail


def spoiled(step, how, counts=None):
    """Give the plan of a step another program."""
    plan = step.run._entry.plan
    play = plan.play

    def other(count, *arrays):
        if counts is not None:
            counts.append(count)
        return how(play(count, *arrays), arrays)

    plan.play = other


def test_a_later_proof_that_fails(lab):
    step = Counted(lab, lambda s, d, xp: State(s.w + xp.exp(d), s.total))
    state = step.run(lab.start(), lab.quarters, count=4)
    entry = step.run._entry

    def how(made, arrays):
        w = arrays[0]
        w += 1.0
        return made

    spoiled(step, how)
    entry.left = 0
    expected = step.function(State(*(lab.library.own(a) for a in state)), lab.quarters, lab.xp)
    with pytest.warns(
        bpxp.errors.BpxpWarning, match="a captured step: it differs from the eager step: an op"
    ) as caught:
        state = step.run(state, lab.quarters)
    assert len(caught) == 1
    assert caught[0].message.code == "BPX-W009"
    assert "net.capture = False" in str(caught[0].message)
    last = "an operator after the last function of xp"
    assert step.run.reason == f"the plan did not repeat the step to the bit: {last}"
    assert step.run.plans == []
    np.testing.assert_array_equal(lab.host(state.w), lab.host(expected.w))


@pytest.mark.parametrize("fault", ["a bit", "an error"])
def test_a_first_proof_that_fails(lab, monkeypatch, fault):
    class Wrong(captured.Plan):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            play = self.play

            def wrong(count, *arrays):
                play(count, *arrays)
                if fault == "an error":
                    raise ValueError
                total = arrays[1]
                total *= -1.0
                return ()

            self.play = wrong

    monkeypatch.setattr(captured, "Plan", Wrong)
    step = Counted(lab, lambda s, d, xp: State(s.w + xp.exp(d), s.total))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = step.run(lab.start(), lab.quarters, count=9)
    assert step.run.reason.startswith("the plan did not repeat the step to the bit: ")
    expected = lab.start()
    for _ in range(9):
        expected = step.function(expected, lab.quarters, lab.xp)
    np.testing.assert_array_equal(lab.host(state.w), lab.host(expected.w))


class Named(NamedTuple):
    w: Any
    text: str
    total: Any


def test_the_difference_is_looked_for_from_the_state_before(lab, monkeypatch):
    asked = []

    def difference(step, plan, state, data, arrays):
        assert state.text == "text"
        asked.append((lab.host(state.w).copy(), lab.host(arrays[0]).copy(), data is lab.quarters, len(arrays), plan))
        return "here"

    monkeypatch.setattr(captured, "first_difference", difference)

    def function(state, data, xp):
        w, text, total = state
        w += data
        return Named(w, text, total + 1.0)

    step = Counted(lab, function)
    state = step.run(Named(lab.start().w, "text", lab.start().total), lab.quarters, count=4)
    plan = step.run._entry.plan
    spoiled(step, lambda made, arrays: arrays[1].__imul__(2.0) and made)
    step.run._entry.left = 0
    with pytest.warns(bpxp.errors.BpxpWarning, match="here"):
        step.run(state, lab.quarters)
    ((before, array, same, count, of),) = asked
    np.testing.assert_array_equal(before, np.arange(4) + 1.0)
    np.testing.assert_array_equal(array, before)
    assert (same, count, of is plan) == (True, 3, True)
    assert step.run.reason == "the plan did not repeat the step to the bit: here"


def test_results_of_a_function_that_differ(lab):
    for made in (
        lambda made: (made[0] + 1.0, *made[1:]),
        lambda made: (made[0], 4, None),
        lambda made: (made[0], 3.0, None),
        lambda made: (made[0], 3, 0),
        lambda made: (3, made[0], None),
        lambda made: made[:-1],
        lambda made: (*made, None),
        lambda made: (lab.xp.astype(made[0], lab.xp.float32), 3, None),
        lambda made: (lab.xp.reshape(made[0], (2, 2)), 3, None),
    ):
        step = Counted(lab, lambda s, d, xp: (xp.exp(d), 3, None))
        for _ in range(4):
            step.run((), lab.quarters)
        spoiled(step, lambda result, arrays, made=made: made(result))
        step.run._entry.left = 0
        with pytest.warns(bpxp.errors.BpxpWarning):
            result = step.run((), lab.quarters)
        np.testing.assert_array_equal(lab.host(result[0]), lab.host(lab.xp.exp(lab.quarters)))
        assert step.run.reason


def test_a_state_may_hold_plain_values(lab):
    step = Counted(lab, lambda s, d, xp: (s[0] + d, "text", (s[2][0] * 0.5, 3)))
    state = step.run((lab.quarters, "text", (lab.array(np.ones(1)), 3)), lab.array(np.ones(4)), count=8)
    assert (step.eager, step.run.reason, state[1], state[2][1]) == (4, "", "text", 3)
    assert lab.host(state[2][0]) == 0.5**8
    assert lab.host(state[0])[0] == 8.25


def test_a_proof_leaves_the_data_and_the_plan_alone(lab):
    step = Counted(lab)
    state = lab.start()
    for _ in range(20):
        state = step.run(state, lab.quarters)
    assert step.eager == 3 + 3
    np.testing.assert_array_equal(lab.host(lab.quarters), 0.25)
    np.testing.assert_array_equal(lab.host(state.w), np.arange(4) + 5.0)


# ---------------------------------------------------------------- one call at a time


def test_a_call_within_a_call_runs_eagerly(lab):
    inner = []

    def function(state, data, xp):
        if xp is lab.xp and len(inner) < 1 and step.eager > 2:
            inner.append(None)
            inner[0] = step.run(lab.start(), data, count=2)
        return State(state.w + data, state.total + 1.0)

    step = Counted(lab, function)
    step.run(lab.start(), lab.quarters, count=3)
    assert lab.host(inner[0].total) == 2
    assert step.eager == 5


def test_a_second_thread_runs_eagerly(lab):
    step = Counted(lab)
    state = step.run(lab.start(), lab.quarters, count=4)
    before = step.eager
    with step.run._lock:
        thread = threading.Thread(target=lambda: step.run(lab.start(), lab.quarters, count=3))
        thread.start()
        thread.join()
    assert step.eager == before + 3
    step.run(state, lab.quarters, count=3)
    assert step.eager == before + 3


def test_an_error_of_the_step_is_its_own_and_frees_the_plan(lab):
    def function(state, data, xp):
        if fails:
            raise KeyError("mine")
        return State(state.w + data, state.total)

    fails = True
    step = Counted(lab, function)
    with pytest.raises(KeyError, match="mine"):
        step.run(lab.start(), lab.quarters)
    assert not step.run._lock.locked()
    fails = False
    step.run(lab.start(), lab.quarters, count=9)
    assert len(step.run.plans) == 1


def test_a_copy_finds_out_for_itself(lab):
    step = Counted(lab)
    step.run(lab.start(), lab.quarters, count=5)
    for made in (copy.copy(step.run), type(step.run)(*step.run.__reduce__()[1])):
        assert (made.plans, made.step, made.library) == ([], step.run.step, step.run.library)
    plain = CapturedStep(Written(at_module_level, xp=None), lab.library)
    assert pickle.loads(pickle.dumps(plain)).step.function is at_module_level


def at_module_level(state, data, xp):
    return state


def test_the_structure_of_a_tree():
    tree = State((1, 2.5), ("text", (None, [3])))
    text = (tuple, (str, "text"), (tuple, (type(None), None), None))
    assert structure(tree, list) == (State, (tuple, (int, 1), (float, 2.5)), text)
    assert structure((1, "a"), int) == (tuple, None, (str, "a"))
    assert structure((True,), int) == (tuple, (bool, True))
    assert structure((1,), str) != structure((True,), str)
    assert structure(State(1, 2), int) != structure((1, 2), int)
    assert structure((), int) == (tuple,)
    assert leaves(()) == []
