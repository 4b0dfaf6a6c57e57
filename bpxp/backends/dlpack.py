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


def device_name(a: Any) -> str:
    """Return ``"cuda:0 (cupy)"`` for an array of any library."""
    kind, index = (int(part) for part in a.__dlpack_device__())
    return _place(kind, index, type(a).__module__.split(".")[0])


def _place(kind: int, index: int, library: str) -> str:
    name = DLPACK_DEVICES.get(kind, f"device kind {kind}")
    return f"{name}{f':{index}' if kind != 1 else ''} ({library})"


def _backend_of(a: Any) -> str:
    """Return the name of the backend that an array belongs to, as far as the array shows."""
    library = type(a).__module__.split(".")[0].removesuffix("lib")  # JAX's arrays are of jaxlib
    kind, index = (int(part) for part in a.__dlpack_device__())
    if kind == 1:
        return library
    family = {"torch": "torch:cuda", "jax": "jax:gpu"}.get(library, library)
    return f"{family}:{index}"


def is_host_array(a: Any) -> bool:
    """Return whether NumPy can read `a`: anything but an array of another library."""
    return isinstance(a, np.ndarray) or not hasattr(a, "__dlpack_device__")


def host_array(a: Any) -> np.ndarray:
    """Return `a` as a NumPy array in native byte order, the only one that the other libraries have."""
    array = np.asarray(a)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def import_array(a: Any, backend: Backend, from_dlpack: Callable[[Any], Array], own: tuple[int, int]) -> Array:
    """Import an array of another library by DLPack, without a copy.

    Parameters
    ----------
    a : array
        An object with `__dlpack__` and `__dlpack_device__`.
    backend : Backend
        That takes the array.
    from_dlpack : callable
        The library's own function.
    own : tuple of int
        DLPack's (kind, index) of the backend's device.

    Raises
    ------
    DeviceMismatchError
        If the array is on another device: copies between devices are left to the caller.
    InvalidTypeError
        If the array records gradients of another library's automatic differentiation.
    """
    if getattr(a, "requires_grad", False):
        what = "the tensor records gradients, bpxp derives its own"
        got = "requires_grad=True"
        raise InvalidTypeError(f"{backend.name}.asarray", what, code="E034", got=got, fix="pass x.detach()")
    kind, index = (int(part) for part in a.__dlpack_device__())
    if (kind, index) != own:
        what = "the array is on another device"
        got = device_name(a)
        fix = f"net.to({_backend_of(a)!r}), or pass a NumPy array"
        raise DeviceMismatchError(
            f"{backend.name}.asarray", what, code="E025", got=got, expected=_place(*own, backend.name), fix=fix
        )
    return from_dlpack(a)
