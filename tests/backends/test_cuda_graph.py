"""Compiled steps do the same bits as the step as it is written: with a graph that is made of NumPy, and with real ones."""

from __future__ import annotations

import copy
import os
import types
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.numpy_graph import NumpyReplay, Tape, _plain, opaque
from helpers.small_runs import NETWORKS, OPTIMIZERS

import bpxp
from bpxp import optim
from bpxp.backends.base import eager
from bpxp.backends.cuda_graph import GraphReplay
from bpxp.core.tree import leaves, tree_map, unflatten

XP = bpxp.get_backend("numpy").xp


class Graph(GraphReplay, NumpyReplay):
    """What a CUDA graph does, with NumPy's arrays: a capture computes nothing that lasts, a launch does."""

    SIZES = (4, 1)
    tape: Any = None
    launches = 0

    def copy(self, into, a):
        super().copy(_plain(into), _plain(a))
        if self.tape is not None:
            self.tape.call(np.copyto, _plain(into), _plain(a))

    def capture(self, state, data, size):
        self.warm_up(state, data)
        saved = [a.copy() for a in self._state]
        self.tape = tape = Tape()
        try:
            own = unflatten(state, [tape.adopt(a) for a in leaves(state)])
            self.work(own, tree_map(lambda a: tape.adopt(a) if isinstance(a, np.ndarray) else a, data), size)
        finally:
            self.tape = None
            for a, before in zip(self._state, saved, strict=True):
                a[...] = before

        def play(times):
            for _ in range(times):
                self.launches += 1
                for function, arguments in tape.calls:
                    function(*arguments)

        return play


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
        if self._unproved is None or not self._state or self.tape is not None:
            return super().own(a)
        raise MemoryError("4 GB")

    def warm_up(self, state, data):
        pass


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


# ---------------------------------------------------------------- PyTorch's part of it, as far as a CPU has it


def test_pytorchs_arrays_are_known_by_their_memory(monkeypatch):
    torch = pytest.importorskip("torch")
    from bpxp.backends.torch.cuda_graph import TorchGraph

    class OnTheCpu(TorchGraph):
        __call__ = GraphReplay.__call__

        def capture(self, state, data, size):
            self.warm_up(state, data)
            return lambda times: [self.work(state, data, size) for _ in range(times)]

        def wait(self):
            pass

    backend = copy.copy(bpxp.get_backend("torch"))
    results, made = [], []
    for written in (True, False):

        def compile(step, written=written):
            made.append(eager(step) if written else OnTheCpu(step, backend.xp, backend.device))
            return made[-1]

        monkeypatch.setattr(backend, "compile", compile)
        results.append(trained(backend, *NETWORKS["images"], optim.SGD(0.1, momentum=0.9, average=0.9))[1:])
    assert results[0] == results[1]
    assert any(getattr(run, "plays", None) for run in made)
    assert not [run.reason for run in made if getattr(run, "reason", "")]

    graph = OnTheCpu(step, backend.xp, backend.device)
    a = torch.arange(6.0)
    b = graph.own(a.reshape(2, 3).T)
    assert b.is_contiguous()
    assert graph.same(b, a.reshape(2, 3).T)
    assert not graph.same(a, a + 1e-6)
    assert graph.same(a * float("nan"), a * float("nan"))
    assert graph.place(a[1:])[0] == graph.place(a)[0] != graph.place(b)[0]
    assert graph.place(a[1:]) != graph.place(a)


# ---------------------------------------------------------------- training, on every backend


def library(backend):
    return backend.name.partition(":")[0]


# XLA rounds otherwise than one operation at a time; array-api-strict compiles nothing.
ASKED = [name for name in os.environ.get("BPXP_TEST_BACKENDS", "numpy").split(",") if name[:3] not in ("jax", "str")]


@pytest.fixture(params=["graph", *ASKED])
def both_ways(request, monkeypatch):
    """A backend, and how to let it run steps as they are written; NumPy also with graphs as above."""
    if request.param == "graph":
        backend = copy.copy(bpxp.get_backend("numpy"))
        backend.xp = types.SimpleNamespace(**vars(backend.xp) | {"threefry": opaque(backend.xp.threefry)})
        backend.compile = lambda step: Graph(step, backend.xp)
    else:
        backend = bpxp.get_backend(request.param)
    compile, made = backend.compile, []

    def compiled(step):
        made.append(compile(step))
        return made[-1]

    def use(written):
        made.clear()
        monkeypatch.setattr(backend, "compile", eager if written else compiled)

    return backend, use, made


