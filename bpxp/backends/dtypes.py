"""The dtypes of a network, and whether a device has them."""

from __future__ import annotations

import warnings
from typing import Any

from bpxp.backends import Backend
from bpxp.backends.precision import label
from bpxp.errors import InvalidTypeError, InvalidValueError


def validate_dtype(dtype: Any, backend: Backend) -> str:
    """Return ``"float32"`` or ``"float64"``, if the device has it."""
    name = getattr(dtype, "__name__", None) or str(dtype).rsplit(".", 1)[-1]
    where, fix = "Network(dtype=…)", "dtype='float32'"
    if name not in ("float32", "float64"):
        what, expected = "not a dtype to train in", "a floating dtype among float32, float64"
        raise InvalidTypeError(where, what, code="E012", got=repr(dtype), expected=expected, fix=fix)
    if name == "float64" and backend.matmul != "float32":
        what, got = "products of float64 are not rounded", f"float64 and backend {label(backend)}"
        raise InvalidValueError(where, what, code="E012", got=got, fix=fix)
    if name == "float64" and not has_float64(backend):
        what = f"device {backend.device} of backend {backend.name} has no float64"
        fix += ", or jax.config.update('jax_enable_x64', True)" if backend.name.startswith("jax") else ""
        raise InvalidValueError(where, what, code="E012", fix=fix)
    return name


def has_float64(backend: Backend) -> bool:
    """Return whether the backend really makes float64 arrays."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # JAX warns, and makes float32
        try:
            return bool(backend.xp.zeros(1, dtype=backend.xp.float64).dtype == backend.xp.float64)
        except Exception:  # each library raises its own type
            return False
