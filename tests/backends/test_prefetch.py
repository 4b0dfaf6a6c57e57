"""Prefetch to CUDA devices, on a make-believe device whose streams are threads: nothing is read too soon or overwritten.

What the libraries' own calls do on a GPU is not shown by this; that the copies wait for the right events is.
"""

from __future__ import annotations

import contextlib
import importlib.util
import queue
import random
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from bpxp.backends.base import Backend
from bpxp.backends.prefetch import PinnedPrefetch
from bpxp.data.rows import Rows
from bpxp.network import feed
from bpxp.network.feed import Stream

N, SIZE = 97, 4


class FakeStream:
    """Does what it is given in its order, some time later."""

    def __init__(self, *_, non_blocking=True):
        self.todo, self.random = queue.SimpleQueue(), random.Random(0)
        threading.Thread(target=self.work, daemon=True).start()

    def work(self):
        while (task := self.todo.get()) is not None:
            time.sleep(self.random.choice([0.0, 0.0005, 0.002]))
            task()

    def record(self, event):
        event.last = threading.Event()
        self.todo.put(event.last.set)

    def wait_event(self, event):
        if WAITS and event.last is not None:
            self.todo.put(event.last.wait)

    def synchronize(self):
        event = FakeEvent()
        event.record(self)
        event.last.wait(10)


class FakeEvent:
    def __init__(self, **_):
        self.last = None  # of several times, the last one that it was recorded

    def record(self, stream):
        stream.record(self)

    def synchronize(self):
        if WAITS and self.last is not None:
            assert self.last.wait(10)


class FakeArray:
    """Of the device, or pinned: what is copied is read when the copy is done, not when it is asked for."""

    def __init__(self, a):
        self.a, self.shape = a, a.shape

    def __getitem__(self, part):
        return FakeArray(self.a[part])

    def __array__(self, dtype=None, copy=None):
        return self.a

    def copy_(self, other, non_blocking):
        assert non_blocking
        CUDA.current_stream().todo.put(lambda: np.copyto(self.a, other.a))

    def set(self, pinned, stream):
        stream.todo.put(lambda: np.copyto(self.a, pinned))


class Device:
    """The stream of the steps, and which one is the current one of a thread."""

    def __init__(self):
        self.steps, self.of = FakeStream(), threading.local()

    def current_stream(self, *_):
        return getattr(self.of, "stream", self.steps)

    @contextlib.contextmanager
    def stream(self, stream):
        self.of.stream = stream
        yield
        del self.of.stream


CUDA = Device()
WAITS = True


@pytest.fixture(params=["torch", "cupy"])
def device(request, monkeypatch):
    """Load the calls of a library with a make-believe one in its place, and return a backend that prefetches by them."""
    monkeypatch.setattr(f"{__name__}.CUDA", Device())
    parts = {"Stream": FakeStream, "Event": FakeEvent, "stream": CUDA.stream}
    parts |= {"current_stream": CUDA.current_stream, "get_current_stream": CUDA.current_stream}
    cuda = SimpleNamespace(**parts, device=lambda _: contextlib.nullcontext())

    def zeros(shape, dtype=np.float32, **_):
        return FakeArray(np.zeros(shape, dtype))

    library = SimpleNamespace(zeros=zeros, from_numpy=lambda a: a, cuda=cuda)
    monkeypatch.setitem(sys.modules, request.param, library)
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(zeros_pinned=np.zeros))
    spec = importlib.util.find_spec(f"bpxp.backends.{request.param}.prefetch")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    calls = module.TorchCuda("the device") if request.param == "torch" else module.CupyCuda(contextlib.nullcontext())
    return SimpleNamespace(prefetch=lambda kinds, rows: PinnedPrefetch(kinds, rows, calls), xp=np)


def trained(device: Backend, epochs: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return the samples that the steps of some epochs found, and those that they should have."""
    x, y = np.arange(N, dtype=np.float32)[:, None], np.arange(N, dtype=np.int32)
    stream = Stream(device, Rows(x, x.dtype), Rows(y, y.dtype), None, SIZE)
    steps, found, wanted = -(-N // SIZE), [], []

    def read(data, place):
        rows = np.arange(place * SIZE, (place + 1) * SIZE) % data.x.shape[0]
        both = data.x.a[rows, 0], data.y.a[rows]
        found.append(both[0].astype(int).tolist() if (both[0] == both[1]).all() else both)

    for epoch in range(epochs):
        order = np.zeros(steps * SIZE, np.int32)
        order[:N] = np.random.default_rng(epoch).permutation(N)
        stream.begin(order)
        wanted += order.reshape(steps, SIZE).tolist()
        done = 0
        for data, count in stream.parts(0, steps):
            for place in range(done, done + count):  # given to the device, and not waited for
                CUDA.steps.todo.put(lambda data=data, place=place: read(data, place))
            done += count
    CUDA.steps.synchronize()
    return found, wanted


def test_the_steps_find_their_samples(device, monkeypatch):
    monkeypatch.setattr(feed, "batches_of_a_piece", lambda *_: 3)
    found, wanted = trained(device, 3)
    assert found == wanted


def test_the_device_would_show_a_step_that_does_not_wait(device, monkeypatch):
    monkeypatch.setattr(feed, "batches_of_a_piece", lambda *_: 3)
    monkeypatch.setattr(f"{__name__}.WAITS", False)
    found, wanted = trained(device, 3)
    assert len(found) == len(wanted)
    assert found != wanted
