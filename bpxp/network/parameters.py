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
    """Return a copy of `new` on the backend, in the structure of `old`.

    Raises
    ------
    InvalidValueError
        If names or shapes differ; the message names the first that does.
    InvalidTypeError
        If an entry is no array of numbers.
    """
    wanted, found = dict(named_leaves(old)), dict(named_leaves(new))
    if list(wanted) != list(found):
        names = (", ".join(found) or "nothing", ", ".join(wanted))
        raise InvalidValueError(WHERE, "another structure", code="E016", got=names[0], expected=names[1])
    for name, a in found.items():
        got, expected = tuple(np.shape(a)), tuple(wanted[name].shape)
        if got != expected:
            what = f"{name} has the wrong shape"
            raise InvalidValueError(WHERE, what, code="E016", got=f"shape {got}", expected=f"shape {expected}")
    copies = [_copy(a, name, backend, dtype) for name, a in found.items()]
    return unflatten(old, copies)


def _copy(a: Any, name: str, backend: Backend, dtype: str) -> Array:
    if is_host_array(a):
        return own(as_host(a, f"{WHERE}: {name}"), backend, dtype)
    there = backend.asarray(adopt(a, backend, f"{WHERE}: {name}"), dtype=getattr(backend.xp, dtype))
    return backend.xp.asarray(there, copy=True)
