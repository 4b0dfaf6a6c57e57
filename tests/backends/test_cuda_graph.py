"""The way to a CUDA graph and back: buffers, proof and fallback, with a graph that is made of NumPy."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.numpy_graph import Graph

import bpxp
from bpxp.backends.base import eager
from bpxp.core.tree import leaves

XP = bpxp.get_backend("numpy").xp


class State(NamedTuple):
    w: Any
    total: Any


def start():
    return State(np.arange(4.0), np.zeros(1))


def step(state, data):
    w, total = state
    w *= 0.5
    w += data
    return State(w, total + XP.sum(w))


DATA = np.full(4, 0.25)


def agree(graph, data=DATA, counts=(2, 1, 1, 9, 1, 3, 21), plain=step):
    a, b = start(), start()
    for count in counts:
        a, b = graph(a, data, count=count), eager(plain)(b, data, count=count)
        for own, other in zip(leaves(a), leaves(b), strict=True):
            assert type(own) is np.ndarray
            np.testing.assert_array_equal(own, other)
    return graph


# ---------------------------------------------------------------- the way to a graph


def test_a_graph_takes_over_once_it_is_proved_and_several_steps_are_one_launch():
    graph = agree(Graph(step, XP))
    assert sorted(graph.plays) == [1, 4]
    assert not graph.reason
    before = graph.launches
    graph(start(), DATA, count=22)
    assert graph.launches == before + 7  # 5 of 4, 2 of 1


def test_what_comes_in_other_arrays_is_copied_in():
    graph = agree(Graph(step, XP))
    state = graph(start(), DATA, count=2)
    state = graph(state._replace(total=np.full(1, 100.0)), DATA, count=4)
    expected = eager(step)(start(), DATA, count=2)
    expected = eager(step)(expected._replace(total=np.full(1, 100.0)), DATA, count=4)
    np.testing.assert_array_equal(state.w, expected.w)
    np.testing.assert_array_equal(state.total, expected.total)


def test_parts_of_the_state_that_have_changed_places_are_not_mixed_up():
    class Pair(NamedTuple):
        a: Any
        b: Any

    def pair(state, data):
        a, b = state
        a += data
        b *= 2.0
        return Pair(a, b)

    def begin():
        return Pair(np.ones(4), np.full(4, 3.0))

    graph = Graph(pair, XP)
    state, expected = graph(begin(), DATA, count=20), eager(pair)(begin(), DATA, count=20)
    assert graph.plays
    for _ in range(3):
        state, expected = Pair(state.b, state.a), Pair(expected.b, expected.a)
        state, expected = graph(state, DATA, count=1), eager(pair)(expected, DATA, count=1)
        np.testing.assert_array_equal(state.a, expected.a)
        np.testing.assert_array_equal(state.b, expected.b)
    assert not graph.reason


def test_small_data_that_are_others_in_each_call_are_copied_in_and_large_ones_begin_anew(monkeypatch):
    graph, state, expected = Graph(step, XP), start(), start()
    for i in range(12):
        data = np.full(4, float(i))
        state, expected = graph(state, data), eager(step)(expected, data)
        np.testing.assert_array_equal(state.w, expected.w)
    assert graph.plays
    data[...] = 7.0  # the same array with other numbers
    state, expected = graph(state, data), eager(step)(expected, data)
    np.testing.assert_array_equal(state.w, expected.w)

    monkeypatch.setattr(Graph, "FED", 8)
    graph, state = Graph(step, XP), start()
    for i in range(12):
        state = graph(state, np.full(4, float(i)))
    assert not graph.plays
    np.testing.assert_array_equal(state.w, eager_over(range(12)).w)


def eager_over(values):
    state = start()
    for value in values:
        state = step(state, np.full(4, float(value)))
    return state


def test_the_same_data_with_other_numbers_are_felt():
    graph, data = Graph(step, XP), DATA.copy()
    state, expected = graph(start(), data, count=20), eager(step)(start(), data, count=20)
    data *= 3.0
    state, expected = graph(state, data, count=5), eager(step)(expected, data, count=5)
    np.testing.assert_array_equal(state.w, expected.w)


def test_a_copy_of_a_step_has_graphs_of_its_own():
    graph = agree(Graph(step, XP))
    other = copy.deepcopy(graph)
    assert graph.plays
    assert not other.plays
    state = graph(start(), DATA, count=5)
    agree(other)
    np.testing.assert_array_equal(state.w, eager(step)(start(), DATA, count=5).w)


# ---------------------------------------------------------------- the way back


class DoesNothing(Graph):
    def capture(self, state, data, size):
        super().capture(state, data, size)
        return lambda times: None


class WrongTheSecondTime(Graph):
    """As if somebody else had got the memory."""

    def capture(self, state, data, size):
        play = super().capture(state, data, size)

        def plays(times):
            play(times)
            if self.launches > 1:
                self._state[0][0] += 1.0

        return plays


class Refuses(Graph):
    def capture(self, state, data, size):
        raise RuntimeError("the current stream is capturing,\n so transfers are disallowed")


class FailsAtLaunch(Graph):
    def capture(self, state, data, size):
        super().capture(state, data, size)

        def play(times):
            self._state[0][...] = np.nan  # half done
            raise RuntimeError("invalid argument")

        return play


class HasNoMemory(Graph):
    def own(self, a):
        raise MemoryError("4 GB")


class HasNoMemoryForTheProof(Graph):
    def own(self, a):
        if not self._unproved and not self.proving:
            return super().own(a)
        raise MemoryError("4 GB")

    proving = False

    def _prove(self, state, data, size):
        self.proving = True
        return super()._prove(state, data, size)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (DoesNothing, "to the bit"),
        (WrongTheSecondTime, "to the bit"),
        (Refuses, "RuntimeError: the current stream is capturing, so transfers"),
        (FailsAtLaunch, "RuntimeError: invalid argument"),
        (HasNoMemory, "MemoryError: 4 GB"),
        (HasNoMemoryForTheProof, "MemoryError: 4 GB"),
    ],
)
@pytest.mark.parametrize("counts", [(30, 4), (1,) * 12, (3, 4, 4, 4, 2)])
def test_a_graph_that_does_something_else_is_not_used_and_nothing_is_lost(broken, reason, counts):
    graph = agree(broken(step, XP), counts=counts)
    assert reason in graph.reason
    assert not graph.plays


def test_tables_made_within_a_capture_do_not_outlive_it():
    xp = copy.copy(XP)
    xp.memo, calls = {"known": 0}, []

    def tables(state, data):
        calls.append(1)
        xp.memo.setdefault(f"table {len(calls)}", np.zeros(1))
        return step(state, data)

    graph = agree(Graph(tables, xp), plain=step)
    assert "table of indices" in graph.reason
    assert "known" in xp.memo
    assert f"table {Graph.WORTH + 1}" in xp.memo  # of the warm-up
    assert f"table {Graph.WORTH + 2}" not in xp.memo  # of the capture


def test_what_the_step_does_wrong_is_an_error_as_ever():
    def wrong(state, data):
        if state.total[0] > 5:
            raise ZeroDivisionError("the step's own")
        return State(state.w, state.total + 1.0)

    graph = Graph(wrong, XP)
    with pytest.raises(ZeroDivisionError, match="the step's own"):
        graph(start(), DATA, count=50)


def test_a_step_without_a_state_stays_as_it_is():
    graph = Graph(lambda state, data: data * 2.0, XP)
    for _ in range(9):
        np.testing.assert_array_equal(graph((), DATA), DATA * 2.0)
    assert graph.reason == "it has no state"


def test_a_network_says_which_of_its_steps_run_as_they_are_written_and_why():
    backend = copy.copy(bpxp.get_backend("numpy"))
    backend.compile = lambda step: Refuses(step, backend.xp)
    x, y = np.ones((8, 2), np.float32), np.zeros(8, np.int32)
    y[:4] = 1
    net = bpxp.Network([2, 2], backend=backend, seed=0)
    assert net.eager_steps == {}
    bpxp.Trainer(net, progress=False).fit((x, y), epochs=6, batch_size=4)
    for _ in range(9):
        net.predict(x)  # has no state: nothing to say
    assert list(net.eager_steps) == ["TrainingStep"]
    assert "transfers are disallowed" in net.eager_steps["TrainingStep"]
