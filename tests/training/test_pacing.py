"""Where a fit looks up from its steps: for progress, where it was asked to, and often enough to be interrupted."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.network.step import TrainingStep
from bpxp.training import pacing as module
from bpxp.training.pacing import MARKS, MOMENT, Pace, chunks, next_mark


def marks(batches, every=(), epoch=0):
    done = 0
    while done < batches:
        mark = next_mark(done, batches, every, epoch)
        assert done < mark <= batches
        done = mark
        yield done


@pytest.mark.parametrize("batches", [1, 2, 3, 19, 20, 21, 39, 40, 41, 97, 100, 938])
def test_an_epoch_is_shown_in_equal_parts(batches):
    found = list(marks(batches))
    assert found == sorted({i * batches // min(MARKS, batches) for i in range(1, min(MARKS, batches) + 1)})
    # From any other place, too, it is the next of these.
    for done in range(batches):
        assert next_mark(done, batches, (), 5) == min(mark for mark in found if mark > done)


def test_an_epoch_that_nobody_watches_is_one_call():
    def calls(callbacks):
        net = bpxp.Network([3, 4, 2], backend="numpy", seed=0)
        trainer = bpxp.Trainer(net, callbacks=callbacks, progress=False)
        counts, compiled = [], net._compile

        def counting(step, *name):
            run = compiled(step, *name)

            def advance(state, data, *, count=1):
                counts.extend([count] if isinstance(step, TrainingStep) else [])
                return run(state, data, count=count)

            return advance

        net._compile = counting
        trainer.fit((np.zeros((80, 3), np.float32), np.arange(80) % 2), epochs=6, batch_size=2)
        return counts

    class Watching(bpxp.callbacks.Callback):
        def on_batches(self, trainer, done, total):
            pass

    class Waiting(bpxp.callbacks.Callback):
        pass

    watched, alone = calls([Watching()]), calls([Waiting()])
    assert watched[-MARKS:] == [40 // MARKS] * MARKS
    assert alone[-1] == 40
    assert sum(watched) == sum(alone)


@pytest.mark.parametrize(("batches", "every"), list(itertools.product([1, 3, 7, 100], [(1,), (2,), (5, 7), (150,)])))
def test_who_asks_for_a_pause_gets_it(batches, every):
    # Steps are counted from the first epoch on, and so a pause comes in the second at another place.
    found = {epoch * batches + done for epoch in range(4) for done in marks(batches, every, epoch)}
    for n in every:
        assert found >= set(range(n, 4 * batches + 1, n))


class Clock:
    """A device whose steps take a given time, however soon the host is through with asking for them."""

    def __init__(self, monkeypatch, *seconds):
        self.now, self.seconds = 0.0, list(seconds)
        self.waits = 0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)
        backend = SimpleNamespace(to_numpy=self.wait)
        self.run = SimpleNamespace(net=SimpleNamespace(backend=backend, epoch=0), live=SimpleNamespace(position=0))
        self.run.done, self.asked = 0, 0

    def step(self, count):
        self.run.done += count
        self.asked += count

    def wait(self, _):
        self.waits += 1
        self.now += self.asked * (self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0])
        self.asked = 0


@pytest.mark.parametrize("seconds", [(1e-5,), (1e-3,), (0.05,), (0.7,), (8.0, 1e-4)])
def test_host_and_device_meet_every_moment(monkeypatch, seconds):
    clock, pace = Clock(monkeypatch, *seconds), Pace()
    clock.run.batches = 4000
    longest, last = 0.0, 0.0
    for count in chunks(clock.run, pace, ()):
        clock.step(count)
        if clock.waits:
            longest = max(longest, clock.now - last)
        last = clock.now
    assert longest <= 1.001 * max(MOMENT, *seconds)  # one step is the least
    steps = clock.run.done / max(clock.waits, 1)
    assert steps >= min(0.3 * MOMENT / seconds[-1], 100)  # and waiting is rare


def test_a_short_epoch_is_not_waited_for(monkeypatch):
    clock, pace = Clock(monkeypatch, 1e-6), Pace()
    clock.run.batches = 500
    for _ in range(3):
        clock.run.done, waits = 0, clock.waits
        for count in chunks(clock.run, pace, ()):
            clock.step(count)
    assert clock.waits == waits


def test_an_interrupt_does_not_wait_for_a_twentieth_of_an_epoch():
    @dataclass(frozen=True)
    class Slow(nn.Activation):
        def forward(self, params, z, /, *, xp):
            time.sleep(0.01)
            assert bool(xp.all(z == z))  # who looks at numbers is not recorded: every step sleeps
            return z, None

        def backward(self, params, cache, da, /, *, xp):
            return 1.0 * da, ()

    net = bpxp.Network([2, Slow(), 2], backend="numpy", seed=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # which a program in the background does not have
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    begun = time.perf_counter()
    try:
        with pytest.raises(KeyboardInterrupt):
            bpxp.Trainer(net, progress=False).fit((np.ones((4000, 2)), np.arange(4000) % 2), epochs=1, batch_size=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.perf_counter() - begun < 3.0  # of 40 seconds, and 2 for a twentieth
