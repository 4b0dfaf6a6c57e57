"""28 to 60: samples, targets, weights."""

from __future__ import annotations

import decimal
from typing import Any

import numpy as np

import bpxp
from bpxp import data, nn
from bpxp.backends import get_backend
from bpxp.errors import BpxpWarning
from mistakes.rows import INF, NAN, bad, named, ones, row

# The rows are a table: a few lines each.
# fmt: off

# ---------------------------------------------------------------- 28-46: samples


class Sparse:
    """As far as bpxp looks, a sparse matrix of scipy."""

    def tocsr(self) -> Sparse:
        return self

    def toarray(self) -> np.ndarray:
        return ones(20, 4)


Sparse.__module__ = "scipy.sparse"


class Tensor:
    """As far as DLPack can tell, an array of another library, on a device or at work in its autodiff."""

    dtype, shape, ndim = "float32", (20, 4), 2

    def __init__(self, device: tuple[int, int], requires_grad: bool = False) -> None:
        self.device, self.requires_grad = device, requires_grad

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("no such dtype in DLPack")


CuPy = type("ndarray", (Tensor,), {"__module__": "cupy"})


def frame(**columns: Any) -> Any:
    import pandas

    return pandas.DataFrame(columns)


def polars_frame(**columns: Any) -> Any:
    import polars

    return polars.DataFrame(columns)


FLOATS = [float(i) for i in range(20)]
TEXTS = [str(i) for i in range(20)]

bad("x", 28, "1-D", ones(784), ValueError, "E036", "must be 2-D (samples, features)", "got shape (784,), expected (n, 4)")
bad("x", 28, "one sample", ones(4), ValueError, "E036", "got shape (4,)", "Fix: x[None, :], one sample")
bad("x", 29, "images", ones(20, 2, 3), ValueError, "E036", "x has 6 numbers per sample, the network expects 4",
    "got shape (20, 2, 3), expected (n, 4)")
bad("x", 30, "None", lambda: None, TypeError, "E030", "x: is missing: got None")
bad("x", 30, "a number", 3.0, TypeError, "E030", "x: a single number", "(n, 4)")
bad("x", 30, "a dict", lambda: {"a": 1.0}, TypeError, "E030", "x: not an array: got dict")
bad("x", 30, "a generator", lambda: (r for r in ones(20, 4)), TypeError, "E030",
    "can be read only once: got generator", "Fix: x = np.stack(list(x))")
bad("x", 30, "a lazy frame", lambda: polars_frame(a=FLOATS).lazy(), TypeError, "E030",
    "has not been computed yet: got LazyFrame", "Fix: pass x.collect()")
bad("x", 31, "fewer features", ones(20, 3), ValueError, "E036", "x has 3 features, the network expects 4")
bad("x", 32, "transposed", ones(4, 20), ValueError, "E036", "x has 20 features, the network expects 4",
    "looks transposed: x.T has shape (20, 4)", "Fix: x.T")
bad("x", 33, "no samples", ones(0, 4), ValueError, "E037", "0 samples", "got shape (0, 4)")
bad("x", 33, "an empty list", [], ValueError, "E037", "0 samples", "got shape (0,)")
bad("x", 34, "no features", ones(20, 0), ValueError, "E037", "0 features", "got shape (20, 0)")
bad("x", 35, "ragged", [[1.0, 2.0], [1.0]], ValueError, "E035", "ragged: row 1 has 1 value, row 0 has 2")
bad("x", 35, "ragged with numbers", [[1.0, 2.0], 3.0], ValueError, "E035", "the rows are not all sequences of numbers")
bad("x", 36, "objects", lambda: _objects("a"), TypeError, "E031", "dtype object; first non-number at [3, 2]: str 'a'")
bad("x", 36, "decimals", lambda: _objects(decimal.Decimal(1)), TypeError, "E031",
    "first non-number at [3, 2]: Decimal '1'")
bad("x", 36, "missing values", lambda: _objects(None), TypeError, "E031", "first non-number at [3, 2]: NoneType 'None'")
bad("x", 36, "missing values among bools", np.array([[True, None, 1, 2]] * 20, object), TypeError, "E031",
    "first non-number at [0, 1]: NoneType 'None'")
bad("x", 36, "numbers as objects", np.ones((20, 4), object), TypeError, "E031", "convert them with x.astype(float)")
bad("x", 37, "text", np.full((20, 4), "a"), TypeError, "E031", "not numbers: got dtype <U1",
    "Fix: encode it as numbers")
