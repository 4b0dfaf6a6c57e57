"""The gradient check finds what is wrong, names it, and finds nothing where all is right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.errors import GradientCheckError
from bpxp.nn import DenseParams
from bpxp.verify import check_gradients
from bpxp.verify.survey import survey


@pytest.fixture
def batch(rng):
    return rng.normal(size=(5, 4)), rng.integers(0, 3, 5)


def network(backend, *layers, **options):
    return bpxp.Network([4, *(layers or (5,)), 3], backend=backend, seed=2, **options)


def test_right_gradients_pass_on_every_backend(backend, batch):
    report = check_gradients(network(backend, hidden="silu"), *batch, [1, 2, 0, 1, 3])
    assert report.worst < 1e-7
    assert [check.name for check in report.checks] == ["0/W", "0/b", "1/W", "1/b", "x"]
    assert "every entry" in str(report)


def test_the_network_is_not_changed(backend, batch):
    net = network(backend)
    before = [backend.to_numpy(a) for own in net.params for a in own]
    check_gradients(net, *batch)
    after = [backend.to_numpy(a) for own in net.params for a in own]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert net.dtype == "float32"


def test_complex_step_where_everything_is_analytic(batch):
    report = check_gradients(network("numpy", hidden="tanh"), *batch)
    assert all("complex step" in check.method for check in report.checks)
    assert report.worst < 1e-12
    report = check_gradients(network("numpy", hidden="relu"), *batch)
    assert all("differences" in check.method for check in report.checks)


def test_large_networks_along_directions(backend, rng):
    net = bpxp.Network([30, 40, 10], hidden="relu", backend=backend, seed=0)
    report = check_gradients(net, rng.normal(size=(6, 30)), rng.integers(0, 10, 6))
    assert all("3 directions" in check.method for check in report.checks)
    assert report.worst < 1e-7


def test_penalties_are_part_of_the_objective(backend, batch):
    optimizer = optim.SGD(0.1, l1=0.1, l2=0.3, decay_biases=True)
    assert check_gradients(network(backend), *batch, optimizer=optimizer).worst < 1e-7


def test_survey_covers_every_activation_with_every_loss():
    found = dict(survey("numpy"))
    assert len(found) == len(nn.ACTIVATIONS) * len(nn.LOSSES)
    assert max(report.worst for report in found.values()) < 1e-7


@dataclass(frozen=True)
class Wrong(nn.Dense):
    """A dense layer with a mistake in its gradients."""

    mistake: str = ""

    def gradients(self, params, x, delta, /, *, xp):
        dW, db = super().gradients(params, x, delta, xp=xp)
        if self.mistake == "one entry":
            dW = xp.asarray(dW, copy=True)
            dW[1, 2] = dW[1, 2] * 1.01
        if self.mistake == "mean of biases":
            db = db / delta.shape[0]
        if self.mistake == "no sum":
            db = delta * 1.0
        if self.mistake == "not a number":
            db = db * float("nan")
        return DenseParams(dW, db)

    def backward(self, params, x, delta, /, *, xp):
        dx, _ = super().backward(params, x, delta, xp=xp)
        if self.mistake == "transposed":
            dx = xp.matmul(delta, params.W)
        if self.mistake == "dx" or (self.mistake == "half of dx" and delta.shape[0] > 1):
            dx = dx * 0.5
        if self.mistake == "two ways":
            return dx, DenseParams(*(2.0 * g for g in self.gradients(params, x, delta, xp=xp)))
        return dx, self.gradients(params, x, delta, xp=xp)


@pytest.mark.parametrize("size", [4, 30])
@pytest.mark.parametrize(
    ("mistake", "text"),
    [
        ("one entry", r"layer 1 \(Wrong\), dW\[1, 2\] is wrong: got .* by the backward pass.*ratio 1.01"),
        ("mean of biases", r"layer 1 \(Wrong\), db\[\d+\] is wrong.*ratio 0.2"),
        ("not a number", r"layer 1 \(Wrong\), db\[\d+\] is wrong: got nan"),
        ("transposed", r"layer 0 \(Dense\)"),
        ("dx", r"layer 0 \(Dense\), dW\[\d+, \d+\] is wrong.*ratio 0.5"),
    ],
)
def test_mistakes_are_named(backend, rng, size, mistake, text):
    if mistake == "one entry" and backend.name.startswith("jax"):
        pytest.skip("an entry cannot be assigned")
    net = bpxp.Network(
        [size, nn.Dense(size), Wrong(size, mistake=mistake), 3], hidden="tanh", backend=backend, seed=1, dtype="float64"
    )
    with pytest.raises(GradientCheckError, match=text):
        check_gradients(net, rng.normal(size=(5, size)), rng.integers(0, 3, 5), every_entry=100)


def test_a_gradient_of_another_shape_is_found(batch):
    # The loss of a bias (batch, n) would have the derivative delta: only the shape is wrong.
    with pytest.raises(GradientCheckError, match=r"gradient of 0/b has another shape: got \(5, 5\), expected \(5,\)"):
        check_gradients(network("numpy", Wrong(5, mistake="no sum")), *batch)


def test_the_two_ways_to_a_gradient_must_agree(batch):
    net = network("numpy", Wrong(5, mistake="two ways"))
    with pytest.raises(GradientCheckError, match="differ in 0/W"):
        check_gradients(net, *batch)


def test_wrong_losses_are_found(batch):
    @dataclass(frozen=True)
    class Scaled(nn.SoftmaxCrossEntropy):
        def __call__(self, logits, y, weight=None, /, *, xp):
            value, delta = super().__call__(logits, y, weight, xp=xp)
            return value, delta * logits.shape[0]

    with pytest.raises(GradientCheckError, match="ratio 5"):
        check_gradients(network("numpy", loss=Scaled()), *batch)
