"""Metrics against scikit-learn, its conventions for ties and for classes that do not occur included."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import bpxp
from bpxp.metrics import PrecisionRecallF1, TopK

sk = pytest.importorskip("sklearn.metrics")
NAMES = ("precision", "recall", "f1")


def net(loss, n_out):
    """A network that returns its input."""
    found = bpxp.Network([n_out, n_out], loss=loss, backend="numpy", seed=0, init="zeros", dtype="float64")
    found.params[0].W[...] = np.eye(n_out)
    return found


def averages(y, guess, weight, average, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are not predicted
        values = sk.precision_recall_fscore_support(
            y, guess, average=average, sample_weight=weight, zero_division=0, **how
        )
    return dict(zip(NAMES, values[:3], strict=True))


def kept(weight):
    return slice(None) if weight is None else weight > 0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_classes_with_ties_and_absent_classes(seed, weighted):
    rng = np.random.default_rng(seed)
    z = rng.integers(0, 3, (60, 8)).astype(float)  # most rows have ties
    z[:, 6] = -1.0  # never predicted; 7 neither occurs nor is predicted
    z[:, 7] = -2.0
    y = rng.integers(0, 7, 60)
    weight = rng.integers(0, 2, 60).astype(float) if weighted else None
    rows = kept(weight)
    found = net("softmax_cross_entropy", 8).evaluate(
        z, y, weight=weight, metrics=["accuracy", "precision_recall_f1", *(TopK(k) for k in (1, 2, 3, 5, 8))]
    )
    guess = z.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, guess, sample_weight=weight), rel=1e-14)
    assert found["class"] == pytest.approx(averages(y[rows], guess[rows], None, "macro"), rel=1e-14)
    for k in (1, 2, 3, 5):
        right = sk.top_k_accuracy_score(y, z, k=k, labels=range(8), sample_weight=weight)
        assert found[f"top{k}_accuracy"] == pytest.approx(right, rel=1e-14)
    assert found["top8_accuracy"] == 1.0


def test_values_of_each_class():
    rng = np.random.default_rng(0)
    z, y = rng.standard_normal((50, 4)), rng.integers(0, 3, 50)
    found = net("softmax_cross_entropy", 4).evaluate(z, y, metrics=[PrecisionRecallF1(per_class=True)])["class"]
    for name, values in averages(y, z.argmax(axis=1), None, None, labels=range(4)).items():
        np.testing.assert_allclose([found[f"{name}_{k}"] for k in range(4)], values, rtol=1e-14)


@pytest.mark.parametrize("n_out", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_labels(n_out, weighted):
    rng = np.random.default_rng(n_out)
    z = rng.standard_normal((60, n_out))
    y = (z + rng.standard_normal(z.shape) > 0.5).astype(int)
    if n_out == 3:
        y[:, 2], z[:, 2] = 0, -1.0  # never on and never predicted: in the average of labels it counts
    weight = rng.integers(0, 2, 60).astype(float) if weighted else None
    found = net("binary_cross_entropy", n_out).evaluate(
        z, y, weight=weight, metrics=["accuracy", "label_accuracy", "exact_match", "f1", "precision_recall_f1"]
    )
    guess = (z > 0).astype(int)
    rows = kept(weight)
    if n_out == 1:
        y, guess = y[:, 0], guess[:, 0]
    exact = sk.accuracy_score(y, guess, sample_weight=weight)  # of several labels that all are right
    assert found["accuracy"] == found["exact_match"] == pytest.approx(exact, rel=1e-14)
    assert found["label_accuracy"] == pytest.approx(np.mean((y == guess)[rows]), rel=1e-14)
    assert found["class"] == pytest.approx(averages(y, guess, weight, "macro"), rel=1e-14)
    how = {"average": "micro" if n_out == 3 else "binary", "sample_weight": weight, "zero_division": 0}
    assert found["f1"]["micro"] == pytest.approx(sk.f1_score(y, guess, **how), rel=1e-14)
