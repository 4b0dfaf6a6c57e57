"""Layers that are made of layers: a fault inside is found, whether the container names its children or not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from helpers.containers import Closed, Parallel, Twice
from helpers.faulty_backends import PLAIN, faulty, off

import bpxp
from bpxp import nn
from bpxp.nn.observe import Part, Recorder, observed_children, opaque, walk
from bpxp.verify import bisect, certify, check_equations, check_gradients, xray


def parallel(kind=Parallel, width=3, first=nn.Dense(7, "tanh")):  # noqa: B008  it is frozen
    return kind(nn.Sequential((first, nn.Dense(width))), nn.Sequential((nn.Dense(width),)))


def twice():
    return Twice(nn.Sequential((nn.Dense(4, "tanh"),)))


def network(layer, *more):
    return bpxp.Network([layer, *more, 2], input_shape=(4,), backend="numpy", seed=0)


def wrong_product(shape):
    """NumPy with a matmul that is 1 % wrong for the product of one shape."""

    def matmul(a, b, /):
        product = PLAIN.matmul(a, b)
        return product * np.float32(1.01) if product.shape == shape else product

    return faulty(matmul=matmul)


DW = wrong_product((4, 7))  # dW of the first layer inside: no other product has this shape


def names(net):
    """Return what a recorder finds in one step."""
    from bpxp.verify.parity.run import Runner, make_trial

    trial = make_trial(net, None, batch_size=5, optimizer=None, where="")
    runner = Runner(trial, net.backend, net.dtype)
    return list(runner.gradients(runner.place(next(trial.batches(1)), 0))[2])


@pytest.mark.parametrize(
    ("kind", "part", "equation", "row"),
    [(Parallel, "layer 0.0.0 (Dense)", "dW", "0.0.0/dW"), (Closed, "layer 0 (Closed)", "0/0/dW", "0/0/0/dW")],
)
def test_a_wrong_gradient_inside_is_found(kind, part, equation, row):
    net = network(parallel(kind))
    found = certify(net, [DW], steps=2, batch_size=5, dtypes="float32")
    assert not found.ok
    (run,) = found.runs
    assert {r.quantity for r in run.rows if r.worst > 1.0} == {row}
    difference = bisect(net, DW, "numpy", batch_size=5).difference
    assert (difference.step, difference.part, difference.equation) == (1, part, equation)
    assert difference.operation == "xp.matmul"
    report = xray(net, backend=DW, steps=(1,), batch_size=5)
    assert report.worst.quantity == row
    assert report.worst.relative == pytest.approx(0.01, rel=0.01)


@pytest.mark.parametrize("kind", [Parallel, Closed, Twice])
def test_what_is_right_is_within_its_bounds(backend, kind, nightly):
    if backend.name.startswith("jax") and not nightly:
        pytest.skip("takes too long")
    net = network(twice() if kind is Twice else parallel(kind))
    found = certify(net, [backend], steps=2, batch_size=5)
    assert found.ok, found.verdict
    assert bisect(net, "numpy", backend, steps=2, batch_size=5).difference is None


def test_what_a_container_computes_itself_is_compared():
    net = network(parallel())
    wrong = faulty(add=off("add", 1e-3))
    (run,) = certify(net, [wrong], steps=1, batch_size=5, dtypes="float32").runs
    assert {row.quantity for row in run.rows if row.worst > 1.0} == {"0/y", "0/dx"}
    difference = bisect(net, "numpy", wrong, batch_size=5).difference
    assert (difference.part, difference.equation, difference.operation) == ("layer 0 (Parallel)", "y", "xp.add")


def test_what_a_container_passes_on_is_no_row_of_its_own():
    found = names(network(nn.Sequential((nn.Dense(3, "tanh"), nn.Dense(3)))))
    assert {"0.0/z", "0.0/a", "0.1/z", "0.1/dW", "0.0/dW"} <= set(found)
    assert not {"0/y", "0/0/dW", "0/1/dW"} & set(found)
    found = names(network(nn.Dense(4), nn.Residual(nn.Dense(4))))
    assert {"1/y", "1/dx", "1.0/z", "1.0/dx"} <= set(found)


def test_a_child_that_is_called_twice_has_a_row_for_each_call():
    net = network(twice())
    assert {"0.0.0/a", "0.0.0:2/a", "0.0.0/dW", "0.0.0:2/dW", "0/0/0/dW"} <= set(names(net))
    calls = [0]

    def tanh(x):
        calls[0] += 1
        return off("tanh")(x) if calls[0] == 2 else np.tanh(x)

    assert bisect(net, "numpy", faulty(tanh=tanh), steps=1).difference.part == "layer 0.0.0:2 (Tanh)"


def test_what_cannot_be_looked_into_is_named():
    net = network(parallel(Closed))
    told = "layer 0 (Closed): compared as a whole, since it has no `children`"
    assert told in certify(net, ["numpy"], steps=1, dtypes="float32").verdict
    assert told in str(bisect(net, "numpy", "numpy", steps=1))
    assert told in str(bisect(net, DW, "numpy", batch_size=5))
    assert told in str(xray(net, steps=(1,)))
    assert opaque(network(parallel()).model, network(parallel()).params) == ()


def test_equations_inside_are_checked():
    net = network(nn.Residual([nn.Dense(4), parallel(width=4)]))
    report = check_equations(net)
    wanted = "0.0, 0.1.0.1, 0.1.1.0 Dense"
    assert wanted in {check.of for check in report.checks}, report
    assert report.unchecked == ("0.1 Parallel, which states no equations",)


@pytest.mark.parametrize(
    ("kind", "what"), [(Parallel, "layer 0.0.0 (Halved), dW["), (Closed, "layer 0 (Closed), 0/0/dW[")]
)
def test_a_gradient_check_names_the_layer_inside(kind, what):
    with pytest.raises(bpxp.errors.GradientCheckError) as caught:
        check_gradients(network(parallel(kind, first=Halved(5))), np.ones((3, 4)), [0, 1, 1])
    assert what in str(caught.value)
    assert "ratio 0.5" in str(caught.value)


class Halved(nn.Dense):
    def gradients(self, params, cache, dy, /, *, xp):
        grads = super().gradients(params, cache, dy, xp=xp)
        return grads._replace(W=0.5 * grads.W)


def test_children_stand_where_their_parameters_are():
    inside = nn.Residual([nn.Dense(4), parallel()])
    places = [place for place, _ in walk(nn.Sequential((inside, nn.Dense(2))))]
    assert places == ["0", "0.0", "0.1", "0.1.0", "0.1.0.0", "0.1.0.1", "0.1.1", "0.1.1.0", "1"]
    for layer in (inside, parallel(), twice()):
        assert layer.with_children(layer.children) == layer
    assert observed_children(nn.Dense(3), Recorder()) == nn.Dense(3)
    assert Part("0", parallel()).results("gradients", ((nn.DenseParams(1, 2),), (3,))) == {
        "0/0/dW": 1,
        "0/0/db": 2,
        "1/d0": 3,
    }


class Scales(Parallel):
    """Scales the gradient of a child, where the namespace is the planted one."""

    in_place = False

    def backward(self, params, cache, dy, /, *, xp):
        dx, (left, right) = super().backward(params, cache, dy, xp=xp)
        if getattr(xp, "planted", False) and self.in_place:
            left[0].W[...] *= 1.5
        elif getattr(xp, "planted", False):
            left = (left[0]._replace(W=left[0].W * 1.5), *left[1:])
        return dx, (left, right)


class ScalesInPlace(Scales):
    in_place = True


@pytest.mark.parametrize("kind", [Scales, ScalesInPlace])
@pytest.mark.parametrize("nested", [False, True])
def test_bisect_finds_what_a_container_makes_of_a_gradient_on_either_side(kind, nested):
    layer = parallel(kind, width=4)
    net = network(nn.Residual([layer]) if nested else layer)
    planted = faulty(planted=True)
    part = f"layer {'0.0' if nested else '0'} ({kind.__name__})"
    for backends in (("numpy", planted), (planted, "numpy")):
        difference = bisect(net, *backends, batch_size=5).difference
        assert (difference.part, difference.equation) == (part, "0/0/dW")


class Forgets(Parallel):
    """Scales the gradient of a child everywhere but in the planted namespace."""

    def backward(self, params, cache, dy, /, *, xp):
        dx, (left, right) = super().backward(params, cache, dy, xp=xp)
        if not getattr(xp, "planted", False):
            left = (left[0]._replace(W=left[0].W * 1.5), *left[1:])
        return dx, (left, right)


@pytest.mark.parametrize("kind", [Scales, Forgets])
def test_xray_and_certify_find_what_a_container_makes_of_a_gradient_on_one_side(kind):
    net, planted = network(parallel(kind)), faulty(planted=True)
    report = xray(net, backend=planted, steps=(1,), batch_size=5)
    assert report.worst.quantity == "0/0/0/dW"
    assert report.worst.relative == pytest.approx(0.5 if kind is Scales else 1 / 3, rel=1e-5)
    assert not {"0/0/0/db", "0/1/0/dW"} & {row.quantity for row in report.rows}
    (run,) = certify(net, [planted], steps=2, batch_size=5, dtypes="float32").runs
    assert {row.quantity for row in run.rows if row.worst > 1.0} == {"0/0/0/dW"}
    assert not {"0/0/0/db", "0/1/0/dW"} & {row.quantity for row in run.rows}


@dataclasses.dataclass(frozen=True)
class Gated:
    """gate * branch(x): a parameter of its own beside its child's."""

    branch: nn.Layer

    children = property(lambda self: (self.branch,))

    def with_children(self, children, /):
        return type(self)(*children)

    def init(self, rng, in_shape, /):
        params, shape = self.branch.init(rng, in_shape)
        return (params, np.ones(shape)), shape

    def forward(self, params, x, /, *, xp, **context):
        y, cache = self.branch.forward(params[0], x, xp=xp, **context)
        return y * params[1], (cache, y)

    def backward(self, params, cache, dy, /, *, xp):
        dx, grads = self.branch.backward(params[0], cache[0], dy * params[1], xp=xp)
        return dx, (grads, self.factor * xp.sum(dy * cache[1], axis=0))

    def gradients(self, params, cache, dy, /, *, xp):
        return self.backward(params, cache, dy, xp=xp)[1]

    factor = 1.0


class WrongGate(Gated):
    factor = 1.01


class Half(Parallel):
    """Names one of two children."""

    children = property(lambda self: (self.left,))

    def with_children(self, children, /):
        return dataclasses.replace(self, left=children[0])


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (WrongGate(nn.Sequential((nn.Dense(3),))), "layer 0 (WrongGate), d1["),
        (Half(nn.Dense(3), Halved(3)), "layer 0 (Half), 1/dW["),
    ],
)
def test_a_gradient_check_names_the_container_where_no_child_has_the_parameter(layer, what):
    with pytest.raises(bpxp.errors.GradientCheckError) as caught:
        check_gradients(network(layer), np.ones((3, 4)), [0, 1, 1])
    assert what in str(caught.value)
    assert check_layer_broken(layer) == ("children", "gradient")


def check_layer_broken(layer):
    with pytest.raises(bpxp.errors.LayerCheckError) as caught:
        bpxp.verify.check_layer(layer, 4, backends=["numpy"])
    return caught.value.report.broken


class Swapped(Parallel):
    children = property(lambda self: (self.right, self.left))

    def with_children(self, children, /):
        return dataclasses.replace(self, left=children[1], right=children[0])


class Ignores(Parallel):
    def with_children(self, children, /):
        return self


class Without(Closed):
    children = property(lambda self: (self.left, self.right))