bad("x", 37, "a str", lambda: "1,2,3,4", TypeError, "E031", "not numbers: got dtype <U7")
bad("x", 38, "complex", ones(20, 4) * 1j, TypeError, "E031", "complex128 not supported. Fix: pass x.real")
bad("x", 39, "dates", np.zeros((20, 4), "datetime64[s]"), TypeError, "E031", "not numbers: got dtype datetime64[s]")
bad("x", 39, "durations", np.zeros((20, 4), "timedelta64[s]"), TypeError, "E031",
    "not numbers: got dtype timedelta64[s]")
bad("x", 39, "structured", np.zeros(20, [("a", "f4"), ("b", "f4")]), TypeError, "E031", "not numbers: got dtype [('a'")
bad("x", 40, "NaN", ones(20, 4, put={(17, 2): NAN, (18, 0): NAN, (19, 3): NAN}), ValueError, "E038",
    "3 NaN and 0 inf. First at [17, 2]", "np.isfinite(x)")
bad("x", 41, "inf", ones(20, 4, put={(3, 1): -INF}), ValueError, "E038", "0 NaN and 1 inf. First at [3, 1]")
bad("x", 41, "too large", ones(20, 4, put={(5, 0): 1e300, (6, 0): -1e39}), ValueError, "E039",
    "1e+300 exceeds the float32 maximum 3.4e+38. First at [5, 0], 2 in all", "dtype='float64'")
bad("x", 41, "beyond float64", np.full((20, 4), np.finfo(np.longdouble).max / 2), ValueError, "E039", "First at [0, 0], 80 in all")
bad("x", 42, "sparse", lambda: Sparse(), TypeError, "E032", "scipy.sparse Sparse", "Fix: pass x.toarray()")
bad("x", 43, "mixed columns", lambda: frame(age=FLOATS, name=TEXTS), TypeError, "E031", "column 'name' is not numeric",
    "Fix: x.drop(columns=['name'])")
bad("x", 43, "mixed columns of polars", lambda: polars_frame(age=FLOATS, name=TEXTS), TypeError, "E031",
    "column 'name' is not numeric: got dtype String")
bad("x", 43, "missing integers", lambda: frame(**{k: _nullable() for k in "abcd"}), TypeError, "E031", "[3, 0]: NAType")
bad("x", 44, "masked", lambda: np.ma.masked_array(ones(20, 4), mask=[[True] + [False] * 3] * 20), TypeError, "E033",
    "has masked values: got 20 of 80 masked", "x.filled(value)")
bad("x", 45, "requires_grad", lambda: Tensor((1, 0), True), TypeError, "E034", "records gradients",
    "Fix: pass x.detach()")
bad("x", 45, "a dtype of its own", lambda: Tensor((1, 0)), TypeError, "E031",
    "cannot take the array: got dtype float32")
bad("x", 46, "on another device", lambda: CuPy((2, 7)), ValueError, "E025", "on another device: got cuda:7 (cupy)",
    "Fix: net.to('cupy:7'), or pass a NumPy array")


def _objects(value: Any) -> np.ndarray:
    a = np.ones((20, 4), dtype=object)
    a[3, 2] = value
    return a


def _nullable() -> Any:
    import pandas

    return pandas.array([0, 1, 2, None] * 5, dtype="Int64")


@row(46, ValueError, "E025", "evaluate: x: the array is on another device: got array_api_strict.Device('CPU_DEVICE')",
    "expected array_api_strict.Device('device1')", "net.to(")
def a_host_array_for_a_device(c):
    net = bpxp.Network([4, 3], backend="strict:device1", seed=0)
    net.evaluate(get_backend("strict").asarray(c.x), c.y)


@row(47, ValueError, "E025", "fit: y: the array is on another device: got array_api_strict.Device('CPU_DEVICE')",
    "expected array_api_strict.Device('device1')")
def x_and_y_on_different_devices(c):
    net = bpxp.Network([4, 3], backend="strict:device1", seed=0)
    batch = net.backend.asarray(c.x), get_backend("strict").asarray(c.y)
    bpxp.Trainer(net, progress=False).fit(batch, epochs=1)


@row(47, ValueError, "E025", "Dataset.to: x: the array is on another device: got cuda:0 (cupy), expected cpu (numpy)")
def a_data_set_on_another_device(c):
    data.Dataset(CuPy((2, 0)), c.y).to("numpy")


# ---------------------------------------------------------------- 48-60: targets, weights

LABELS = [0, 1, 2, 0] * 5
bad("y", 48, "another length", LABELS[:19], ValueError, "E040", "y: 20 samples but 19 labels")
bad("y", 48, "a number", 1, TypeError, "E030", "y: a single number", "20 targets")
bad("y", 48, "None", lambda: None, TypeError, "E030", "y: is missing: got None")
bad("y", 49, "too large", [0, 1, 2, 0, 7] + [0] * 14 + [9], ValueError, "E041", "y[4] = 7, but 3 classes need 0..2",
    "2 of 20 labels are out of range")
bad("y", 49, "from one", [1, 2, 3, 1] * 5, ValueError, "E041", "y[2] = 3, but 3 classes need 0..2",
    "Labels 1..n? Use np.asarray(y) - 1")
bad("y", 50, "negative", [0] * 19 + [-1], ValueError, "E041", "y[19] = -1, but 3 classes need 0..2", "1 of 20")
bad("y", 51, "fractions", [0.0, 1.0, 2.0, 1.5] * 5, TypeError, "E042",
    "integer class ids are expected. y[3] = 1.5, 5 in all")
bad("y", 52, "NaN", [0.0, NAN] * 10, ValueError, "E045", "10 NaN labels. First at [1]")
bad("y", 51, "complex", [1j] * 20, TypeError, "E031", "y: complex128 not supported. Fix: pass np.real(y)")
bad("y", 53, "sums", lambda: np.eye(3)[[0] * 20] + np.eye(3)[[1] * 20] * (np.arange(20) == 5)[:, None], ValueError,
    "E046", "row 5 sums to 2", "1 such rows", "binary_cross_entropy")
bad("y", 53, "range", np.tile([2.0, -1.0, 0.0], (20, 1)), ValueError, "E046", "40 values are outside [0, 1]",
    "First at [0, 0]: 2")
bad("y", 53, "NaN in rows", np.tile([1.0, NAN, 0.0], (20, 1)), ValueError, "E045", "20 values are NaN. First at [0, 1]")
bad("y", 54, "width", np.zeros((20, 9)), ValueError, "E044", "y has shape (20, 9), the network has 3 outputs", "(n, 3)")
bad("y", 57, "text", ["cat", "dog"] * 10, TypeError, "E043", "text labels", "np.unique(y, return_inverse=True)")
bad("y", 57, "text of objects", np.array(["cat", "dog"] * 10, dtype=object), TypeError, "E043", "text labels")
bad("y", 57, "a column of text", lambda: frame(y=["cat", "dog"] * 10)["y"], TypeError, "E043", "text labels")


def _target(number: int, loss: str, y: Any, code: str, *parts: str, outputs: int = 3) -> None:
    def call(c: Any) -> None:
        net = bpxp.Network([4, outputs], loss=loss, backend=c.backend, seed=0)
        c.watch(net).gradient_descent((c.x, y), learning_rate=0.1)

    row(number, ValueError, code, *parts, kind="backend")(named(f"{loss} {parts[0]}", call))


_target(53, "binary_cross_entropy", np.full((20, 3), 2), "E046", "60 values are outside [0, 1]. First at [0, 0]: 2")
_target(53, "poisson", np.full((20, 3), -1), "E046", "60 values are negative. First at [0, 0]: -1")
_target(54, "binary_cross_entropy", np.zeros(20), "E044", "y has shape (20,), the network has 3 outputs",
    "0/1 per label")
_target(54, "mean_squared_error", np.zeros(20), "E044", "y has shape (20,), the network has 3 outputs")
_target(52, "mean_squared_error", np.full((20, 3), NAN), "E045", "60 values are NaN. First at [0, 0]")
_target(52, "huber", np.full((20, 3), INF), "E045", "60 values are infinite. First at [0, 0]")
_target(55, "mean_squared_error", np.zeros(20), "E044", "y has shape (20,), the predictions (20, 1). Fix: y.reshape(-1, 1)",
    outputs=1)


@row(55, ValueError, "E044", "y has shape (20,), the network has 3 outputs at each of 2 positions",
    "expected (n, 2) or (n, 2, 3). Fix: nn.Flatten() before the last dense layer", kind="backend")
def one_label_for_several_positions(c):
    bpxp.Network([4, 3], input_shape=(2, 2), backend=c.backend, seed=0).evaluate(np.ones((20, 2, 2)), np.zeros(20, int))


