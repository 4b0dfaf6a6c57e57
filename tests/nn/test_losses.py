"""Each loss against its definition, its output error against differences, and what weights and odd targets do."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp.backends
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn import (
    LOSSES,
    BinaryCrossEntropy,
    Huber,
    MeanAbsoluteError,
    MeanSquaredError,
    Poisson,
    SoftmaxCrossEntropy,
    class_weights_to_sample_weights,
    get_loss,
    log_softmax,
    one_hot,
    softmax,
    softmax_jacobian,
)
from bpxp.nn.functions import logistic, softplus

NUMPY = bpxp.backends.get_backend("numpy")
CASES = {
    **LOSSES,
    "softmax_smoothed": SoftmaxCrossEntropy(label_smoothing=0.1),
    "binary_smoothed": BinaryCrossEntropy(label_smoothing=0.1),
    "binary_weighted": BinaryCrossEntropy(pos_weight=3.0),
    "binary_weighted_each": BinaryCrossEntropy(pos_weight=(3.0, 0.5, 1.0, 2.0), label_smoothing=0.1),
    "huber_2": Huber(threshold=2.0),
}
NAMES = list(CASES)


def logits_and_targets(loss, rng, batch=5, n_out=4):
    """Random logits, and targets that are no nearer than 0.01 to a kink."""
    z = 2.0 * rng.standard_normal((batch, n_out))
    if loss.targets == "classes":
        return z, rng.integers(0, n_out, batch).astype(np.int32)
    if loss.targets == "labels":
        return z, (rng.random((batch, n_out)) < 0.5).astype(float)
    if loss.targets == "counts":
        return z, rng.poisson(2.0, (batch, n_out)).astype(float)
    far = rng.choice([-3.0, -1.5, -0.5, 0.5, 1.5, 3.0], (batch, n_out))
    return z, z + far + rng.uniform(-0.2, 0.2, (batch, n_out))


def definition(loss, z, y):
    """J_n of each sample, the slow and obvious way, in extended precision."""
    z, y = z.astype(np.longdouble), y if y.ndim == 1 else y.astype(np.longdouble)
    if isinstance(loss, SoftmaxCrossEntropy):
        y = np.eye(z.shape[1])[y] if y.ndim == 1 else y
        y = (1 - loss.label_smoothing) * y + loss.label_smoothing / z.shape[1]
        return -np.sum(y * np.log(np.exp(z) / np.sum(np.exp(z), axis=1, keepdims=True)), axis=1)
    if isinstance(loss, BinaryCrossEntropy):
        a, known = 1 / (1 + np.exp(-z)), ~np.isnan(y)
        y = (1 - loss.label_smoothing) * y + loss.label_smoothing / 2
        terms = -np.asarray(loss.pos_weight) * y * np.log(a) - (1 - y) * np.log(1 - a)
        return np.sum(np.where(known, terms, 0), axis=1)
    d = z - y if y.ndim > 1 else None
    if isinstance(loss, MeanSquaredError):
        return np.mean(d**2, axis=1)
    if isinstance(loss, MeanAbsoluteError):
        return np.mean(np.abs(d), axis=1)
    if isinstance(loss, Huber):
        t = loss.threshold
        return np.mean(np.where(np.abs(d) <= t, d**2 / 2, t * (np.abs(d) - t / 2)), axis=1)
    assert isinstance(loss, Poisson)
    return np.mean(np.exp(z) - y * z, axis=1)


def evaluate(loss, backend, on, z, y, weight=None):
    own = None if weight is None else on(backend, weight)
    value, delta = loss(on(backend, z), on(backend, y), own, xp=backend.xp)
    assert tuple(value.shape) == (1,)
    assert tuple(delta.shape) == z.shape
    assert str(value.dtype).endswith(str(z.dtype))
    assert str(delta.dtype).endswith(str(z.dtype))
    return backend.to_numpy(value), backend.to_numpy(delta)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_value_is_the_weighted_mean_of_the_definition(name, weighted, backend, on, rng):
    loss = CASES[name]
    z, y = logits_and_targets(loss, rng)
    weight = np.array([1.0, 0.0, 2.5, 0.3, 1.0]) if weighted else None
    value, _ = evaluate(loss, backend, on, z, y, weight)
    expected = np.average(definition(loss, z, y), weights=weight)
    np.testing.assert_allclose(value, [float(expected)], rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_batch_without_weight_is_zero(name, backend, on, rng):
    loss = CASES[name]
    z, y = logits_and_targets(loss, rng)
    value, delta = evaluate(loss, backend, on, z, y, np.zeros(5))
    assert value[0] == 0.0
    assert np.all(delta == 0.0)


@pytest.mark.parametrize("name", NAMES)
def test_weight_counts_like_repetition_and_scale_does_not_matter(name, backend, on, rng):
    loss = CASES[name]
    z, y = logits_and_targets(loss, rng)
    value, delta = evaluate(loss, backend, on, z, y, np.array([2.0, 0.0, 1.0, 1.0, 1.0]))
    rows = [0, 0, 2, 3, 4]
    repeated, each = evaluate(loss, backend, on, z[rows], y[rows])
    np.testing.assert_allclose(value, repeated, rtol=1e-13)
    np.testing.assert_allclose(delta[0], each[0] + each[1], rtol=1e-12, atol=1e-16)
    assert np.all(delta[1] == 0.0)
    scaled = evaluate(loss, backend, on, z, y, np.array([200.0, 0.0, 100.0, 100.0, 100.0]))
    np.testing.assert_allclose(scaled[0], value, rtol=1e-13)
    np.testing.assert_allclose(scaled[1], delta, rtol=1e-12, atol=1e-16)


# --- softmax ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "int64"])
def test_class_indices_of_any_integer_type_equal_one_hot_rows(dtype, backend, on, rng):
    z = rng.standard_normal((6, 300))
    y = np.array([0, 1, 255, 7, 128, 2])
    rows = np.eye(300)[y]
    loss = SoftmaxCrossEntropy()
    value, delta = evaluate(loss, backend, on, z, y.astype(dtype))
    expected, same = evaluate(loss, backend, on, z, rows)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(delta, same)
    # integer rows, too
    np.testing.assert_array_equal(evaluate(loss, backend, on, z, rows.astype(np.int32))[1], delta)


def test_delta_is_a_minus_y_over_the_batch(backend, on, rng):
    z, y = logits_and_targets(SoftmaxCrossEntropy(), rng)
    _, delta = evaluate(SoftmaxCrossEntropy(), backend, on, z, y)
    a = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(delta, (a - np.eye(4)[y]) / 5, rtol=1e-12, atol=1e-16)
    z, y = logits_and_targets(BinaryCrossEntropy(), rng)
    _, delta = evaluate(BinaryCrossEntropy(), backend, on, z, y)
    np.testing.assert_allclose(delta, (1 / (1 + np.exp(-z)) - y) / 5, rtol=1e-12)


def test_soft_labels_and_smoothing_are_one_thing(backend, on, rng):
    z, y = logits_and_targets(SoftmaxCrossEntropy(), rng)
    soft = 0.8 * np.eye(4)[y] + 0.2 / 4
    value, delta = evaluate(SoftmaxCrossEntropy(label_smoothing=0.2), backend, on, z, y)
    expected, same = evaluate(SoftmaxCrossEntropy(), backend, on, z, soft)
    np.testing.assert_allclose(value, expected, rtol=1e-13)
    np.testing.assert_allclose(delta, same, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_softmax_of_the_largest_numbers(dtype, backend, on):
    top = np.finfo(dtype).max
    z = np.array([[top, 0.0, -top / 4], [top / 2, top / 2, 0.0], [-top, -top, -top], [0.0, -1e4, 1e4]], dtype)
    xp = backend.xp
    a = backend.to_numpy(softmax(on(backend, z[1:]), xp=xp))
    np.testing.assert_allclose(
        a, [[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3], [0.0, 0.0, 1.0]], rtol=4 * np.finfo(dtype).eps
    )
    log_a = backend.to_numpy(log_softmax(on(backend, z[1:]), xp=xp))
    assert np.all(np.isfinite(log_a))
    np.testing.assert_allclose(log_a[2], [-1e4, -2e4, 0.0])
    value, delta = evaluate(SoftmaxCrossEntropy(), backend, on, z[1:3], np.array([2, 0]))
    np.testing.assert_allclose(value, [top / 4], rtol=1e-6)
    assert np.all(np.isfinite(delta))


def test_probability_keeps_its_relative_accuracy(backend, on):
    z = np.array([[0.0, -700.0]])
    np.testing.assert_allclose(
        backend.to_numpy(softmax(on(backend, z), xp=backend.xp))[0, 1], np.exp(-700.0), rtol=1e-15
    )


def test_softmax_jacobian_by_complex_step(backend, on, rng):
    z = rng.standard_normal((2, 4))
    a = softmax(z, xp=NUMPY.xp)
    jacobian = backend.to_numpy(softmax_jacobian(on(backend, a), xp=backend.xp))
    assert jacobian.shape == (2, 4, 4)
    for k in range(4):
        stepped = softmax(z + 1e-30j * np.eye(4)[k], xp=NUMPY.xp).imag / 1e-30
        np.testing.assert_allclose(jacobian[:, :, k], stepped, rtol=1e-12)
    narrow = softmax_jacobian(on(backend, a[:, None, :], "float32"), xp=backend.xp)  # of a sequence
    assert narrow.dtype == backend.xp.float32
    np.testing.assert_allclose(backend.to_numpy(narrow), jacobian[:, None, :, :], rtol=1e-5, atol=1e-7)


def test_one_hot(backend, on):
    rows = one_hot(on(backend, np.array([2, 0], np.uint8)), 3, dtype=backend.xp.float32, xp=backend.xp)
    assert rows.dtype == backend.xp.float32
    np.testing.assert_array_equal(backend.to_numpy(rows), [[0, 0, 1], [1, 0, 0]])


# --- binary ----------------------------------------------------------------------------------------------------------


def test_missing_label_contributes_nothing(backend, on, rng):
    z, y = logits_and_targets(BinaryCrossEntropy(), rng)
    missing = rng.random(y.shape) < 0.4
    missing[0] = True
    for loss in (BinaryCrossEntropy(), CASES["binary_weighted_each"]):
        value, delta = evaluate(loss, backend, on, z, np.where(missing, np.nan, y))
        np.testing.assert_allclose(value, [float(definition(loss, z, np.where(missing, np.nan, y)).mean())], rtol=1e-13)
        _, complete = evaluate(loss, backend, on, z, y)
        np.testing.assert_allclose(delta, np.where(missing, 0.0, complete), rtol=1e-15)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_labels_of_any_type(dtype, backend, on, rng):
    z, y = logits_and_targets(BinaryCrossEntropy(), rng)
    loss = BinaryCrossEntropy(pos_weight=2.0, label_smoothing=0.1)
    value, delta = evaluate(loss, backend, on, z, y.astype(dtype))
    expected, same = evaluate(loss, backend, on, z, y)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(delta, same)


def test_single_label_may_be_a_vector(backend, on, rng):
    z, y = logits_and_targets(BinaryCrossEntropy(), rng, n_out=1)
    np.testing.assert_array_equal(
        evaluate(BinaryCrossEntropy(), backend, on, z, y[:, 0])[1], evaluate(BinaryCrossEntropy(), backend, on, z, y)[1]
    )


def test_pos_weight_of_each_label(backend, on, rng):
    z, y = logits_and_targets(BinaryCrossEntropy(), rng)
    value, delta = evaluate(BinaryCrossEntropy(pos_weight=(2.0, 2.0, 2.0, 2.0)), backend, on, z, y)
    expected, same = evaluate(BinaryCrossEntropy(pos_weight=2.0), backend, on, z, y)
    np.testing.assert_allclose(value, expected, rtol=1e-15)
    np.testing.assert_array_equal(delta, same)
    with pytest.raises(InvalidValueError, match="one weight per label is needed: got 2 weights, expected 4"):
        evaluate(BinaryCrossEntropy(pos_weight=(1.0, 2.0)), backend, on, z, y)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_nearly_certain_labels_keep_their_relative_accuracy(dtype, backend, on):
    z, y = alone([80.0, -80.0, 60.0, -30.0, 17.0], [1.0, 0.0, 1.0, 0.0, 1.0], dtype)
    exact = np.log1p(np.exp(-np.abs(z[:, 0].astype(np.longdouble))))
    rounding = 8 * np.finfo(dtype).eps
    for n in range(5):
        value, delta = evaluate(BinaryCrossEntropy(), backend, on, z, y, np.eye(5, dtype=dtype)[n])
        np.testing.assert_allclose(value, exact[n : n + 1].astype(dtype), rtol=rounding)
        sign = -1.0 if y[n, 0] else 1.0
        np.testing.assert_allclose(delta[n, 0], (sign * -np.expm1(-exact[n])).astype(dtype), rtol=rounding)
    a = backend.to_numpy(BinaryCrossEntropy().activate(on(backend, z), xp=backend.xp))
    exact = 1 / (1 + np.exp(-z.astype(np.longdouble)))
    np.testing.assert_allclose(a, exact.astype(dtype), rtol=rounding)


def alone(z, y, dtype):
    """One known label per sample, and three that are missing."""
    return (
        np.stack([z, np.ones(5), -np.ones(5), np.ones(5)], axis=1).astype(dtype),
        np.stack([y, *np.full((3, 5), np.nan)], axis=1).astype(dtype),
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_binary_at_the_largest_number(dtype, backend, on):
    top = np.finfo(dtype).max
    z, y = alone(np.asarray([1.0, -1.0, 1.0, -1.0, 1.0]) * top, [1.0, 0.0, 1.0, 0.0, 1.0], dtype)
    value, delta = evaluate(BinaryCrossEntropy(), backend, on, z, y)
    assert value[0] == 0.0
    assert np.all(delta == 0.0)
    value, delta = evaluate(BinaryCrossEntropy(), backend, on, z / 2, 1 - y)
    np.testing.assert_allclose(value, [top / 2], rtol=1e-6)
    np.testing.assert_allclose(delta[:, 0], [0.2, -0.2, 0.2, -0.2, 0.2], rtol=1e-6)


def test_logistic_and_softplus_of_extremes(backend, on):
    z = np.array([-1e308, -745.0, -700.0, -1e4, 0.0, 1e4, 1e308])
    xp = backend.xp
    a = backend.to_numpy(logistic(on(backend, z), xp=xp))
    np.testing.assert_allclose(a, [0.0, 0.0, np.exp(-700.0), 0.0, 0.5, 1.0, 1.0], rtol=1e-15, atol=5e-324)
    s = backend.to_numpy(softplus(on(backend, z), xp=xp))
    np.testing.assert_allclose(s, [0.0, 0.0, np.exp(-700.0), 0.0, np.log(2.0), 1e4, 1e308], rtol=1e-15, atol=5e-324)


# --- regression ------------------------------------------------------------------------------------------------------


def test_activate(backend, on, rng):
    z = rng.standard_normal((3, 4))
    expected = {"softmax_cross_entropy": np.exp(z) / np.exp(z).sum(axis=1, keepdims=True), "poisson": np.exp(z)}
    expected["binary_cross_entropy"] = 1 / (1 + np.exp(-z))
    for name, loss in LOSSES.items():
        a = loss.activate(on(backend, z), xp=backend.xp)
        np.testing.assert_allclose(backend.to_numpy(a), expected.get(name, z), rtol=1e-14)


# --- weights, names, errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_class_weights(dtype, backend, on):
    y, own = np.array([0, 2, 1, 2], dtype), on(backend, np.array([1.0, 2.0, 4.0]), "float32")
    weight = class_weights_to_sample_weights(on(backend, y), own, xp=backend.xp)
    assert weight.dtype == backend.xp.float32
    np.testing.assert_array_equal(backend.to_numpy(weight), [1.0, 4.0, 2.0, 4.0])
    rows = np.vstack([np.eye(3)[y], [[0.5, 0.5, 0.0]]])
    for kind in ("float32", "float64"):
        weight = class_weights_to_sample_weights(on(backend, rows, kind), own, xp=backend.xp)
        np.testing.assert_array_equal(backend.to_numpy(weight), [1.0, 4.0, 2.0, 4.0, 1.5])


def test_a_weight_of_each_label(backend, on, rng):
    loss = BinaryCrossEntropy(pos_weight=(1.0, 2.0, 0.5), label_smoothing=0.1)
    z, y = rng.normal(size=(5, 3)), (rng.random((5, 3)) < 0.5).astype(float)
    y[1, 2] = np.nan
    weight = rng.integers(0, 4, (5, 3)).astype(float)
    value, delta = (backend.to_numpy(a) for a in loss(*(on(backend, a) for a in (z, y, weight)), xp=backend.xp))
    a, t = 1.0 / (1.0 + np.exp(-z)), 0.9 * y + 0.05
    each = np.nan_to_num(-np.array([1.0, 2.0, 0.5]) * t * np.log(a) - (1.0 - t) * np.log(1.0 - a))
    share = weight / weight.mean(axis=1).sum()
    np.testing.assert_allclose(value, [np.sum(share * each)], rtol=1e-12)
    slope = np.nan_to_num((1.0 - t) * a - np.array([1.0, 2.0, 0.5]) * t * (1.0 - a))
    np.testing.assert_allclose(delta, share * slope, rtol=1e-11, atol=1e-16)
    # Equal weights of the labels of a sample are a weight of the sample.
    own = weight[:, 0] + 1.0
    for a, b in zip(
        loss(*(on(backend, a) for a in (z, y, np.repeat(own[:, None], 3, axis=1))), xp=backend.xp),
        loss(*(on(backend, a) for a in (z, y, own)), xp=backend.xp),
        strict=True,
    ):
        np.testing.assert_allclose(backend.to_numpy(a), backend.to_numpy(b), rtol=1e-12)


def test_integer_weights_are_accepted(backend, on, rng):
    z, y = logits_and_targets(MeanSquaredError(), rng)
    weight = np.array([1, 0, 3, 1, 1])
    for kind in ("int32", "float32"):
        value, _ = evaluate(MeanSquaredError(), backend, on, z, y, weight.astype(kind))
        np.testing.assert_allclose(value, [np.average(((z - y) ** 2).mean(axis=1), weights=weight)], rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_float32_meets_nothing_wider(name, backend, on, rng):
    # array-api-strict refuses to write a float64 result into a float32 array.
    loss = CASES[name]
    z, y = logits_and_targets(loss, rng)
    y = y if y.ndim == 1 else y.astype(np.float32)
    weight = np.array([1.0, 0.0, 2.5, 0.3, 1.0], np.float32)
    evaluate(loss, backend, on, z.astype(np.float32), y, weight)
    evaluate(loss, backend, on, z.astype(np.float32), y, np.arange(5))


@pytest.mark.parametrize("name", ["mean_squared_error", "mean_absolute_error", "huber", "poisson"])
def test_vector_is_never_broadcast_against_a_column(name, backend, on):
    begin = rf"^{type(CASES[name]).__name__}: the shape of the targets is not that of the outputs: "
    with pytest.raises(
        InvalidValueError, match=begin + r"got y of shape \(20,\), expected \(20, 1\)\. Fix: y\[:, None\]"
    ):
        evaluate(CASES[name], backend, on, np.zeros((20, 1)), np.zeros(20))
    with pytest.raises(InvalidValueError, match=begin + r"got y of shape \(1, 2\), expected \(3, 2\)\. \[BPX"):
        evaluate(CASES[name], backend, on, np.zeros((3, 2)), np.zeros((1, 2)))


def test_shapes_of_class_and_label_targets(backend, on):
    with pytest.raises(InvalidValueError, match=r"one class index per sample.*got y of shape \(1,\), expected \(3,\)"):
        evaluate(SoftmaxCrossEntropy(), backend, on, np.zeros((3, 2)), np.zeros(1, int))
    with pytest.raises(InvalidValueError, match=r"^SoftmaxCrossEntropy: .*got y of shape \(3, 9\), expected \(3, 2\)"):
        evaluate(SoftmaxCrossEntropy(), backend, on, np.zeros((3, 2)), np.zeros((3, 9)))
    with pytest.raises(InvalidValueError, match=r"^BinaryCrossEntropy: .*got y of shape \(3,\), expected \(3, 2\)"):
        evaluate(BinaryCrossEntropy(), backend, on, np.zeros((3, 2)), np.zeros(3))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: SoftmaxCrossEntropy(1.0), r"SoftmaxCrossEntropy\(label_smoothing=…\).*got 1.0.*\[0, 1\)"),
        (
            lambda: BinaryCrossEntropy(label_smoothing=1.0),
            r"BinaryCrossEntropy\(label_smoothing=…\).*got 1.0.*\[0, 1\)",
        ),
        (
            lambda: BinaryCrossEntropy(label_smoothing=1.5),
            r"BinaryCrossEntropy\(label_smoothing=…\).*got 1.5.*\[0, 1\)",
        ),
        (lambda: BinaryCrossEntropy(pos_weight=(1.0, 0.0)), r"BinaryCrossEntropy\(pos_weight=…\): .*got 0.0"),
        (lambda: BinaryCrossEntropy(label_smoothing=-0.1), r"BinaryCrossEntropy\(label_smoothing=…\).*got -0.1"),
        (lambda: BinaryCrossEntropy(pos_weight=0.0), r"BinaryCrossEntropy\(pos_weight=…\).*got 0.0"),
        (lambda: BinaryCrossEntropy(pos_weight=(1.0, -2.0)), r"BinaryCrossEntropy\(pos_weight=…\).*got -2.0"),
        (lambda: Huber(0.0), r"Huber\(threshold=…\).*got 0.0"),
        (lambda: Huber(np.nan), r"Huber\(threshold=…\).*got nan"),
    ],
)
def test_hyper_parameters_out_of_range(make, text):
    with pytest.raises(InvalidValueError, match=f"^{text}"):
        make()


def test_hyper_parameters_are_plain_and_hashable():
    loss = BinaryCrossEntropy(pos_weight=[np.float64(2), 3], label_smoothing=np.float32(0.5))
    assert loss.pos_weight == (2.0, 3.0)
    assert type(loss.pos_weight[0]) is float
    assert type(loss.label_smoothing) is float
    assert type(BinaryCrossEntropy(pos_weight=np.float64(2)).pos_weight) is float
    assert type(SoftmaxCrossEntropy(np.float64(0.5)).label_smoothing) is float
    assert type(Huber(np.float64(2)).threshold) is float
    assert hash(loss) == hash(BinaryCrossEntropy((2.0, 3.0), 0.5))


def test_loss_by_name_or_object():
    assert get_loss("huber") == Huber()
    assert get_loss(Huber(2.0)) == Huber(2.0)
    with pytest.raises(InvalidValueError, match=r"^loss: unknown name: .*Did you mean 'poisson'\? \[BPX-E003\]$"):
        get_loss("poison")
    for wrong in (None, Huber, 3):
        with pytest.raises(InvalidTypeError, match="neither a name nor a Loss"):
            get_loss(wrong)
    assert [loss.targets for loss in LOSSES.values()] == ["classes", "labels", "values", "values", "values", "counts"]