class Method(Parallel):
    def children(self):
        return self.left, self.right


class Misspelt(Parallel):
    children = property(lambda self: (self.lefft, self.right))


class Generator(Parallel):
    children = property(lambda self: (child for child in (self.left, self.right)))


@pytest.mark.parametrize("kind", [Swapped, Ignores, Without, Method, Misspelt, Generator])
def test_children_that_are_not_as_the_protocol_says_are_one_error(kind):
    layer = kind(nn.Dense(3), nn.Dense(3))
    net = network(layer)
    for check in (
        lambda: certify(net, ["numpy"], steps=1),
        lambda: bisect(net, "numpy", "numpy", steps=1),
        lambda: xray(net, steps=(1,)),
        lambda: check_gradients(net, np.ones((3, 4)), [0, 1, 1]),
    ):
        with pytest.raises(bpxp.errors.InvalidTypeError, match=rf"layer 0 \({kind.__name__}\): children") as caught:
            check()
        assert caught.value.code.endswith("E085")
        assert "check_layer" in caught.value.fix
    assert check_layer_broken(layer) == ("children",)


def test_children_that_are_none_are_not_named():
    class Silent(Parallel):
        children = None

    net = network(Silent(nn.Dense(3), nn.Dense(3)))
    found = certify(net, ["numpy"], steps=1)
    assert found.ok
    assert "layer 0 (Silent): compared as a whole" in found.verdict
    assert bisect(net, "numpy", "numpy", steps=1).difference is None
    assert check_gradients(net, np.ones((3, 4)), [0, 1, 1]).worst < 1e-6