@row(59, ValueError, "E048", "fit: class_weight: a sample has several classes", "Fix: weight=…", kind="backend")
def weights_of_classes_where_a_sample_has_several(c):
    net = bpxp.Network([4, 3], input_shape=(2, 2), backend=c.backend, seed=0)
    data = np.ones((20, 2, 2)), np.zeros((20, 2), int)
    bpxp.Trainer(net, progress=False).fit(data, epochs=1, class_weight="balanced")


@row(59, ValueError, "E048", "fit: class_weight: MeanSquaredError knows no classes", "Fix: weight=…", kind="backend")
def weights_of_classes_where_there_are_none(c):
    net = bpxp.Network([4, 1], loss="mean_squared_error", backend=c.backend, seed=0)
    bpxp.Trainer(net, progress=False).fit((c.x, c.x[:, :1]), epochs=1, class_weight="balanced")


@row(56, BpxpWarning, "W001", "y is a column vector of shape (20, 1); using y[:, 0]", kind="backend")
def column_of_labels(c):
    loss, _ = c.net.loss_and_gradients(c.x, c.y[:, None])
    assert c.backend.to_numpy(loss) == c.backend.to_numpy(c.net.loss_and_gradients(c.x, c.y)[0])


@row(58, BpxpWarning, "W002", "all 20 labels are class 0", kind="backend")
def a_single_class(c):
    c.fit(y=np.zeros(20, int))


@row(58, BpxpWarning, "W002", "all 40 labels are class 1", kind="backend")
def a_single_class_at_every_position(c):
    net = bpxp.Network([nn.Dense(3)], input_shape=(2, 4), backend=c.backend, seed=0)
    bpxp.Trainer(net, progress=False).fit((np.ones((20, 2, 4)), np.ones((20, 2), int)), epochs=1)


def _fit(number: int, error: type[BaseException], code: str, *parts: str, **options: Any) -> None:
    name = ", ".join(f"{key}={str(value)[:20]}" for key, value in options.items())
    row(number, error, code, *parts, kind="backend")(named(name, lambda c: c.fit(**options)))


_fit(59, ValueError, "E047", "weight: 20 samples", "got shape (19,)", "expected (20,)", weight=[1.0] * 19)
_fit(59, ValueError, "E047", "weights are finite and >= 0. weight[3] = -1, 5 in all", weight=[1.0, 1.0, 1.0, -1.0] * 5)
_fit(59, ValueError, "E047", "weight[0] = nan, 1 in all", weight=[NAN] + [1.0] * 19)
_fit(59, ValueError, "E047", "all weights are zero", "at least one > 0", weight=[0.0] * 20)
_fit(59, ValueError, "E047", "the sum of the weights has to be a normal number in float32: got 2e+301", weight=[1e300] * 20)
_fit(59, ValueError, "E047", "the mean of the weights of the training data has to be a number > 0: got 0",
    class_weight=[0.0] * 3)
_fit(59, ValueError, "E048", "one finite weight >= 0 for each of 3 classes", class_weight=[1.0, 2.0])
_fit(59, ValueError, "E048", "one finite weight >= 0 for each of 3 classes", class_weight={0: -1.0})
_fit(59, ValueError, "E048", "got 'balance'", "expected 'balanced'", class_weight="balance")
_fit(59, ValueError, "E048", "7 is none of the classes 0..2", class_weight={0: 2.0, 7: 1.0})
_fit(60, ValueError, "E050", "a split of 20 samples leaves 0 for validation", "got 0.01", validation=0.01)
_fit(60, ValueError, "E050", "leaves 0 for validation", "got 1.0", validation=1.0)
_fit(60, TypeError, "E030", "fit: validation: not a data set: got str", "Fix: pass (x, y)", validation="all")
_fit(60, ValueError, "E050", "leaves 0 for validation", validation=np.float32(0.015))


@row(60, TypeError, "E030", "not a data set: got generator", "a Dataset or a pair (x, y)", kind="backend")
def batches_from_a_generator(c):
    bpxp.Trainer(c.net, progress=False).fit(((c.x, c.y) for _ in range(3)), epochs=1)


@row(60, ValueError, "E050", "a part would have 0 samples", "got 0.01 of 20 samples, parts of 20 and 0")
def a_split_without_samples(c):
    data.Dataset(c.x, c.y).split(0.01)
