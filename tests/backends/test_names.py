"""Backends by name: what is found, and what the error says where it is not."""

from __future__ import annotations

import importlib.util
import sys
import types

import pytest

from bpxp.backends import Backend, BackendInfo, available_backends, base, get_backend, names
from bpxp.backends.names import LIBRARIES, Library
from bpxp.errors import BackendNotInstalledError, BackendNotUsableError, BpxpError, InvalidTypeError, InvalidValueError

MEMBERS = {"name", "xp", "device", "matmul", "asarray", "to_numpy", "compile", "memory", "out_of_memory"}
OPTIONAL = {*base.options(base.BackendOptions)}


def installed(name: str) -> bool:
    return importlib.util.find_spec(LIBRARIES[name].module) is not None


def test_the_protocol_has_these_members_and_no_more():
    # Growth here is a decision: a backend is a namespace, the way in, the way out, compile, and memory.
    assert set(base.MEMBERS) == MEMBERS


def test_a_backend_that_lacks_members_is_refused_with_their_names():
    numpy = get_backend("numpy")
    six = {name: getattr(numpy, name) for name in ("name", "xp", "device", "asarray", "to_numpy", "compile")}
    with pytest.raises(
        InvalidTypeError, match="not a backend, it lacks matmul, memory, out_of_memory: got SimpleNamespace"
    ):
        get_backend(types.SimpleNamespace(**six))


def test_an_option_has_a_default(backend):
    bare = types.SimpleNamespace()
    assert [base.option(bare, name) for name in base.options(base.BackendOptions)] == [
        None,
        None,
        4 << 20,
        False,
        False,
        None,
    ]
    assert base.option(backend, "shares_memory") == (backend.name in ("numpy", "torch"))


def test_a_backend_has_the_protocols_members_and_no_more(backend):
    assert isinstance(backend, Backend)
    assert {name for name in dir(backend) if not name.startswith("_")} - OPTIONAL == MEMBERS


def test_the_name_says_which_backend_it_is(backend):
    assert get_backend(backend.name).name == backend.name


def test_a_backend_is_made_once(backend):
    assert get_backend(backend.name) is get_backend(backend.name)
    assert get_backend(backend) is backend


def test_the_namespace_has_no_name_outside_the_standard(backend):
    standard = {*base.CREATION, *base.FUNCTIONS, *base.CONSTANTS, *base.DTYPES}
    assert set(vars(backend.xp)) <= standard | {*base.options(base.NamespaceOptions)}


