"""Array libraries by name: which there are, which of them work here, and why the others do not."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable
from typing import NamedTuple

from bpxp.backends.base import MEMBERS, Backend, NoDevice, missing_members
from bpxp.backends.device import here
from bpxp.backends.precision import parse_label, with_matmul
from bpxp.core.aliases import meant
from bpxp.errors import (
    BackendNotInstalledError,
    BackendNotUsableError,
    BpxpError,
    InvalidTypeError,
    InvalidValueError,
    warn,
)


class Library(NamedTuple):
    """What is known of an array library before it is imported."""

    module: str  # the module to import
    backend: str  # the class in bpxp.backends.<name>
    install: str  # the line that installs it
    devices: tuple[str, ...] = ("",)  # the devices to try where every library is tried; "" is its default
    for_tests: bool = False  # it checks code, and is not for training


LIBRARIES = {
    "numpy": Library("numpy", "NumpyBackend", "pip install numpy"),
    "cupy": Library(
        "cupy", "CupyBackend", "pip install 'cupy-cuda13x[ctk]' nvmath-python (cuda12x where nvidia-smi says CUDA 12)"
    ),
    "torch": Library("torch", "TorchBackend", "pip install torch", ("", "cuda")),
    "jax": Library("jax", "JaxBackend", "pip install jax"),
    "strict": Library("array_api_strict", "StrictBackend", "pip install array-api-strict", ("", "device1"), True),
}
ENVIRONMENT = "BPXP_BACKEND"
EAGER = ":eager"  # ends the name of a backend that captures no steps
FASTEST = "fastest"  # not a name, but a measurement for a network
_found: dict[tuple[str, str], Backend] = {}  # by name and precision; those that passed the test


class BackendInfo(NamedTuple):
    """Whether a backend works here.

    Attributes
    ----------
    available : bool
        True if a matrix product and an elementwise kernel ran on its default device.
    version : str
        Of the array library; empty if it is not installed.
    reason : str
        Why it is not available; empty if it is.
    """

    available: bool
    version: str
    reason: str


def get_backend(name: str | Backend | None = None, *, matmul: str | None = None) -> Backend:
    """Return the backend of that name, after a test computation.

    Parameters
    ----------
    name : str, Backend or None
        ``"numpy"``, ``"cupy"``, ``"cupy:1"``, ``"torch"``, ``"torch:cuda"``, ``"torch:cuda:1"``, ``"jax"``,
        ``"jax:cpu"``, ``"strict"``, ``"strict:device1"``, or ``"auto"``: CuPy if a device answers, else NumPy.
        ``"numpy:eager"``, ``"torch:cuda:eager"``: its steps are never captured.
        None means the environment variable ``BPXP_BACKEND``, and ``"auto"`` without it. A Backend is
        returned as it is.
    matmul : {"float32", "tf32", "bfloat16", "float16"}, optional
        Precision of the operands of matrix products; sums and everything else stay in float32. The name
        ``"torch:cuda+tf32"`` asks for the same.

    Raises
    ------
    InvalidValueError
        For an unknown name or device, or a precision that the device does not have.
    BackendNotInstalledError
        If the array library is not installed; an ImportError that says what to install.
    BackendNotUsableError
        If it is installed but does not work here; a RuntimeError that says why.
    """
    if name is None:
        name = os.environ.get(ENVIRONMENT) or "auto"
        where = f"the environment variable {ENVIRONMENT}"
    else:
        where = "backend"
    if matmul is not None and not isinstance(matmul, str):
        got, fix = type(matmul).__name__, "matmul='float32'"
        raise InvalidTypeError("matmul", "not a precision", code="E004", got=got, fix=fix)
    if isinstance(name, str):
        name, written = parse_label(name)
        if written is None:
            return _named(name, where, matmul or "float32")
        backend = _named(name, where, written)
        return with_matmul(backend, matmul) if matmul else backend
    if isinstance(name, Backend):
        return with_matmul(name, matmul) if matmul else name
    missing = missing_members(name)
    what = "not a backend" + (f", it lacks {', '.join(missing)}" if missing != MEMBERS else "")
    got = f"{type(name).__name__} {name!r}"
    raise InvalidTypeError("backend", what, code="E004", got=got, expected="a name or a Backend", fix="backend='numpy'")


def available_backends(libraries: Iterable[str] = LIBRARIES) -> dict[str, BackendInfo]:
    """Try every library and return which of them work here, with the reason where one does not.

    Parameters
    ----------
    libraries : iterable of str, optional
        Default: all of them, in the order numpy, cupy, torch, jax, strict.
    """
    found = {}
    for library in libraries:
        try:
            _named(library, "backend")
            reason = ""
        except BackendNotInstalledError:
            reason = f"not installed: {LIBRARIES[library].install}"
        except BpxpError as error:
            reason = str(error.__cause__ or error)
        found[library] = BackendInfo(not reason, version_of(library), reason)
    return found


def backend_names(*, tests: bool = False, devices: bool = False) -> tuple[str, ...]:
    """Return the names of all backends; `tests`: those that only check code, too; `devices`: ``"torch:cuda"``, too."""
    return tuple(
        f"{name}:{device}" if device else name
        for name, library in LIBRARIES.items()
        if tests or not library.for_tests
        for device in (library.devices if devices else ("",))
    )


def version_of(library: str) -> str:
    """Return the version of an array library; empty if it is not installed, or broken."""
    try:
        return str(importlib.import_module(LIBRARIES[library].module).__version__)
    except Exception:  # a broken installation may raise anything on import
        return ""


def _named(name: str, where: str, matmul: str = "float32") -> Backend:
    if (name, matmul) not in _found:
        if matmul != "float32":
            backend = with_matmul(_named(name, where), matmul, where)
        else:
            backend = _automatic() if name == "auto" else _made(name, where)
        _found[name, matmul] = backend
    return _found[name, matmul]


def _made(name: str, where: str) -> Backend:
    if name.endswith(EAGER):
        from bpxp.backends.capture import without_capture

        return without_capture(_named(name.removesuffix(EAGER), where), name, where)
    library, _, device = name.partition(":")
    if library == FASTEST:
        what, fix = "the fastest backend is measured for a network", f"net.to({name!r})"
        raise InvalidValueError(where, what, code="E024", got=repr(name), fix=fix)
    if library not in LIBRARIES:
        working = ", ".join(key for key, info in available_backends().items() if info.available)
        what = f"unknown backend {name!r}; available: {working}"
        raise InvalidValueError(where, what, code="E020", first=meant(name, [*LIBRARIES, "auto"], "backend"))
    known = LIBRARIES[library]
    if importlib.util.find_spec(known.module) is None:
        what = f"{name!r} needs {known.module}, which is not installed"
        fix = f"{known.install}; or backend='numpy'"
        raise BackendNotInstalledError(where, what, code="E021", expected=_alternatives(library), fix=fix)
    try:
        module = importlib.import_module(f"bpxp.backends.{library}.backend")
        module.check_device(device)
        backend: Backend = getattr(module, known.backend)(device)
        _probe(backend)
    except InvalidValueError:
        raise
    except Exception as error:  # a driver, a loader or a compiler may raise anything
        what = f"{f'{known.module} {version_of(library)}'.strip()} is installed, but {name!r} does not compute here"
        got, fix = f"{type(error).__name__}: {error}", "backend='auto' takes what works"
        expected = _alternatives(library)
        raise BackendNotUsableError(where, what, code="E022", got=got, expected=expected, fix=fix) from error
    return backend


def _alternatives(library: str) -> str:
    """Return the names of the other libraries that are installed, without importing them."""
    names = [n for n, known in LIBRARIES.items() if n != library and importlib.util.find_spec(known.module)]
    return f"one of those installed, {', '.join(names)}"


def _automatic() -> Backend:
    try:
        return _named("cupy", "backend")
    except BackendNotInstalledError:
        pass
    except BackendNotUsableError as error:
        cause = error.__cause__
        if cause is not None and not isinstance(cause, NoDevice):
            what, fix = f"CuPy does not compute on this machine's GPU: {cause}", "backend='numpy', if that is meant"
            warn("backend='auto'", what, code="W018", fix=fix)
    return _named("numpy", "backend")


def _probe(backend: Backend) -> None:
    """Run a matrix product and an elementwise kernel: importing proves nothing about drivers and libraries."""
    xp = backend.xp
    with here(backend):
        ones = xp.ones((2, 2), dtype=xp.float32)
        result = backend.to_numpy(xp.sum(xp.exp(xp.matmul(ones, ones) - 2.0)))
    if float(result) != 4.0:
        raise RuntimeError(f"a 2 by 2 matrix product gave {float(result)} instead of 4.0")
