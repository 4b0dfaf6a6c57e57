"""`check_layer` finds nothing in a layer that keeps the rules, and exactly the rule that a layer breaks."""

from __future__ import annotations

import copy
import itertools
import types
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy
import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.equations import Equations
from bpxp.errors import BpxpError, LayerCheckError
from bpxp.verify import check_layer
from bpxp.verify.equations.catalogue import catalogue
from bpxp.verify.layer.rules import RULES

SHAPES = {
    nn.Conv2D: (3, 3, 4),
    nn.MaxPool2D: (4, 3, 1),
    nn.AvgPool2D: (4, 3, 1),
    nn.GlobalAvgPool2D: (3, 2, 2),
    nn.Flatten: (2, 3, 2),
    nn.Reshape: (3, 2, 2),
    nn.Embedding: (3,),
}
# On NumPy all of them. Elsewhere what differs is the library: operation by operation, others look at that.
ELSEWHERE = {"strict": {"Dense", "Conv2D", "BatchNorm", "Dropout", "Residual", "Embedding", "Mish"}}
ANYWHERE = {"Dense", "Mish"}
LAYERS = {name: thing for name, thing in catalogue().items() if name.startswith(("layer", "activation"))}


class ScaleParams(NamedTuple):
    W: Any


@dataclass(frozen=True)
class Scale:
    """y = W x, entry by entry: right."""

    start: float = 1.0

    equations: ClassVar[Any] = Equations(
        forward="y[n,i] = W[i]*x[n,i]", dW="dW[i] = sum_n dy[n,i]*x[n,i]", dx="dx[n,i] = W[i]*dy[n,i]"
    )

    def init(self, rng, in_shape, /):
        return ScaleParams(self.start + 0.1 * rng.at(0).normal(in_shape)), in_shape

    def forward(self, params, x, /, *, xp):
        return x * params.W, x

    def backward(self, params, x, dy, /, *, xp):
        return dy * params.W, ScaleParams(xp.sum(dy * x, axis=0))


class NoBackward:
    init, forward = Scale.init, Scale.forward


@dataclass(unsafe_hash=True)
class Changeable:
    start: float = 1.0

    init, forward, backward = Scale.init, Scale.forward, Scale.backward


@dataclass(frozen=True)
class NoHash(Scale):
    sizes: Any = None

    def __post_init__(self):
        object.__setattr__(self, "sizes", [1, 2])


@dataclass(frozen=True)
class Narrow(Scale):
    def init(self, rng, in_shape, /):
        params, shape = super().init(rng, in_shape)
        return ScaleParams(params.W.astype(np.float32)), shape


@dataclass(frozen=True)
class Forgetful(Scale):
    calls: ClassVar[Any] = itertools.count()

    def init(self, rng, in_shape, /):
        params, shape = super().init(rng, in_shape)
        return ScaleParams(params.W + next(self.calls)), shape


@dataclass(frozen=True)
class Typo(Scale):
    def forward(self, params, x, /, *, xp):
        return x * params.w, x


@dataclass(frozen=True)
class FixedBatch(Scale):
    def backward(self, params, x, dy, /, *, xp):
        dx, grads = super().backward(params, x, dy, xp=xp)
        return dx, ScaleParams(xp.expand_dims(grads.W, axis=0))


@dataclass(frozen=True)
class Writing(Scale):
    def backward(self, params, x, dy, /, *, xp):
        grads = ScaleParams(xp.sum(dy * x, axis=0))
        dy *= params.W
        return dy, grads


class Two(NamedTuple):
    W: Any
    b: Any


@dataclass(frozen=True)
class Sharing:
    """y = x + W + b: both gradients are the same numbers, and here the same memory."""

    def init(self, rng, in_shape, /):
        return Two(rng.at(0).normal(in_shape), rng.at(1).normal(in_shape)), in_shape

    def forward(self, params, x, /, *, xp):
        return x + params.W + params.b, None

    def backward(self, params, cache, dy, /, *, xp):
        both = xp.sum(dy, axis=0)
        return dy * 1.0, Two(both, both)


@dataclass(frozen=True)
class Restless(Scale):
    equations: ClassVar[Any] = None
    calls: ClassVar[Any] = itertools.count()

    def forward(self, params, x, /, *, xp):
        return x * params.W + 0.001 * next(self.calls), x


