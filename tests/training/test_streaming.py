"""Data that stay on the host: the same bits as with data on the device, and never more memory than two pieces."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.callbacks import Callback, Checkpoint
from bpxp.core.memory import Memory
from bpxp.core.tree import named_leaves
from bpxp.data import Dataset, Loader, augment, map_idx, write_idx
from bpxp.errors import BpxpError, DatasetFormatError, DivergenceError, InvalidTypeError
from bpxp.network import feed
from bpxp.network.prepare import HostSamples, prepare_or_stream

N, BATCH = 61, 4
rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (N, 5, 5, 1)).astype(np.uint8)
X, Y = rng.normal(size=(N, 6)).astype(np.float32), rng.integers(0, 3, N)
ROWS = rng.random((N, 3))
LABELS = np.where(rng.random((N, 3)) < 0.1, np.nan, ROWS > 0.6)
DENSE = [6, nn.Dense(8, activation="tanh"), 3]
RANDOM = [6, nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dropout(0.4), 3]
IMAGE = [nn.Conv2D(3, 3, activation="relu"), nn.Flatten(), 3]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Let a piece be three mini-batches, and an evaluation take 10 samples at a time: else a few samples are one piece."""
    monkeypatch.setattr(feed, "batches_of_a_piece", lambda *_: 3)
    monkeypatch.setattr("bpxp.network.inference_batch.CHUNK", 10)


def mapped(folder: Path, a: np.ndarray, name: str = "x") -> np.ndarray:
    np.save(folder / f"{name}.npy", a)
    return np.load(folder / f"{name}.npy", mmap_mode="r")


class Case:
    def __init__(self, layers, x, y, *, loss="softmax_cross_entropy", **options):
        self.layers, self.x, self.y, self.loss = layers, x, y, loss
        self.options = {"epochs": 2, "batch_size": BATCH, **options}

    def net(self, backend):
        shape = {"input_shape": (5, 5, 1)} if self.layers is IMAGE else {}
        return bpxp.Network(self.layers, loss=self.loss, backend=backend, seed=3, **shape)

    def fit(self, net, resident, folder, *, callbacks=(), **more):
        x = self.x if resident else mapped(folder, self.x)
        options = {**self.options, **more}
        if "validation" not in options:
            options["validation"] = Dataset(x[:27], self.y[:27], resident=resident)
        trainer = bpxp.Trainer(net, optim.Adam(0.01), callbacks=callbacks, progress=False)
        return trainer.fit(Dataset(x, self.y, resident=resident), **options)


CASES = {
    "floats": Case(DENSE, X, Y),
    "whole batches, weights": Case(DENSE, X[:60], Y[:60], weight=np.arange(60) % 3, evaluate_train=True),
    "random layers, classes": Case(RANDOM, X, Y, class_weight="balanced", validation=0.3),
    "labels, weights": Case(
        DENSE, X, LABELS, loss="binary_cross_entropy", weight=np.arange(N) % 3, class_weight={1: 2.0}, validation=0.3
    ),
    "of another dtype, in their order": Case(DENSE, X.astype(">f8"), Y, shuffle=False),
    "pixels, augmentation": Case(IMAGE, PIXELS, Y, augment=[augment.Affine(degrees=10, shift=1), augment.Mixup(0.2)]),
    "rows": Case(DENSE, X, ROWS, loss="mean_squared_error", evaluate_train=True),
}


def state(net):
    arrays = dict(named_leaves((net.params, net.stats, net.opt_state)))
    return {name: net.backend.to_numpy(a).tobytes() for name, a in arrays.items()}, net._steps, net.epoch


