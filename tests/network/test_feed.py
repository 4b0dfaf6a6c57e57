"""How samples come to the steps: rows of any array as they are asked for, and pieces that are there when a step reads them."""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest

from bpxp.backends.base import option
from bpxp.data.rows import OneHot, Rows
from bpxp.network import feed
from bpxp.network.feed import Stream, batches_of_a_piece

N, SIZE = 53, 4
NUMBERS = np.arange(N * 6, dtype=np.float64).reshape(N, 2, 3)


def mapped(tmp_path, a):
    np.save(tmp_path / "a.npy", a)
    return np.load(tmp_path / "a.npy", mmap_mode="r")


def unaligned(a):
    memory = np.zeros(a.nbytes + 1, np.uint8)
    found = memory[1:].view(a.dtype).reshape(a.shape)
    found[...] = a
    return found


LAYOUTS = {
    "as it is": lambda a: a.astype(np.float32),
    "other dtype": lambda a: a,
    "big-endian": lambda a: a.astype(">f4"),
    "Fortran order": lambda a: np.asfortranarray(a.astype(np.float32)),
    "a view": lambda a: np.repeat(a.astype(np.float32), 2, axis=0)[::2],
    "backwards": lambda a: a.astype(np.float32)[::-1][::-1][:, ::-1][:, ::-1],
    "unaligned": lambda a: unaligned(a.astype(np.float32)),
    "bytes": lambda a: (a % 251).astype(np.uint8),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sample", [None, (6,)])
def test_rows_of_any_layout(tmp_path, layout, sample):
    a = LAYOUTS[layout](NUMBERS)
    for source in (a, mapped(tmp_path, a)):
        dtype = np.dtype(np.uint8 if layout == "bytes" else np.float32)
        rows = Rows(source, dtype, sample)
        whole = np.asarray(a, dtype).reshape(N, *(sample or (2, 3)))
        assert (rows.shape, rows.dtype, len(rows)) == (whole.shape, dtype, N)
        which = np.array([5, 0, 52, 5, 17], np.int32)
        out = np.full((7, *whole.shape[1:]), 9, dtype)
        rows.take(which, out[1:6])
        np.testing.assert_array_equal(out[1:6], whole[which], strict=True)
        assert (out[[0, 6]] == 9).all()
        np.testing.assert_array_equal(rows.read(3, 9), whole[3:9], strict=True)
        np.testing.assert_array_equal(np.concatenate(list(rows.blocks())), whole, strict=True)
        some = rows.select(np.array([7, 3, 9])).select(np.array([2, 0]))
        np.testing.assert_array_equal(some.read(0, 2), whole[[9, 7]], strict=True)
        some.take(np.array([1]), out[:1])
        np.testing.assert_array_equal(out[:1], whole[[7]], strict=True)


@pytest.mark.parametrize("layout", ["other dtype", "big-endian", "Fortran order", "a view", "unaligned"])
def test_an_array_of_another_layout_is_never_copied_as_a_whole(layout):
    a = LAYOUTS[layout](np.ones((40_000, 5, 10)))
    rows = Rows(a, np.dtype(np.float32))
    which, out = np.arange(0, 40_000, 400), np.empty((100, 5, 10), np.float32)
    tracemalloc.start()
    rows.take(which, out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000 < a.nbytes / 20
    assert (out == 1.0).all()


def test_classes_are_read_as_rows():
    rows = OneHot(np.array([2, 0, 1, 1], np.int32), np.dtype(np.float32), (3,), np.array([3, 0]))
    out = np.full((3, 3), 9, np.float32)
    rows.take(np.array([1, 0, 1]), out)
    np.testing.assert_array_equal(out, np.float32([[0, 0, 1], [0, 1, 0], [0, 0, 1]]))


# ---------------------------------------------------------------- pieces


@pytest.fixture
def stream(backend, monkeypatch):
    """A stream of the samples 0, 1, … in pieces of three mini-batches."""
    monkeypatch.setattr(feed, "batches_of_a_piece", lambda *_: 3)
    x, y = np.arange(N, dtype=np.float64)[:, None], np.arange(N, dtype=np.int32)
    return Stream(backend, Rows(x, np.dtype(np.float32)), Rows(y, y.dtype), None, SIZE)


def read(backend, stream, done, count):
    """Return the samples that `count` steps read, as the steps find their rows."""
    found = []
    for data, steps in stream.parts(done, count):
        assert data.weight is None
        for step in range(done, done + steps):
            rows = np.arange(step * SIZE, (step + 1) * SIZE) % data.x.shape[0]
            x, y = (backend.to_numpy(a)[rows] for a in (data.x, data.y))
            np.testing.assert_array_equal(x[:, 0], y)
            found += y.tolist()
        done += steps
    return found


def test_samples_come_in_their_order(backend, stream):
    steps = -(-N // SIZE)
    wanted = [*range(N), N - 1, N - 1, N - 1]  # the last one again, as an evaluation has it
    assert read(backend, stream, 0, steps) == wanted
    assert [count for _, count in stream.parts(0, steps)] == [3, 3, 3, 3, 2]
    order = np.zeros(steps * SIZE, np.int32)
    for seed in range(3):
        order = order.copy()
        order[:N] = np.random.default_rng(seed).permutation(N)
        begun = stream.begin(order)
        assert begun.shape == (1,)
        for done in range(steps):  # step by step
            assert read(backend, stream, done, 1) == order[done * SIZE : (done + 1) * SIZE].tolist()
        stream.begin(order[::-1].copy())
        assert read(backend, stream, 4, 7) == order[::-1][16:44].tolist()


def test_any_steps_may_be_asked_for(backend, stream, rng):
    for _ in range(40):
        done = int(rng.integers(0, 13))
        count = int(rng.integers(1, 14 - done))
        wanted = [min(i, N - 1) for i in range(done * SIZE, (done + count) * SIZE)]
        assert read(backend, stream, done, count) == wanted
        if rng.random() < 0.2:  # also where what is on its way is not waited for
            next(iter(stream.parts(int(rng.integers(0, 14)), 1)))


def test_several_threads_gather_a_large_piece(backend, monkeypatch):
    monkeypatch.setattr(feed, "batches_of_a_piece", lambda *_: 3)
    monkeypatch.setattr(feed, "LARGE", 40)
    monkeypatch.setattr(feed, "HELPERS", 5)
    x, y, threads = np.arange(N, dtype=np.float64)[:, None], np.arange(N, dtype=np.int32), set()

    class Watched(Rows):
        def take(self, rows, out):
            threads.add(threading.current_thread().name)
            time.sleep(0.001)
            super().take(rows, out)

    stream = Stream(backend, Watched(x, np.dtype(np.float32)), Rows(y, y.dtype), None, SIZE)
    assert read(backend, stream, 0, 14) == [*range(N), N - 1, N - 1, N - 1]
    assert len(threads) > 2


def test_a_piece_is_gathered_while_the_steps_are_at_another(backend, stream):
    begun = threading.Event()

    class Slow(Rows):
        def take(self, rows, out):
            assert threading.current_thread() is not threading.main_thread()
            if rows[0]:
                begun.set()
                time.sleep(0.05)
            super().take(rows, out)

    stream.sources[0] = Slow(stream.sources[0].a, np.dtype(np.float32))
    for data, _ in stream.parts(0, 3):
        assert begun.wait(10)  # the second, though nobody has asked for it
        assert backend.to_numpy(data.x)[:12, 0].tolist() == list(range(12))
    assert read(backend, stream, 3, 4) == list(range(12, 28))


def test_what_goes_wrong_in_the_thread_is_raised_where_the_steps_are_given(stream):
    class Broken(Rows):
        def take(self, rows, out):
            if rows[0] == 12:
                raise OSError("the disk is gone")
            super().take(rows, out)

    stream.sources[0] = Broken(stream.sources[0].a, np.dtype(np.float32))
    parts = stream.parts(0, 14)
    next(parts)
    with pytest.raises(OSError, match="the disk is gone"):
        next(parts)


def test_a_stream_ends_its_thread(stream):
    next(iter(stream.parts(0, 1)))
    before = threading.active_count()
    stream.sources.clear()
    threads = [t for t in threading.enumerate() if t.name.startswith("bpxp-stream")]
    assert threads
    stream._thread.shutdown(wait=True)  # what its end does, but waits
    gc.collect()
    assert threading.active_count() < before


def test_a_piece_is_a_few_megabytes_and_whole_mini_batches(backend):
    most = option(backend, "prefetch_bytes")
    for row, size, samples in ((784, 64, 10**6), (3, 1, 10**6), (10**6, 64, 1000), (10, 10, 25), (1, 10**8, 5)):
        batches = batches_of_a_piece(backend, row, samples, size)
        assert 1 <= batches <= -(-samples // size)
        assert batches == 1 or batches * row * size <= most
        assert batches <= 8 or batches % 8 == 0
