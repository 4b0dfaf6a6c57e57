"""A network says why it lives on its backend; the fastest is measured, within a second, and only for who asks."""

from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.backends import get_backend
from bpxp.errors import BackendNotUsableError, InvalidTypeError, InvalidValueError
from bpxp.network import backend_choice as choice


@pytest.fixture
def bench(monkeypatch):
    """Decide what is installed, and what a measurement of it would give."""
    monkeypatch.delenv("BPXP_BACKEND", raising=False)
    bench = types.SimpleNamespace(installed={"numpy": 1e-3}, asked=[])

    def found(name, *, matmul=None):
        if name not in bench.installed:
            raise BackendNotUsableError(name, "no device", code="E022")
        return get_backend("numpy") if name == "numpy" else renamed(name)

    def measured(spec, params, backend, batch):
        bench.asked.append((backend.name, batch, spec.dtype))
        result = bench.installed[backend.name]
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(choice, "get_backend", found)
    monkeypatch.setattr(choice, "measured", measured)
    return bench


def renamed(name):
    numpy = get_backend("numpy")
    methods = {m: getattr(numpy, m) for m in ("xp", "device", "matmul", "asarray", "to_numpy", "compile")}
    return types.SimpleNamespace(name=name, **methods)


def small(**options):
    return bpxp.Network([4, 3, 2], seed=0, **options)


# ---------------------------------------------------------------- who decided


def test_a_name_is_what_was_asked_for(backend):
    report = small(backend=backend.name).backend_report
    assert report == (backend.name, "asked for", {}, {})
    assert str(report) == f"{backend.name}: asked for"
    assert small(backend=backend).backend_report.reason == "given as an object"


def test_the_environment_decides(monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    assert small().backend_report == ("numpy", "the environment variable BPXP_BACKEND names it", {}, {})
    assert small(backend="numpy").backend_report.reason == "asked for"


@pytest.mark.parametrize("asked", [None, "auto"])
def test_auto_says_why_not_cupy(monkeypatch, asked):
    monkeypatch.delenv("BPXP_BACKEND", raising=False)
    monkeypatch.setattr(choice, "why", lambda: "no driver")
    monkeypatch.setattr(choice, "get_backend", lambda name, matmul=None: get_backend("numpy"))
    assert small(backend=asked).backend_report.reason == "CuPy does not work here (no driver)"
    monkeypatch.setattr(choice, "get_backend", lambda name, matmul=None: renamed("cupy"))
    assert small(backend=asked).backend_report.reason == "a CUDA device answers CuPy"


def test_why_not_cupy():
    assert choice.why() == bpxp.available_backends()["cupy"].reason


def test_a_network_that_moved_says_why_it_is_there(backend):
    net = small(backend="numpy")
    assert net.to(backend.name).backend_report.reason == "asked for"
    assert net.backend_report.backend == "numpy"


# ---------------------------------------------------------------- the fastest


def test_the_least_time_wins(bench):
    bench.installed = {"numpy": 3e-3, "torch": 1e-3, "jax": 2e-3}
    net = small(backend="fastest")
    assert net.backend.name == "torch"
    report = net.backend_report
    assert report.backend == "torch"
    assert report.seconds == {"numpy": 3e-3, "torch": 1e-3, "jax": 2e-3}
    assert report.excluded == {"cupy": "no device.", "torch:cuda": "no device."}
    assert str(report).splitlines() == [
        "torch: measured to be the fastest for batches of 64",
        "  torch: 1,000 µs per step",
        "  jax: 2,000 µs per step",
        "  numpy: 3,000 µs per step",
        "  cupy: no device.",
        "  torch:cuda: no device.",
    ]


def test_of_so_many_samples(bench):
    small(backend="fastest:10")
    assert bench.asked == [("numpy", 10, "float32")]


def test_by_the_environment_and_for_a_network_that_is_there(bench, monkeypatch):
    net = small(backend="numpy", dtype="float64")
    assert net.to("fastest:7").backend_report.reason == "measured to be the fastest for batches of 7"
    monkeypatch.setenv("BPXP_BACKEND", "fastest:8")
    small()
    assert bench.asked == [("numpy", 7, "float64"), ("numpy", 8, "float32")]


def test_what_fails_is_excluded(bench):
    bench.installed = {"numpy": 1.0, "jax": MemoryError("out of it")}
    report = small(backend="fastest").backend_report
    assert report.backend == "numpy"
    assert report.excluded["jax"] == "MemoryError: out of it"


def test_where_nothing_can(bench):
    bench.installed = {}
    with pytest.raises(InvalidValueError, match=r"no library here can do it \(numpy: no device"):
        small(backend="fastest")


@pytest.mark.parametrize("name", ["fastest:", "fastest:0", "fastest:many", "fastest:-1"])
def test_what_is_no_batch(name):
    with pytest.raises(InvalidValueError, match="not a batch size"):
        small(backend=name)


def test_it_is_for_networks_only():
    with pytest.raises(InvalidValueError, match=r"measured for a network.*Fix: net.to\('fastest'\)"):
        get_backend("fastest")
    with pytest.raises(InvalidTypeError):
        small(backend=3)


# ---------------------------------------------------------------- a measurement


LAYERS = {
    "mlp": ([12, 5, 3], {}),
    "everything": (
        [nn.Conv2D(2, 3), nn.BatchNorm(), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5), 3],
        {"input_shape": (6, 6, 1), "loss": "binary_cross_entropy"},
    ),
}