def rows(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


@pytest.mark.parametrize("name", CASES)
def test_a_streamed_fit_has_the_bits_of_a_resident_one(backend, tmp_path, nightly, name):
    # On JAX the cut runs show it, too, and compile less.
    few = {"jax": [], "strict": [n for n in CASES if "pixels" not in n]}
    if not nightly and name not in few.get(backend.name.partition(":")[0], CASES):
        pytest.skip("it compiles, or computes, for too long")
    case, nets, histories = CASES[name], {}, {}
    for resident in (True, False):
        nets[resident] = case.net(backend)
        histories[resident] = case.fit(nets[resident], resident, tmp_path)
    assert rows(histories[False]) == rows(histories[True])
    assert state(nets[False]) == state(nets[True])


@pytest.mark.filterwarnings("ignore::bpxp.BpxpWarning")
def test_any_sizes_of_data_batches_and_pieces(backend, monkeypatch, nightly):
    sizes = list(itertools.product((1, 2, 7, 33), (1, 3, 8, 64), (1, 2, 5)))
    every = 1 if nightly else {"jax": len(sizes), "strict": 9}.get(backend.name.partition(":")[0], 3)
    for n, size, batches in sizes[1::every]:
        monkeypatch.setattr(feed, "batches_of_a_piece", lambda *_, batches=batches: batches)
        found = []
        for resident in (True, False):
            net = bpxp.Network([6, 4, 3], backend=backend, seed=2)
            data = Dataset(X[:n], Y[:n], resident=resident)
            history = bpxp.Trainer(net, "adam", progress=False).fit(data, epochs=2, batch_size=size, validation=data)
            found.append((rows(history), state(net)))
        assert found[0] == found[1], (n, size, batches)


def test_a_run_is_cut_and_goes_on_from_the_device_or_from_the_host(backend, tmp_path, nightly, promise):
    case = CASES["random layers, classes"]
    whole = case.net(backend)
    history = case.fit(whole, False, tmp_path, callbacks=[Checkpoint(tmp_path / "{epoch}.bpxp", steps=1)])
    wanted, files = state(whole), sorted(tmp_path.glob("*.bpxp"))
    assert len(files) > 10
    net = whole if "jax" in backend.name else case.net(backend)  # JAX would compile all of it again
    some = files if nightly else files[1 :: 18 if "jax" in backend.name else 9]
    for file, resident in itertools.product(some, (False, True)):
        assert rows(case.fit(net, resident, tmp_path, resume=file)) == rows(history)
        assert state(net) == wanted
    what = f"A streamed run, cut at a step, resumed streamed or resident with the same bits, {backend.name}"
    promise(what, f"{2 * len(files)} of {2 * len(files)} times" if nightly else "a few times")


def test_what_is_predicted_and_evaluated_is_the_same(backend, tmp_path):
    cases = ((X, ()), (PIXELS, (5, 5, 1)), (PIXELS, ()))
    for x, shape in cases[2:] if "jax" in backend.name else cases:
        layers = [nn.Flatten(), 3] if shape else [int(np.prod(x.shape[1:])), 3]
        net = bpxp.Network(layers, backend=backend, seed=0, **({"input_shape": shape} if shape else {}))
        here, there = (
            Dataset(a, Y, np.arange(N) % 2, resident=r) for a, r in ((x, True), (mapped(tmp_path, x), False))
        )
        for function in (net.predict, net.predict_proba, net.logits):
            a, b = (net.backend.to_numpy(function(data)) for data in (here, there))
            np.testing.assert_array_equal(a, b, strict=True)
        assert net.evaluate(here) == net.evaluate(there)


def test_batches_of_a_loader_are_the_same(backend, tmp_path):
    here, there = (Dataset(a, Y, resident=r) for a, r in ((X, True), (mapped(tmp_path, X), False)))
    loaders = [Loader(data, 8, seed=5, backend=backend) for data in (here, there)]
    assert loaders[1].data.backend is None
    for a, b in zip(*loaders, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(backend.to_numpy(one), backend.to_numpy(other), strict=True)


def test_a_step_that_diverges_is_found_as_on_the_device(backend, tmp_path, nightly):
    if "jax" in backend.name and not nightly:
        pytest.skip("it compiles for too long")
    x, y = X.copy(), ROWS
    x[50] *= 1e18
    texts = []
    for resident in (True, False):
        net = bpxp.Network([6, 3], loss="mean_squared_error", backend=backend, seed=0)
        data = Dataset(x if resident else mapped(tmp_path, x), y, resident=resident)
        with pytest.raises(DivergenceError) as error:
            bpxp.Trainer(net, optim.SGD(0.5), progress=False).fit(data, epochs=5, batch_size=BATCH)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_the_step_is_compiled_once(backend, tmp_path):
    # What looks up often asks for few steps at a time, and for others in every epoch.
    class Often(Callback):
        steps = 5

    traced = []

    class Counting(nn.Activation):
        def forward(self, params, z, /, *, xp):
            traced.append(tuple(z.shape))
            return z * 1.0, None

        def backward(self, params, cache, da, /, *, xp):
            return da * 1.0, ()

    net = bpxp.Network([6, Counting(), 3], backend=backend, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(0.1), callbacks=[Often()], progress=False)
    data = Dataset(mapped(tmp_path, X), Y, resident=False)
    trainer.fit(data, epochs=2, batch_size=BATCH, validation=data)
    begun = traced.copy()
    net_epochs = 3
    trainer.fit(data, epochs=net_epochs, batch_size=BATCH, validation=data)
    if "jax" in backend.name:
        assert traced == begun
    elif backend.name in ("numpy", "torch"):  # the layer writes to a list, in every step
        assert len([s for s in traced[len(begun) :] if s[0] == BATCH]) == net_epochs * 16
        assert "traced, which Counting.forward reads, is a list" in net.eager_steps["TrainingStep"]


def test_a_stream_is_one_plan(backend, tmp_path):
    net = bpxp.Network([6, 4, 3], backend=backend, seed=0)
    data = Dataset(mapped(tmp_path, X), Y, resident=False)
    bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit(data, epochs=5, batch_size=BATCH, validation=data)
    assert net.eager_steps == {} or "cuda" in str(backend.device) or backend.name.startswith("strict")
    if backend.name in ("numpy", "torch"):
        assert [len(getattr(run, "run", run).plans) for run in net._compiled.values()] == [1, 1]


# ---------------------------------------------------------------- who decides


def test_the_device_has_no_room(backend, monkeypatch, tmp_path):
    net = bpxp.Network([6, 3], backend=backend, seed=0)
    monkeypatch.setattr("bpxp.network.prepare.SMALL", 0)
    doubles = X.astype(np.float64)

    def taken(data, free):
        monkeypatch.setattr(type(backend), "memory", lambda self: free and Memory(free, 10**12))
        return isinstance(prepare_or_stream(net.spec, net.backend, data, None, "test"), HostSamples)

    assert not taken((doubles, Y), 10**9)
    assert not taken((doubles, Y), None)  # nobody knows
    assert taken((doubles, Y), X.nbytes)  # as floats they are half as many bytes, and some is for the step
    assert not taken((doubles, Y), 2 * X.nbytes)
    assert taken(Dataset(doubles, Y), X.nbytes)
    assert taken(Dataset(doubles, Y, resident=False), 10**9)
    assert not taken(Dataset(doubles, Y, resident=True), 1)
    assert not taken((doubles.tolist(), Y), 1)
    assert not taken(Dataset(X, Y).to(backend), 1)
    shared = getattr(backend, "shares_memory", False)
    assert taken((X, Y), 1) != shared  # what is taken as it lies there needs none


def test_a_choice_that_is_none():
    for wrong in (1.5, "auto"):
        with pytest.raises(InvalidTypeError, match="resident"):
            Dataset(X, Y, resident=wrong)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("block", [1, 7, 10**6])
def test_bad_numbers_are_found_wherever_they_are(backend, monkeypatch, tmp_path, bad, block):
    monkeypatch.setattr("bpxp.data.validation.inputs.BLOCK", block * 6)
    monkeypatch.setattr("bpxp.data.rows.BLOCK", block * 6 * 4)
    x = X.astype(np.float64)
    x[[17, 44, 60], [2, 5, 5]] = bad
    net = bpxp.Network([6, 3], backend=backend, seed=0)
    texts = []
    for resident in (True, False):
        data = Dataset(x if resident else mapped(tmp_path, x), Y, resident=resident)
        with pytest.raises(BpxpError, match=r"\[17, 2\]") as error:
            bpxp.Trainer(net, progress=False).fit(data, epochs=1)
        texts.append(str(error.value))
    assert texts[0] == texts[1]
    assert "3" in texts[0]


@pytest.mark.parametrize("what", ["label", "NaN in a row", "a row that is too large", "a sum"])
def test_bad_targets_are_found_wherever_they_are(backend, monkeypatch, tmp_path, what):
    monkeypatch.setattr("bpxp.data.validation.targets.BLOCK", 8)
    y = Y.copy() if what == "label" else np.full((N, 3), 1 / 3)
    y[50] = {"label": 3, "NaN in a row": np.nan, "a row that is too large": 2.0, "a sum": 0.2}[what]
    net = bpxp.Network([6, 3], backend=backend, seed=0)
    texts = []
    for resident in (True, False):
        data = Dataset(X, y if resident else mapped(tmp_path, y), resident=resident)
        with pytest.raises(BpxpError, match="50") as error:
            bpxp.Trainer(net, progress=False).fit(data, epochs=1)
        texts.append(str(error.value))
    assert texts[0] == texts[1]


def test_the_preflight_counts_two_pieces(backend):
    net = bpxp.Network([784, 30, 10], backend=backend, seed=0)
    few, many = (bpxp.preflight(net, batch_size=64, samples=n, pixels=True, resident=False) for n in (10**6, 10**7 + 1))
    whole = bpxp.preflight(net, batch_size=64, samples=10**6, pixels=True)
    assert abs(many.resident_bytes - few.resident_bytes) < 1000
    assert many.streamed
    assert "two pieces" in str(many)
    assert not whole.streamed
    assert whole.resident_bytes - few.resident_bytes > 0.5 * 784 * 10**6


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "float64"])
def test_an_idx_file_is_mapped(tmp_path, dtype):
    a = (np.arange(60) % 100).reshape(5, 4, 3).astype(dtype)
    write_idx(tmp_path / "a.idx", a)
    found = map_idx(tmp_path / "a.idx")
    np.testing.assert_array_equal(found, a)
    assert not found.flags.writeable
    assert isinstance(found.base, np.memmap)
    write_idx(tmp_path / "none.idx", a[:0])
    assert map_idx(tmp_path / "none.idx").shape == (0, 4, 3)


