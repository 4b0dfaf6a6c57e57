"""The columns that the history of a fit will have, and which way each gets better: known before its first step."""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.core.tree import tree_map
from bpxp.metrics import Metric
from bpxp.nn.spec import Spec
from bpxp.training.history import flat

SAMPLES, TRIALS = 24, 4


class Columns:
    """The columns of a fit's history.

    Parameters
    ----------
    spec : Spec
    backend : Backend
    metrics : tuple of Metric
    evaluated : sequence of str
        What the names of evaluated columns begin with, ``"train_"`` and ``"validation_"``.
    """

    def __init__(self, spec: Spec, backend: Backend, metrics: tuple[Metric, ...], evaluated: Sequence[str]) -> None:
        self._spec, self._backend, self._metrics, self._evaluated = spec, backend, metrics, evaluated

    @functools.cached_property
    def higher_is_better(self) -> dict[str, bool | None]:
        """Name → whether more of it is better, or None if that is not known."""
        found: dict[str, bool | None] = {"epoch": None, "loss": False, "learning_rate": None, "seconds": None}
        evaluated: dict[str, bool | None] = {"loss": False}
        for metric in self._metrics if self._evaluated else ():
            evaluated |= self._of(metric)
        return found | {f"{begin}{name}": higher for begin in self._evaluated for name, higher in evaluated.items()}

    def _of(self, metric: Metric) -> dict[str, bool | None]:
        """Return the columns of a metric, as it says or as measured: right answers against wrong ones."""
        said = getattr(metric, "higher_is_better", None)
        numpy = get_backend("numpy")
        if said is not None:
            with contextlib.suppress(Exception), np.errstate(all="ignore"):
                nothing = metric.init(self._spec.n_out, xp=numpy.xp, dtype=numpy.xp.float64)
                return dict.fromkeys(flat({metric.name: metric.result(nothing)}, ""), bool(said))
        return measured(metric, self._spec, self._backend)


def measured(metric: Metric, spec: Spec, backend: Backend) -> dict[str, bool | None]:
    """Return which way each value of a metric goes when right answers become wrong; None where trials disagree."""
    try:
        right, *wrong = (_value(metric, spec, backend, z, y) for z, y in _answers(spec))
    except Exception:  # what it raises for these samples says nothing about the user's
        return {metric.name: None}
    found: dict[str, bool | None] = {}
    for name, best in right.items():
        lower, higher = all(w[name] < best for w in wrong), all(w[name] > best for w in wrong)
        found[name] = None if lower == higher else lower
    return found


def _value(metric: Metric, spec: Spec, backend: Backend, z: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Return the metric over one batch; the user's object is left as it is."""
    with contextlib.suppress(Exception):
        metric = copy.deepcopy(metric)
    xp, dtype = backend.xp, spec.dtype
    counts = metric.init(spec.n_out, xp=xp, dtype=getattr(xp, dtype))
    targets = y if y.dtype == np.int32 else y.astype(dtype)
    counts = metric.update(counts, backend.asarray(z.astype(dtype)), backend.asarray(targets), None, xp=xp)
    return flat({metric.name: metric.result(tree_map(backend.to_numpy, counts))}, "")


def _answers(spec: Spec) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield logits and targets: the right answers, and then the same where about half of them are wrong."""
    rng, shape = np.random.default_rng(0), (SAMPLES, *spec.output_shape)
    kind, n_out = spec.loss.targets, spec.n_out
    if kind == "classes":
        y = rng.permuted(np.arange(SAMPLES * (np.prod(shape[1:-1], dtype=int))) % n_out).reshape(shape[:-1])
        z, y = 3.0 * (np.arange(n_out) == y[..., None]) - 1.0, y.astype(np.int32)
        spoiled = (np.where(rng.random((*shape[:-1], 1)) < 0.5, np.roll(z, 1, axis=-1), z) for _ in range(TRIALS))
    elif kind == "labels":
        y = (rng.random(shape) < 0.5).astype(float)
        z = 4.0 * y - 2.0
        spoiled = (np.where(rng.random(shape) < 0.5, -z, z) for _ in range(TRIALS))
    else:
        y = rng.integers(1, 6, shape).astype(float) if kind == "counts" else rng.uniform(0.1, 0.9, shape)
        z = np.log(y) if kind == "counts" else y
        spoiled = (z + rng.normal(size=shape) for _ in range(TRIALS))
    yield z, y
    yield from ((wrong, y) for wrong in spoiled)
