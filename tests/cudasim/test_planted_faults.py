"""The simulated device sees faults that a real one may hide: each is planted into bpxp's use of CuPy."""

from __future__ import annotations

import sys
from typing import Any

import pytest

if "cudasim.plugin" not in sys.modules:  # CuPy may have been imported without the device
    pytest.skip("runs with pytest -p cudasim.plugin", allow_module_level=True)

import cupy
import numpy as np

import bpxp
import cudasim
from bpxp import nn, optim
from bpxp.backends.cupy import cublas, cuda_graph
from bpxp.backends.prefetch import PinnedPrefetch
from bpxp.core.tree import leaves


@pytest.fixture(autouse=True)
def lazy():
    with cudasim.order("lazy"):
        yield


class Disturb(bpxp.callbacks.Callback):
    """Uses memory that is free, and gives it back."""

    def on_epoch_end(self, trainer: Any, row: Any) -> None:
        arrays = [cupy.full(size, np.nan, dtype=np.float32) for size in (1, 16, 84, 999, 10**5)]
        del arrays
        cupy.get_default_memory_pool().free_all_blocks()


def trained(monkeypatch, streamed):
    """Return the bits of a trained network, and why steps ran eagerly."""
    monkeypatch.setattr("bpxp.network.feed.batches_of_a_piece", lambda *_: 3)
    rng = np.random.default_rng(0)
    x, y = rng.random((403, 12), dtype=np.float32), rng.integers(0, 3, 403)
    data = bpxp.data.Dataset(x, y, resident=False) if streamed else (x, y)
    net = bpxp.Network([12, nn.Dense(7, "relu"), nn.Dropout(0.3), 3], backend="cupy", seed=0)
    trainer = bpxp.Trainer(net, optim.Adam(1e-2), progress=False, callbacks=[Disturb()])
    trainer.fit(data, epochs=5, batch_size=10, validation=(x[:50], y[:50]))
    return [net.backend.to_numpy(a).tobytes() for a in leaves(net.params)], net.eager_steps


def seen(monkeypatch, streamed, expected):
    with cudasim.counting() as did:
        try:
            bits, eager = trained(monkeypatch, streamed)
        except bpxp.errors.BpxpError:
            return True
        except (RuntimeError, cupy.cuda.runtime.CUDARuntimeError):
            return True
        finally:
            cudasim.repair()
    return bits != expected or bool(eager) or did["gemms_without_workspace"] > 0


@pytest.fixture(scope="module")
def expected():
    with pytest.MonkeyPatch.context() as monkeypatch:
        return trained(monkeypatch, False)[0]


class WaitsForNothing:
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def wait_event(self, event: Any) -> None:
        pass


def copy_does_not_wait_for_the_steps(monkeypatch):
    init = PinnedPrefetch.__init__

    def faulty(self, *arguments):
        init(self, *arguments)
        self._stream = WaitsForNothing(self._stream)

    monkeypatch.setattr(PinnedPrefetch, "__init__", faulty)


def steps_do_not_wait_for_the_copy(monkeypatch):
    monkeypatch.setattr(PinnedPrefetch, "wait", lambda self, half: self._arrays)


def host_does_not_wait_for_the_copy(monkeypatch):
    monkeypatch.setattr(PinnedPrefetch, "host_buffer", lambda self, half: [a[self._part(half)] for a in self._host])


def steps_are_not_declared(monkeypatch):
    monkeypatch.setattr(PinnedPrefetch, "release", lambda self, half: None)


def temporaries_of_a_graph_in_the_default_pool(monkeypatch):
    monkeypatch.setattr(
        cuda_graph._Memory, "__init__", lambda self: setattr(self, "pool", cupy.get_default_memory_pool())
    )


def memory_of_a_graph_is_given_back(monkeypatch):
    def faulty(self, graph, memory):
        self.graph, self.memory = graph, memory
        memory.pool.free_all_blocks()

    monkeypatch.setattr(cuda_graph._Launch, "__init__", faulty)


def handle_stays_on_its_first_stream(monkeypatch):
    settle = cublas.Blas._settle
    monkeypatch.setattr(cublas.Blas, "_settle", lambda self: self._settled or settle(self))


def workspace_is_lost(monkeypatch):
    settle = cublas.Blas._settle

    def faulty(self):
        settle(self)
        self.cublas.set_stream(self.handle, int(cupy.cuda.get_current_stream().ptr))

    monkeypatch.setattr(cublas.Blas, "_settle", faulty)


STREAMED = [
    copy_does_not_wait_for_the_steps,
    steps_do_not_wait_for_the_copy,
    host_does_not_wait_for_the_copy,
    steps_are_not_declared,
]
RESIDENT = [
    temporaries_of_a_graph_in_the_default_pool,
    memory_of_a_graph_is_given_back,
    handle_stays_on_its_first_stream,
    workspace_is_lost,
]


@pytest.mark.parametrize("fault", [*STREAMED, *RESIDENT], ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_seen(fault, expected, monkeypatch):
    fault(monkeypatch)
    assert seen(monkeypatch, fault in STREAMED, expected)


@pytest.mark.parametrize("order", ["lazy", "random", "eager"])
@pytest.mark.parametrize("streamed", [False, True])
def test_without_a_fault_the_bits_are_the_same_in_every_order(order, streamed, expected, monkeypatch):
    with cudasim.order(order):
        assert trained(monkeypatch, streamed) == (expected, {})


def test_bits_are_the_same_on_streams_of_the_user(expected, monkeypatch):
    for stream in (cupy.cuda.Stream(), cupy.cuda.Stream(non_blocking=True), cupy.cuda.Stream.ptds):
        with stream:
            assert trained(monkeypatch, False) == (expected, {})
            assert trained(monkeypatch, True) == (expected, {})
