"""The code computes the equations beside it, on every backend; the proofs of the output layer, in numbers."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from operations.table import TABLE

import bpxp
from bpxp import nn, optim
from bpxp.equations import Equations
from bpxp.equations.loops import evaluate
from bpxp.errors import BpxpError
from bpxp.nn.normalization import RunningStats
from bpxp.verify import check_equations
from bpxp.verify.equations.catalogue import OPTIONS, catalogue

# Every record of the operation table that states equations, and what no record is about. A convolution without biases is
# given the b of its equations below.
THINGS = {
    **{record.name: record.thing for record in TABLE if hasattr(type(record.thing), "equations")},
    "AdamW, with all options": optim.AdamW(0.1, **OPTIONS),
    "Adam, no memory of g": optim.Adam(0.01, beta1=0.0),
    "SGD, schedule": optim.SGD(optim.ExponentialDecay(0.5, 0.5), momentum=0.5),
    "RMSprop, short gradients, biases too": optim.RMSprop(**{**OPTIONS, "clip_norm": 99.0}, decay_biases=True),
    "Reshape, open": nn.Reshape((-1, 3)),
    "Dropout, none": nn.Dropout(0.0),
}
del THINGS["Conv2D, without biases"]


@pytest.mark.parametrize("name", THINGS)
def test_the_code_computes_its_equations(backend, name):
    report = check_equations(THINGS[name], backend=backend.name)
    assert report.checks
    assert report.worst <= 1e-12


# Neither bases nor protocols compute anything; what a row of layers computes is tested below.
WITHOUT = {"Activation", "Layer", "Loss", "Optimizer", "Schedule", "Sequential"}


def test_everything_that_computes_states_equations_that_are_checked():
    room = [getattr(nn, name) for name in nn.__all__] + [getattr(optim, name) for name in optim.__all__]
    computing = {
        thing
        for thing in room
        if isinstance(thing, type) and any(hasattr(thing, way) for way in ("backward", "activate", "rule", "at"))
    }
    assert {thing.__name__ for thing in computing if not stated(thing)} == WITHOUT
    assert {thing.__name__ for thing in computing} - {type(thing).__name__ for thing in catalogue().values()} == WITHOUT


def stated(thing):
    return isinstance(getattr(thing, "equations", None), Equations)


def test_dropout_multiplies_by_its_mask(backend):
    report = check_equations(nn.Dropout(0.25), (3, 4), backend=backend.name)
    assert [check.of for check in report.checks] == ["", "", "evaluation", "evaluation"]
    assert report.worst <= 1e-15


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 2)], ids=["vectors", "images"])
def test_normalisation(backend, shape):
    assert check_equations(nn.LayerNorm(), shape, backend=backend.name).worst <= 1e-12
    report = check_equations(nn.BatchNorm(0.3, 0.01), shape, backend=backend.name)
    assert report.worst <= 1e-12
    # y, three gradients, two statistics; and in evaluation without these
    assert [check.of for check in report.checks] == [""] * 6 + ["evaluation"] * 4


@pytest.mark.parametrize("present", [[1, 0, 1, 0], [0, 0, 1, 0]], ids=["two", "one"])
def test_absent_samples_do_not_count(backend, present):
    stats = RunningStats(*(backend.asarray(np.array(a)) for a in ([0.5, -1.0], [1.0, 0.5])))
    context = {"training": True, "stats": stats, "present": backend.asarray(np.array(present, dtype=np.float64))}
    report = check_equations(nn.BatchNorm(), (4, 2), context=context, backend=backend.name)
    assert len(report.checks) == 6


@pytest.mark.parametrize("shape", [(2, 5), (2, 2, 3), (2, 3, 2, 2)], ids=["vectors", "sequences", "images"])
def test_shapes_change_row_by_row(backend, shape):
    count = math.prod(shape[1:])
    for layer in (nn.Flatten(), nn.Reshape((count,)), nn.Reshape((1, count)), nn.Reshape((count, 1, 1))):
        assert check_equations(layer, shape, backend=backend.name).worst == 0.0


def test_around_a_branch(backend):
    branch = [nn.Dense(2, "tanh"), nn.BatchNorm(), nn.Dense(3), nn.Dropout(0.5)]
    report = check_equations(nn.Residual(branch), (2, 3), backend=backend.name)
    assert report.worst <= 1e-12


def test_ties_in_a_window_go_to_the_first(backend):
    x = np.zeros((1, 3, 3, 1))
    assert check_equations(nn.MaxPool2D(2, stride=1), x, backend=backend.name).worst == 0.0


def test_a_convolution_without_bias():
    assert check_equations(nn.Conv2D(2, 2, bias=False), (1, 3, 3, 1), given={"b": 0.0}, backend="numpy").worst <= 1e-12


# --- layers in a row


def test_layers_in_a_row_are_their_equations_one_after_the_other(backend):
    """What comes out of a layer goes into the next, and back: by loops alone, from one end to the other."""
    layers = (nn.Dense(3, "tanh"), nn.LayerNorm(), nn.Dense(2, "sigmoid"))
    model, rng = nn.Sequential(layers), np.random.default_rng(0)
    drawn, _ = model.init(bpxp.core.random.HostRandom(0), (4,))
    params = tuple(type(own)(*(a + 0.1 * rng.normal(size=a.shape) for a in own)) for own in drawn)
    x, dy = rng.normal(size=(2, 4)), rng.normal(size=(2, 2))
    parts = [
        (layers[0], params[0]),
        (nn.Tanh(), ()),
        (layers[1], params[1]),
        (layers[2], params[2]),
        (nn.Sigmoid(), ()),
    ]
    lines, inputs, out = [], [], x
    for part, own in parts:
        given = {"z" if isinstance(part, nn.Activation) else "x": out, **(own._asdict() if own else {})}
        inputs.append({**given, "epsilon": 1e-5})
        lines.append({name: equation.text for name, equation in part.equations.items()})
        forward = Equations(**{name: line for name, line in lines[-1].items() if not name.startswith("d")})
        out = evaluate(forward, inputs[-1])[part.equations["forward"].target.name]
    back, grads = dy, []
    for (part, own), known, line in reversed(list(zip(parts, inputs, lines, strict=True))):
        name = part.equations["forward"].target.name
        found = evaluate(Equations(**line), {**known, "delta": back, f"d{name}": back})
        back = found["dz" if isinstance(part, nn.Activation) else "dx"]
        if own:
            grads.insert(0, [found[f"d{field}"] for field in own._fields])

    def put(tree):
        return bpxp.core.tree.tree_map(backend.asarray, tree)

    def both_ways(_, data):
        params, x, dy = data
        y, caches = model.forward(params, x, xp=backend.xp)
        return y, *model.backward(params, caches, dy, xp=backend.xp)

    y, dx, found = backend.compile(both_ways)((), put((params, x, dy)))
    np.testing.assert_allclose(backend.to_numpy(y), out, rtol=1e-13)
    np.testing.assert_allclose(backend.to_numpy(dx), back, rtol=1e-12)
    for own, loops in zip(found, grads, strict=True):
        for a, b in zip(own, loops, strict=True):
            np.testing.assert_allclose(backend.to_numpy(a), b, rtol=1e-12)


def network(**options):
    layers = [
        nn.Conv2D(8, 3),
        nn.MaxPool2D(),
        nn.Residual([nn.Conv2D(8, 3, padding="same"), nn.BatchNorm()]),
        nn.Flatten(),
    ]
    return bpxp.Network([*layers, nn.Dropout(), 20, 20, 10], input_shape=(28, 28, 1), hidden="relu", **options)


def test_a_network_is_checked_on_its_backend(backend):
    report = check_equations(bpxp.Network([4, 3, 2], backend=backend))
    assert report.worst <= 1e-12
    assert len(report.checks) == 2 * 4 + 2 + 3  # dense layers, sigmoid, loss


def test_the_parts_of_a_network():
    report = check_equations(network(backend="numpy"))
    assert report.worst <= 1e-12
    assert not report.unchecked
    found = list(dict.fromkeys(check.of for check in report.checks))
    assert found == [
        "0 Conv2D",
        "0, 5, 6 ReLU",
        "1 MaxPool2D",
        "2 Residual",
        "2.0 Conv2D",
        "2.1 BatchNorm",
        "2.1 BatchNorm, evaluation",
        "3 Flatten",
        "4 Dropout",
        "4 Dropout, evaluation",
        "5, 6 Dense",
        "7 Dense",
        "loss SoftmaxCrossEntropy",
    ]
    assert str(report).count("2.1 BatchNorm, evaluation") == 1


def test_a_network_is_checked_in_float64_where_there_is_none(monkeypatch):
    monkeypatch.setattr("bpxp.verify.equations.check_equations.has_float64", lambda backend: False)
    assert check_equations(bpxp.Network([4, 3, 2], backend="strict")).worst <= 1e-12


def test_what_cannot_be_checked_is_named():
    @dataclasses.dataclass(frozen=True)
    class Silent(nn.Tanh):
        equations = None

    @dataclasses.dataclass(frozen=True)
    class Huge(nn.Flatten):
        def init(self, rng, in_shape):
            return (), (10**6,)

    @dataclasses.dataclass(frozen=True)
    class Choosy(nn.Identity):
        def init(self, rng, in_shape):
            if in_shape != (7,):
                raise BpxpError("layer", "seven", code="E014")
            return (), in_shape

    report = check_equations(nn.Sequential((Silent(), nn.Dense(2), Choosy(), Huge())), backend="numpy")
    assert report.unchecked == (
        "0 Silent, which states no equations",
        "2 Choosy, which takes no small input",
        "3 Huge, which takes no small input",
    )
    assert str(report).endswith("\nnot checked: 3 Huge, which takes no small input")
    assert {check.of for check in report.checks} == {"1 Dense"}


# --- the proofs of the output layer, in numbers


def loss_of(activate, cost, z, y):
    return cost(activate(z), y)


def differences(function, z, h=1e-5):
    """Return the derivative of a function by each entry of z, by central differences of fourth order."""
    found = []
    for i in range(z.size):
        d = np.zeros_like(z)
        d.flat[i] = h
        f1, f2 = function(z + d) - function(z - d), function(z + 2 * d) - function(z - 2 * d)
        found.append((8 * f1 - f2) / (12 * h))
    return np.stack(found, axis=-1)


Z, Y = np.array([0.3, -1.2, 2.0]), np.array([0.2, 0.5, 0.3])


def softmax(z):
    return nn.softmax(z, xp=np)


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def test_the_softmax_jacobian():
    jacobian = nn.softmax_jacobian(softmax(Z), xp=np)
    np.testing.assert_allclose(jacobian, differences(softmax, Z), rtol=1e-9, atol=1e-12)
    loops = Equations(j="D[j,k] = a[k]*([j == k] - a[j])")
    np.testing.assert_allclose(jacobian, evaluate(loops, {"a": softmax(Z)})["D"], rtol=1e-14)


def test_softmax_and_cross_entropy_cancel_to_a_minus_y():
    a = softmax(Z)
    by_chain_rule = np.sum((-Y / a)[:, None] * nn.softmax_jacobian(a, xp=np), axis=0)
    np.testing.assert_allclose(by_chain_rule, a - Y, rtol=1e-14)
    np.testing.assert_allclose(differences(lambda z: -np.sum(Y * np.log(softmax(z))), Z), a - Y, rtol=1e-9)


def test_sigmoid_and_binary_cross_entropy_cancel_to_a_minus_y():
    def cost(z):
        return -np.sum(Y * np.log(sigmoid(z)) + (1 - Y) * np.log(1 - sigmoid(z)))

    np.testing.assert_allclose(differences(cost, Z), sigmoid(Z) - Y, rtol=1e-9)


def test_the_factor_of_sigma_prime_belongs_to_the_squared_error():
    a = sigmoid(Z)
    copied = (a - Y) * a * (1 - a)
    np.testing.assert_allclose(differences(lambda z: 0.5 * np.sum((sigmoid(z) - Y) ** 2), Z), copied, rtol=1e-9)
    assert np.all(np.abs(copied) < 0.26 * np.abs(a - Y))  # what it costs the cross-entropy