def test_an_idx_file_that_cannot_be_mapped(tmp_path):
    path = tmp_path / "a.idx"
    write_idx(tmp_path / "a.idx.gz", X)
    with pytest.raises(DatasetFormatError, match="compressed"):
        map_idx(tmp_path / "a.idx.gz")
    write_idx(path, X)
    content = path.read_bytes()
    for wrong, what in (
        (content[:-1], "truncated"),
        (content + b"!", "left over"),
        (content[:6], "header"),
        (b"", "not an IDX"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(DatasetFormatError, match=what):
            map_idx(path)


# A process whose memory has a limit, beside a file that is larger: what it takes for itself, not what it maps.
PROGRAM = """
    import resource, sys
    import numpy as np
    import bpxp

    name, x, y = sys.argv[1], np.load(sys.argv[2], mmap_mode="r"), np.load(sys.argv[3])
    rows = bpxp.data.Dataset(x, y, resident=False)
    net = bpxp.Network([x.shape[1], 16, 10], backend=name, seed=0)
    fit = bpxp.Trainer(net, bpxp.optim.SGD(0.1), progress=False).fit
    few = bpxp.data.Dataset(x[:4096], y[:4096], resident=False)
    fit(few, epochs=1, batch_size=64, validation=few)  # what a library takes when it is first used
    net.predict(few)
    taken = 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1])
    limit = taken + x.nbytes // 2
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    history = fit(rows, epochs=1, batch_size=64, validation=rows)
    net.predict(rows)
    assert np.isfinite(history["validation_loss"][0])
    try:
        np.ones(x.nbytes, np.uint8)
    except MemoryError:
        print("streamed", x.nbytes, "bytes with", x.nbytes // 2, "at hand")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts what is mapped only on Linux")
def test_a_file_larger_than_the_memory(backend, tmp_path, nightly, promise):
    if backend.name not in ("numpy", "torch", "jax")[: None if nightly else 2]:
        pytest.skip("the memory of the host is under test; JAX compiles for too long")
    n, width = 60_000, 784
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (n, width))
    x[::1000] = 1.0  # the rest of the file is a hole, and takes no disk
    x.flush()
    del x
    np.save(tmp_path / "y.npy", np.arange(n) % 10)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), backend.name, tmp_path / "x.npy", tmp_path / "y.npy"],
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ
        | {"PYTHONPATH": str(Path(bpxp.__file__).parents[1]), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "streamed" in done.stdout
    promise(
        f"A fit, an evaluation and a prediction from a file, {backend.name}", "188 MB with 94 MB of memory available"
    )
