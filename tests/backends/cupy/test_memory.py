"""Memory of CUDA graphs on CuPy: one pool for a step, one workspace for a stream, and all of it comes back."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")

import bpxp  # noqa: E402
from bpxp import nn, optim  # noqa: E402

ROWS, BATCH = 4096 * 4, 4096


@pytest.fixture
def data(rng):
    return rng.random((ROWS, 64), dtype=np.float32), rng.integers(0, 10, ROWS)  # 4 MiB: not copied into a graph


def used():
    gc.collect()
    return cupy.get_default_memory_pool().used_bytes()


def fitted(data, layers=(64, 128, 10), fits=1, backend="cupy"):
    net = bpxp.Network(list(layers), hidden="relu", backend=backend, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(0.1), progress=False)
    for _ in range(fits):
        trainer.fit(data, epochs=6, batch_size=BATCH)
    assert net.eager_steps == {}
    return net, trainer


def test_a_fit_again_needs_no_more_memory_and_a_network_that_is_gone_none(data, cudasim):
    fitted(data)
    cupy.get_default_memory_pool().free_all_blocks()
    before, begin = used(), cudasim.counters()["live_bytes"]
    net, trainer = fitted(data, fits=2)
    after = used()
    live = cudasim.counters()["live_bytes"]
    for _ in range(8):
        trainer.fit(data, epochs=6, batch_size=BATCH)
        assert used() <= after
    assert cudasim.counters()["live_bytes"] <= live
    assert net.eager_steps == {}
    del net, trainer
    assert used() == before
    cupy.get_default_memory_pool().free_all_blocks()
    assert cudasim.counters()["live_bytes"] <= begin


def test_graphs_of_a_step_share_their_memory_and_no_step_has_a_workspace_of_its_own(data, cudasim):
    fitted(data)
    before = used()
    begin = cudasim.counters()["live_bytes"]
    net, trainer = fitted(data)
    costs = bpxp.preflight(net, batch_size=BATCH, samples=ROWS)
    held = used() - before
    # The data set and the state; the temporaries of a step once, for both sizes of graph.
    assert held < 1.3 * (costs.peak_bytes + costs.resident_bytes)
    assert cudasim.counters()["live_bytes"] - begin < 32 << 20
    del net, trainer


def test_a_capture_without_memory_leaves_the_step_eager_and_nothing_behind(data, cudasim):
    expected = [a.get().tobytes() for layer in fitted(data)[0].params for a in layer]
    cupy.get_default_memory_pool().free_all_blocks()
    gc.collect()
    before = used()
    with cudasim.memory_left(12 << 20):
        net = bpxp.Network([64, 128, 10], hidden="relu", backend="cupy", seed=0)
        trainer = bpxp.Trainer(net, optim.SGD(0.1), progress=False)
        try:
            trainer.fit(data, epochs=6, batch_size=BATCH)
        except bpxp.errors.DeviceMemoryError:
            pass
        else:
            assert [a.get().tobytes() for layer in net.params for a in layer] == expected
    del net, trainer
    assert used() == before


def test_the_pool_of_the_user_is_where_graphs_have_their_memory(data):
    pool = cupy.cuda.MemoryPool()
    with cupy.cuda.using_allocator(pool.malloc):
        before = used()
        net, trainer = fitted(data)
        assert used() == before
        assert pool.used_bytes() > 4 << 20
        del net, trainer
        gc.collect()
        assert pool.used_bytes() == 0
    pool.free_all_blocks()


# ---------------------------------------------------------------- threads and streams


SMALL = (np.random.default_rng(0).random((403, 12), dtype=np.float32), np.random.default_rng(1).integers(0, 3, 403))


def small_run(streamed=False):
    data = bpxp.data.Dataset(*SMALL, resident=False) if streamed else SMALL
    net = bpxp.Network([12, nn.Dense(7, "relu"), nn.Dropout(0.3), 3], backend="cupy", seed=0)
    trainer = bpxp.Trainer(net, optim.Adam(1e-2), progress=False)
    trainer.fit(data, epochs=6, batch_size=10, validation=(SMALL[0][:50], SMALL[1][:50]))
    return [net.backend.to_numpy(a).tobytes() for layer in net.params for a in layer], net.eager_steps


@pytest.mark.parametrize("order", ["lazy", "random", "eager"])
@pytest.mark.parametrize("own_streams", [False, True])
def test_threads_do_not_break_each_others_captures(order, own_streams, cudasim):
    expected, found = small_run(), [None] * 3

    def run(i):
        with cupy.cuda.Stream(non_blocking=True) if own_streams else cupy.cuda.Stream.null:
            found[i] = small_run(streamed=i == 2)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(3)]
    with cudasim.order(order):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [expected] * 3


def test_a_capture_that_another_thread_broke_is_tried_again(monkeypatch):
    from bpxp.backends.cupy.cuda_graph import CupyGraph

    work, broken = CupyGraph.work, []

    def breaks(self, *arguments):
        work(self, *arguments)
        if len(broken) < 2:
            broken.append(1)
            raise cupy.cuda.runtime.CUDARuntimeError(901)  # cudaErrorStreamCaptureInvalidated

    expected = small_run()
    monkeypatch.setattr(CupyGraph, "work", breaks)
    assert small_run() == expected
    assert len(broken) == 2


def test_a_network_goes_from_stream_to_stream_with_its_graphs(cudasim):
    expected, streams = small_run()[0], [cupy.cuda.Stream(non_blocking=True) for _ in range(2)]
    net = bpxp.Network([12, nn.Dense(7, "relu"), nn.Dropout(0.3), 3], backend="cupy", seed=0)
    trainer = bpxp.Trainer(net, optim.Adam(1e-2), progress=False)
    for epoch in range(6):
        with streams[epoch % 2]:
            trainer.fit(SMALL, epochs=1, batch_size=10)
            cupy.cuda.get_current_stream().synchronize()
    assert [a.get().tobytes() for layer in net.params for a in layer] == expected
    assert net.eager_steps == {}


def test_a_comparison_compiles_no_block_reductions(cudasim):
    from bpxp.backends.cupy.cuda_graph import CupyGraph

    graph = CupyGraph(None, None, cupy.cuda.Device(), None, "")
    a, nan = cupy.arange(6, dtype=np.float32).reshape(2, 3), cupy.full(3, np.nan)
    pairs = [(a, a.copy()), (a.T, a.T.copy()), (nan, nan.copy())]
    assert graph.same(pairs)
    assert not graph.same([*pairs, (a, a + cupy.float32(1e-6))])
    assert not graph.same([(cupy.zeros(2), -cupy.zeros(2))])
    found = cudasim.traced(lambda: graph.same(pairs))
    assert not any("cub" in line or "reduce" in line for line in found)
    assert sum(line.startswith("d2h") for line in found) == 1  # one number to wait for
