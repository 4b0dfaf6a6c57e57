"""What logits predict: the class, the labels or the values; NaN predicts nothing, and is refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from bpxp.backends import Backend
from bpxp.core.typing import Array
from bpxp.errors import InvalidValueError
from bpxp.nn.losses import Loss


def predicted(logits: Array, loss: Loss, backend: Backend) -> Array:
    """Return the prediction for each sample; see `Network.predict`."""
    xp = backend.xp
    if loss.targets == "classes":
        # An infinite logit has no probability either; -∞ is that of a class that is excluded.
        _check(logits, backend, lambda z: ~(np.max(z, axis=-1) < np.inf))
        return xp.argmax(logits, axis=-1)
    if loss.targets == "labels":
        _check(logits, backend, lambda z: np.isnan(z).any(axis=-1))
        return xp.astype(logits > 0.0, xp.int32)
    return loss.activate(logits, xp=xp)


def _check(logits: Array, backend: Backend, undecided: Callable[[np.ndarray], np.ndarray]) -> None:
    """Raise if there are rows of logits that decide nothing; the sum of finite ones is finite, and seen first."""
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(float(backend.to_numpy(backend.xp.sum(logits)))):
            return
        bad = np.argwhere(undecided(backend.to_numpy(logits)))
    if bad.size:
        what = f"{len(bad)} of the outputs are not numbers"
        first = f"First at {bad[0].tolist()}"
        fix = "net.logits(x) to see them; Network.load the last good file, if parameters are not finite"
        raise InvalidValueError("predict", what, code="E028", first=first, fix=fix)
