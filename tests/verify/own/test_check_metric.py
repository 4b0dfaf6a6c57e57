"""`check_metric` finds nothing in a metric that keeps the rules, and exactly the rule that a metric breaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import bpxp
from bpxp.errors import InvalidValueError, RuleCheckError
from bpxp.metrics import METRICS, PrecisionRecallF1
from bpxp.verify import check_metric
from bpxp.verify.own.metric import RULES


@dataclass(frozen=True)
class Error:
    """Share of the samples whose class is not the largest logit: right."""

    name = "error"
    higher_is_better = False

    def init(self, n_out, /, *, xp, dtype):
        return xp.zeros((1,), dtype=xp.int32), xp.zeros((1,), dtype=xp.int32)

    def counted(self, z, weight, xp):
        return xp.ones((z.shape[0],), dtype=xp.int32) if weight is None else xp.astype(weight > 0.0, xp.int32)

    def update(self, counts, z, y, weight, /, *, xp):
        wrong = xp.astype(xp.astype(xp.argmax(z, axis=1), xp.int32) != y, xp.int32)
        one, (found, total) = self.counted(z, weight, xp), counts
        found += xp.sum(wrong * one, axis=0, keepdims=True, dtype=xp.int32)
        total += xp.sum(one, axis=0, keepdims=True, dtype=xp.int32)
        return found, total

    def result(self, counts, /):
        return float(counts[0][0] / max(counts[1][0], 1))


class NoResult:
    name, init, update = "error", Error.init, Error.update


@dataclass(frozen=True)
class Loss(Error):
    name = "loss"


@dataclass(frozen=True)
class NoHash(Error):
    sizes: Any = field(default_factory=list)


@dataclass(frozen=True)
class Typo(Error):
    def update(self, counts, z, y, weight, /, *, xp):
        return counts + z.summ()


@dataclass(frozen=True)
class PythonState(Error):
    """Counts in Python numbers."""

    def init(self, n_out, /, *, xp, dtype):
        return 0, 0

    def update(self, counts, z, y, weight, /, *, xp):
        found, total = super().update(tuple(xp.full((1,), c, dtype=xp.int32) for c in counts), z, y, weight, xp=xp)
        return found[0], total[0]

    def result(self, counts, /):
        return float(counts[0] / max(counts[1], 1))


@dataclass(frozen=True)
class WithoutAxes(Error):
    def init(self, n_out, /, *, xp, dtype):
        return xp.zeros((), dtype=xp.int32), xp.zeros((), dtype=xp.int32)

    def update(self, counts, z, y, weight, /, *, xp):
        counts = tuple(xp.reshape(c, (1,)) for c in counts)
        return tuple(xp.reshape(c, ()) for c in super().update(counts, z, y, weight, xp=xp))

    def result(self, counts, /):
        return float(np.ravel(counts[0])[0] / max(np.ravel(counts[1])[0], 1))


@dataclass(frozen=True)
class Drifting(Error):
    """int32 + float64 is float64."""

    def update(self, counts, z, y, weight, /, *, xp):
        found, total = super().update(counts, z, y, weight, xp=xp)
        return found * 1.0, total


@dataclass(frozen=True)
class ArrayResult(Error):
    def result(self, counts, /):
        return np.float32(counts[0][0] / max(counts[1][0], 1))


@dataclass(frozen=True)
class Writing(Error):
    def update(self, counts, z, y, weight, /, *, xp):
        z *= 2.0
        return super().update(counts, z, y, weight, xp=xp)


KEPT: list[Any] = []


@dataclass(frozen=True)
class Keeping(Error):
    """Keeps what it has seen in a list."""

    def update(self, counts, z, y, weight, /, *, xp):
        KEPT.append(np.asarray(xp.argmax(z, axis=1)) != np.asarray(y))
        return counts

    def result(self, counts, /):
        return float(np.mean(np.concatenate(KEPT))) if KEPT else 0.0


@dataclass(frozen=True)
class MeanOfMeans(Error):
    def update(self, counts, z, y, weight, /, *, xp):
        wrong = xp.astype(xp.astype(xp.argmax(z, axis=1), xp.int32) != y, z.dtype)
        one, (found, total) = xp.astype(self.counted(z, weight, xp), z.dtype), counts
        whole = xp.maximum(xp.sum(one, axis=0, keepdims=True), xp.full((1,), 1.0, dtype=z.dtype))
        found += xp.sum(wrong * one, axis=0, keepdims=True) / whole
        total += 1
        return found, total

    def init(self, n_out, /, *, xp, dtype):
        return xp.zeros((1,), dtype=dtype), xp.zeros((1,), dtype=xp.int32)


@dataclass(frozen=True)
class IgnoresWeights(Error):
    def counted(self, z, weight, xp):
        return xp.ones((z.shape[0],), dtype=xp.int32)


@dataclass(frozen=True)
class OnlyWithoutWeights(Error):
    """Counts in the batches without weights alone."""

    def counted(self, z, weight, xp):
        count = xp.ones if weight is None else xp.zeros
        return count((z.shape[0],), dtype=xp.int32)


@dataclass(frozen=True)
class DividesByZero(Error):
    def result(self, counts, /):
        return int(counts[0][0]) / int(counts[1][0])


@dataclass(frozen=True)
class OtherDirection(Error):
    higher_is_better = True


@dataclass(frozen=True)
class ByMatmul(Error):
    def update(self, counts, z, y, weight, /, *, xp):
        return super().update(counts, z @ xp.eye(z.shape[1], dtype=z.dtype), y, weight, xp=xp)


BROKEN = [
    (NoResult(), {"protocol"}, "no method result"),
    (Error, {"protocol"}, "is a class"),
    (Loss(), {"protocol"}, "'loss'"),
    (NoHash(), {"hashable"}, "no hash"),
    (Typo(), {"runs"}, "AttributeError"),
    (PythonState(), {"counters"}, "int without axes"),
    (WithoutAxes(), {"counters"}, "without axes"),
    (Drifting(), {"counters"}, "float64"),
    (ArrayResult(), {"result"}, "float32"),
    (Writing(), {"inputs"}, "writes into logits"),
    (Keeping(), {"repeatable", "source"}, "the second time"),
    (MeanOfMeans(), {"batches"}, "in batches of 7, 5"),
    (IgnoresWeights(), {"padding"}, "8 of 12 samples of weight 0"),
    (OnlyWithoutWeights(), {"padding"}, "with weights of 1"),
    (DividesByZero(), {"empty"}, "ZeroDivisionError"),
    (OtherDirection(), {"direction"}, "of right answers is lower than of wrong ones"),
    (ByMatmul(), {"source"}, "use xp.matmul"),
]


@pytest.mark.parametrize(("metric", "rules", "text"), BROKEN, ids=lambda value: getattr(type(value), "__name__", ""))
def test_the_rule_that_is_broken_is_named(metric, rules, text):
    KEPT.clear()
    with pytest.raises(RuleCheckError, match="check_metric.*the metric breaks") as caught:
        check_metric(metric, backends=["numpy"])
    assert rules <= set(caught.value.report.broken)
    if len(rules) == 1:
        assert set(caught.value.report.broken) == rules
    assert text in str(caught.value.report)


def test_every_rule_is_broken_by_some_metric_here():
    broken = set().union(*(rules for _, rules, _ in BROKEN)) | {"backends", "compiled"}
    assert broken == {rule.name for rule in RULES}


def test_what_runs_on_numpy_alone_is_found():
    pytest.importorskip("array_api_strict")

    @dataclass(frozen=True)
    class OnNumPyAlone(Error):
        calls: ClassVar[int] = 0

        def update(self, counts, z, y, weight, /, *, xp):
            return super().update(counts, np.asarray(z), y, weight, xp=xp)

    with pytest.raises(RuleCheckError) as caught:
        check_metric(OnNumPyAlone(), backends=["numpy", "strict:device1"])
    assert "backends" in caught.value.report.broken


def test_a_metric_that_keeps_all_rules(backend):
    assert check_metric(Error(), backends=[backend]).broken == ()


@pytest.mark.parametrize("name", [*METRICS, "per class"])
@pytest.mark.parametrize("n_out", [3, 1])
def test_the_metrics_of_bpxp_keep_all_rules(backend, name, n_out):
    metric = METRICS.get(name, PrecisionRecallF1(per_class=True))
    kind = "labels" if name in ("label_accuracy", "exact_match", "f1") else "classes"
    if n_out == 1 and kind == "classes":
        kind = "labels"
        if name == "top5_accuracy":
            pytest.skip("it does not fit")
        metric = metric.fitted(bpxp.metrics.Outputs("labels", 1))
    assert check_metric(metric, n_out, targets=kind, backends=[backend]).broken == ()


@pytest.mark.parametrize("targets", ["values", "counts"])
def test_metrics_of_real_numbers(backend, targets):
    @dataclass(frozen=True)
    class MeanAbsolute:
        name = "mae"

        def init(self, n_out, /, *, xp, dtype):
            return xp.zeros((1,), dtype=dtype), xp.zeros((1,), dtype=dtype)

        def update(self, counts, z, y, weight, /, *, xp):
            one = xp.ones((z.shape[0],), dtype=z.dtype)
            one = one if weight is None else xp.astype(weight > 0.0, z.dtype)
            found, total = counts
            found += xp.sum(xp.mean(xp.abs(z - y), axis=1) * one, axis=0, keepdims=True)
            total += xp.sum(one, axis=0, keepdims=True)
            return found, total

        def result(self, counts, /):
            return float(counts[0][0] / max(counts[1][0], 1.0))

    assert check_metric(MeanAbsolute(), targets=targets, backends=[backend]).broken == ()


def test_unknown_targets_are_refused():
    with pytest.raises(InvalidValueError, match="one of classes, labels"):
        check_metric(Error(), targets="numbers")


def test_the_guide_explains_every_rule():
    page = (Path(bpxp.__file__).parents[1] / "docs" / "own-metrics.md").read_text(encoding="utf-8")
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []
