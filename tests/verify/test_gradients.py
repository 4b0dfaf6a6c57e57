"""The gradient check finds what is wrong, names it, and finds nothing where all is right."""

from __future__ import annotations

import math
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


# ---------------------------------------------------------------- kinks

XOR = [[0, 0], [0, 1], [1, 0], [1, 1]], [[0], [1], [1], [0]]


def xor(seed, hidden="relu", **options):
    options = {"loss": "binary_cross_entropy", "backend": "numpy", **options}
    return bpxp.Network([2, 4, 1], hidden=hidden, seed=seed, **options)


def pooled(backend, seed, pool):
    layers = [nn.Conv2D(3, 3, padding="same"), pool, nn.Conv2D(4, 2), nn.MaxPool2D(3, 2), nn.Flatten(), 3]
    return bpxp.Network(layers, input_shape=(9, 9, 1), hidden="relu", init="he", backend=backend, seed=seed)


@pytest.fixture
def flat_images(rng):
    """Images that are 0 outside of the middle: ties of every maximum, and ReLU at 0 where the biases are 0."""
    x = np.zeros((4, 9, 9, 1))
    x[:, 3:6, 3:6] = rng.integers(0, 3, (4, 3, 3, 1)) / 2
    return x, [0, 1, 2, 0]


def test_kinks_are_told_from_faults_and_counted(backend):
    for seed in range(3):
        report = check_gradients(xor(seed, backend=backend), *XOR)
        kinks = {check.name: check.kinks for check in report.checks}
        # x = (0, 0) and biases of 0: every hidden unit is at 0, and no weight of the first layer can move it.
        assert (kinks["0/W"], kinks["0/b"], kinks["1/W"], kinks["1/b"], kinks["x"]) == (0, 4, 0, 0, 2)
        assert report.worst < 1e-7
        assert [str(kink) for kink in report.kinks] == ["layer 0 (ReLU): 4 of 16 outputs"]
        assert "at kinks: layer 0 (ReLU): 4 of 16 outputs" in str(report)


def test_without_kinks_the_report_is_silent(batch):
    report = check_gradients(network("numpy", hidden="relu"), *batch)
    assert report.kinks == ()
    assert sum(check.kinks for check in report.checks) == 0
    assert "kinks" not in str(report)


@pytest.mark.parametrize("pool", [nn.MaxPool2D(2), nn.MaxPool2D(3, 1), nn.MaxPool2D(3, 2, 1)], ids=str)
def test_ties_of_maxima(pool, flat_images):
    for seed in range(3):
        report = check_gradients(pooled("numpy", seed, pool), *flat_images)
        assert report.worst < 1e-7
        assert any("MaxPool2D" in kinks.part for kinks in report.kinks)


@pytest.mark.parametrize("name", nn.ACTIVATIONS)
def test_every_activation_at_zero(name):
    for seed in range(2):
        assert check_gradients(xor(seed, name), *XOR).worst < 1e-6


@pytest.mark.parametrize("loss", ["mean_absolute_error", "huber"])
def test_residuals_of_zero(loss, rng):
    net = bpxp.Network([4, 5, 3], hidden="relu", loss=loss, backend="numpy", seed=1)
    x = rng.normal(size=(6, 4))
    x[:3] = 0.0
    y = np.where(np.arange(6)[:, None] < 4, net.backend.to_numpy(net.predict(x)), 0.0)  # float32: nearly at the kink
    assert check_gradients(net, np.zeros((6, 4)), np.zeros((6, 3))).worst < 1e-6
    assert check_gradients(net, x, y).worst < 1e-6


@dataclass(frozen=True)
class AtZero(nn.Activation):
    """ReLU, ELU or a square, whose derivative at exactly 0 is what it likes."""

    function: str = "relu"
    slope: float = 0.0

    def forward(self, params, z, /, *, xp):
        positive = xp.maximum(z, xp.zeros_like(z))
        if self.function == "relu":
            return positive, z
        return (xp.where(z > 0.0, z, xp.expm1(z - positive)) if self.function == "elu" else z * z + z), z

    def backward(self, params, z, da, /, *, xp):
        at_zero = xp.astype(z == 0.0, z.dtype) * self.slope
        if self.function == "relu":
            slope = xp.astype(z > 0.0, z.dtype)
        elif self.function == "elu":
            slope = xp.where(z > 0.0, xp.ones_like(z), xp.exp(z)) * xp.astype(z != 0.0, z.dtype)
        else:
            slope = (2.0 * z + 1.0) * xp.astype(z != 0.0, z.dtype)
        return da * (slope + at_zero), ()


