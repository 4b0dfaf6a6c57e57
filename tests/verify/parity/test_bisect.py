"""Bisection names the equation in which a fault is planted, and finds nothing where there is none."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from helpers.faulty_backends import FAULTS, KINDS, Planted, faulty, off, short_sum, tf32

import bpxp
from bpxp import nn, optim
from bpxp.errors import InvalidValueError
from bpxp.verify import bisect

IMAGES = [
    nn.Conv2D(4, 3, padding="same", activation="relu"),
    nn.MaxPool2D(2),
    nn.Conv2D(4, 3, bias=False),
    nn.BatchNorm(),
    nn.Residual(nn.Conv2D(4, 1, activation="tanh")),
    nn.Flatten(),
    nn.Dense(8, "softplus"),
    nn.LayerNorm(),
    3,
]
# The equations that a call may spoil, by who calls what. What a layer computes in several equations at once, such as a
# mean that both y and the running statistics take, is told by the first.
SPOILED = {
    ("Dense", "forward", "matmul"): {"forward"},
    ("Dense", "gradients", "matmul"): {"dW"},
    ("Dense", "gradients", "sum"): {"db"},
    ("Dense", "backward", "matmul"): {"dx"},
    ("Conv2D", "forward", "matmul"): {"forward"},
    ("Conv2D", "gradients", "matmul"): {"dW"},
    ("Conv2D", "gradients", "sum"): {"db"},
    ("Conv2D", "backward", "matmul"): {"dx"},
    ("BatchNorm", "gradients", "sum"): {"dgamma", "dbeta"},
    ("LayerNorm", "gradients", "sum"): {"dgamma", "dbeta"},
    ("LayerNorm", "backward", "sum"): {"dx"},
    ("SoftmaxCrossEntropy", "__call__", "sum"): {"J"},
    ("SoftmaxCrossEntropy", "__call__", "exp"): {"J", "delta"},
    ("SoftmaxCrossEntropy", "__call__", "log"): {"J"},
}
METHODS = {"forward": {"forward"}, "backward": {"dx", "dz"}}


def mlp(**options):
    return bpxp.Network([20, 9, 4], hidden="tanh", backend="numpy", seed=0, **options)


def cnn():
    return bpxp.Network(IMAGES, input_shape=(6, 6, 2), backend="numpy", seed=1)


NETWORKS = {"dense": mlp, "sigmoid": lambda: bpxp.Network([20, 9, 4], backend="numpy", seed=0), "images": cnn}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_call_of_a_step_with_a_fault_is_named(name, promise, nightly):
    net = NETWORKS[name]()
    options = {"steps": 1, "batch_size": 6, "optimizer": optim.SGD(0.1)}
    u = np.random.default_rng(0).uniform(0.1, 1.0, (12, net.output_shape[0]))
    data = np.random.default_rng(1).normal(size=(12, *net.input_shape)), u / u.sum(axis=1, keepdims=True)  # no 0
    counting = Planted()
    assert bisect(net, "numpy", counting.backend, data, **options).difference is None
    places = [n for n, (_, thing, _) in enumerate(counting.calls) if thing]
    places = places if nightly or name != "images" else places[::4]
    missed, misnamed = [], []
    for n, kind in itertools.product(places, KINDS):
        planted = Planted(n, kind)
        found = bisect(net, "numpy", planted.backend, data, **options).difference
        function, thing, method = counting.calls[n]
        if found is None:
            missed.append((*counting.calls[n], kind))
            continue
        spoiled = SPOILED.get((thing, method, function)) or METHODS[method]
        if f"({thing})" not in found.part or found.equation not in spoiled:
            misnamed.append((*counting.calls[n], kind, found.part, found.equation))
    count = len(places) * len(KINDS)
    told = f"{count} faults, {count - len(missed) - len(misnamed)} located at their equation"
    promise(f"Bisection of two backends, a fault injected into one call of a step ({name})", told)
    assert (missed, misnamed) == ([], [])


@pytest.mark.parametrize(
    ("amended", "part", "equation", "operation"),
    [
        ({"matmul": tf32}, "layer 0 (Dense)", "forward", "xp.matmul"),
        ({"tanh": off("tanh")}, "layer 0 (Tanh)", "forward", "xp.tanh"),
        ({"sum": short_sum}, "loss (SoftmaxCrossEntropy)", "J", "xp.sum"),
        ({"exp": off("exp")}, "loss (SoftmaxCrossEntropy)", "J", "xp.exp"),
        ({"sqrt": off("sqrt", 1e-2)}, "optimizer (Adagrad)", "step", "xp.sqrt"),
    ],
)
def test_the_function_that_is_to_blame_is_named(amended, part, equation, operation):
    found = bisect(mlp(), "numpy", faulty(**amended), optimizer=optim.Adagrad(0.01), batch_size=8)
    difference = found.difference
    assert difference is not None
    assert (difference.part, difference.operation) == (part, operation)
    assert difference.equation == equation
    assert difference.step == 1
    assert abs(difference.values[0] - difference.values[1]) > difference.bound
    assert abs(difference.values[0] - difference.expected) < difference.bound  # the first is right
    assert difference.line in str(found)
    assert f"first in {operation}" in str(found)
    assert json.loads(found.to_json())["difference"]["equation"] == difference.equation


def test_what_comes_before_the_rule_is_told_apart():
    clipping = optim.SGD(0.1, l2=0.1, clip_norm=0.01, clip_value=0.001, average=0.9)
    found = bisect(mlp(), "numpy", faulty(sqrt=off("sqrt")), optimizer=clipping)
    assert (found.difference.equation, found.difference.operation) == ("by_norm", "xp.sqrt")
    assert found.difference.place == "0/W"
    assert "0/W[" in str(found)
    assert bisect(mlp(), "numpy", "numpy", optimizer=clipping).difference is None


def test_a_fault_that_shows_later_is_found_in_its_step():
    count = [0]

    def tanh(x):
        count[0] += 1
        return off("tanh")(x) if count[0] == 4 else np.tanh(x)

    assert bisect(mlp(), "numpy", faulty(tanh=tanh), steps=6).difference.step == 4


def test_tf32_in_a_long_sum_is_within_the_bound_and_beyond_the_estimate():
    net = bpxp.Network([784, 5, 4], backend="numpy", seed=0)
    estimate = bisect(net, "numpy", faulty(matmul=tf32)).difference
    bound = bisect(net, "numpy", faulty(matmul=tf32), statistical=False).difference
    assert (estimate.part, estimate.equation) == ("layer 0 (Dense)", "forward")
    assert (bound.part, bound.equation) == ("layer 1 (Dense)", "forward")


@pytest.mark.parametrize("name", NETWORKS)
def test_nothing_is_found_where_nothing_is_wrong(backend, name, nightly):
    optimizer = optim.Adam(0.01, clip_norm=0.1)
    if backend.name.startswith("jax") and not nightly:  # each operation is compiled by itself
        if name != "dense":
            pytest.skip("takes too long")
        optimizer = optim.SGD(0.1)
    found = bisect(NETWORKS[name](), "numpy", backend, steps=3, batch_size=6, optimizer=optimizer)
    assert found.difference is None, str(found)
    assert found.compared >= 3 * 16
    assert "none differs" in str(found)


def test_it_is_the_bound_that_decides():
    # A last bit is no difference, ten of them are.
    for by, wrong in ((6e-8, False), (3e-6, True)):
        found = bisect(mlp(), "numpy", faulty(tanh=off("tanh", by)), steps=1)
        assert (found.difference is not None) is wrong


def test_the_network_is_not_changed():
    net = mlp()
    before = [p.W.copy() for p in net.params]
    bisect(net, "numpy", "numpy", steps=2)
    assert all(np.array_equal(a, p.W) for a, p in zip(before, net.params, strict=True))


def test_wrong_arguments():
    with pytest.raises(InvalidValueError, match="steps"):
        bisect(mlp(), "numpy", "numpy", steps=0)
    with pytest.raises(bpxp.BpxpError, match="no float64"):
        bisect(mlp(), "numpy", "strict:no_float64", dtype="float64")


def test_every_fault_is_a_fault():
    x = np.linspace(0.1, 2.0, 12, dtype=np.float32).reshape(3, 4)
    for name, wrong in FAULTS.items():
        arguments = (x, x.T) if name == "matmul" else (x,)
        assert not np.allclose(wrong(*arguments), getattr(np, name)(*arguments), rtol=2e-6), name
