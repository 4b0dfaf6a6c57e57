"""Nothing is kept of what a call was given, and many short fits do not pile up."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
import weakref

import numpy as np
import pytest

import bpxp
from bpxp import optim
from bpxp.backends.captured import CapturedStep
from bpxp.callbacks import Callback

N, WIDTH = 400, 8


@pytest.fixture(autouse=True)
def captured_soon(monkeypatch):
    monkeypatch.setattr(CapturedStep, "WORTH", 2)


def trainer(net, *callbacks):
    return bpxp.Trainer(net, optim.SGD(0.1, momentum=0.9), callbacks=callbacks, progress=False)


class Broken(Callback):
    def on_epoch_end(self, trainer, row):
        raise ZeroDivisionError


def broken_fit(net, x, y, kept):
    kept.append(trainer(net, Broken()))
    with pytest.raises(ZeroDivisionError):
        kept[0].fit((x, y), epochs=2, batch_size=100)


def fit(net, x, y, kept, **options):
    kept.append(trainer(net))
    kept[0].fit((x, y), epochs=4, batch_size=100, **options)


USES = {
    "fit": fit,
    "fit with a validation": lambda net, x, y, kept: fit(net, x, y, kept, validation=(x, y), evaluate_train=True),
    "fit with a fraction": lambda net, x, y, kept: fit(net, x, y, kept, validation=0.25),
    "fit of a Dataset": lambda net, x, y, kept: trainer(net).fit(bpxp.data.Dataset(x, y), epochs=2, batch_size=100),
    "fit that a callback ends": broken_fit,
    "evaluate": lambda net, x, y, kept: [net.evaluate(x, y) for _ in range(5)],
    "predict": lambda net, x, y, kept: [net.predict(x) for _ in range(5)],
    "predict_proba": lambda net, x, y, kept: kept.append([net.predict_proba(x) for _ in range(5)]),
    "loss_and_gradients": lambda net, x, y, kept: kept.append([net.loss_and_gradients(x, y) for _ in range(5)]),
    "gradient_descent": lambda net, x, y, kept: [net.gradient_descent((x, y), 0.1) for _ in range(5)],
}


@pytest.mark.parametrize("what", USES)
@pytest.mark.parametrize("where", ["host", "device"])
def test_what_a_call_was_given_is_let_go(backend, what, where):
    if "jax" in backend.name and what.startswith("fit with"):
        pytest.skip("the same code, and it compiles for seconds")
    net = bpxp.Network([WIDTH, 8, 2], backend=backend, seed=0)
    x, y = np.ones((N, WIDTH), np.float32), np.arange(N, dtype=np.int32) % 2
    if where == "device":
        x, y = backend.asarray(x), backend.asarray(y)
    gone = [weakref.ref(x), weakref.ref(y)]
    kept = []  # what the caller keeps: the trainer, or the results
    USES[what](net, x, y, kept)
    del x, y
    gc.collect()
    assert [ref() is None for ref in gone] == [True, True]
    assert kept or what not in ("fit", "predict_proba")
    for thing in kept[:1]:
        if isinstance(thing, bpxp.Trainer):  # it can be used again
            thing.callbacks.clear()
            fresh = np.ones((N, WIDTH), np.float32), np.arange(N, dtype=np.int32) % 2
            thing.fit(fresh, epochs=1, batch_size=100)


@pytest.mark.parametrize("how", ["the same trainer", "the same rate", "other rates"])
def test_many_short_fits_do_not_pile_up(backend, how):
    if "jax" in backend.name:
        pytest.skip("it compiles for each rate")
    rng = np.random.default_rng(0)
    net, gone = bpxp.Network([WIDTH, 8, 2], backend=backend, seed=0), []
    same = trainer(net)

    def some(begin, count):
        for i in range(begin, begin + count):
            x, y = rng.random((2000, WIDTH), dtype=np.float32), np.arange(2000, dtype=np.int32) % 2
            gone.append(weakref.ref(x))
            rate = 0.1 / (1 + i) if how == "other rates" else 0.1
            each = same if how == "the same trainer" else bpxp.Trainer(net, optim.SGD(rate), progress=False)
            each.fit((x, y), epochs=1, batch_size=200)
            del x, y
        gc.collect()

    tracemalloc.start()
    try:
        some(0, 16)
        before = tracemalloc.get_traced_memory()[0]
        some(16, 20)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert all(ref() is None for ref in gone)
    assert len(net._compiled) <= 8
    assert grown < 50_000  # bytes, where the data of a fit are 72,000 and a plan has about as many


PROGRAM = """
import gc, sys
import numpy as np
import bpxp
name, how = sys.argv[1:]
rng = np.random.default_rng(0)
net = bpxp.Network([50, 30, 3], backend=name, seed=0)
def some(begin, count):
    for i in range(begin, begin + count):
        x, y = rng.random((20_000, 50), dtype=np.float32), rng.integers(0, 3, 20_000)
        rate = 0.1 / (1 + i) if how == "rates" else 0.1
        bpxp.Trainer(net, bpxp.optim.SGD(rate), progress=False).fit((x, y), epochs=1, batch_size=500)
        del x, y
    gc.collect()
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20
some(0, 30)
before = resident()
some(30, 200)
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc says how much memory is resident")
@pytest.mark.parametrize("how", ["rates", "same"])
def test_two_hundred_fits_in_a_process_of_their_own(backend, how, nightly):
    if not nightly or backend.name not in ("numpy", "torch"):
        pytest.skip("at night, on NumPy and PyTorch")
    done = subprocess.run([sys.executable, "-c", PROGRAM, backend.name, how], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) <= 1.0  # MiB, where the data of a fit are 4
