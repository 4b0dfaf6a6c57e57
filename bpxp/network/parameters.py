"""Parameters that come from outside: checked against those that they replace, and copied."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.backends.dlpack import is_host_array
from bpxp.core.tree import named_leaves, unflatten
from bpxp.core.typing import Params
from bpxp.data.validation.inputs import adopt, as_host
from bpxp.errors import InvalidValueError

WHERE = "Network.params"


def own(a: Any, backend: Backend, dtype: str) -> Array:
    """Return a copy of host numbers on the device."""
    return backend.asarray(np.array(a, dtype=dtype))


def moved(a: Any, backend: Backend, dtype: str) -> Array:
    """Return host numbers that nothing else holds, those of a file say, on the device: without a copy if they fit."""
    return backend.asarray(a.astype(dtype if a.dtype.kind == "f" else np.int32, copy=False))


def validate(new: Params, old: Params, backend: Backend, dtype: str) -> Params:
    """Return a copy of `new` on the backend, in the structure of `old`; the first difference is an error."""
    wanted, found = dict(named_leaves(old)), dict(named_leaves(new))
    if list(wanted) != list(found):
        got, expected = ", ".join(found) or "nothing", ", ".join(wanted)
        raise InvalidValueError(WHERE, "another structure", code="E016", got=got, expected=expected)
    for name, a in found.items():
        got, expected = f"shape {tuple(np.shape(a))}", f"shape {tuple(wanted[name].shape)}"
        if got != expected:
            raise InvalidValueError(WHERE, f"{name} has the wrong shape", code="E016", got=got, expected=expected)
    return unflatten(old, [_copy(a, name, backend, dtype) for name, a in found.items()])


def _copy(a: Any, name: str, backend: Backend, dtype: str) -> Array:
    if is_host_array(a):
        return own(as_host(a, f"{WHERE}: {name}"), backend, dtype)
    there = backend.asarray(adopt(a, backend, f"{WHERE}: {name}"), dtype=getattr(backend.xp, dtype))
    return backend.xp.asarray(there, copy=True)
