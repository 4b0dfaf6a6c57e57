"""Evaluation: the mean loss and the metrics over a data set, summed where the step runs."""

from __future__ import annotations

from typing import Any

from bpxp.backends import Backend, Step
from bpxp.core.tree import tree_map
from bpxp.core.typing import Params
from bpxp.network.feed import Feed, Resident
from bpxp.network.prepare import Batch, HostSamples, count
from bpxp.network.step import Data, EvaluationStep, Sums
from bpxp.nn.spec import Spec


def as_feed(batch: Batch | HostSamples, backend: Backend, most: int) -> Feed:
    """Return the feed of validated samples in their order, at most `most` of them at a time."""
    size = min(most, count(batch))
    if isinstance(batch, HostSamples):
        return batch.stream(backend, size)
    return Resident(backend, Data(*batch, backend.xp.arange(size, dtype=backend.xp.int32)))


def evaluate(
    step: EvaluationStep,
    run: Step,
    spec: Spec,
    backend: Backend,
    params: Params,
    stats: Any,
    feed: Feed,
    n: int,
) -> dict[str, Any]:
    """Return loss and metrics over the `n` samples of a feed, as Python floats; `run` is `step`, compiled."""
    xp, kind = backend.xp, getattr(backend.xp, spec.dtype)
    position, loss, weight = (xp.zeros((1,), dtype=dtype) for dtype in (xp.int32, kind, kind))
    sums = Sums(position, loss, weight, tuple(m.init(spec.n_out, xp=xp, dtype=kind) for m in step.metrics))
    for data, steps in feed.parts(0, -(-n // feed.size)):
        sums = run(sums, (params, stats, data), count=steps)
    mean, total = (float(backend.to_numpy(a)[0]) for a in (sums.loss, sums.weight))
    found: dict[str, Any] = {"loss": mean / total if total else 0.0}
    for metric, own in zip(step.metrics, sums.metrics, strict=True):
        found[metric.name] = metric.result(tree_map(backend.to_numpy, own))
    return found
