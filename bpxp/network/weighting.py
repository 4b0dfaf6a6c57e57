"""A probe of losses and metrics that are not bpxp's: whether they take the weights of samples into account.

Every step has the same shapes, so a short last mini-batch is padded with samples of weight 0. A loss or a metric that
ignores weights would count them. It is refused before a step passes it weights.
"""

from __future__ import annotations

import contextlib
import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.core.tree import tree_map
from bpxp.errors import InvalidValueError
from bpxp.metrics import Metric
from bpxp.nn.losses import Loss
from bpxp.nn.spec import Spec

ROWS, TRIALS, TOLERANCE = 6, 3, 1e-4
PROBED: weakref.WeakSet[Any] = weakref.WeakSet()  # what takes weights into account


def check_weighting(spec: Spec, backend: Backend, y: Array, metrics: tuple[Metric, ...], where: str) -> None:
    """Raise if the loss, or one of the metrics, is not bpxp's and ignores weights; `y` are a few targets."""
    probes: list[tuple[Any, Callable[..., Iterator[tuple[Any, Any]]]]] = [(spec.loss, _of_loss)]
    for thing, probe in [*probes, *((metric, _of_metric) for metric in metrics)]:
        if type(thing).__module__.partition(".")[0] == "bpxp" or _known(thing):
            continue
        own: Any = thing
        with contextlib.suppress(Exception):
            own = copy.deepcopy(thing)  # one that keeps something is left as it is
        try:
            same = all(_close(a, b) for a, b in probe(own, spec, backend, y))
        except Exception:
            continue
        if not same:
            raise _ignores(thing, where)
        with contextlib.suppress(TypeError):
            PROBED.add(thing)


def _known(thing: Any) -> bool:
    try:
        return thing in PROBED
    except TypeError:
        return False


def _of_loss(loss: Loss, spec: Spec, backend: Backend, y: Array) -> Iterator[tuple[Any, Any]]:
    """Yield pairs that have to be equal: one sample alone, and beside others of weight 0; weights of 1, and none."""

    def result(z: Array, targets: Array, weight: Array | None) -> tuple[np.ndarray, np.ndarray]:
        value, delta = loss(z, targets, weight, xp=backend.xp)
        return backend.to_numpy(value), backend.to_numpy(delta)

    for z, targets, alone, ones in _trials(spec, backend, y):
        value, delta = result(z, targets, None)
        if not (np.isfinite(value).all() and _close(value, result(z, targets, None)[0])):
            return  # it is random, or not made for such outputs
        yield from zip((value, delta), result(z, targets, ones), strict=True)
        first, own = result(z[:1, ...], targets[:1, ...], None)
        yield from zip((first, np.concatenate([own, 0.0 * delta[1:]])), result(z, targets, alone), strict=True)


def _of_metric(metric: Metric, spec: Spec, backend: Backend, y: Array) -> Iterator[tuple[Any, Any]]:
    """Yield pairs that have to be equal: a metric of one sample alone, and beside others of weight 0."""

    def result(z: Array, targets: Array, weight: Array | None) -> np.ndarray:
        counts = metric.init(spec.n_out, xp=backend.xp, dtype=z.dtype)
        counts = metric.update(counts, z, targets, weight, xp=backend.xp)
        found = metric.result(tree_map(backend.to_numpy, counts))
        return np.array(list(found.values()) if isinstance(found, dict) else found)

    for z, targets, alone, _ in _trials(spec, backend, y):
        first = result(z[:1, ...], targets[:1, ...], None)
        if not _close(first, result(z[:1, ...], targets[:1, ...], None)):
            return
        yield first, result(z, targets, alone)


def _trials(spec: Spec, backend: Backend, y: Array) -> Iterator[tuple[Array, Array, Array, Array]]:
    """Yield logits, targets, weights of 1 for the first sample and 0 for the others, and weights of 1."""
    rng, kind = np.random.default_rng(0), spec.dtype
    rows = np.resize(np.arange(min(ROWS, int(y.shape[0]))), ROWS).astype(np.int32)
    targets = backend.xp.take(y, backend.asarray(rows), axis=0)
    alone, ones = np.eye(1, ROWS, dtype=kind)[0], np.ones(ROWS, kind)
    for _ in range(TRIALS):
        z = rng.normal(size=(ROWS, *spec.output_shape)).astype(kind)
        yield backend.asarray(z), targets, backend.asarray(alone), backend.asarray(ones)


def _close(first: np.ndarray, second: np.ndarray) -> bool:
    """Return whether two results are equal, but for rounding."""
    scale = TOLERANCE * float(np.max(np.abs(first), initial=0.0))
    return first.shape == second.shape and np.allclose(first, second, rtol=TOLERANCE, atol=scale, equal_nan=True)


def _ignores(thing: Any, where: str) -> InvalidValueError:
    """Return the error that names a loss or a metric."""
    kind = "metric" if isinstance(thing, Metric) else "loss"
    name = type(thing).__name__
    what = f"it ignores the weights of samples, and padding has weight 0: a sample beside {ROWS - 1} of weight 0"
    what += " has to give what it gives alone"
    fix = f"J = sum(weight*J_n)/sum(weight); bpxp.verify.check_{kind}({name}(…), …) checks it"
    return InvalidValueError(f"{where}: {name}", what, code="E019", fix=fix)
