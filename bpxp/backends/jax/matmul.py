"""Matrix products of JAX in reduced precision."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bpxp.backends.base import Backend
from bpxp.core.typing import Array


def rounding_matmuls(backend: Backend) -> dict[str, Callable[[Array, Array], Array]]:
    """Return the functions that the device has, by the precision of their operands."""
    found: dict[str, Callable[[Array, Array], Array]] = {}
    if backend.device.platform == "gpu":
        tf32 = jax.lax.DotAlgorithmPreset.TF32_TF32_F32
        found["tf32"] = functools.partial(jnp.matmul, precision=tf32)
    for name in ("bfloat16", "float16"):
        found[name] = functools.partial(_narrow, getattr(jnp, name))
    return found


def _narrow(dtype: Any, a: Array, b: Array) -> Array:
    """Multiply in 16 bits, and return the float32 accumulators."""
    return jnp.matmul(a.astype(dtype), b.astype(dtype), preferred_element_type=jnp.float32)