@dataclass(frozen=True)
class Sociable(Scale):
    equations: ClassVar[Any] = None

    def forward(self, params, x, /, *, xp):
        centred = x - xp.mean(x, axis=0, keepdims=True)
        return centred * params.W, centred

    def backward(self, params, x, dy, /, *, xp):
        dx, grads = super().backward(params, x, dy, xp=xp)
        return dx - xp.mean(dx, axis=0, keepdims=True), grads


ONE_AND_A_HALF = np.float64(1.5)


@dataclass(frozen=True)
class Widening(Scale):
    equations: ClassVar[Any] = None

    def forward(self, params, x, /, *, xp):
        return x * params.W * ONE_AND_A_HALF, x

    def backward(self, params, x, dy, /, *, xp):
        return super().backward(params, x, dy * 1.5, xp=xp)


@dataclass(frozen=True)
class TwoMinds(Scale):
    def gradients(self, params, x, dy, /, *, xp):
        return ScaleParams(0.5 * xp.sum(dy * x, axis=0))


@dataclass(frozen=True)
class HalfDerived(Scale):
    equations: ClassVar[Any] = None

    def backward(self, params, x, dy, /, *, xp):
        dx, grads = super().backward(params, x, dy, xp=xp)
        return 0.5 * dx, grads


@dataclass(frozen=True)
class MeanOfBatch(Scale):
    equations: ClassVar[Any] = None

    def backward(self, params, x, dy, /, *, xp):
        return dy * params.W, ScaleParams(xp.mean(dy * x, axis=0))


@dataclass(frozen=True)
class HomeBound(Scale):
    equations: ClassVar[Any] = None

    def forward(self, params, x, /, *, xp):
        return xp.asarray(numpy.add(x * params.W, numpy.ones(1, dtype=x.dtype)), dtype=x.dtype), x


@dataclass(frozen=True)
class Transposing(Scale):
    def backward(self, params, x, dy, /, *, xp):
        return dy * params.W, ScaleParams(xp.sum((dy * x).T, axis=1))


@dataclass(frozen=True)
class Boasting(Scale):
    equations: ClassVar[Any] = Equations(
        forward="y[n,i] = W[i]*x[n,i]", dW="dW[i] = sum_n dy[n,i]*x[n,i]", dx="dx[n,i] = W[i]*dy[n,i]/2"
    )


class Misplaced(nn.Residual):
    """Names its children from the last to the first."""

    def __init__(self, layer):
        super().__init__([layer, nn.Dense(3)])

    @property
    def children(self):
        return super().children[::-1]

    def with_children(self, children, /):
        changed = copy.copy(self)
        object.__setattr__(changed, "branch", nn.Sequential(children[::-1]))
        return changed


class Stubborn(nn.Residual):
    def with_children(self, children, /):
        return self


@dataclass(frozen=True)
class Childish(Scale):
    equations: ClassVar[Any] = None
    children: ClassVar[Any] = ("left", "right")


BROKEN = [
    (Scale, "protocol", "Scale is a class"),
    (NoBackward(), "protocol", "no method backward"),
    (Changeable(), "hashable", "can be changed"),
    (NoHash(), "hashable", "it has no hash"),
    (Narrow(), "init", "parameter W is float32"),
    (Forgetful(), "init", "differs the second time"),
    (Typo(), "runs", "AttributeError"),
    (FixedBatch(), "shapes", "gradients"),
    (Writing(), "inputs", "backward writes into dy"),
    (Sharing(), "memory", "the gradient of b shares memory with the gradient of W"),
    (Restless(), "repeatable", "forward differs"),
    (Sociable(), "samples", "the others' y"),
    (Widening(), "dtype", "y is float64"),
    (TwoMinds(), "gradients", "the gradient of W"),
    (Misplaced(nn.Dense(3, "tanh")), "children", "does not get entry 0 of the parameters"),
    (Stubborn(nn.Dense(3, "tanh")), "children", r"child 0 \(Dense\) is not called after with_children"),
    (Childish(), "children", "not a tuple of layers"),
    (HalfDerived(), "gradient", "ratio 0.5"),
    (MeanOfBatch(), "gradient", "ratio 0.2"),
    (HomeBound(), "backends", "strict"),
    (Transposing(), "source", r"\.T: use xp.matrix_transpose"),
    (Boasting(), "equations", r"dx\[n,i\] = W\[i\]\*dy\[n,i\]/2"),
]


