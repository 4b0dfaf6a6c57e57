"""Random logits and targets of each kind, for a loss or a metric under test."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.backends import Backend
from bpxp.core.random import HostRandom
from bpxp.errors import InvalidValueError

KINDS = ("classes", "labels", "values", "counts")


def drawn(kind: str, shape: tuple[int, ...], rng: HostRandom) -> tuple[np.ndarray, np.ndarray]:
    """Return logits of a shape, (batch, …, n_out), and targets: int32 class indices (batch, …), or like the logits."""
    z, u = rng.at(0).normal(shape), rng.at(1).uniform(shape)
    if kind == "classes":
        return z, np.floor(shape[-1] * rng.at(2).uniform(shape[:-1])).astype(np.int32)
    y = {"labels": np.where(u < 0.5, 0.0, 1.0), "counts": np.floor(4.0 * u)}.get(kind)
    return z, rng.at(2).normal(shape) if y is None else y


def put(backend: Backend, dtype: str, *arrays: np.ndarray | None) -> tuple[Any, ...]:
    """Return new arrays on a backend, floating ones in the dtype."""
    hosts = (None if a is None else np.array(a, dtype=dtype if a.dtype.kind == "f" else a.dtype) for a in arrays)
    return tuple(None if a is None else backend.asarray(a) for a in hosts)


def validate_kind(kind: object, where: str) -> str:
    """Return what targets are, or raise."""
    if kind not in KINDS:
        expected = f"one of {', '.join(KINDS)}"
        raise InvalidValueError(where, "unknown", code="E003", got=repr(kind), expected=expected)
    return str(kind)