@pytest.mark.parametrize("which", LAYERS)
def test_every_library_is_measured(backend, which, monkeypatch):
    layers, options = LAYERS[which]
    monkeypatch.setattr(choice, "CANDIDATES", (backend.name,))
    net = bpxp.Network(layers, backend="fastest:8", seed=3, **options)
    assert net.backend is backend
    assert list(net.backend_report.seconds) == [backend.name]
    assert 0.0 < net.backend_report.seconds[backend.name] < 10.0
    # What was measured with has left no trace.
    plain = bpxp.Network(layers, backend=backend, seed=3, **options)
    for name in ("params", "stats"):
        for a, b in zip(getattr(net, name), getattr(plain, name), strict=True):
            for mine, other in zip(a, b, strict=True):
                np.testing.assert_array_equal(backend.to_numpy(mine), backend.to_numpy(other))


def clock(monkeypatch, seconds):
    """Let a compiled step take so long by the clock, the first one ten times; return the counts that it is run with."""
    now, counts = [0.0], []

    def compile_(step):
        def run(state, data, *, count):
            now[0] += seconds * (count if counts else 10)
            counts.append(count)
            return state

        return run

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now[0])
    return now, counts, compile_


@pytest.mark.parametrize("seconds", [1e-6, 1e-4, 1e-2, 0.1])
@pytest.mark.parametrize("name", ["numpy", "jax"])
def test_a_measurement_takes_no_more_than_its_share(monkeypatch, seconds, name):
    now, counts, compile_ = clock(monkeypatch, seconds)
    fake = renamed(name)
    fake.compile = compile_
    net = small(backend="numpy")
    found = choice.measured(net.spec, net.params, fake, 8)
    compiling = 10 * seconds
    assert now[0] - compiling <= choice.BUDGET
    assert sum(counts) <= 2 + 5 * choice.MOST
    if name == "numpy" and compiling > choice.BUDGET:
        assert counts == [1]  # its first step is one like the others
    else:
        assert found == pytest.approx(seconds)
    assert choice.BUDGET * len(choice.CANDIDATES) <= 1.0


def test_who_does_not_ask_imports_nothing_for_it():
    program = (
        "import sys, bpxp; net = bpxp.Network([4, 3, 2], backend='numpy'); "
        "print(net.backend_report, {'torch', 'jax', 'cupy', 'threadpoolctl'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "numpy: asked for set()"
