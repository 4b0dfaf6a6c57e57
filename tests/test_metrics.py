"""Metrics against slow and obvious counts, in batches, with padding, with ties, and with nothing to count."""

from __future__ import annotations

import numpy as np
import pytest

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
    assert measure(TopK(1), backend, on, [(np.zeros((2, 3)), y, None)]) == 1.0
    assert measure(TopK(2), backend, on, [(np.full((2, 3), np.nan), y, None)]) == 0.0
    assert measure(TopK(5), backend, on, [(np.full((2, 3), np.nan), y, None)]) == 0.0
    masked = np.array([[1.0, -np.inf, 0.0], [-np.inf, 3.0, 2.0]])
    assert measure(TopK(2), backend, on, [(masked, y, None)]) == 1.0
    assert measure(TopK(1), backend, on, [(masked, y, None)]) == 0.5


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
        np.testing.assert_allclose(found[name], np.mean(values), rtol=1e-14)
        np.testing.assert_allclose([found[f"{name}_{k}"] for k in range(6)], values, rtol=1e-14)
    assert found["precision_4"] == found["f1_4"] == 0.0
    assert set(measure(PrecisionRecallF1(), backend, on, [(z, np.eye(6)[y], None)])) == set(each)


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
