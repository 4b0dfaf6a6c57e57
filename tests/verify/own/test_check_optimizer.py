"""`check_optimizer` finds nothing in an optimizer that keeps the rules, and exactly the rule that one breaks."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import bpxp
from bpxp import optim
from bpxp.core.tree import tree_map
from bpxp.errors import RuleCheckError
from bpxp.verify import check_optimizer
from bpxp.verify.own.optimizer import RULES


@dataclass(frozen=True)
class Descent(optim.Optimizer):
    """p ← p - η (g + μ v), v ← g: right."""

    learning_rate: Any = 0.1
    mu: float = 0.5

    elementwise = True

    def slots(self, params, /, *, xp):
        return (tree_map(xp.zeros_like, params),)

    def rule(self, p, g, slots, lr, /, *, xp):
        (v,) = slots
        p -= lr * (g + self.mu * v)
        v *= 0.0
        v += g
        return p, (v,)


class NotOne:
    def init(self, params, /, *, xp):
        return params


@dataclass(frozen=True)
class NoHash(Descent):
    sizes: Any = field(default_factory=list)


@dataclass(frozen=True)
class Typo(Descent):
    def rule(self, p, g, slots, lr, /, *, xp):
        return p - lr * g.summ(), slots


@dataclass(frozen=True)
class PythonState(Descent):
    """The slots are Python numbers."""

    def slots(self, params, /, *, xp):
        return (tree_map(lambda p: 0.0, params),)


@dataclass(frozen=True)
class Drifting(Descent):
    """The velocity becomes float64."""

    def rule(self, p, g, slots, lr, /, *, xp):
        p, (v,) = super().rule(p, g, slots, lr, xp=xp)
        return p, (xp.astype(v, xp.float64),)


@dataclass(frozen=True)
class Sharing(Descent):
    """A slot is the parameter itself."""

    def slots(self, params, /, *, xp):
        return (params,)

    def rule(self, p, g, slots, lr, /, *, xp):
        p -= lr * g
        return p, slots


@dataclass(frozen=True)
class WritesParameters(Descent):
    def slots(self, params, /, *, xp):
        for layer in params:
            for p in layer:
                p *= 1.5
        return super().slots(params, xp=xp)


@dataclass(frozen=True)
class WritesRate(Descent):
    """Writes into the learning rate, which is the state's and the next leaf's."""

    elementwise = True

    def rule(self, p, g, slots, lr, /, *, xp):
        lr *= 0.9
        return super().rule(p, g, slots, lr, xp=xp)


COUNT = [0]


@dataclass(frozen=True)
class Counts(Descent):
    """Halves the rate after 40 calls, by a counter of Python."""

    elementwise = True

    def rule(self, p, g, slots, lr, /, *, xp):
        COUNT[0] += 1
        return super().rule(p, g, slots, lr * 0.5 ** (COUNT[0] // 40), xp=xp)


@dataclass(frozen=True)
class KeepsInItself(Descent):
    """The velocity is an attribute, not a slot."""

    seen: ClassVar[dict[Any, Any]] = {}
    elementwise = False

    def rule(self, p, g, slots, lr, /, *, xp):
        old = self.seen.get((id(self), p.shape))
        self.seen[(id(self), p.shape)] = xp.astype(g, g.dtype, copy=True)
        p -= lr * (g if old is None else 0.5 * g + 0.5 * old)
        return p, slots


@dataclass(frozen=True)
class IgnoresRate(Descent):
    elementwise = True

    def rule(self, p, g, slots, lr, /, *, xp):
        return super().rule(p, g, slots, self.learning_rate, xp=xp)


@dataclass(frozen=True)
class Uphill(Descent):
    elementwise = True

    def rule(self, p, g, slots, lr, /, *, xp):
        return super().rule(p, -g, slots, lr, xp=xp)


@dataclass(frozen=True)
class Norm(Descent):
    """Divides by the norm of the leaf, and says that it looks at each number by itself."""

    elementwise = True

    def rule(self, p, g, slots, lr, /, *, xp):
        return super().rule(p, g / xp.sqrt(xp.sum(g * g)), slots, lr, xp=xp)


@dataclass(frozen=True)
class ByMatmul(Descent):
    elementwise = False

    def rule(self, p, g, slots, lr, /, *, xp):
        return super().rule(p, g @ xp.eye(g.shape[-1], dtype=g.dtype), slots, lr, xp=xp)


@dataclass(frozen=True)
class OtherEquations(optim.SGD):
    equations: ClassVar[Any] = bpxp.equations.Equations(updated="p'[i] = p[i] - 2*learning_rate*g[i]")


BROKEN = [
    (NotOne(), {"protocol"}, "does not inherit"),
    (Descent, {"protocol"}, "is a class"),
    (NoHash(), {"hashable"}, "no hash"),
    (Typo(), {"runs"}, "AttributeError"),
    (Drifting(), {"state"}, "float64"),
    (Sharing(), {"memory", "resumed"}, "shares memory with parameter"),
    (WritesParameters(), {"memory", "rate"}, "init writes into the parameters"),
    (WritesRate(), {"factors"}, "writes into its factors"),
    (Counts(), {"repeatable"}, "60 further calls"),
    (KeepsInItself(), {"repeatable"}, "60 further calls"),
    (IgnoresRate(), {"rate"}, "learning rate is 0"),
    (Uphill(), {"downhill"}, "goes uphill"),
    (Norm(), {"elementwise"}, "row by row"),
    (ByMatmul(), {"source"}, "use xp.matmul"),
    (OtherEquations(0.1), {"equations"}, "p'"),
]


@pytest.mark.parametrize(("optimizer", "rules", "text"), BROKEN, ids=lambda value: getattr(type(value), "__name__", ""))
def test_the_rule_that_is_broken_is_named(optimizer, rules, text):
    COUNT[0] = 0
    KeepsInItself.seen.clear()
    with pytest.raises(RuleCheckError, match="check_optimizer.*the optimizer breaks") as caught:
        check_optimizer(optimizer, backends=["numpy"])
    assert rules <= set(caught.value.report.broken)
    if len(rules) == 1:
        assert set(caught.value.report.broken) == rules
    assert text in str(caught.value.report)


def test_slots_that_are_python_numbers():
    with pytest.raises(RuleCheckError) as caught:
        check_optimizer(PythonState(), backends=["numpy"])
    assert caught.value.report.broken[0] in ("runs", "state")


def test_what_one_layer_leaves_behind_for_the_next_is_found():
    @dataclass(frozen=True)
    class Chained(Descent):
        """Its factor is an array that each leaf changes and the next reads."""

        def factors(self, lr, t, /, *, xp):
            return lr, xp.ones((1,), dtype=lr.dtype)

        def rule(self, p, g, slots, factors, /, *, xp):
            lr, mass = factors
            mass *= 0.5
            return super().rule(p, g, slots, lr * mass, xp=xp)

    with pytest.raises(RuleCheckError) as caught:
        check_optimizer(Chained(), backends=["numpy"])
    assert caught.value.report.broken == ("factors",)


def test_a_momentum_that_is_lost_in_a_copy():
    class Hidden(Descent):
        """A velocity in an attribute that a copy does not have."""

        velocity: ClassVar[dict[int, Any]] = {}

        def __deepcopy__(self, memo):
            return Hidden(self.learning_rate)

        def update(self, params, grads, state, /, *, xp):
            if int(state.t[0]) == 0:
                self.velocity[id(self)] = 0.0
            self.velocity[id(self)] = 0.5 * self.velocity.get(id(self), 0.0) + 1.0
            grads = tree_map(lambda g: g * self.velocity[id(self)], grads)
            return super().update(params, grads, state, xp=xp)

    with pytest.raises(RuleCheckError) as caught:
        check_optimizer(Hidden(), backends=["numpy"])
    assert "resumed" in caught.value.report.broken


def test_every_rule_is_broken_by_some_optimizer_here():
    broken = set().union(*(rules for _, rules, _ in BROKEN)) | {"leaves", "backends", "compiled"}
    assert broken == {rule.name for rule in RULES}


def test_leaves_that_depend_on_one_another():
    @dataclass(frozen=True)
    class Global(Descent):
        """Normalises by the largest gradient of all leaves."""

        def update(self, params, grads, state, /, *, xp):
            largest = max(float(xp.max(xp.abs(g))) for layer in grads for g in layer)
            return super().update(params, tree_map(lambda g: g / largest, grads), state, xp=xp)

    with pytest.raises(RuleCheckError) as caught:
        check_optimizer(Global(), backends=["numpy"])
    assert set(caught.value.report.broken) == {"leaves", "source"}


def test_what_runs_on_numpy_alone_is_found():
    pytest.importorskip("array_api_strict")

    @dataclass(frozen=True)
    class OnNumPyAlone(Descent):
        def rule(self, p, g, slots, lr, /, *, xp):
            return super().rule(p, np.asarray(g), slots, lr, xp=xp)

    with pytest.raises(RuleCheckError) as caught:
        check_optimizer(OnNumPyAlone(), backends=["numpy", "strict:device1"])
    assert "backends" in caught.value.report.broken


OWN = {
    "right": Descent(),
    "sgd": optim.SGD(0.1),
    "momentum": optim.SGD(0.1, momentum=0.9),
    "nesterov": optim.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": optim.Adam(0.01),
    "adamw": optim.AdamW(0.01),
    "rmsprop": optim.RMSprop(0.01),
    "adagrad": optim.Adagrad(0.1),
    "everything": optim.Adam(0.01, clip_norm=1.0, clip_value=0.5, average=0.9, l1=0.1, l2=0.1, weight_decay=0.1),
    "schedule": optim.SGD(optim.CosineDecay(0.1, 10)),
    "plateau": optim.SGD(optim.Plateau(0.1)),
}


@pytest.mark.parametrize("name", OWN)
def test_the_optimizers_of_bpxp_keep_all_rules(backend, name):
    assert check_optimizer(OWN[name], backends=[backend]).broken == ()


def test_the_guide_explains_every_rule():
    page = (Path(bpxp.__file__).parents[1] / "docs" / "own-optimizers.md").read_text(encoding="utf-8")
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []
