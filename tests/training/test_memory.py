"""Memory: what there is, what a fit needs of it, and an error with figures where it is not enough."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from helpers.small_runs import DENSE, OPTIMIZERS, Cut

import bpxp
from bpxp import nn, optim
from bpxp.backends.numpy.backend import NumpyBackend
from bpxp.callbacks import Callback
from bpxp.core import memory
from bpxp.core.memory import Memory, host_memory
from bpxp.core.tree import named_leaves
from bpxp.errors import BpxpWarning, DeviceMemoryError, DivergenceError
from bpxp.training.divergence import monitor as doctor
from bpxp.training.memory import MARGIN, MemoryEstimate, gib, short
from bpxp.training.setup import FitSetup

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(40, 12)).astype(np.float32), rng.integers(0, 3, 40)
ENDLESS = 1 << 46  # numbers: more than any machine has bytes


def bits(net):
    arrays = named_leaves((net.params, net.stats, net.opt_state or ()))
    return {name: net.backend.to_numpy(a).tobytes() for name, a in arrays}, net.epoch


def own_error(backend):
    """Return what the library raises when its memory is at an end."""
    try:
        backend.to_numpy(backend.xp.zeros((ENDLESS,), dtype=backend.xp.float32))
    except Exception as error:
        return error
    raise AssertionError("a machine with so much memory")


@pytest.fixture
def plenty(backend, monkeypatch):
    """``plenty(free, total)`` lets the backend's device have so much memory."""

    def give(free, total):
        monkeypatch.setattr(type(backend), "memory", lambda self: Memory(free, total))

    return give


# ---------------------------------------------------------------- what there is


def test_the_memory_of_a_device(backend):
    found = backend.memory()
    assert 0 < found.free <= found.total


def test_the_memory_of_the_host(monkeypatch, tmp_path):
    def files(**contents):
        for name, text in contents.items():
            (tmp_path / name.replace("_", ".")).write_text(text)

    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_of_the_process", lambda: (memory.UNLIMITED, 0))
    files(meminfo="MemTotal:  1000 kB\nMemFree: 10 kB\nMemAvailable:  600 kB\n")
    assert host_memory() == Memory(600 << 10, 1000 << 10)
    files(memory_max="max\n", memory_current="5", memory_stat="anon 1\n")
    assert host_memory() == Memory(600 << 10, 1000 << 10)
    files(memory_max="300000\n", memory_current="250000\n", memory_stat="anon 3\ninactive_file 50000\n")
    assert host_memory() == Memory(100_000, 300_000)  # cached files are given back
    monkeypatch.setattr(memory, "_of_the_process", lambda: (200_000, 150_000))
    assert host_memory() == Memory(50_000, 200_000)
    (tmp_path / "meminfo").write_text("nothing")
    monkeypatch.setattr(memory, "_of_the_process", lambda: (memory.UNLIMITED, 0))
    assert host_memory() is not None  # asked of sysconf


def test_how_a_library_says_that_there_is_no_memory(backend):
    assert backend.out_of_memory(own_error(backend))
    assert backend.out_of_memory(MemoryError())
    for other in (ValueError("out of range"), RuntimeError("boom"), KeyError("memory")):
        assert not backend.out_of_memory(other)


def test_the_errors_of_devices_that_are_not_here():
    torch = pytest.importorskip("torch")
    backend = bpxp.get_backend("torch")
    for error in (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
    ):
        assert backend.out_of_memory(error)
    jax = pytest.importorskip("jax")
    exhausted = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8589934592 bytes."
    )
    assert bpxp.get_backend("jax").out_of_memory(exhausted)
    assert not bpxp.get_backend("jax").out_of_memory(jax.errors.JaxRuntimeError("INTERNAL: a kernel failed"))


def test_bytes_as_people_write_them():
    assert [gib(n) for n in (0, 1 << 20, 1 << 29, 5 << 28)] == ["0 MiB", "1 MiB", "0.5 GiB", "1.25 GiB"]
    assert short(MemoryError()) == "MemoryError"
    assert short(MemoryError("a\n b")) == "a b"
    assert len(short(MemoryError("x" * 500))) == 161


# ---------------------------------------------------------------- before the first step


def room(net, optimizer, batch):
    options = {"validation": None, "weight": None, "class_weight": None, "shuffle": True, "augment": ()}
    work = FitSetup.of(net, optimizer, (), (X, Y), batch_size=batch, evaluate_train=False, seed=0, **options)
    return MemoryEstimate(net, work, keeps=True)


def test_what_is_needed_is_what_the_preflight_says(backend):
    net = bpxp.Network(DENSE, backend=backend, seed=0)
    for optimizer in OPTIMIZERS:
        costs = bpxp.preflight(net, batch_size=8, samples=40, optimizer=optimizer)
        slots = optimizer.init(net.params, xp=net.xp)
        new = 4 * sum(math.prod(a.shape) for _, a in named_leaves(slots))
        assert costs.state_bytes == new + 4 * net.size
        kept = costs.state_bytes if getattr(backend, "shares_memory", False) else 0
        # A fit has a state of its own, beside the arrays that the network holds for its readers.
        assert room(net, optimizer, 8).needed(8) == costs.peak_bytes - costs.resident_bytes + costs.state_bytes + kept


def test_an_error_before_anything_is_taken(backend, plenty, monkeypatch):
    net = bpxp.Network([12, 50, 3], backend=backend, seed=0)
    needed = {size: room(net, optim.Adam(0.01), size).needed(size) for size in (1, 10, 11, 40)}
    plenty(math.ceil(needed[10] / MARGIN), needed[40] - 1)
    monkeypatch.setattr(backend.xp, "fuses", False, raising=False)
    before = bits(net)
    trainer = bpxp.Trainer(net, optim.Adam(0.01), progress=False)
    with pytest.raises(DeviceMemoryError, match=r"batch_size=40.*batch_size=10, the largest that fits") as caught:
        trainer.fit((X, Y), epochs=1, batch_size=40)
    error = caught.value
    assert isinstance(error, MemoryError)
    assert (error.needed, error.largest_batch) == (needed[40], 10)
    assert (error.free, error.total) == backend.memory()
    assert error.code == "BPX-E053"
    assert bits(net) == before
    assert net.opt_state is None
    if "jax" not in backend.name:  # it would compile for seconds
        trainer.fit((X, Y), epochs=1, batch_size=10)  # without a warning: warnings are errors here


def test_a_warning_where_others_have_taken_it(backend, plenty):
    net = bpxp.Network([12, 50, 3], backend=backend, seed=0)
    plenty(10_000, 1 << 40)
    with pytest.warns(BpxpWarning, match=r"needs about .* 0\.00954 MiB of 1\.02e\+03 GiB are free") as caught:
        bpxp.Trainer(net, progress=False).fit((X, Y), epochs=0, batch_size=40)
    assert caught[0].message.code == "BPX-W008"
    assert caught[0].filename == __file__


def test_where_a_compiler_makes_less_of_a_step_the_estimate_is_a_warning(backend, plenty, monkeypatch):
    net = bpxp.Network([12, 50, 3], backend=backend, seed=0)
    plenty(1000, 1000)
    monkeypatch.setattr(backend.xp, "fuses", True, raising=False)
    with pytest.warns(BpxpWarning, match="a step needs about"):
        bpxp.Trainer(net, progress=False).fit((X, Y), epochs=0, batch_size=40)


def test_no_copy_is_kept_for_which_there_is_no_room(monkeypatch):
    net = bpxp.Network([12, 500, 3], hidden="relu", backend="numpy", seed=0)
    size = room(net, optim.SGD(0.1), 4).needed(4)
    kept = bpxp.preflight(net, batch_size=4, samples=40, optimizer=optim.SGD(0.1)).state_bytes
    for lacking, keeps in ((0, True), (1, False), (kept, False)):
        monkeypatch.setattr(NumpyBackend, "memory", lambda self, free=size - lacking: Memory(free, size))
        tried = room(net, optim.SGD(0.1), 4)
        tried.check()
        assert tried.keeps is keeps
    trainer = bpxp.Trainer(net, optim.SGD(1e30), progress=False)
    with pytest.raises(DivergenceError) as caught:
        trainer.fit((X, Y), epochs=2, batch_size=4)
    assert caught.value.layer is None


def test_a_network_that_never_fits(backend, plenty, monkeypatch):
    net = bpxp.Network([12, 50, 3], backend=backend, seed=0)
    plenty(1000, 1000)
    monkeypatch.setattr(backend.xp, "fuses", False, raising=False)
    with pytest.raises(DeviceMemoryError, match="a smaller network") as caught:
        bpxp.Trainer(net, progress=False).fit((X, Y), epochs=1, batch_size=40)
    assert caught.value.largest_batch == 0


def test_where_nobody_knows_nothing_is_said(backend, monkeypatch):
    monkeypatch.setattr(type(backend), "memory", lambda self: None)
    net = bpxp.Network(DENSE, backend=backend, seed=0)
    assert room(net, optim.SGD(0.1), 8).largest() is None
    bpxp.Trainer(net, progress=False).fit((X, Y), epochs=0)


# ---------------------------------------------------------------- where it is at an end


@dataclass(frozen=True)
class Greedy(nn.Activation):
    """Asks for more memory than there is, once somebody says so."""

    armed: list = None  # type: ignore[assignment]

    __hash__ = object.__hash__

    def forward(self, params, z, /, *, xp):
        if self.armed:
            raise self.armed[0]
        return 1.0 * z, None

    def backward(self, params, cache, da, /, *, xp):
        return 1.0 * da, ()