@pytest.mark.parametrize(("layer", "rule", "text"), BROKEN, ids=lambda value: getattr(type(value), "__name__", ""))
def test_the_rule_that_is_broken_is_named_and_no_other(layer, rule, text):
    with pytest.raises(LayerCheckError, match=text) as caught:
        check_layer(layer, 3, backends=["numpy", "strict", "strict:device1"])
    assert caught.value.report.broken == (rule,)
    (fix,) = {check.fix for check in caught.value.report.checks if not check.kept}
    assert f"Fix: {fix}" in str(caught.value)
    assert "BROKEN" in str(caught.value.report)


def test_every_rule_is_broken_by_some_layer_here():
    # "compiled" has its own test below: what breaks it depends on the compiler.
    assert {rule.name for rule in RULES} - {rule for _, rule, _ in BROKEN} == {"compiled"}


def test_a_layer_that_keeps_all_rules(backend):
    report = check_layer(Scale(), 3, backends=[backend])
    assert report.broken == ()
    assert len(report.checks) == len(RULES)
    assert all("BROKEN" not in line for line in str(report).splitlines())


@pytest.mark.parametrize("name", LAYERS)
def test_the_layers_of_bpxp_keep_all_rules(backend, name):
    layer = LAYERS[name]
    if backend.name != "numpy" and type(layer).__name__ not in ELSEWHERE.get(backend.name, ANYWHERE):
        pytest.skip("on NumPy")
    x = np.array([[1, 0, 3], [2, 1, 0]]) if isinstance(layer, nn.Embedding) else None
    report = check_layer(layer, SHAPES.get(type(layer), 4), backends=[backend], x=x, batch=2)
    # What is left out is left out for a reason that is known.
    assert {check.rule for check in report.checks if check.note} <= {"gradients", "gradient"}


def test_a_step_that_changes_when_it_is_compiled():
    baking = copy.copy(bpxp.get_backend("numpy"))

    def compile_(step):
        first: list[Any] = []

        def run(state, data, /, *, count=1):
            first.append(first[0] if first else step(state, data))
            return first[-1]

        return run

    baking.compile = compile_
    with pytest.raises(LayerCheckError, match="y, the gradient of W differ") as caught:
        check_layer(Scale(), 3, backends=[baking])
    assert caught.value.report.broken == ("compiled",)


@dataclass(frozen=True)
class Looking(Scale):
    """Decides by the numbers: what no compiler can follow, and no rule of the source sees."""

    equations: ClassVar[Any] = None

    def forward(self, params, x, /, *, xp):
        if xp.any(x > 100.0):
            return x * params.W * 1.0, x
        return x * params.W, x


def test_a_layer_that_looks_at_numbers_does_not_compile():
    pytest.importorskip("jax")
    with pytest.raises(LayerCheckError, match="jax: TracerBoolConversionError") as caught:
        check_layer(Looking(), 3, backends=["jax"])
    assert caught.value.report.broken == ("compiled",)


def test_an_array_that_a_backend_computes_wrongly():
    wrong = copy.copy(bpxp.get_backend("numpy"))
    plain = wrong.xp.sum
    wrong.xp = types.SimpleNamespace(**{**vars(wrong.xp), "sum": lambda x, **o: plain(x, **o) * np.float32(1.0 + 1e-5)})
    with pytest.raises(LayerCheckError, match="numpy: the gradient of W is .* times as far from float64") as caught:
        check_layer(Scale(), 3, backends=[wrong])
    assert "backends" in caught.value.report.broken


@dataclass(frozen=True)
class Running(Scale):
    """Sums along the features: by a function that has no rule for its rounding, and so is held to 1e-5."""

    equations: ClassVar[Any] = None

    def forward(self, params, x, /, *, xp):
        return xp.cumulative_sum(x * params.W, axis=1), x

    def backward(self, params, x, dy, /, *, xp):
        return super().backward(params, x, xp.flip(xp.cumulative_sum(xp.flip(dy, axis=1), axis=1), axis=1), xp=xp)


