"""Weights of samples, classes and labels in a fit: what a sample counts does not depend on its mini-batch."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.data import Dataset
from bpxp.data.order import epoch_order
from bpxp.errors import BpxpError
from bpxp.training.setup import split

N, SEED, RATE = 23, 4, 0.3
rng = np.random.default_rng(5)
X = rng.normal(size=(N, 4))
CLASSES = np.arange(N) % 3
LABELS = (rng.random((N, 3)) < 0.4).astype(float)
VALUES = rng.normal(size=(N, 3))
WEIGHT = rng.integers(0, 5, N).astype(float)


def network(loss="softmax_cross_entropy", layers=(4, 5, 3), **options):
    return bpxp.Network(list(layers), loss=loss, dtype="float64", seed=SEED, **options)


def flat(net):
    return np.concatenate([net.backend.to_numpy(a).ravel() for own in net.params for a in own])


def fit(net, data, *, optimizer=None, epochs=1, batch_size=4, **options):
    trainer = bpxp.Trainer(net, optimizer or optim.SGD(RATE), progress=False)
    return trainer.fit(data, epochs=epochs, batch_size=batch_size, **options)


# ---------------------------------------------------------------- by hand


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def error(loss, z, y):
    """Return ∂J_n/∂z of each sample."""
    if loss == "softmax_cross_entropy":
        e = np.exp(z)
        return e / e.sum(axis=1, keepdims=True) - np.eye(3)[y]
    return sigmoid(z) - y if loss == "binary_cross_entropy" else 2.0 * (z - y) / y.shape[1]


def by_hand(net, loss, y, weight, size, *, epochs=1, l2=0.0):
    """Return the parameters after epochs over mini-batches, each with the gradient of Σ w_n J_n/(N times the mean of w)."""
    W, b, V, c = (np.array(net.backend.to_numpy(a)) for own in net.params for a in own)
    weight = weight / weight.mean()
    for epoch in range(epochs):
        order = epoch_order(SEED, epoch, N, size)[:N]
        for i in range(0, N, size):
            rows = order[i : i + size]
            x, w = X[rows], weight[rows] if weight.ndim == 2 else weight[rows, None]
            a = sigmoid(x @ W + b)
            delta = error(loss, a @ V + c, y[rows]) * w / len(rows)
            below = delta @ V.T * a * (1.0 - a)
            V, c = V - RATE * (a.T @ delta + l2 * V), c - RATE * delta.sum(axis=0)
            W, b = W - RATE * (x.T @ below + l2 * W), b - RATE * below.sum(axis=0)
    return np.concatenate([p.ravel() for p in (W, b, V, c)])


@pytest.mark.parametrize("size", [1, 4, N])
@pytest.mark.parametrize(
    ("loss", "y"),
    [("softmax_cross_entropy", CLASSES), ("binary_cross_entropy", LABELS), ("mean_squared_error", VALUES)],
)
def test_two_epochs_by_hand(backend, loss, y, size):
    net = network(loss, backend=backend)
    expected = by_hand(net, loss, y, WEIGHT, size, epochs=2, l2=0.01)
    fit(net, (X, y), weight=WEIGHT, batch_size=size, epochs=2, optimizer=optim.SGD(RATE, l2=0.01))
    np.testing.assert_allclose(flat(net), expected, rtol=1e-11, atol=1e-14)


def test_the_same_loop_in_torch():
    torch = pytest.importorskip("torch")
    net = network(backend="numpy")
    params = [torch.tensor(np.array(a), requires_grad=True) for own in net.params for a in own]
    weight = torch.tensor(WEIGHT)
    for n in epoch_order(SEED, 0, N, 1):
        logits = torch.sigmoid(torch.tensor(X[n : n + 1]) @ params[0] + params[1]) @ params[2] + params[3]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(CLASSES[n : n + 1]))
        grads = torch.autograd.grad(weight[n] / weight.mean() * loss, params)
        with torch.no_grad():
            for p, g in zip(params, grads, strict=True):
                p -= RATE * g
    fit(net, (X, CLASSES), weight=WEIGHT, batch_size=1)
    np.testing.assert_allclose(flat(net), np.concatenate([p.detach().numpy().ravel() for p in params]), rtol=1e-11)


def test_a_sample_of_weight_2_moves_as_far_as_two(backend):
    # To the first order in the learning rate an epoch is a sum over its samples, however the mini-batches fall.
    small = optim.SGD(1e-7)
    rows = np.repeat(np.arange(N), WEIGHT.astype(int))
    repeated, begin = network(backend=backend), flat(network(backend=backend))
    fit(repeated, (X[rows], CLASSES[rows]), batch_size=1, optimizer=small)
    for size in (1, N):
        net = network(backend=backend)
        fit(net, (X, CLASSES), weight=WEIGHT, batch_size=size, optimizer=small)
        np.testing.assert_allclose((flat(net) - begin) * WEIGHT.mean() * size, flat(repeated) - begin, rtol=1e-4)


@pytest.mark.parametrize("size", [1, 10, 200])
@pytest.mark.parametrize("loss", ["softmax_cross_entropy", "binary_cross_entropy"])
def test_balanced_classes_of_one_percent_end_at_one_half(loss, size):
    y = np.arange(200) < 2
    single = loss == "binary_cross_entropy"
    net = network(loss, (1, 1 if single else 2), init="zeros", backend="numpy")
    net.params = (net.params[0]._replace(b=np.array([-2.0] if single else [1.0, -1.0])),)  # p = 0.12
    rate, epochs = {1: (0.002, 60), 10: (0.02, 60), 200: (0.5, 200)}[size]
    data = np.zeros((200, 1)), y[:, None].astype(int) if single else y.astype(int)
    fit(net, data, batch_size=size, epochs=epochs, optimizer=optim.SGD(rate), class_weight="balanced")
    assert float(np.asarray(net.predict_proba(data[0][:1]))[0, -1]) == pytest.approx(0.5, abs=0.05)


def test_the_scale_of_the_weights_does_not_matter(backend):
    nets = []
    for weight, classes in ((WEIGHT, [1, 2, 4]), (WEIGHT * 2**20, [1, 2, 4]), (WEIGHT / 1024, [8, 16, 32])):
        nets.append(network(backend=backend))
        fit(nets[-1], (X, CLASSES), weight=weight, class_weight=classes)
    assert flat(nets[0]).tobytes() == flat(nets[1]).tobytes() == flat(nets[2]).tobytes()
    ones, none = network(backend=backend), network(backend=backend)
    fit(ones, (X, CLASSES), weight=np.full(N, 3.0))
    fit(none, (X, CLASSES))
    np.testing.assert_allclose(flat(ones), flat(none), rtol=1e-13)


def test_a_batch_without_any_weight_changes_nothing(backend):
    net = network(backend=backend)
    before, weight = flat(net), np.ones(N)
    weight[epoch_order(SEED, 0, N, 4)[:20]] = 0.0
    history = fit(net, (X, CLASSES), weight=weight, epochs=1)
    assert np.isfinite(history[0]["loss"])
    other = network(backend=backend)
    rows = epoch_order(SEED, 0, N, 4)[20:N]
    other.gradient_descent((X[rows], CLASSES[rows]), learning_rate=RATE * N / 3)
    np.testing.assert_allclose(flat(net), flat(other), rtol=1e-12)
    assert not np.array_equal(flat(net), before)


def test_other_weights_need_no_other_trace_and_are_no_stale_constant(backend):
    # The same network is fitted with weights of another mean: what was compiled before is used again.
    net, captured = network(backend=backend), {}
    start = net.params
    kept = [tuple(np.array(backend.to_numpy(a)) for a in own) for own in start]
    for weight in (WEIGHT, WEIGHT**2 + 1.0, np.arange(N) + 0.5):
        net.params, net.epoch, net.opt_state = tuple(type(o)(*k) for o, k in zip(start, kept, strict=True)), 0, None
        fit(net, (X, CLASSES), weight=weight, epochs=12)
        captured[id(weight)] = list(net._compiled)
        fresh = network(backend=backend)
        fresh.capture = False
        fit(fresh, (X, CLASSES), weight=weight, epochs=12)
        np.testing.assert_allclose(flat(net), flat(fresh), rtol=1e-12)
    assert len({tuple(map(hash, keys)) for keys in captured.values()}) == 1


# ---------------------------------------------------------------- classes and labels


def test_classes_of_one_output(backend):
    y = LABELS[:, :1]
    for given in ({0: 1.0, 1: 5.0}, {1: 5}, [1.0, 5.0], np.array([1, 5]), (1, 5)):
        net, other = (network("binary_cross_entropy", (4, 5, 1), backend=backend) for _ in range(2))
        fit(net, (X, y), class_weight=given)
        fit(other, (X, y), weight=np.where(y[:, 0] == 1, 5.0, 1.0))
        assert flat(net).tobytes() == flat(other).tobytes()
    net, other = (network("binary_cross_entropy", (4, 5, 1), backend=backend) for _ in range(2))
    fit(net, (X, y), class_weight="balanced")
    counts = np.array([np.sum(y == 0), np.sum(y == 1)])
    fit(other, (X, y), class_weight=N / (2 * counts))
    np.testing.assert_allclose(flat(net), flat(other), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 4, N])
@pytest.mark.parametrize(
    ("given", "off", "on"),
    [
        ([1.0, 2.0, 4.0], [1, 2, 4], [1, 2, 4]),
        ({2: 3.0}, [1, 1, 3], [1, 1, 3]),
        ({0: {1: 5.0}, 1: (2.0, 0.5)}, [1, 2, 1], [5, 0.5, 1]),
        (np.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]), [1, 3, 0], [2, 4, 1]),
        ("balanced", None, None),
    ],
)
def test_labels_by_hand(backend, given, off, on, size):
    if off is None:  # as scikit-learn's compute_class_weight has it, label by label
        ones = LABELS.sum(axis=0)
        off, on = N / (2 * (N - ones)), N / (2 * ones)
    weight = np.where(LABELS == 1, on, off) * WEIGHT[:, None]
    net = network("binary_cross_entropy", backend=backend)
    expected = by_hand(net, "binary_cross_entropy", LABELS, weight, size, epochs=2)
    history = fit(net, (X, LABELS), weight=WEIGHT, class_weight=given, batch_size=size, epochs=2)
    np.testing.assert_allclose(flat(net), expected, rtol=1e-11, atol=1e-14)
    assert all(np.isfinite(history["loss"]))


def test_missing_labels_have_no_class(backend):
    y = LABELS.copy()
    y[rng.random(y.shape) < 0.3] = np.nan
    y[:, 2] = np.nan
    y[0, 2] = 1.0
    for given in ("balanced", [1.0, 2.0, 3.0], {1: {1: 4.0}}):
        net, other = (network("binary_cross_entropy", backend=backend) for _ in range(2))
        fit(net, (X, y), class_weight=given)
        assert np.isfinite(flat(net)).all()
        # What a missing label would have been does not matter, nor which number stands in the other samples.
        fit(other, (X, y), class_weight=given if isinstance(given, str) else _doubled(given))
        np.testing.assert_allclose(flat(net), flat(other), rtol=1e-12)


def _doubled(given):
    entries = [given.get(k, 1.0) for k in range(3)] if isinstance(given, dict) else given
    pairs = [{0: w.get(0, 1.0), 1: w.get(1, 1.0)} if isinstance(w, dict) else {0: w, 1: w} for w in entries]
    return [{0: 2.0 * w[0], 1: 2.0 * w[1]} for w in pairs]


def test_balanced_counts_the_samples_that_are_trained_on(backend):
    rows, aside = split(N, 0.3, SEED)
    a, b = network(backend=backend), network(backend=backend)
    first = fit(a, (X, CLASSES), class_weight="balanced", validation=0.3, epochs=3)
    counts = np.bincount(CLASSES[rows], minlength=3)
    assert len(set(counts)) > 1
    weights = len(rows) / (3 * counts)
    second = fit(b, (X[rows], CLASSES[rows]), class_weight=weights, validation=(X[aside], CLASSES[aside]), epochs=3)
    np.testing.assert_allclose(flat(a), flat(b), rtol=1e-12)
    np.testing.assert_allclose(first["validation_loss"], second["validation_loss"], rtol=1e-12)


def test_what_is_evaluated_is_not_weighted_by_class(backend):
    net, (rows, aside) = network(backend=backend), split(N, 0.3, SEED)
    still = {"optimizer": optim.SGD(1e-30), "class_weight": {0: 1.0, 1: 50.0}, "evaluate_train": True}
    history = fit(net, (X, CLASSES), weight=WEIGHT, validation=0.3, **still)
    for name, part in (("train_loss", rows), ("validation_loss", aside)):
        alone = net.evaluate(X[part], CLASSES[part], weight=WEIGHT[part])["loss"]
        assert history[name][0] == pytest.approx(alone, rel=1e-12)
    given = Dataset(X[aside], CLASSES[aside], weight=WEIGHT[aside])
    again = fit(network(backend=backend), (X[rows], CLASSES[rows]), validation=given, **still)
    assert again["validation_loss"][0] == pytest.approx(history["validation_loss"][0], rel=1e-12)
    # The loss of the steps is what they minimise.
    weight = WEIGHT[rows] * np.where(CLASSES[rows] == 1, 50.0, 1.0)
    whole = net.evaluate(X[rows], CLASSES[rows], weight=weight)["loss"]
    assert history["loss"][0] == pytest.approx(whole, rel=1e-12)


# ---------------------------------------------------------------- refused


def refused(net, y, class_weight, **options):
    before = flat(net)
    with pytest.raises(BpxpError) as caught:
        fit(net, (X, y), class_weight=class_weight, **options)
    assert np.array_equal(flat(net), before)
    return str(caught.value)


def test_weights_that_do_not_fit():
    one = network("binary_cross_entropy", (4, 5, 1), backend="numpy")
    text = refused(one, LABELS[:, :1], [5.0])
    assert "for each of 2 classes: got shape (1,). Fix: {0: 1.0, 1: 5.0}" in text
    fit(one, (X, LABELS[:, :1]), class_weight={0: 1.0, 1: 5.0})
    three = network("binary_cross_entropy", backend="numpy")
    assert "for each of 3 labels: got shape (2,)" in refused(three, LABELS, [1.0, 5.0])
    assert "7 is none of the labels 0..2" in refused(three, LABELS, {7: 1.0})
    assert "for each of 2 classes" in refused(three, LABELS, {0: [1.0, 2.0, 3.0]})
    assert "one finite weight >= 0" in refused(three, LABELS, [1.0, 2.0, -1.0])
    assert "the mean of the weights" in refused(three, LABELS, [0.0, 0.0, 0.0])
    assert "not numbers" in refused(three, LABELS, ["a", "b", "c"])
    net = network(backend="numpy")
    only = np.zeros(N)
    only[split(N, 0.3, SEED)[1]] = 1.0
    assert "the mean of the weights of the training data" in refused(net, CLASSES, None, weight=only, validation=0.3)
    text = refused(net, CLASSES, None, weight=1.0 - only, validation=0.3)
    assert "all weights of the samples set aside are zero. Fix: validation=(x, y)" in text


def test_weights_of_labels_need_a_loss_that_takes_them():
    class Plain:
        targets = "labels"

        def __call__(self, logits, y, weight=None, /, *, xp):
            return nn.BinaryCrossEntropy()(logits, y, weight, xp=xp)

        def activate(self, logits, /, *, xp):
            return nn.BinaryCrossEntropy().activate(logits, xp=xp)

    text = refused(network(Plain(), backend="numpy"), LABELS, [1.0, 2.0, 3.0])
    assert "Plain takes no weights of labels. Fix: weight=…, one for each sample" in text
    fit(network(Plain(), (4, 1), backend="numpy"), (X, LABELS[:, :1]), class_weight={1: 5.0})