@pytest.mark.parametrize(
    ("function", "slope", "right"),
    [
        *(("relu", slope, 0.0 <= slope <= 1.0) for slope in (0.0, 0.5, 1.0, 1.001, 2.0, -0.001, -1.0, math.nan)),
        *(("elu", slope, slope == 1.0) for slope in (1.0, 0.0, 0.999, 1.001)),
        *(("square", slope, slope == 1.0) for slope in (1.0, 0.0, 0.999, 1.001)),
    ],
)
def test_a_wrong_value_at_a_kink_is_found_and_so_is_one_where_there_is_none(backend, function, slope, right):
    net = xor(0, AtZero(function, slope), backend=backend)
    if right:
        assert check_gradients(net, *XOR).worst < 1e-6
    else:
        with pytest.raises(GradientCheckError, match="is wrong"):
            check_gradients(net, *XOR)


@dataclass(frozen=True)
class Ties(nn.MaxPool2D):
    """Max pooling that gives the gradient to every tied maximum, or a share of it to each."""

    shared: bool = False

    def forward(self, params, x, /, *, xp):
        y, _ = super().forward(params, x, xp=xp)
        return y, (x, y)

    def backward(self, params, cache, dy, /, *, xp):
        x, y = cache
        large, delta = (xp.repeat(xp.repeat(a, 2, axis=1), 2, axis=2) for a in (y, dy))
        cut = (slice(None), slice(large.shape[1]), slice(large.shape[2]))
        tied = xp.astype(x[cut] == large, dy.dtype)
        if self.shared:
            n, h, w, c = tied.shape
            count = xp.sum(xp.reshape(tied, (n, h // 2, 2, w // 2, 2, c)), axis=(2, 4))
            tied = tied / xp.repeat(xp.repeat(count, 2, axis=1), 2, axis=2)
        dx = xp.zeros_like(x)
        dx[cut] = delta * tied
        return dx, ()


def test_a_gradient_that_every_tied_maximum_gets_is_wrong_and_a_share_of_it_is_right(flat_images):
    def net(pool):
        layers = [nn.Conv2D(3, 3, padding="same"), pool, nn.Flatten(), 3]
        return bpxp.Network(layers, input_shape=(9, 9, 1), hidden="tanh", backend="numpy", seed=0)

    x = np.ones((2, 9, 9, 1))  # ties that no weight breaks, and that each pixel does
    for images, labels in (flat_images, (x, [0, 1])):
        assert check_gradients(net(Ties(2, shared=True)), images, labels).worst < 1e-6
        with pytest.raises(GradientCheckError, match=r"MaxPool2D|Ties|Conv2D"):
            check_gradients(net(Ties(2)), images, labels)


@pytest.mark.parametrize("mistake", ["one entry", "mean of biases", "not a number", "transposed", "dx"])
@pytest.mark.parametrize("every_entry", [0, 1000])
def test_mistakes_are_found_among_kinks(mistake, every_entry):
    x = np.zeros((5, 4))
    x[3:] = [[1.0, 0.5, -0.5, 2.0], [0.0, 1.0, 0.0, 3.0]]
    layers = [4, nn.Dense(4, "relu"), Wrong(4, "relu", mistake=mistake), nn.Residual([nn.Dense(4, "relu")]), 3]
    net = bpxp.Network(layers, hidden="relu", backend="numpy", seed=1, dtype="float64")
    with pytest.raises(GradientCheckError, match=r"layer [01] \((Dense|Wrong)\)|∂J/∂x"):
        check_gradients(net, x, [0, 1, 2, 0, 1], every_entry=every_entry)
    layers[2] = nn.Dense(4, "relu")
    right = bpxp.Network(layers, hidden="relu", backend="numpy", seed=1, dtype="float64")
    assert sum(check.kinks for check in check_gradients(right, x, [0, 1, 2, 0, 1], every_entry=every_entry).checks)


def test_a_container_of_kinks_that_forgets_a_path_is_found():
    @dataclass(frozen=True)
    class Forgets(nn.Residual):
        def backward(self, params, cache, dy, /, *, xp):
            dx, grads = super().backward(params, cache, dy, xp=xp)
            return dx - dy, grads

    x = np.zeros((4, 4))
    x[2:] = 1.0
    for kind, right in ((nn.Residual, True), (Forgets, False)):
        net = bpxp.Network([4, nn.Dense(4, "relu"), kind([nn.Dense(4, "relu")]), 3], backend="numpy", seed=1)
        if right:
            check_gradients(net, x, [0, 1, 2, 0])
        else:
            with pytest.raises(GradientCheckError):
                check_gradients(net, x, [0, 1, 2, 0])
