"""Arrays of other libraries: where they are, and how they are imported by DLPack without a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bpxp.backends.base import Backend
from bpxp.core.typing import Array
from bpxp.errors import DeviceMismatchError, InvalidTypeError

# DLPack's numbers for the kinds of device, https://dmlc.github.io/dlpack/latest/c_api.html
DLPACK_DEVICES = {1: "cpu", 2: "cuda", 3: "cpu (pinned)", 10: "rocm", 13: "cuda (managed)"}
HOST = {1, 3}


def device_name(a: Any) -> str:
    """Return ``"cuda:0 (cupy)"`` for an array of any library."""
    return _place(*_device(a), library_of(a))


def library_of(a: Any) -> str:
    """Return the package that an object's type comes from."""
    return type(a).__module__.split(".")[0]


def _device(a: Any) -> tuple[int, int]:
    if not hasattr(a, "__dlpack_device__"):
        return 2, 0  # an array of CUDA does not say of which device
    kind, index = a.__dlpack_device__()
    return int(kind), int(index)  # some libraries give members of an enum


def _place(kind: int, index: int, library: str) -> str:
    name = DLPACK_DEVICES.get(kind, f"device kind {kind}")
    return f"{name}{f':{index}' if kind != 1 else ''} ({library})"


def _backend_of(a: Any) -> str:
    """Return the name of the backend that an array belongs to, as far as the array shows."""
    library = library_of(a).removesuffix("lib")  # JAX's arrays are of jaxlib
    kind, index = _device(a)
    if kind == 1:
        return library if library in ("torch", "jax") else "numpy"
    family = {"torch": "torch:cuda", "jax": "jax:gpu"}.get(library, "cupy")
    return f"{family}:{index}"


def is_host_array(a: Any) -> bool:
    """Return whether NumPy can read `a`: anything but an array of another library."""
    there = hasattr(a, "__dlpack_device__") or hasattr(a, "__cuda_array_interface__")
    return isinstance(a, np.ndarray) or not there


def host_array(a: Any) -> np.ndarray:
    """Return `a` as a NumPy array in native byte order, the only one that the other libraries have."""
    array = np.asarray(a)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def import_array(a: Any, backend: Backend, from_dlpack: Callable[[Any], Array], own: tuple[int, int]) -> Array:
    """Import an array by DLPack; `own` is DLPack's (kind, index) of the backend's device.

    Arrays on the device are shared, arrays on the host are copied there, as those of NumPy are.

    Raises
    ------
    DeviceMismatchError
        If the array is on another GPU, or on one and the backend is not: such copies are left to the caller.
    InvalidTypeError
        If the array records gradients of another library's automatic differentiation.
    """
    where = f"{backend.name}.asarray"
    if getattr(a, "requires_grad", False):
        what, got = "the tensor records gradients, bpxp derives its own", "requires_grad=True"
        raise InvalidTypeError(where, what, code="E034", got=got, fix="pass x.detach()")
    device = _device(a)
    if device[0] in HOST and own[0] not in HOST:
        return backend.asarray(np.from_dlpack(a))
    if device != own:
        what, got, expected = "the array is on another device", device_name(a), _place(*own, backend.name)
        fix = f"net.to({_backend_of(a)!r}), or pass a NumPy array"
        raise DeviceMismatchError(where, what, code="E025", got=got, expected=expected, fix=fix)
    return from_dlpack(a)