def test_in_the_first_step_nothing_is_changed(backend):
    net = bpxp.Network([12, nn.Dense(5, Greedy([own_error(backend)])), 3], backend=backend, seed=0)
    before = bits(net)[0]
    with pytest.raises(DeviceMemoryError, match=r"The library says: .*Nothing was changed") as caught:
        bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit((X, Y), epochs=1, batch_size=8)
    assert backend.out_of_memory(caught.value.__cause__)
    assert before.items() <= bits(net)[0].items()
    assert not net.training


def test_later_it_goes_back_to_a_state_that_is_whole(backend, monkeypatch):
    if any(name in backend.name for name in ("jax", "cupy", "cuda")):
        pytest.skip("a compiled step asks the layer nothing")
    monkeypatch.setattr(doctor, "SHARE", 0)
    monkeypatch.setattr(doctor, "MOMENT", 0.0)

    class Arm(Callback):
        def on_batches(self, trainer, done, total):
            if (trainer.net.epoch, done) == (1, 3):
                armed.append(error)

    armed, error = [], own_error(backend)
    net, same = (bpxp.Network([12, nn.Dense(5, Greedy(a)), 3], backend=backend, seed=0) for a in (armed, []))
    trainer = bpxp.Trainer(net, optim.Adam(0.1), callbacks=[Arm()], progress=False)
    with pytest.raises(DeviceMemoryError, match=r"The network is as it was: epoch 2, step 3 of 5"):
        trainer.fit((X, Y), epochs=4, batch_size=8)
    trainer_of_same = bpxp.Trainer(same, optim.Adam(0.1), callbacks=[Cut(8), Pause()], progress=False)
    with pytest.raises(Cut.Now):
        trainer_of_same.fit((X, Y), epochs=4, batch_size=8)
    assert bits(net) == bits(same)
    assert len(trainer.history) == 1


class Pause(Callback):
    steps = 1


def test_without_a_state_that_is_kept_it_is_told(backend):
    net = bpxp.Network([12, nn.Dense(5, Greedy([own_error(backend)])), 3], backend=backend, seed=0)
    with pytest.raises(DeviceMemoryError, match="may be a step ahead"):
        bpxp.Trainer(net, progress=False).fit((X, Y), epochs=1, on_divergence="raise")


def test_the_samples_do_not_fit(backend, monkeypatch):
    net = bpxp.Network(DENSE, backend=backend, seed=0)

    def full(self, a, **options):
        raise own_error(backend)

    monkeypatch.setattr(type(backend), "asarray", full)
    with pytest.raises(DeviceMemoryError, match=r"too little memory for the samples.*resident=False"):
        bpxp.Trainer(net, progress=False).fit((X.astype(np.float64), Y), epochs=1)


def test_the_error_of_a_callback_stays_what_it_is():
    class Greed(Callback):
        def on_epoch_end(self, trainer, row):
            raise MemoryError("mine")

    net = bpxp.Network(DENSE, backend="numpy", seed=0)
    with pytest.raises(MemoryError, match="mine") as caught:
        bpxp.Trainer(net, callbacks=[Greed()], progress=False).fit((X, Y), epochs=1)
    assert not isinstance(caught.value, DeviceMemoryError)


LIMITED = """
import resource, sys
import numpy as np
import bpxp
from bpxp.training.memory import MemoryEstimate

net = bpxp.Network([200, 2000, 10], hidden="relu", backend="numpy", seed=0)
x, y = np.zeros((20_000, 200), np.float32), np.zeros(20_000, int)
x[:, 0], y[::2] = 1.0, 1
trainer = bpxp.Trainer(net, bpxp.optim.Adam(1e-3), progress=False)
trainer.fit((x, y), epochs=1, batch_size=2000)
bpxp.preflight(net)  # what is imported later would take of the same memory
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
limit = taken + (80 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fails(batch):
    before = [a.tobytes() for own in net.params for a in own]
    try:
        trainer.fit((x, y), epochs=1, batch_size=batch)
    except bpxp.errors.DeviceMemoryError as error:
        assert [a.tobytes() for own in net.params for a in own] == before
        return error


error = fails(20_000)  # by the estimate
assert error is not None and error.__cause__ is None and error.needed > error.free, error
assert 0 < error.largest_batch < 20_000, error
assert fails(error.largest_batch) is None
MemoryEstimate.check = lambda self: None
error = fails(20_000)  # by the system
assert isinstance(error.__cause__, MemoryError), error
assert 0 < error.largest_batch < 20_000, error
print(error.largest_batch)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space")
def test_a_process_with_a_limit():
    line = [sys.executable, "-W", "ignore", "-c", LIMITED]
    done = subprocess.run(line, capture_output=True, text=True, check=False, env={"OMP_NUM_THREADS": "1", **PATHS})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


PATHS = {"PYTHONPATH": ":".join(sys.path)}