def test_the_environment_chooses(monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    assert get_backend().name == "numpy"
    monkeypatch.setenv("BPXP_BACKEND", "nunpy")
    with pytest.raises(InvalidValueError, match=r"BPXP_BACKEND: unknown backend 'nunpy'.*Did you mean 'numpy'\?"):
        get_backend()


def test_an_argument_is_stronger_than_the_environment(monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", "no such thing")
    assert get_backend("numpy").name == "numpy"


def test_without_a_word_it_is_auto(monkeypatch):
    monkeypatch.delenv("BPXP_BACKEND", raising=False)
    assert get_backend() is get_backend("auto")
    monkeypatch.setenv("BPXP_BACKEND", "")
    assert get_backend() is get_backend("auto")


@pytest.mark.parametrize("error", [BackendNotInstalledError, BackendNotUsableError])
def test_auto_falls_back_to_numpy(monkeypatch, error):
    numpy = get_backend("numpy")

    def named(name, where, matmul="float32"):
        if name == "cupy":
            raise error("backend", "no", code="E022")
        return numpy

    monkeypatch.setattr(names, "_named", named)
    assert names._automatic() is numpy


def test_auto_takes_cupy_where_it_works(monkeypatch):
    monkeypatch.setattr(names, "_named", lambda name, where: name)
    assert names._automatic() == "cupy"


@pytest.mark.parametrize(
    ("name", "meant"), [("cuppy", "cupy"), ("NumPy", "numpy"), ("pytorch", "torch"), ("jaxx", "jax"), ("outo", "auto")]
)
def test_a_typo_is_told_what_was_meant(name, meant):
    with pytest.raises(InvalidValueError) as caught:
        get_backend(name)
    text = str(caught.value)
    assert f"unknown backend {name!r}; available: numpy" in text
    assert f"Did you mean {meant!r}?" in text
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["", "auto:1", "tensorflow", ":cuda"])
def test_an_unknown_name_lists_what_works_here(name):
    with pytest.raises(InvalidValueError, match="available: numpy"):
        get_backend(name)


@pytest.mark.parametrize("name", [3, True, ["numpy"], b"numpy"])
def test_a_name_is_a_string(name):
    with pytest.raises(InvalidTypeError, match="Fix: backend='numpy'"):
        get_backend(name)


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(LIBRARIES, "absent", Library("no_such_module_at_all", "X", "pip install 'bpxp[absent]'"))
    with pytest.raises(BackendNotInstalledError) as caught:
        get_backend("absent")
    text = str(caught.value)
    assert isinstance(caught.value, ImportError)
    assert "no_such_module_at_all, which is not installed" in text
    assert "Fix: pip install 'bpxp[absent]'; or backend='numpy'" in text
    assert "numpy" in text.split("expected")[1]


def fake_library(monkeypatch, name, check_device):
    """Make a backend of this name, of a library that is installed (json) and does what `check_device` does."""
    module = types.ModuleType(f"bpxp.backends.{name}.backend")
    module.check_device = check_device
    monkeypatch.setitem(LIBRARIES, name, Library("json", "Fake", "pip install fake"))
    monkeypatch.setitem(sys.modules, f"bpxp.backends.{name}.backend", module)


def test_a_library_that_is_installed_and_does_not_work(monkeypatch):
    def no_driver(device):
        raise OSError("libcuda.so.1: cannot open shared object file")

    fake_library(monkeypatch, "broken", no_driver)
    with pytest.raises(BackendNotUsableError) as caught:
        get_backend("broken:0")
    text = str(caught.value)
    assert isinstance(caught.value, RuntimeError)
    assert "is installed, but 'broken:0' does not compute here" in text
    assert "OSError: libcuda.so.1: cannot open shared object file" in text
    assert "backend='auto'" in text
    assert isinstance(caught.value.__cause__, OSError)


def test_a_library_that_computes_nonsense_is_not_usable(monkeypatch):
    numpy = get_backend("numpy")
    xp = types.SimpleNamespace(**{**vars(numpy.xp), "matmul": lambda a, b: a})
    wrong = types.SimpleNamespace(name="wrong", xp=xp, device="", asarray=numpy.asarray, to_numpy=numpy.to_numpy)
    fake_library(monkeypatch, "wrong", lambda device: None)
    monkeypatch.setattr(sys.modules["bpxp.backends.wrong.backend"], "Fake", lambda device: wrong, raising=False)
    with pytest.raises(BackendNotUsableError, match="matrix product gave"):
        get_backend("wrong")


def test_available_backends_gives_the_reason_for_each_that_is_not(monkeypatch):
    monkeypatch.setitem(LIBRARIES, "absent", Library("no_such_module_at_all", "X", "pip install absent"))

    def no_device(device):
        raise RuntimeError("no CUDA-capable device is detected")

    fake_library(monkeypatch, "broken", no_device)
    found = available_backends()
    assert list(found)[:5] == ["numpy", "cupy", "torch", "jax", "strict"]
    assert found["numpy"] == BackendInfo(True, __import__("numpy").__version__, "")
    assert found["absent"].available is False
    assert found["absent"].version == ""
    assert "not installed" in found["absent"].reason
    assert found["broken"] == BackendInfo(False, "2.0.9", "no CUDA-capable device is detected")
    for info in found.values():
        assert info.available == (info.reason == "")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("numpy:7", "NumPy computes on the CPU"),
        ("strict:device9", "no such device.*device1"),
        ("torch:banana", "cpu, cuda or cuda:<index>"),
        ("torch:cuda:x", "cpu, cuda or cuda:<index>"),
        ("jax:banana", "no such platform here.*jax:cpu"),
        ("jax:cpu:7", r"JAX has \d+ cpu devices? \(0.*backend='jax:cpu:0'"),
    ],
)
def test_a_device_that_does_not_exist(name, says):
    if not installed(name.partition(":")[0]):
        pytest.skip(f"{name}: not installed here")
    with pytest.raises(InvalidValueError, match=says):
        get_backend(name)


def test_a_cuda_device_beyond_the_last():
    error = base.no_such_device("torch", "torch:cuda:7", 1, "CUDA")
    assert "torch has 1 CUDA device (0): got 'torch:cuda:7'. Fix: backend='torch:cuda:0'." in str(error)
    error = base.no_such_device("CuPy", "cupy:7", 4, "CUDA")
    assert "CuPy has 4 CUDA devices (0..3)" in str(error)


def test_torch_without_cuda_says_so(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendNotUsableError, match="sees no CUDA device"):
        names._made("torch:cuda", "backend")


def test_every_error_is_a_bpxp_error():
    for name in ("cuppy", "numpy:1"):
        with pytest.raises(BpxpError, match=r"\[BPX-E"):
            get_backend(name)
