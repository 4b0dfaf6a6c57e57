"""What is no number predicts nothing, an id outside of its table is refused, and so is a target beyond the dtype."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.errors import InvalidValueError

LOSSES = {"softmax_cross_entropy": 3, "binary_cross_entropy": 3}


def broken(backend, on, loss, value, column=1):
    """A network one output of which is `value` for samples above 0, and one that is 0."""
    net = bpxp.Network([1, nn.Dense(3, initializer="zeros")], loss=loss, backend=backend, seed=0)
    W = np.zeros((1, 3), np.float32)
    W[0, column] = value
    net.params = (type(net.params[0])(on(backend, W), on(backend, np.zeros(3, np.float32))),)
    return net


@pytest.mark.parametrize("loss", LOSSES)
def test_nan_predicts_nothing(backend, on, loss):
    net = broken(backend, on, loss, 3e38)
    x = np.array([[1.0], [0.5], [-1.0]], np.float32)
    assert backend.to_numpy(net.predict(x)).tolist() == (
        [1, 1, 0] if loss.startswith("softmax") else [[0, 1, 0], [0, 1, 0], [0, 0, 0]]
    )
    net = broken(backend, on, loss, np.nan)
    with pytest.raises(
        InvalidValueError, match=r"predict: 3 of the outputs are not numbers\. First at \[0\].*BPX-E028"
    ):
        net.predict(x)
    assert np.isnan(backend.to_numpy(net.predict_proba(x))).any()  # they are shown


def test_an_infinite_logit_has_no_class(backend, on):
    x = np.array([[0.5], [10.0]], np.float32)
    with np.errstate(over="ignore"), pytest.raises(InvalidValueError, match=r"1 of the outputs.*First at \[1\]"):
        broken(backend, on, "softmax_cross_entropy", 3e38).predict(x)
    excluded = broken(backend, on, "softmax_cross_entropy", -3e38)  # but one that is excluded has none
    with np.errstate(over="ignore"):
        assert backend.to_numpy(excluded.predict(x)).tolist() == [0, 0]


def test_metrics_of_a_broken_network(backend, on):
    net = broken(backend, on, "softmax_cross_entropy", np.nan)
    x, y = np.ones((6, 1), np.float32), np.arange(6) % 3
    found = net.evaluate(x, y, metrics=["accuracy", "top5_accuracy", "precision_recall_f1"])
    assert (found["accuracy"], found["top5_accuracy"]) == (0.0, 0.0)
    assert found["class"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert np.isnan(found["loss"])


# --- ids

NETWORKS = {
    "first": [nn.Embedding(5, 4), nn.Flatten(), 2],
    "nested": [nn.Sequential((nn.Embedding(5, 4), nn.Flatten())), 2],
    "after a reshape": [nn.Reshape((3, 2)), nn.Embedding(5, 4), nn.Flatten(), 2],
}
GOOD = np.arange(12).reshape(2, 6) % 5


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("wrong", "text"), [(5, "= 5 is no id"), (-1, "= -1 is no id"), (2.5, "= 2.5 is no id")])
def test_an_id_that_is_not_in_the_table(backend, name, wrong, text):
    net = bpxp.Network(NETWORKS[name], input_shape=6, backend=backend, seed=0)
    x, y = GOOD.astype(np.float32), np.array([0, 1])
    x[1, 4] = wrong
    calls = {
        "predict": lambda: net.predict(x),
        "predict_proba": lambda: net.predict_proba(x),
        "logits": lambda: net.logits(bpxp.data.Dataset(x, y, resident=False)),
        "evaluate": lambda: net.evaluate(x, y),
        "loss_and_gradients": lambda: net.loss_and_gradients(x, y),
        "gradient_descent": lambda: net.gradient_descent((x, y), 0.1),
        "fit": lambda: bpxp.Trainer(net, progress=False).fit((x, y), epochs=1),
        "fit: validation": lambda: bpxp.Trainer(net, progress=False).fit((GOOD, y), epochs=1, validation=(x, y)),
    }
    for where, call in calls.items():
        with pytest.raises(
            InvalidValueError, match=rf"{where}: x: x\[1, 4\] {text}: expected integers 0\.\.4"
        ) as caught:
            call()
        assert caught.value.code == "BPX-E029"
        assert net.epoch == 0
    assert ("nn.Embedding(6, …)" in caught.value.fix) == (wrong == 5)
    assert net.predict(GOOD).shape == (2,)


def test_the_first_of_many_ids_is_named_where_samples_are_streamed():
    n = 600_000
    x = np.zeros((n, 6), np.int32)
    x[n - 1, 2] = x[n - 1, 3] = 9
    net = bpxp.Network(NETWORKS["first"], input_shape=6, backend="numpy", seed=0)
    with pytest.raises(InvalidValueError, match=rf"x\[{n - 1}, 2\] = 9 is no id.*2 in all"):
        net.evaluate(bpxp.data.Dataset(x, np.zeros(n, int), resident=False))


def test_a_later_embedding_is_not_asked_for_ids():
    net = bpxp.Network([nn.Dense(6, "relu"), nn.Embedding(5, 4), nn.Flatten(), 2], input_shape=3, backend="numpy")
    assert net.spec.ids == 0


# --- targets


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("loss", ["mean_squared_error", "mean_absolute_error", "huber", "poisson"])
def test_targets_beyond_the_dtype(loss, resident):
    x = np.abs(np.random.default_rng(0).normal(size=(20, 4))) + 1.0
    y = np.ones((20, 1))
    y[7], y[9] = 1e39, 2e39
    net = bpxp.Network([4, 1], loss=loss, backend="numpy", seed=0)
    data = bpxp.data.Dataset(x.astype(np.float32), y, resident=resident)
    for call in (lambda: net.evaluate(data), lambda: bpxp.Trainer(net, progress=False).fit(data, epochs=1)):
        with pytest.raises(
            InvalidValueError, match=r"1e\+39 exceeds the float32 maximum 3\.4e\+38\. First at \[7, 0\], 2"
        ):
            call()
    wide = bpxp.Network([4, 1], loss=loss, backend="numpy", seed=0, dtype="float64")  # the fix
    assert np.isfinite(wide.evaluate(x, y)["loss"])


def test_large_targets_are_what_a_diverged_fit_is_about():
    x = np.random.default_rng(0).normal(size=(60, 4))
    y = x[:, :1] * 1e20  # its square is beyond float32
    net = bpxp.Network([4, 1], loss="mean_squared_error", backend="numpy", seed=0)
    with pytest.raises(FloatingPointError) as caught:
        bpxp.Trainer(net, bpxp.optim.SGD(1e-6), progress=False).fit((x, y), epochs=1)
    assert caught.value.fix.startswith("scale the targets, y = (y - y.mean())/y.std()")
    y = (y - y.mean()) / y.std()
    bpxp.Trainer(net, bpxp.optim.SGD(1e-6), progress=False).fit((x, y), epochs=1)


@pytest.mark.parametrize("weight", [1e-41, 1e-300])
def test_weights_that_vanish_in_the_dtype(weight):
    x, y, w = np.ones((64, 5)), np.arange(64) % 3, np.full(64, weight)
    net = bpxp.Network([5, 3], backend="numpy", seed=0)
    for call in (lambda w: net.evaluate(x, y, weight=w)["loss"], lambda w: float(net.loss_and_gradients(x, y, w)[0])):
        with pytest.raises(InvalidValueError, match=r"Fix: .* / np\.mean\(weight\)"):
            call(w)
        assert call(w / w.mean()) == pytest.approx(call(None), rel=1e-5)
