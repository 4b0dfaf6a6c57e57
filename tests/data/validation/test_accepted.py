"""Accepted inputs, bit-identical to a plain array: layouts, dtypes, frames, arrays of other libraries."""

from __future__ import annotations

import importlib.util

import numpy as np
import pandas
import polars
import pytest

import bpxp
from bpxp.core.tree import leaves, tree_map
from bpxp.data.validation.inputs import all_finite
from bpxp.errors import BpxpError
from bpxp.network.prepare import prepare

# 23 samples in batches of 5: the last has 3. Sixteenths are the same numbers in every float dtype.
X = (np.random.default_rng(0).integers(-40, 40, (23, 4)) / 16.0).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 23)
PIXELS = np.random.default_rng(2).integers(0, 256, (23, 4), dtype=np.uint8)


class Exported:
    """An array of another library, as far as DLPack can tell."""

    def __init__(self, a: np.ndarray) -> None:
        self.a, self.shape, self.dtype = a, a.shape, a.dtype

    def __dlpack_device__(self):
        return self.a.__dlpack_device__()

    def __dlpack__(self, **options):
        return self.a.__dlpack__(**options)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def on_disk(a, folder):
    np.save(folder / "a.npy", a)
    return np.load(folder / "a.npy", mmap_mode="r")


def of_torch(a):
    return pytest.importorskip("torch").from_numpy(a.copy())


def of_jax(a):
    jax = pytest.importorskip("jax")
    return jax.device_put(a, jax.devices("cpu")[0])


def unaligned(a):
    return np.frombuffer(b"x" + a.tobytes(), a.dtype, offset=1).reshape(a.shape)


LAYOUTS = {
    "list": lambda a, folder: a.tolist(),
    "tuples": lambda a, folder: tuple(map(tuple, a.tolist())) if a.ndim == 2 else tuple(a.tolist()),
    "list of arrays": lambda a, folder: list(a),
    "read-only": lambda a, folder: read_only(a),
    "every second": lambda a, folder: np.repeat(a, 2, axis=0)[::2],
    "negative strides": lambda a, folder: a[::-1].copy()[::-1],
    "broadcast": lambda a, folder: np.broadcast_to(a, (2, *a.shape))[1],
    "unaligned": lambda a, folder: unaligned(a),
    "big-endian": lambda a, folder: a.astype(a.dtype.newbyteorder(">")),
    "memory map": lambda a, folder: on_disk(a, folder),
    "no mask": lambda a, folder: np.ma.masked_array(a),
    "DLPack": lambda a, folder: Exported(a),
    "torch": lambda a, folder: of_torch(a),
    "jax": lambda a, folder: of_jax(a),
}
SAMPLES = {
    **LAYOUTS,
    "Fortran order": lambda a, folder: np.asfortranarray(a),
    "every second column": lambda a, folder: np.repeat(a, 2, axis=1)[:, ::2],
    "DLPack in Fortran order": lambda a, folder: Exported(np.asfortranarray(a)),
    "torch in Fortran order": lambda a, folder: of_torch(a.T).T,
    "float64": lambda a, folder: a.astype(np.float64),
    "big-endian float64": lambda a, folder: a.astype(">f8"),
    "float16": lambda a, folder: a.astype(np.float16),
    "float16 of torch": lambda a, folder: of_torch(a.astype(np.float16)),
    "long double": lambda a, folder: a.astype(np.longdouble),
    "pandas": lambda a, folder: pandas.DataFrame(a, columns=list("abcd")),
    "pandas, dtypes mixed": lambda a, folder: pandas.DataFrame(a).astype({1: "float64", 2: "Float32"}),
    "polars": lambda a, folder: polars.DataFrame(a, schema=list("abcd")),
}
LABELS = {
    **LAYOUTS,
    "floats": lambda a, folder: a.astype(np.float64),
    "uint8": lambda a, folder: a.astype(np.uint8),
    "int8": lambda a, folder: a.astype(np.int8),
    "pandas": lambda a, folder: pandas.Series(a),
    "pandas, another index": lambda a, folder: pandas.Series(a, index=range(100, 123)),
    "pandas, categories": lambda a, folder: pandas.Series(a).astype("category"),
    "polars": lambda a, folder: polars.Series("y", a),
}