def test_functions_without_a_rule_for_rounding_are_held_to_a_tolerance():
    plain = bpxp.get_backend("numpy")
    check_layer(Running(), 3, backends=plain)
    off = copy.copy(plain)
    off.xp = types.SimpleNamespace(**vars(plain.xp))
    off.xp.cumulative_sum = lambda x, **o: plain.xp.cumulative_sum(x, **o) * np.float32(1.0 + 1e-3)
    with pytest.raises(LayerCheckError, match="numpy: y is .* times as far"):
        check_layer(Running(), 3, backends=[off])


def test_a_backend_that_does_not_work_is_told_and_one_that_was_asked_for_has_to(monkeypatch):
    with pytest.raises(bpxp.BpxpError, match="NumPy computes on the CPU"):
        check_layer(Scale(), 3, backends=["numpy:gpu"])
    none = bpxp.backends.BackendInfo(False, "", "no driver")
    known = {name: none for name in ("torch", "jax", "cupy")}
    monkeypatch.setattr("bpxp.verify.rules.available_backends", lambda: known)  # imports none of them
    report = check_layer(Scale(), 3)
    assert report.not_run == dict.fromkeys(known, "no driver")
    assert "cupy: not run: no driver" in str(report)


def test_the_guide_explains_every_rule():
    page = (Path(__file__).parents[3] / "docs" / "own-layers.md").read_text(encoding="utf-8")
    assert [rule.name for rule in RULES if f"| {rule.name} |" not in page] == []


def test_samples_at_kinks():
    # Where a layer has no derivative, its gradient has to be between those of both sides.
    x = np.zeros((4, 3))
    x[0] = [1.0, -1.0, 0.0]
    assert not check_layer(nn.ReLU(), 3, x=x, backends=["numpy"]).broken
    assert not check_layer(nn.MaxPool2D(2), (4, 4, 1), x=np.ones((3, 4, 4, 1)), backends=["numpy"]).broken

    @dataclass(frozen=True)
    class Steep(nn.ReLU):
        def backward(self, params, cache, da, /, *, xp):
            return da * xp.astype(cache >= 0.0, da.dtype) * 2.0, ()

        def forward(self, params, z, /, *, xp):
            return xp.maximum(z, xp.zeros_like(z)), z

    with pytest.raises(LayerCheckError) as caught:
        check_layer(Steep(), 3, x=x, backends=["numpy"])
    assert "gradient" in caught.value.report.broken


@pytest.mark.parametrize("in_shape", ["junk", None, (), (3, "a"), (2, 0), 2.5, -1])
def test_a_shape_that_is_none(in_shape):
    with pytest.raises(BpxpError, match=r"^check_layer\(layer, in_shape\): .*\[BPX-E00[12]\]$"):
        check_layer(nn.Dense(3), in_shape, backends=["numpy"])


@dataclass(frozen=True)
class OfNumPy:
    """Computes with NumPy where it was given `xp`: the commonest mistake."""

    what: str = "forward"

    def init(self, rng, in_shape, /):
        return (np.ones(in_shape),), in_shape

    def forward(self, params, x, /, *, xp):
        multiply = np.multiply if self.what == "forward" else xp.multiply
        return multiply(x, params[0]), x

    def backward(self, params, x, dy, /, *, xp):
        multiply = np.multiply if self.what == "backward" else xp.multiply
        return multiply(dy, params[0]), (xp.sum(x * dy, axis=0),)


@pytest.mark.parametrize("what", ["forward", "backward"])
@pytest.mark.parametrize("names", [["strict"], ["strict:device1"], ["numpy", "strict", "strict:device1"]])
@pytest.mark.filterwarnings("ignore:.*__array_wrap__.*:DeprecationWarning")
def test_results_of_another_library_are_a_broken_rule(what, names):
    with pytest.raises(LayerCheckError) as caught:
        check_layer(OfNumPy(what), 4, backends=names)
    (check,) = (check for check in caught.value.report.checks if check.rule == "backends")
    assert len(check.broken) == len([name for name in names if name != "numpy"])
    assert all(text.startswith("strict") for text in check.broken)
