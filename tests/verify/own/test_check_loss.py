"""`check_loss` finds nothing in a loss that keeps the rules, and exactly the rule that a loss breaks."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.errors import InvalidValueError, LayerCheckError, RuleCheckError
from bpxp.verify import check_loss
from bpxp.verify.own.loss import RULES


@dataclass(frozen=True)
class Quartic:
    """The mean over samples and outputs of (z - y)⁴: right."""

    targets = "values"

    def share(self, z, weight, xp):
        if weight is None:
            return 1.0 / z.shape[0]
        least = xp.full((1,), float(xp.finfo(z.dtype).smallest_normal), dtype=z.dtype)
        return xp.expand_dims(weight / xp.maximum(xp.sum(weight, axis=0, keepdims=True), least), axis=1)

    def __call__(self, z, y, weight=None, /, *, xp):
        if z.shape != y.shape:
            raise ValueError("another shape")
        positions = z.shape[1:-1]
        if positions:
            raise ValueError("one position")
        share, d = self.share(z, weight, xp) / z.shape[1], z - y
        return xp.sum(xp.sum(share * d**4, axis=1), axis=0, keepdims=True), 4.0 * share * d**3

    def activate(self, z, /, *, xp):
        return xp.astype(z, z.dtype, copy=True)


class NoActivate:
    targets, __call__ = "values", Quartic.__call__


@dataclass(frozen=True)
class NoTargets(Quartic):
    targets = "numbers"


@dataclass(unsafe_hash=True)
class Changeable:
    power: float = 4.0
    targets: ClassVar[str] = "values"
    share, __call__, activate = Quartic.share, Quartic.__call__, Quartic.activate


@dataclass(frozen=True)
class Typo(Quartic):
    def __call__(self, z, y, weight=None, /, *, xp):
        return z.summ(), z


@dataclass(frozen=True)
class Scalar(Quartic):
    def __call__(self, z, y, weight=None, /, *, xp):
        value, delta = super().__call__(z, y, weight, xp=xp)
        return xp.reshape(value, ()) * xp.ones((), dtype=z.dtype) + xp.zeros((1, 1), dtype=z.dtype), delta


@dataclass(frozen=True)
class Wide(Quartic):
    def __call__(self, z, y, weight=None, /, *, xp):
        value, delta = super().__call__(z, y, weight, xp=xp)
        return value, xp.astype(delta, xp.float64)


@dataclass(frozen=True)
class Writing(Quartic):
    def __call__(self, z, y, weight=None, /, *, xp):
        z -= y
        return super().__call__(z, xp.zeros_like(z), weight, xp=xp)


@dataclass(frozen=True)
class WritingActivate(Quartic):
    def activate(self, z, /, *, xp):
        z *= 2.0
        return z * 1.0


@dataclass(frozen=True)
class Sharing(Quartic):
    def activate(self, z, /, *, xp):
        return z


@dataclass(frozen=True)
class Restless(Quartic):
    calls: ClassVar[Any] = itertools.count()

    def __call__(self, z, y, weight=None, /, *, xp):
        value, delta = super().__call__(z, y, weight, xp=xp)
        return value * (1.0 + 1e-9 * next(self.calls)), delta


@dataclass(frozen=True)
class Broadcasting(Quartic):
    """(n,) against (n, 1) is (n, n)."""

    def __call__(self, z, y, weight=None, /, *, xp):
        d, share = z - y, self.share(z, weight, xp) / z.shape[1]
        return xp.sum(xp.sum(share * d**4, axis=1), axis=0, keepdims=True), 4.0 * share * d**3


@dataclass(frozen=True)
class Sum(Quartic):
    """The sum over the samples, of J and of delta."""

    def __call__(self, z, y, weight=None, /, *, xp):
        value, delta = super().__call__(z, y, weight, xp=xp)
        return value * z.shape[0], delta * z.shape[0]


@dataclass(frozen=True)
class IgnoresWeights(Quartic):
    def __call__(self, z, y, weight=None, /, *, xp):
        return super().__call__(z, y, xp=xp)


@dataclass(frozen=True)
class PaddingIsNaN(Quartic):
    """0/0 for a batch of padding alone."""

    def share(self, z, weight, xp):
        if weight is None:
            return 1.0 / z.shape[0]
        return xp.expand_dims(weight / xp.sum(weight, axis=0, keepdims=True), axis=1)


@dataclass(frozen=True)
class HalfWeighted(Quartic):
    """J is weighted, delta is not."""

    def __call__(self, z, y, weight=None, /, *, xp):
        return super().__call__(z, y, weight, xp=xp)[0], super().__call__(z, y, xp=xp)[1]


@dataclass(frozen=True)
class WrongPower(Quartic):
    """The factor 4 is forgotten."""

    def __call__(self, z, y, weight=None, /, *, xp):
        value, delta = super().__call__(z, y, weight, xp=xp)
        return value, delta / 4.0


@dataclass(frozen=True)
class EachPosition(Quartic):
    """Each position counts as a sample without its weight."""

    def __call__(self, z, y, weight=None, /, *, xp):
        rows = xp.reshape(z, (-1, z.shape[-1]))
        weight = weight if z.ndim == 2 else None
        value, delta = super().__call__(rows, xp.reshape(y, rows.shape), weight, xp=xp)
        return value, xp.reshape(delta, z.shape)


@dataclass(frozen=True)
class OtherRows(nn.SoftmaxCrossEntropy):
    """Of one-hot rows the loss of the class before."""

    equations: ClassVar[Any] = None

    def __call__(self, z, y, weight=None, /, *, xp):
        return super().__call__(z, y if y.ndim < z.ndim else xp.roll(y, 1, axis=-1), weight, xp=xp)


@dataclass(frozen=True)
class OnNumPyAlone(Quartic):
    def __call__(self, z, y, weight=None, /, *, xp):
        return super().__call__(np.asarray(z), y, weight, xp=xp)


@dataclass(frozen=True)
class ByMatmul(Quartic):
    def activate(self, z, /, *, xp):
        return z @ xp.eye(z.shape[1], dtype=z.dtype)


@dataclass(frozen=True)
class OtherEquations(nn.MeanSquaredError):
    equations: ClassVar[Any] = bpxp.equations.Equations(
        share="u[n] = w[n]/(sum_m w[m])",
        activate="a[n,k] = z[n,k]",
        J="J = sum_n u[n]*sum_k (z[n,k] - y[n,k])^2",
        delta="delta[n,k] = u[n]*2*(z[n,k] - y[n,k])/count_k",
    )


@dataclass(frozen=True)
class NoHash(Quartic):
    sizes: Any = field(default_factory=list)


BROKEN = [
    (NoActivate(), {"protocol"}, "no method activate"),
    (Quartic, {"protocol"}, "is a class"),
    (NoTargets(), {"protocol"}, "'numbers', not one of"),
    (Changeable(), {"hashable"}, "can be changed"),
    (NoHash(), {"hashable"}, "no hash"),
    (Typo(), {"runs"}, "AttributeError"),
    (Scalar(), {"shapes"}, "J is (1, 1)"),
    (Wide(), {"dtype"}, "delta is float64"),
    (Writing(), {"inputs"}, "writes into logits"),
    (WritingActivate(), {"inputs"}, "activate writes"),
    (Sharing(), {"memory"}, "what activate returns shares memory with the logits"),
    (Restless(), {"repeatable"}, "differs the second time"),
    (Broadcasting(), {"targets"}, "y of shape (5,)"),
    (Sum(), {"mean"}, "the mean of each alone"),
    (IgnoresWeights(), {"weights"}, "random weights: J is"),
    (PaddingIsNaN(), {"weights"}, "padding alone, has J = nan"),
    (HalfWeighted(), {"weights", "gradient"}, "delta is not weighted as J is"),
    (WrongPower(), {"gradient"}, "0.25 times as much"),
    (EachPosition(), {"positions"}, "J is"),
    (OtherRows(), {"rows"}, "one-hot rows give another loss"),
    (OtherEquations(), {"equations"}, "J ="),
    (ByMatmul(), {"source"}, "use xp.matmul"),
]


@pytest.mark.parametrize(("loss", "rules", "text"), BROKEN, ids=lambda value: getattr(type(value), "__name__", ""))
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_rule_that_is_broken_is_named_and_no_other(loss, rules, text):
    with pytest.raises(RuleCheckError, match="check_loss.*the loss breaks") as caught:
        check_loss(loss, backends=["numpy"])
    assert set(caught.value.report.broken) == rules
    assert text in str(caught.value)
    assert caught.value.code == "BPX-E086"


def test_a_library_that_cannot_be_copied_to_the_host_is_found():
    pytest.importorskip("array_api_strict")
    with pytest.raises(RuleCheckError) as caught:
        check_loss(OnNumPyAlone(), backends=["numpy", "strict:device1"])
    assert "backends" in caught.value.report.broken


def test_every_rule_is_broken_by_some_loss_here():
    broken = set().union(*(rules for _, rules, _ in BROKEN)) | {"backends", "compiled"}
    assert broken == {rule.name for rule in RULES}


def test_a_loss_that_looks_at_numbers_does_not_compile():
    pytest.importorskip("array_api_strict")

    @dataclass(frozen=True)
    class Looking(Quartic):
        def __call__(self, z, y, weight=None, /, *, xp):
            value, delta = super().__call__(z, y, weight, xp=xp)
            return (value, delta) if float(xp.max(z)) > -100.0 else (value * 2.0, delta)

    with pytest.raises(RuleCheckError) as caught:
        check_loss(Looking(), backends=["strict:device1"])
    assert set(caught.value.report.broken) == {"backends", "source"}


def test_a_loss_that_keeps_all_rules(backend):
    report = check_loss(Quartic(), 3, backends=[backend])
    assert report.broken == ()
    assert "gradient" in str(report)
    assert "not checked: it takes no logits of several positions" in str(report)


@pytest.mark.parametrize("name", nn.LOSSES)
@pytest.mark.parametrize("n_out", [3, 1])
def test_the_losses_of_bpxp_keep_all_rules(backend, name, n_out):
    if n_out == 1 and name == "softmax_cross_entropy":
        pytest.skip("one class")
    assert check_loss(nn.get_loss(name), n_out, backends=[backend]).broken == ()


@pytest.mark.parametrize(
    "loss", [nn.SoftmaxCrossEntropy(0.2), nn.BinaryCrossEntropy((2.0, 0.5, 1.0), 0.1), nn.Huber(0.3)]
)
def test_options(loss):
    assert check_loss(loss, backends="numpy").broken == ()


def test_targets_of_ones_own():
    @dataclass(frozen=True)
    class LogLoss(Quartic):
        """(z - log y)⁴ for y > 0."""

        def __call__(self, z, y, weight=None, /, *, xp):
            return super().__call__(z, xp.log(y), weight, xp=xp)

    y = np.linspace(0.5, 2.0, 15).reshape(5, 3)
    assert check_loss(LogLoss(), y=y, backends=["numpy"]).broken == ()


def test_errors_are_of_one_family():
    assert issubclass(LayerCheckError, RuleCheckError)
    with pytest.raises(TypeError, match="check_loss"):
        check_loss(Quartic(), "3")
    with pytest.raises(InvalidValueError):
        check_loss(Quartic(), 0)


def test_the_guide_explains_every_rule():
    page = (Path(bpxp.__file__).parents[1] / "docs" / "own-losses.md").read_text(encoding="utf-8")
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []
