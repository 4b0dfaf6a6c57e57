"""What is refused as x, y and weights: the named exception, the first bad entry, the fix, and an unchanged network."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp.errors import BpxpError, BpxpWarning
from bpxp.inputs import all_finite

NAN, INF = float("nan"), float("inf")


def ones(*shape, **change):
    a = np.ones(shape)
    for index, value in change.get("put", {}).items():
        a[index] = value
    return a


def masked():
    return np.ma.masked_array(ones(20, 4), mask=[[True] + [False] * 3] * 20)


class Sparse:
    """As far as bpxp looks, a sparse matrix of scipy."""

    def tocsr(self):
        return self

    def toarray(self):
        return ones(20, 4)


Sparse.__module__ = "scipy.sparse"


class Frame:
    """As far as bpxp looks, a data frame."""

    def __init__(self, **columns):
        self.columns = list(columns)
        self.dtypes = [c.dtype for c in columns.values()]
        self._data = columns

    def to_numpy(self):
        return np.column_stack(list(self._data.values()))


FLOAT = np.arange(20.0)
INPUTS = {
    "none": (None, TypeError, "is missing: got None"),
    "number": (3.0, TypeError, "a single number"),
    "1-D": (ones(4), ValueError, r"must be 2-D.*shape \(4,\).*x\[None, :\] for one sample"),
    "images": (ones(20, 2, 2), ValueError, r"got shape \(20, 2, 2\).*x.reshape\(20, 4\).*Flatten"),
    "fewer features": (ones(20, 3), ValueError, "x has 3 features, the network expects 4"),
    "transposed": (ones(4, 20), ValueError, r"looks transposed: x.T has shape \(20, 4\)"),
    "no samples": (ones(0, 4), ValueError, "0 samples"),
    "no features": (ones(20, 0), ValueError, "0 features"),
    "ragged": ([[1.0, 2.0], [1.0]], ValueError, "ragged: row 1 has 1 value, row 0 has 2"),
    "object": (
        np.array([[1.0, "a", 2, 3]], dtype=object),
        TypeError,
        r"dtype object; first non-number at \[0, 1\]: str 'a'",
    ),
    "text": (np.array([["a", "b", "c", "d"]]), TypeError, "not numbers: got dtype <U1"),
    "complex": (ones(20, 4) * 1j, TypeError, "complex128 not supported. Fix: pass x.real"),
    "dates": (np.zeros((20, 4), "datetime64[s]"), TypeError, "datetime64"),
    "structured": (np.zeros(20, [("a", "f4"), ("b", "f4")]), TypeError, "not numbers: got dtype"),
    "NaN": (
        ones(20, 4, put={(17, 2): NAN, (18, 0): NAN, (19, 3): NAN}),
        ValueError,
        r"3 NaN and 0 inf. First at \[17, 2\]",
    ),
    "inf": (ones(20, 4, put={(3, 1): -INF}), ValueError, r"0 NaN and 1 inf. First at \[3, 1\]"),
    "too large": (
        ones(20, 4, put={(5, 0): 1e300}),
        ValueError,
        r"1e\+300 exceeds the float32 maximum 3.4e\+38.*\[5, 0\]",
    ),
    "sparse": (Sparse(), TypeError, r"scipy.sparse Sparse.*x.toarray\(\)"),
    "mixed frame": (Frame(a=FLOAT, b=FLOAT.astype(str)), TypeError, "column 'b' is not numeric"),
    "masked": (masked(), TypeError, "20 of 80 masked"),
}
LABELS = {
    "another length": (np.zeros(19, int), ValueError, "20 samples but 19 labels"),
    "a number": (1, TypeError, "a single number"),
    "too large": ([0, 1, 2, 0, 7] + [0] * 14 + [9], ValueError, r"y\[4\] = 7, but 3 classes need 0..2. 2 of 20 labels"),
    "from one": ([1, 2, 3, 1] * 5, ValueError, "Use y - 1"),
    "negative": ([0] * 19 + [-1], ValueError, r"y\[19\] = -1"),
    "fractions": ([0.0, 1.0, 2.0, 1.5] * 5, TypeError, r"integer class ids are expected. y\[3\] = 1.5"),
    "NaN": ([0.0, NAN] * 10, ValueError, r"10 NaN labels. First at \[1\]"),
    "one-hot sum": (
        np.eye(3)[[0] * 20] + np.eye(3)[[1] * 20] * (np.arange(20) == 5)[:, None],
        ValueError,
        "row 5 sums to 2",
    ),
    "one-hot width": (np.zeros((20, 9)), ValueError, r"\(20, 9\), the network has 3 outputs"),
    "one-hot range": (np.tile([2.0, -1.0, 0.0], (20, 1)), ValueError, r"outside \[0, 1\]. First at \[0, 0\]: 2"),
    "text": (["cat", "dog"] * 10, TypeError, "text labels.*np.unique"),
    "none": (None, TypeError, "is missing"),
}


@pytest.fixture
def net(backend):
    return bpxp.Network([4, 3], backend=backend, seed=0)


def flat(net):
    return np.concatenate([net.backend.to_numpy(a).ravel() for own in net.params for a in own])


def refused(net, call, error, text):
    before = flat(net)
    with pytest.raises(error, match=text) as caught:
        call()
    assert isinstance(caught.value, BpxpError)
    assert "Nothing was changed." in str(caught.value)
    assert np.array_equal(flat(net), before)


@pytest.mark.parametrize("case", INPUTS)
def test_bad_x(net, case):
    x, error, text = INPUTS[case]
    y = np.zeros(20, int)
    refused(net, lambda: net.gradient_descent((x, y), learning_rate=0.1), error, text)
    refused(net, lambda: net.predict(x), error, text)
    if case != "images":  # a pair of another length is refused for that
        refused(net, lambda: net.evaluate(x, y), error, text)
        refused(net, lambda: bpxp.Trainer(net, progress=False).fit((x, y), epochs=1), error, text)


@pytest.mark.parametrize("case", LABELS)
def test_bad_labels(net, case):
    y, error, text = LABELS[case]
    x = ones(20, 4)
    refused(net, lambda: net.gradient_descent((x, y), learning_rate=0.1), error, text)
    refused(net, lambda: net.loss_and_gradients(x, y), error, text)


@pytest.mark.parametrize(
    ("loss", "y", "error", "text"),
    [
        (
            "binary_cross_entropy",
            np.zeros(20),
            ValueError,
            r"y has shape \(20,\), the network has 3 outputs.*0/1 per label",
        ),
        (
            "binary_cross_entropy",
            np.full((20, 3), 2),
            ValueError,
            r"60 values are outside \[0, 1\]. First at \[0, 0\]: 2",
        ),
        ("mean_squared_error", np.zeros(20), ValueError, r"y has shape \(20,\), the network has 3 outputs"),
        ("mean_squared_error", np.full((20, 3), NAN), ValueError, "60 values are NaN"),
        ("huber", np.full((20, 3), INF), ValueError, "60 values are infinite"),
        ("poisson", np.full((20, 3), -1), ValueError, "60 values are negative"),
    ],
)
def test_bad_targets_of_other_losses(backend, loss, y, error, text):
    net = bpxp.Network([4, 3], loss=loss, backend=backend, seed=0)
    refused(net, lambda: net.gradient_descent((ones(20, 4), y), learning_rate=0.1), error, text)


def test_one_output_does_not_broadcast(backend):
    net = bpxp.Network([4, 1], loss="mean_squared_error", backend=backend, seed=0)
    text = r"y has shape \(20,\), the predictions \(20, 1\). Fix: y\[:, None\]"
    refused(net, lambda: net.loss_and_gradients(ones(20, 4), np.zeros(20)), ValueError, text)


def test_missing_labels_are_accepted_where_they_mean_something(backend):
    net = bpxp.Network([4, 3], loss="binary_cross_entropy", backend=backend, seed=0)
    y = np.tile([0.0, 1.0, NAN], (20, 1))
    loss, grads = net.loss_and_gradients(ones(20, 4), y)
    assert np.isfinite(net.backend.to_numpy(loss))
    assert not net.backend.to_numpy(grads[0].b)[2]


def test_a_column_of_labels_is_taken_with_a_warning(net):
    y = np.arange(20) % 3
    with pytest.warns(BpxpWarning, match=r"column vector of shape \(20, 1\); using y\[:, 0\]"):
        loss, _ = net.loss_and_gradients(ones(20, 4), y[:, None])
    assert net.backend.to_numpy(loss) == net.backend.to_numpy(net.loss_and_gradients(ones(20, 4), y)[0])


def test_accepted_frames_masks_memmaps_and_bytes(net, tmp_path, rng):
    x = rng.normal(size=(20, 4))
    y = np.arange(20) % 3
    plain = net.evaluate(x, y)
    np.save(tmp_path / "x.npy", x)
    frame = Frame(**dict(zip("abcd", x.T, strict=True)))
    for other in (frame, np.ma.masked_array(x), np.load(tmp_path / "x.npy", mmap_mode="r"), x.astype(np.longdouble)):
        assert net.evaluate(other, y) == plain
    assert net.evaluate((x > 0), y) == net.evaluate((x > 0).astype(float), y)
    assert net.evaluate(x.astype(np.float16), y)["loss"] == pytest.approx(plain["loss"], rel=1e-3)


def test_arrays_of_the_own_backend_are_taken_as_they_are(net, rng):
    x = rng.normal(size=(20, 4)).astype(np.float32)
    device = net.backend.asarray(x)
    y = np.arange(20) % 3
    assert net.evaluate(device, net.backend.asarray(y)) == net.evaluate(x, y)
    refused(net, lambda: net.predict(net.backend.asarray(x[:, :3])), ValueError, "x has 3 features")
    bad = x.copy()
    bad[2, 1] = NAN
    refused(net, lambda: net.predict(net.backend.asarray(bad)), ValueError, r"1 NaN and 0 inf. First at \[2, 1\]")


def test_finite_numbers_whose_sum_is_not(backend, on):
    assert all_finite(on(backend, [3e38, 3e38, 3e38], "float32"), backend)
    for bad in ([1.0, np.nan], [np.inf, 1.0], [np.inf, -np.inf], [3e38, 3e38, -np.inf]):
        assert not all_finite(on(backend, bad, "float32"), backend)
