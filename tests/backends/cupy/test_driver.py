"""Drivers and devices that are not what CuPy needs: what is said, and what `auto` takes."""

from __future__ import annotations

import pytest

cupy = pytest.importorskip("cupy")

from bpxp.backends import available_backends, get_backend, names  # noqa: E402
from bpxp.errors import BackendNotUsableError, BpxpWarning  # noqa: E402


@pytest.fixture(autouse=True)
def anew(monkeypatch):
    monkeypatch.setattr(names, "_found", {})


def runtime(monkeypatch, **values):
    for name, value in values.items():
        monkeypatch.setattr(cupy.cuda.runtime, name, value)


def no_devices():
    raise cupy.cuda.runtime.CUDARuntimeError(100)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"driverGetVersion": lambda: 0}, "no GPU driver is loaded"),
        ({"getDeviceCount": no_devices}, "cudaErrorNoDevice"),
    ],
)
def test_without_a_gpu_auto_is_numpy_without_a_word(values, reason, monkeypatch):
    runtime(monkeypatch, **values)
    assert reason in available_backends(["cupy"])["cupy"].reason
    assert get_backend("auto").name == "numpy"
    with pytest.raises(BackendNotUsableError, match=reason):
        get_backend("cupy")


def test_an_older_driver_is_named_with_the_package_that_fits(monkeypatch):
    runtime(monkeypatch, driverGetVersion=lambda: 12080, runtimeGetVersion=lambda: 13000)
    with pytest.raises(BackendNotUsableError, match=r"for CUDA 12, CuPy for CUDA 13: pip install 'bpxp\[cuda12\]'"):
        get_backend("cupy")
    with pytest.warns(BpxpWarning, match=r"GPU: the driver is for CUDA 12.*Fix: backend='numpy', if.*W018"):
        assert get_backend("auto").name == "numpy"


def test_a_gpu_on_which_nothing_compiles_is_not_passed_over_in_silence(monkeypatch):
    probe = names._probe

    def fails(backend):
        if backend.name == "cupy":
            raise RuntimeError("cannot open source file vector_types.h")
        probe(backend)

    monkeypatch.setattr(names, "_probe", fails)
    with pytest.warns(BpxpWarning, match=r"does not compute on this machine's GPU: cannot open source file"):
        assert get_backend("auto").name == "numpy"
