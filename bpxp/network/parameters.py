"""Parameters and states that come from outside: checked against those that they replace, and copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.backends.dlpack import is_host_array
from bpxp.core.tree import named_leaves, unflatten
from bpxp.data.validation.inputs import adopt, as_host
from bpxp.errors import InvalidValueError, nothing_changed


def own(a: Any, backend: Backend, dtype: str) -> Array:
    """Return a copy of host numbers on the device."""
    return backend.asarray(np.array(a, dtype=dtype))


def moved(a: Any, backend: Backend, dtype: str) -> Array:
    """Return host numbers that nothing else holds, those of a file say, on the device: without a copy if they fit."""
    return backend.asarray(a.astype(dtype if a.dtype.kind == "f" else np.int32, copy=False))


@nothing_changed()
def validate(new: Any, old: Any, backend: Backend, where: str) -> Any:
    """Return a copy of `new` on the backend, in the structure and dtypes of `old`; the first difference is an error."""
    wanted, found = dict(named_leaves(old)), dict(named_leaves(new))
    if list(wanted) != list(found):
        got = (", ".join(found) or "nothing") if isinstance(new, tuple) else f"{type(new).__name__}, no tuple"
        expected = ", ".join(wanted)
        raise InvalidValueError(where, "another structure", code="E016", got=got, expected=expected)
    for name, a in found.items():
        got, expected = f"shape {tuple(np.shape(a))}", f"shape {tuple(wanted[name].shape)}"
        if got != expected:
            raise InvalidValueError(where, f"{name} has the wrong shape", code="E016", got=got, expected=expected)
    return unflatten(old, [_copy(a, wanted[name], f"{where}: {name}", backend) for name, a in found.items()])


def _copy(a: Any, like: Array, where: str, backend: Backend) -> Array:
    if is_host_array(a):
        return backend.asarray(np.array(as_host(a, where)), dtype=like.dtype)
    return backend.xp.asarray(backend.asarray(adopt(a, backend, where), dtype=like.dtype), copy=True)