def graphs(backend, made):
    """Return what was recorded; on a GPU something has to be, or the reason has to be a package that is missing."""
    found = [getattr(run, "run", run) for run in made]
    reasons = {getattr(run, "reason", "") for run in found} - {"", "it has no state"}
    if library(backend) == "cupy" and any("needs nvmath-python" in reason for reason in reasons):
        pytest.skip(f"the same bits, but eager: {reasons}")
    assert not reasons
    recorded = [run for run in found if getattr(run, "plays", None) or getattr(run, "plans", None)]
    assert recorded or backend.name == "torch"
    return recorded


def trained(backend, layers, shape, optimizer, n=61, batch=4, epochs=3, **options):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape), dtype=np.float32), rng.integers(0, 3, n)
    net = bpxp.Network(layers, input_shape=shape, hidden="relu", backend=backend, seed=5)
    history = bpxp.Trainer(net, optimizer, progress=False).fit(
        (x, y), epochs=epochs, batch_size=batch, validation=(x[:9], y[:9]), **options
    )
    arrays = [backend.to_numpy(a).tobytes() for a in leaves((net.params, net.stats, net.key))]
    return net, arrays, [*history["loss"], *history["validation_loss"]]


def same_bits(both_ways, *arguments, **options):
    backend, use, made = both_ways
    use(written=True)
    _, arrays, losses = trained(backend, *arguments, **options)
    use(written=False)
    _, own, values = trained(backend, *arguments, **options)
    assert own == arrays
    assert values == losses
    graphs(backend, made)


@pytest.mark.parametrize("batch", [7, 61], ids=["a short last batch", "one whole batch"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_run_is_the_same_bits(name, batch, both_ways):
    same_bits(both_ways, *NETWORKS[name], optim.SGD(0.1), batch=batch, epochs=3 if batch == 7 else 20)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__} {getattr(o, 'momentum', '')}")
def test_every_optimizer_is_the_same_bits(optimizer, both_ways):
    same_bits(both_ways, *NETWORKS["dense"], optimizer)


def test_augmentation_on_the_way_is_the_same_bits(both_ways):
    moves = [bpxp.data.augment.Affine(degrees=10, shift=1), bpxp.data.augment.Mixup(0.3)]
    same_bits(both_ways, *NETWORKS["images"], optim.SGD(0.1), augment=moves)


def test_other_data_another_rate_and_single_steps_are_the_same_bits(both_ways, rng):
    backend, use, made = both_ways
    pairs = [(rng.random((30, 12), dtype=np.float32), rng.integers(0, 3, 30)) for _ in range(2)]
    results = []
    for written in (True, False):
        use(written)
        net = bpxp.Network([12, 7, 3], backend=backend, seed=2)
        for rate in (0.5, 0.05):
            for pair in pairs:
                bpxp.Trainer(net, optim.SGD(rate), progress=False).fit(pair, epochs=3, batch_size=3)
                for i in range(9):
                    net.gradient_descent((pair[0][i : i + 4], pair[1][i : i + 4]), learning_rate=rate / (1 + i // 5))
        results.append([backend.to_numpy(a).tobytes() for a in leaves(net.params)])
    assert results[0] == results[1]
    graphs(backend, made)


def test_a_graph_survives_what_others_do_with_memory(both_ways):
    backend, use, made = both_ways
    use(written=True)
    _, arrays, _ = trained(backend, *NETWORKS["dropout"], optim.Adam(1e-2), epochs=6)
    use(written=False)
    net = None

    class Disturb(bpxp.callbacks.Callback):
        def on_epoch_end(self, trainer, row):
            made = [
                backend.xp.full((size,), float("nan"), dtype=backend.xp.float32) for size in (1, 16, 84, 999, 10**5)
            ]
            del made
            if library(backend) == "cupy":
                import cupy

                cupy.get_default_memory_pool().free_all_blocks()
            elif backend.name.startswith("torch:cuda"):
                import torch

                torch.cuda.empty_cache()

    rng = np.random.default_rng(0)
    x, y = rng.random((61, 12), dtype=np.float32), rng.integers(0, 3, 61)
    net = bpxp.Network(NETWORKS["dropout"][0], input_shape=(12,), hidden="relu", backend=backend, seed=5)
    bpxp.Trainer(net, optim.Adam(1e-2), progress=False, callbacks=[Disturb()]).fit(
        (x, y), epochs=6, batch_size=4, validation=(x[:9], y[:9])
    )
    assert [backend.to_numpy(a).tobytes() for a in leaves((net.params, net.stats, net.key))] == arrays
    graphs(backend, made)