class Results:
    """What the methods of one network return, bit for bit: it is compiled once, and put back each time."""

    def __init__(self, backend, **options) -> None:
        self.net = bpxp.Network([4, 5, 3], backend=backend, seed=0, **options)
        self.params = tree_map(backend.to_numpy, self.net.params)
        self.trainer = bpxp.Trainer(self.net, bpxp.optim.Adam(0.01), progress=False)

    def __call__(self, x, y):
        net = self.net
        loss, gradients = net.loss_and_gradients(x, y)
        found = {
            "evaluate": [net.evaluate(x, y)],
            "predict": self.bits(net.predict(x), net.predict_proba(x)),
            "gradients": self.bits(loss, *leaves(gradients)),
        }
        try:
            history = self.trainer.fit((x, y), epochs=2, batch_size=5, validation=(x, y))
            found["history"] = [history[name] for name in history.columns if name != "seconds"]
            found["fit"] = self.bits(*leaves(net.params))
        finally:
            net.params, net.opt_state, net.epoch = self.params, None, 0
        return found

    def bits(self, *arrays):
        return [(a.shape, str(a.dtype), self.net.backend.to_numpy(a).tobytes()) for a in arrays]


@pytest.fixture(scope="module")
def results(backend):
    return Results(backend)


@pytest.fixture(scope="module")
def plain(results):
    return results(X, Y)


@pytest.mark.parametrize("oddity", SAMPLES)
def test_samples(results, plain, oddity, tmp_path):
    given = SAMPLES[oddity](X, tmp_path)
    assert results(given, Y) == plain
    if hasattr(given, "__array__") and not hasattr(given, "__dlpack_device__"):
        np.testing.assert_array_equal(np.asarray(given), X)  # and it was not written into


@pytest.mark.parametrize(
    "oddity", ["Fortran order", "every second column", "DLPack in Fortran order", "torch in Fortran order"]
)
def test_a_product_of_many_samples_has_the_same_bits_whatever_their_layout(backend, oddity, rng, tmp_path):
    # A matrix product may round otherwise if it is told that an operand is transposed, but not for a few numbers.
    net = bpxp.Network([300, 50, 3], backend=backend, seed=0)
    x, y = rng.normal(size=(200, 300)).astype(np.float32), rng.integers(0, 3, 200)
    given = SAMPLES[oddity](x, tmp_path)
    for a, b in zip(net.loss_and_gradients(given, y)[1][0], net.loss_and_gradients(x, y)[1][0], strict=True):
        assert backend.to_numpy(a).tobytes() == backend.to_numpy(b).tobytes()
    assert backend.to_numpy(net.logits(given)).tobytes() == backend.to_numpy(net.logits(x)).tobytes()
    taken = prepare(net.spec, net.backend, (given, y), None, "fit")[0]
    if isinstance(taken, np.ndarray) and isinstance(given, np.ndarray):
        assert taken.flags.c_contiguous  # so that a mini-batch is gathered row by row


@pytest.mark.parametrize("oddity", LABELS)
def test_labels(results, plain, oddity, tmp_path):
    assert results(X, LABELS[oddity](Y, tmp_path)) == plain


@pytest.mark.parametrize("oddity", [*LAYOUTS, "pandas", "polars"])
def test_weights(results, oddity, tmp_path):
    weight = np.arange(23.0) / 4.0
    given, net = LABELS[oddity](weight, tmp_path), results.net
    assert net.evaluate(X, Y, weight=given) == net.evaluate(X, Y, weight=weight)
    assert results.trainer.fit((X, Y), epochs=0, weight=given).rows == []


@pytest.mark.parametrize("kind", ["int64", "int8", ">i4", "bool", "list", "pandas", "polars", "DLPack"])
def test_integers_are_numbers(results, kind):
    x = np.floor(X) > 0 if kind == "bool" else np.floor(X).astype(np.int64)
    others = {
        "list": x.tolist,
        "pandas": lambda: pandas.DataFrame(x),
        "polars": lambda: polars.DataFrame(x),
        "DLPack": lambda: Exported(x),
    }
    given = others[kind]() if kind in others else x.astype(kind)
    assert results(given, Y) == results(x.astype(np.float32), Y)


