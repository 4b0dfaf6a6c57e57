"""What every test may use: the `backend` fixture, and arrays that show where a rule is broken.

``BPXP_TEST_BACKENDS=numpy,strict,torch,jax,cupy,torch:cuda`` says which libraries run (default: numpy and strict, what
the test group installs). One that was asked for and does not work ends the run at once, with the reason.
``BPXP_TEST_SEED`` repeats the random numbers of a failure. ``BPXP_NIGHTLY=1`` runs the tests that count something (kills,
interrupts, cut points) to the full number, and ``BPXP_PROMISES=FILE`` has them write down what they counted.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import warnings
import zlib
from collections.abc import Callable
from typing import Any

# Before any library is imported. float64 on JAX must be asked for; with strict promotion a constant of the wrong dtype
# is an error there instead of a quiet cast. TF32 is off everywhere: tests compare with float32's own accuracy.
os.environ.pop("BPXP_BACKEND", None)
os.environ["JAX_ENABLE_X64"] = "1"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
os.environ["NVIDIA_TF32_OVERRIDE"] = "0"

import numpy as np
import pytest

import bpxp.backends
from bpxp.backends import Backend
from bpxp.backends.captured import CapturedStep
from bpxp.errors import BpxpError

# "strict" means the host and a device that mixes with nothing else.
ASKED = [
    name
    for asked in os.environ.get("BPXP_TEST_BACKENDS", "numpy,strict").split(",")
    for name in (["strict", "strict:device1"] if asked == "strict" else [asked])
]


def pytest_configure() -> None:
    """End the run if a library that was asked for does not work here: never a skip, never a smaller run."""
    if importlib.util.find_spec("array_api_strict"):
        close_strict()
    for name in ASKED:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what a library has to say when it is imported is not under test
                bpxp.backends.get_backend(name)
        except BpxpError as error:
            raise pytest.UsageError(f"BPXP_TEST_BACKENDS asks for {name!r}: {error}") from None


CapturedStep.WORTH = 8  # so that short runs are captured, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With BPXP_TEST_ONLY_BACKENDS=1, leave out the tests that are the same whichever library is there."""
    if os.environ.get("BPXP_TEST_ONLY_BACKENDS"):
        items[:] = [item for item in items if needs_a_library(item)]


def needs_a_library(item: Any) -> bool:
    """Return whether a test has a backend, is about backends, or skips without a library (the oracles do)."""
    return (
        "backend" in getattr(item, "fixturenames", ())
        or {"backends", "cudasim"} & set(item.path.parts)
        or any(hasattr(item.module, library) for library in ("cupy", "torch", "jax"))
        or "importorskip" in inspect.getsource(item.function)
    )


def close_strict() -> None:
    """Hold array-api-strict to what every library has, and close its silent ways from a device to the host.

    `to_device` to the CPU stays open: it is what `backend.to_numpy` does, and nothing else may.
    """
    import array_api_strict as strict

    strict.set_array_api_strict_flags(api_version="2024.12", boolean_indexing=False, data_dependent_shapes=False)
    host = strict.Device("CPU_DEVICE")
    conforming = strict.reshape
    array = type(strict.zeros(1))

    def guarded(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            if self.device != host:
                raise RuntimeError(f"host sync: {name} of an array on {self.device}")
            return original(self, *args, **kwargs)

        return method

    def reshape(x: Any, /, shape: tuple[int, ...], **options: Any) -> Any:
        if any(n < -1 for n in shape):
            raise ValueError(f"the shape {shape}: NumPy alone takes any negative length for -1")
        return conforming(x, shape, **options)

    strict.reshape = reshape
    for name in ("__float__", "__int__", "__bool__", "__index__", "__complex__", "__dlpack__"):
        setattr(array, name, guarded(name, getattr(array, name)))


@pytest.fixture(scope="session", params=ASKED)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that was asked for."""
    return bpxp.backends.get_backend(request.param)


@pytest.fixture(scope="session")
def readonly() -> Callable[..., np.ndarray]:
    """``readonly(a, dtype)`` is a copy on the host that nobody can write into."""

    def make(a: Any, dtype: Any = None) -> np.ndarray:
        copy = np.array(a, dtype=dtype)
        copy.flags.writeable = False
        return copy

    return make


@pytest.fixture(scope="session")
def on(readonly: Callable[..., np.ndarray]) -> Callable[..., Any]:
    """``on(backend, a, "float32")`` brings `a` to the backend, read-only where the library can say so."""

    def bring(backend: Backend, a: Any, dtype: str | None = None) -> Any:
        return backend.asarray(readonly(a, dtype))

    return bring


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Random numbers of the test's own, the same on every backend; a failure prints the seed that repeats them."""
    seed = int(os.environ.get("BPXP_TEST_SEED", zlib.crc32(request.node.originalname.encode())))
    print(f"BPXP_TEST_SEED={seed}")
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def nightly() -> bool:
    """Whether there is time."""
    return bool(os.environ.get("BPXP_NIGHTLY"))


@pytest.fixture
def promise(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """``promise(what, figure)`` writes a measured figure down, for docs/promises.md, if somebody asked for it."""

    def write(what: str, figure: str) -> None:
        print(f"{what}: {figure}")
        if "BPXP_PROMISES" in os.environ:
            line = {"what": what, "figure": figure, "test": request.node.nodeid.partition("[")[0]}
            with open(os.environ["BPXP_PROMISES"], "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    return write
