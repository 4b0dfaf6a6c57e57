"""Metrics against slow and obvious counts, in batches, with padding, with ties, and with nothing to count."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.metrics import (
    METRICS,
    Accuracy,
    BinaryAccuracy,
    ExactMatch,
    Metric,
    MultiLabelF1,
    PrecisionRecallF1,
    TopK,
    default_metrics,
    get_metric,
)
from bpxp.nn import BinaryCrossEntropy, MeanSquaredError, Poisson, SoftmaxCrossEntropy


def measure(metric, backend, on, batches, dtype="float32"):
    """The result over several batches of (logits, y, weight)."""
    xp = backend.xp
    counts = metric.init(batches[0][0].shape[1], xp=xp, dtype=getattr(xp, dtype))
    shapes = [(tuple(c.shape), c.dtype) for c in counts]
    for logits, y, weight in batches:
        own = [on(backend, logits, dtype), on(backend, y), None if weight is None else on(backend, weight, dtype)]
        before = [None if a is None else backend.to_numpy(a) for a in own]
        counts = metric.update(counts, *own, xp=xp)
        for a, b in zip(own, before, strict=True):
            if a is not None:
                np.testing.assert_array_equal(backend.to_numpy(a), b)
    assert [(tuple(c.shape), c.dtype) for c in counts] == shapes
    assert all(len(c.shape) == 1 for c in counts)
    return metric.result(tuple(backend.to_numpy(c) for c in counts))


OF_LABELS = ("label_accuracy", "exact_match", "f1")


def classes(rng, n=40, n_out=6):
    return rng.standard_normal((n, n_out)), rng.integers(0, n_out, n).astype(np.int32)


def labels(rng, n=40, n_out=6):
    y = (rng.random((n, n_out)) < 0.4).astype(np.float32)
    y[rng.random(y.shape) < 0.2] = np.nan
    y[3] = np.nan
    return rng.standard_normal((n, n_out)), y


def test_accuracy(backend, on, rng):
    z, y = classes(rng)
    expected = np.mean(z.argmax(axis=1) == y)
    assert measure(Accuracy(), backend, on, [(z, y, None)]) == expected
    assert measure(Accuracy(), backend, on, [(z, np.eye(6)[y], None)]) == expected
    assert measure(Accuracy(), backend, on, [(z, y.astype(np.uint8), None)]) == expected
    assert measure(Accuracy(), backend, on, [(z, y, None), (z, (y + 1) % 6, None)]) == np.mean(
        [z.argmax(axis=1) == y, z.argmax(axis=1) == (y + 1) % 6]
    )


@pytest.mark.parametrize("name", METRICS)
def test_padding_is_left_out_and_weights_do_not_matter(name, backend, on, rng):
    z, y = labels(rng) if name in OF_LABELS else classes(rng)
    plain = measure(METRICS[name], backend, on, [(z, y, None)])
    # each sample counts in one of two batches; elsewhere it stands as padding with the wrong target
    weight = rng.uniform(0.1, 9.0, 40)
    first = rng.random(40) < 0.5
    column = first if y.ndim == 1 else first[:, None]
    wrong = 1 - y if name in OF_LABELS else (y + 1) % 6
    batches = [
        (z, np.where(column, y, wrong).astype(y.dtype), np.where(first, weight, 0.0)),
        (z, np.where(column, wrong, y).astype(y.dtype), np.where(first, 0.0, weight)),
    ]
    assert measure(METRICS[name], backend, on, batches) == plain


@pytest.mark.parametrize("k", [1, 2, 3, 6, 7])
def test_top_k(k, backend, on, rng):
    z, y = classes(rng)
    order = np.argsort(-z, axis=1)[:, :k]
    expected = np.mean([y[n] in order[n] for n in range(len(y))])
    assert measure(TopK(k), backend, on, [(z, y, None)]) == expected
    assert measure(TopK(k), backend, on, [(z, np.eye(6)[y], None)]) == expected
    assert TopK(k).name == f"top{k}_accuracy"


def test_top_k_of_ties_and_of_a_broken_network(backend, on):
    y = np.array([0, 2], np.int32)
    # Of equal logits the higher class is ahead: the k classes are 2, then 1, then 0.
    for k, right in ((1, 0.5), (2, 0.5), (3, 1.0)):
        assert measure(TopK(k), backend, on, [(np.zeros((2, 3)), y, None)]) == right
    assert measure(TopK(2), backend, on, [(np.full((2, 3), np.nan), y, None)]) == 0.0
    assert measure(TopK(5), backend, on, [(np.full((2, 3), np.nan), y, None)]) == 0.0
    masked = np.array([[1.0, -np.inf, 0.0], [-np.inf, 3.0, 2.0]])
    assert measure(TopK(2), backend, on, [(masked, y, None)]) == 1.0
    assert measure(TopK(1), backend, on, [(masked, y, None)]) == 0.5


@pytest.mark.parametrize("name", [name for name in METRICS if name not in OF_LABELS])
def test_nan_is_no_class(name, backend, on):
    z = np.array([[np.nan, np.nan, np.nan], [0.0, np.nan, 1.0], [1.0, 0.0, 0.0]])
    y = np.array([0, 1, 0], np.int32)  # of the first two an argmax of NaN would be right
    metric = TopK(1) if name == "top5_accuracy" else METRICS[name]
    found = measure(metric, backend, on, [(z, y, None)])
    # class 0: tp 1, fn 1; class 1: fn 1; class 2: neither occurs nor is predicted
    assert found == ({"precision": 0.5, "recall": 0.25, "f1": 1 / 3} if isinstance(found, dict) else 1 / 3)


@pytest.mark.parametrize("name", OF_LABELS)
def test_nan_is_no_right_label(name, backend, on):
    z = np.array([[np.nan, np.nan], [1.0, -1.0]])
    for y in (np.zeros((2, 2)), np.ones((2, 2))):
        found = measure(METRICS[name], backend, on, [(z, y, None), (z, y, np.array([1.0, 0.0]))])
        on_right = bool(y[0, 0])  # of four known labels and two more, one is right: that which is on, or off
        share = {"label_accuracy": 1 / 6, "exact_match": 0.0}.get(name)
        if share is None:
            assert found == {"micro": 2 / 7 if on_right else 0.0, "macro": 0.25 if on_right else 0.0}
        else:
            assert found == share


def test_precision_recall_f1(backend, on, rng):
    z, y = classes(rng)
    z[:, 4] = -9.0  # never predicted
    guess = z.argmax(axis=1)
    each = {"precision": [], "recall": [], "f1": []}
    for k in range(6):
        tp = sum((guess == k) & (y == k))
        precision = tp / sum(guess == k) if sum(guess == k) else 0.0
        recall = tp / sum(y == k) if sum(y == k) else 0.0
        each["precision"].append(precision)
        each["recall"].append(recall)
        each["f1"].append(2 * precision * recall / (precision + recall) if tp else 0.0)
    found = measure(PrecisionRecallF1(per_class=True), backend, on, [(z, y, None)])
    assert set(found) == {*each, *(f"{name}_{k}" for name in each for k in range(6))}
    for name, values in each.items():
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-14)  # all six occur
        np.testing.assert_allclose([found[f"{name}_{k}"] for k in range(6)], values, rtol=1e-14)
    assert found["precision_4"] == found["f1_4"] == 0.0
    assert set(measure(PrecisionRecallF1(), backend, on, [(z, np.eye(6)[y], None)])) == set(each)


def test_a_class_that_neither_occurs_nor_is_predicted_is_left_out(backend, on):
    z = np.eye(6)[[0, 1, 2, 2]]  # class 2 is predicted, 3 occurs, 4 and 5 do neither
    found = measure(PrecisionRecallF1(per_class=True), backend, on, [(z, np.array([0, 1, 3, 3], np.int32), None)])
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)
    assert found["f1_4"] == found["f1_5"] == 0.0


def test_labels_are_counted_where_they_are_known(backend, on, rng):
    z, y = labels(rng)
    known, guess, truth = ~np.isnan(y), z > 0, y > 0.5
    assert measure(BinaryAccuracy(), backend, on, [(z, y, None)]) == np.mean((guess == truth)[known])
    rows = [n for n in range(40) if known[n].any()]
    assert len(rows) < 40
    exact = np.mean([np.all((guess == truth)[n][known[n]]) for n in rows])
    assert measure(ExactMatch(), backend, on, [(z, y, None)]) == exact
    easy = np.where(known, np.where(truth, 1.0, -1.0), z)
    easy[0] *= -1
    assert measure(ExactMatch(), backend, on, [(easy, y, None)]) == (len(rows) - 1) / len(rows)


def test_multi_label_f1(backend, on, rng):
    z, y = labels(rng)
    z[:, 2], y[:, 2] = -1.0, 0.0  # never there and never predicted
    known, guess, truth = ~np.isnan(y), z > 0, y > 0.5
    tp, fp, fn = ((m & known).sum(axis=0) for m in (guess & truth, guess & ~truth, ~guess & truth))
    each = [2 * a / (2 * a + b + c) if a else 0.0 for a, b, c in zip(tp, fp, fn, strict=True)]
    found = measure(MultiLabelF1(), backend, on, [(z, y, None)])
    np.testing.assert_allclose(found["macro"], np.mean(each), rtol=1e-14)
    np.testing.assert_allclose(found["micro"], 2 * tp.sum() / (2 * tp.sum() + fp.sum() + fn.sum()), rtol=1e-14)


def test_single_label_may_be_a_vector_and_integers_are_labels(backend, on, rng):
    z, y = rng.standard_normal((9, 1)), np.arange(9) % 2
    expected = np.mean((z[:, 0] > 0) == y)
    for targets in (y.astype(np.int32), y.astype(np.uint8)[:, None], y.astype(bool)[:, None], y.astype(float)):
        assert measure(BinaryAccuracy(), backend, on, [(z, targets, None)]) == expected
        assert measure(ExactMatch(), backend, on, [(z, targets, None)]) == expected


@pytest.mark.parametrize("name", METRICS)
def test_nothing_to_count_is_zero_without_a_warning(name, backend, on):
    y = np.zeros((2, 3)) if name in OF_LABELS else np.zeros(2, np.int32)
    found = measure(METRICS[name], backend, on, [(np.ones((2, 3)), y, np.zeros(2))])
    values = list(found.values()) if isinstance(found, dict) else [found]
    assert values == [0.0] * len(values)
    assert all(type(value) is float for value in values)


def test_counts_do_not_stop_at_2_to_the_24(backend, on):
    xp = backend.xp
    counts = tuple(xp.full((1,), 2**24, dtype=xp.int32) for _ in range(2))
    for _ in range(3):
        counts = Accuracy().update(counts, on(backend, [[1.0, 0.0]], "float32"), on(backend, [0], "int32"), None, xp=xp)
    assert [int(backend.to_numpy(c)[0]) for c in counts] == [2**24 + 3] * 2


def test_labels_where_classes_were_meant(backend, on):
    with pytest.raises(
        InvalidValueError, match=r"one column for each output: got y of shape \(2,\), expected \(2, 3\)"
    ):
        measure(BinaryAccuracy(), backend, on, [(np.ones((2, 3)), np.zeros(2, np.int32), None)])


def test_defaults_follow_the_loss():
    assert default_metrics(SoftmaxCrossEntropy()) == (Accuracy(),)
    assert default_metrics(BinaryCrossEntropy()) == (BinaryAccuracy(), MultiLabelF1())
    assert default_metrics(MeanSquaredError()) == default_metrics(Poisson()) == ()


def test_metric_by_name_or_object():
    assert get_metric("accuracy") == Accuracy()
    assert get_metric("top5_accuracy") == TopK(5)
    assert get_metric(TopK(3)) == TopK(3)
    assert all(isinstance(metric, Metric) for metric in METRICS.values())
    assert len({metric.name for metric in METRICS.values()}) == len(METRICS)
    with pytest.raises(InvalidValueError, match=r"metrics: unknown name: got 'acuracy'.*Did you mean 'accuracy'\?"):
        get_metric("acuracy")
    for wrong in (None, 5, Accuracy):
        with pytest.raises(InvalidTypeError, match="neither a name nor a Metric"):
            get_metric(wrong)
    with pytest.raises(InvalidValueError, match=r"TopK\(k=…\)"):
        TopK(0)


# --- what fits the loss and the outputs


def network(loss, n_out, output="identity", **how):
    return bpxp.Network([4, n_out], loss=loss, output=output, backend="numpy", seed=0, **how)


def by_hand(z, y):
    """Accuracy, and precision, recall and F1 of the classes 0 and 1, from a prediction of 0 and 1."""
    each = []
    for k in (0, 1):
        tp, predicted, true = np.sum((z == k) & (y == k)), np.sum(z == k), np.sum(y == k)
        precision, recall = tp / predicted, tp / true
        each.append((precision, recall, 2 * precision * recall / (precision + recall)))
    return np.mean(z == y), dict(zip(("precision", "recall", "f1"), np.mean(each, axis=0), strict=True))


@pytest.mark.parametrize("output", ["identity", "sigmoid", "hard_sigmoid"])
def test_one_output_is_two_classes(output, backend, on, rng):
    x = rng.standard_normal((200, 4)).astype("float32")
    y = (x[:, :1] + 0.3 * rng.standard_normal((200, 1)) > 0.4).astype(int)
    loss = "binary_cross_entropy" if output == "identity" else "mean_squared_error"
    net = bpxp.Network([4, 1], loss=loss, output=output, backend=backend, seed=0)
    guess = (backend.to_numpy(net.logits(on(backend, x, "float32"))) > (0.0 if output == "identity" else 0.5)).astype(
        int
    )
    assert 0 < guess.sum() < 200
    accuracy, each = by_hand(guess, y)
    names = ["accuracy", "precision_recall_f1", "label_accuracy", "exact_match", "f1"]
    found = net.evaluate(x, y, metrics=names)
    assert found["accuracy"] == found["label_accuracy"] == found["exact_match"] == accuracy
    assert found["class"] == pytest.approx(each, rel=1e-14)
    tp = np.sum(guess * y)
    assert found["f1"]["micro"] == pytest.approx(2 * tp / (guess.sum() + y.sum()), rel=1e-14)
    if output == "identity":
        missing = np.where(np.arange(200)[:, None] < 50, np.nan, y)
        weight = (np.arange(200) % 3).astype("float32")
        kept = (np.arange(200) >= 50) & (weight > 0)
        found = net.evaluate(x, missing, weight=weight, metrics=names)
        accuracy, each = by_hand(guess[kept], y[kept])
        assert (found["accuracy"], found["class"]) == (accuracy, pytest.approx(each, rel=1e-14))
        assert not net.eager_steps


@pytest.mark.parametrize("output", ["identity", "sigmoid"])
def test_several_labels(output, rng):
    x = rng.standard_normal((200, 4)).astype("float32")
    y = (x[:, :3] + 0.5 * rng.standard_normal((200, 3)) > 0.2).astype(int)
    net = network("binary_cross_entropy" if output == "identity" else "mean_squared_error", 3, output)
    guess = np.asarray(net.logits(x)) > (0.0 if output == "identity" else 0.5)
    names = ["label_accuracy", "exact_match", "f1", "precision_recall_f1"]
    found = net.evaluate(x, y, metrics=names)
    assert found["label_accuracy"] == np.mean(guess == y)
    assert found["exact_match"] == np.mean(np.all(guess == y, axis=1))
    tp, predicted, true = ((a).sum(axis=0) for a in (guess & (y == 1), guess, y))
    assert found["class"]["precision"] == pytest.approx(np.mean(tp / predicted), rel=1e-14)
    assert found["class"]["recall"] == pytest.approx(np.mean(tp / true), rel=1e-14)
    assert (
        found["f1"]["macro"] == found["class"]["f1"] == pytest.approx(np.mean(2 * tp / (predicted + true)), rel=1e-14)
    )
    if output == "identity":
        assert net.evaluate(x, y, metrics=["accuracy"])["accuracy"] == found["exact_match"]


MISFITS = [
    ("mean_squared_error", 1, "identity", "accuracy"),
    ("mean_squared_error", 3, "identity", "accuracy"),
    ("mean_absolute_error", 3, "identity", "top5_accuracy"),
    ("huber", 3, "tanh", "label_accuracy"),
    ("poisson", 2, "identity", "precision_recall_f1"),
    ("mean_squared_error", 2, "identity", "f1"),
    ("mean_squared_error", 3, "sigmoid", "accuracy"),
    ("mean_squared_error", 3, "sigmoid", "top5_accuracy"),
    ("softmax_cross_entropy", 3, "identity", "label_accuracy"),
    ("softmax_cross_entropy", 3, "identity", "exact_match"),
    ("softmax_cross_entropy", 3, "identity", "f1"),
    ("binary_cross_entropy", 1, "identity", "top5_accuracy"),
    ("binary_cross_entropy", 3, "identity", "top5_accuracy"),
]


@pytest.mark.parametrize(("loss", "n_out", "output", "name"), MISFITS)
def test_what_cannot_fit_is_refused_before_the_first_step(loss, n_out, output, name):
    net = network(loss, n_out, output)
    x, y = np.ones((6, 4)), np.arange(6) % n_out if loss == "softmax_cross_entropy" else np.ones((6, n_out))
    with pytest.raises(InvalidValueError, match=f"metrics: {METRICS[name].name}: .*BPX-E018") as caught:
        bpxp.Trainer(net, metrics=[name])
    with pytest.raises(InvalidValueError, match="BPX-E018"):
        net.evaluate(x, y, metrics=[METRICS[name]])
    fixed = eval(caught.value.fix.partition("=")[2].partition("]")[0] + "]")
    assert net.evaluate(x, y, metrics=fixed)["loss"] > 0.0  # the fix works


def test_the_last_activation_is_found_behind_what_changes_no_number():
    nn = bpxp.nn
    for end in (
        [nn.Dense(1, "sigmoid")],
        [nn.Dense(1), nn.Sigmoid(), nn.Flatten()],
        [nn.Sequential((nn.Dense(1, "sigmoid"),))],
    ):
        net = bpxp.Network([nn.Dense(5, "relu"), *end], input_shape=4, loss="mean_squared_error", backend="numpy")
        assert net.spec.probabilities
    for end in (
        [nn.Dense(3, "sigmoid"), nn.Dense(1, "identity")],
        [nn.Dense(1, "sigmoid"), nn.Tanh()],
        [nn.Dense(1, "tanh")],
    ):
        assert not bpxp.Network(end, input_shape=4, loss="mean_squared_error", backend="numpy").spec.probabilities


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(InvalidValueError, match=r"two columns of the same name.*'top5_accuracy' twice"):
        bpxp.Trainer(network("softmax_cross_entropy", 3), metrics=["top5_accuracy", TopK(5)])