@pytest.mark.parametrize("oddity", ["read-only", "every second", "memory map", "DLPack", "Fortran order", "pandas"])
def test_bytes_are_pixels_whatever_holds_them(backend, oddity, tmp_path):
    results = Results(backend, pixels=True)
    scaled = results(PIXELS.astype(np.float32) * np.float32(1.0 / 255.0), Y)
    assert results(PIXELS, Y) == scaled
    assert results(SAMPLES[oddity](PIXELS, tmp_path), Y) == scaled


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
@pytest.mark.parametrize("library", ["torch", "jax", "ml_dtypes"])
def test_narrow_floats_of_other_libraries_are_the_same_numbers(results, library, kind):
    # Sixteenths up to 40/16 need six bits: they are rounded before, so that each format holds them.
    x = (np.sign(X) * np.exp2(np.round(np.log2(np.abs(X) + 1 / 16)))).astype(np.float32)
    if library == "torch":
        given = of_torch(x).to(getattr(pytest.importorskip("torch"), kind))
    else:
        narrow = getattr(pytest.importorskip("ml_dtypes"), kind)
        given = of_jax(x).astype(narrow) if library == "jax" else x.astype(narrow)
    assert results(given, Y) == results(x, Y)
    weight = np.exp2(np.arange(23) % 4).astype(np.float32)
    narrow_weight = of_torch(weight).to(given.dtype) if library == "torch" else weight.astype(given.dtype)
    assert results.net.evaluate(x, Y, weight=narrow_weight) == results.net.evaluate(x, Y, weight=weight)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(22, 23)])
def test_one_sample(backend, rows):
    net = bpxp.Network([4, 3], backend=backend, seed=0)
    x, y = X[rows], Y[rows]
    assert net.predict(x).shape == (1,)
    whole = net.backend.to_numpy(net.predict_proba(X))[rows]
    np.testing.assert_allclose(net.backend.to_numpy(net.predict_proba(x)), whole, rtol=1e-6)
    history = bpxp.Trainer(net, bpxp.optim.SGD(0.5), progress=False).fit((x, y), epochs=3)
    assert history[2]["loss"] < history[1]["loss"] < history[0]["loss"]


def test_labels_of_two_classes_may_be_bool(backend):
    truth = X[:, 0] > 0
    for options, y, plain in (
        ({}, truth, truth.astype(int)),
        ({"loss": "binary_cross_entropy"}, truth[:, None], truth.astype(np.float32)[:, None]),
    ):
        net = bpxp.Network([4, 2 if not options else 1], backend=backend, seed=0, **options)
        other = bpxp.Network([4, 2 if not options else 1], backend=backend, seed=0, **options)
        net.gradient_descent((X, y), learning_rate=0.5)
        other.gradient_descent((X, plain), learning_rate=0.5)
        for a, b in zip(leaves(net.params), leaves(other.params), strict=True):
            assert net.backend.to_numpy(a).tobytes() == net.backend.to_numpy(b).tobytes()


def test_classes_may_be_rows(results, plain):
    # One-hot rows: the sums are the same, their order may not be.
    for rows in (np.eye(3)[Y], np.eye(3, dtype=bool)[Y], pandas.get_dummies(pandas.Series(Y)), np.eye(3)[Y].tolist()):
        assert results.net.evaluate(X, rows) == pytest.approx(plain["evaluate"][0], rel=1e-5)


def test_missing_labels_mean_something_to_a_loss_of_labels(backend):
    net = bpxp.Network([4, 3], loss="binary_cross_entropy", backend=backend, seed=0)
    loss, grads = net.loss_and_gradients(X, np.tile([0.0, 1.0, np.nan], (23, 1)))
    assert np.isfinite(net.backend.to_numpy(loss))
    assert not net.backend.to_numpy(grads[0].b)[2]


def test_arrays_of_the_backend_are_taken_as_they_are(results, plain):
    net = results.net
    assert results(net.backend.asarray(X), net.backend.asarray(Y)) == plain
    bad = X.copy()
    bad[2, 1] = np.nan
    for x, text in ((X[:, :3].copy(), "x has 3 features"), (bad, r"1 NaN and 0 inf. First at \[2, 1\]")):
        with pytest.raises(BpxpError, match=text):
            net.predict(net.backend.asarray(x))


def test_finite_numbers_whose_sum_is_not(backend, on):
    assert all_finite(on(backend, [3e38, 3e38, 3e38], "float32"), backend)
    for numbers in ([1.0, np.nan], [np.inf, 1.0], [np.inf, -np.inf], [3e38, 3e38, -np.inf]):
        assert not all_finite(on(backend, numbers, "float32"), backend)


def test_sparse_matrices_are_those_of_scipy():
    # What mistakes/samples.py plays is what scipy has.
    if importlib.util.find_spec("scipy"):
        from scipy import sparse

        for make in (sparse.csr_array, sparse.csc_matrix, sparse.coo_array, sparse.lil_matrix):
            with pytest.raises(TypeError, match=r"scipy.sparse \w+.*x.toarray\(\).*BPX-E032"):
                bpxp.Network([4, 3], backend="numpy", seed=0).predict(make(X))
