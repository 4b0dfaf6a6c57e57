"""Row-major matrices given to a library that counts columns first: a cuBLAS made of NumPy reads them by address."""

from __future__ import annotations

import ctypes
import itertools
import types

import numpy as np
import pytest

from bpxp.backends.cupy.cublas import TYPES, Blas, layout

DTYPES = {number: np.dtype(name) for name, number in TYPES.items()}


class Device(np.ndarray):
    """An array that tells its address as CuPy's do."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.__array_interface__["data"][0])


def device(a):
    return np.array(a).view(Device)


class Cublas:
    """cuBLAS by its documentation: C = op(A) op(B), matrices by columns, at addresses, with pitches."""

    ComputeType = types.SimpleNamespace(COMPUTE_32F=68, COMPUTE_64F=70, COMPUTE_32F_FAST_TF32=77)
    GemmAlgo = types.SimpleNamespace(DEFAULT=-1)

    def __init__(self):
        self.calls = []

    def create(self):
        return 7

    def set_stream(self, handle, stream):
        self.workspace = None

    def set_workspace(self, handle, pointer, size):
        self.workspace = pointer

    def gemm_ex(self, h, ta, tb, m, n, k, alpha, a, at, lda, b, bt, ldb, beta, c, ct, ldc, kind, algo):
        one = (1, 1, 1)
        self._all(ta, tb, m, n, k, alpha, (a, at, lda), (b, bt, ldb), beta, (c, ct, ldc), one, 1, kind)

    def gemm_strided_batched_ex(
        self, h, ta, tb, m, n, k, alpha, a, at, lda, sa, b, bt, ldb, sb, beta, c, ct, ldc, sc, count, kind, algo
    ):
        self._all(ta, tb, m, n, k, alpha, (a, at, lda), (b, bt, ldb), beta, (c, ct, ldc), (sa, sb, sc), count, kind)

    def _all(self, ta, tb, m, n, k, alpha, a, b, beta, c, steps, count, kind):
        assert self.workspace is not None
        scalar = ctypes.c_double if kind == self.ComputeType.COMPUTE_64F else ctypes.c_float
        assert (scalar.from_address(alpha).value, scalar.from_address(beta).value) == (1.0, 0.0)
        self.calls.append((kind, count))
        for i in range(count):
            left = self._matrix(a, i * steps[0], k if ta else m, m if ta else k)
            right = self._matrix(b, i * steps[1], n if tb else k, k if tb else n)
            out = self._matrix(c, i * steps[2], m, n)
            out[...] = (left.T if ta else left).astype(out.dtype) @ (right.T if tb else right).astype(out.dtype)

    def _matrix(self, what, offset, rows, columns):
        address, number, pitch = what
        assert pitch >= rows  # else cuBLAS returns CUBLAS_STATUS_INVALID_VALUE
        dtype = DTYPES[number]
        size = (columns - 1) * pitch + rows
        memory = (ctypes.c_byte * (size * dtype.itemsize)).from_address(address + offset * dtype.itemsize)
        flat = np.frombuffer(memory, dtype)
        return np.lib.stride_tricks.as_strided(flat, (rows, columns), (dtype.itemsize, pitch * dtype.itemsize))


@pytest.fixture
def blas():
    library = types.SimpleNamespace(
        empty=lambda shape, dtype: device(np.full(shape, np.nan, dtype)),
        ascontiguousarray=lambda a: device(np.ascontiguousarray(a)),
        broadcast_to=lambda a, shape: np.broadcast_to(a, shape, subok=True),
        cuda=types.SimpleNamespace(
            get_current_stream=lambda: types.SimpleNamespace(ptr=0),
            Memory=lambda size: types.SimpleNamespace(ptr=4096),
        ),
    )
    return Blas(Cublas(), library)


LAYOUTS = {
    "by rows": lambda a: device(a),
    "by columns": lambda a: device(a.swapaxes(-1, -2).copy()).swapaxes(-1, -2),
    "part of wider rows": lambda a: device(np.concatenate([a, a * 0 - 9], axis=-1))[..., : a.shape[-1]],
    "part of longer columns": lambda a: device(np.concatenate([a, a * 0 - 9], axis=-2).swapaxes(-1, -2)).swapaxes(
        -1, -2
    )[..., : a.shape[-2], :],
    "every second column": lambda a: device(np.repeat(a, 2, axis=-1))[..., ::2],
    "backwards": lambda a: device(a[..., ::-1, :])[..., ::-1, :],
}


@pytest.mark.parametrize(("left", "right"), list(itertools.product(LAYOUTS, LAYOUTS)))
def test_every_layout_gives_numpys_product(left, right, blas, rng):
    sizes = [((m, k), (k, n)) for m, k, n in itertools.product((1, 2, 5), (1, 3), (1, 4))]
    stacks = [
        ((3, 2, 5), (3, 5, 4)),
        ((3, 2, 5), (5, 4)),
        ((2, 5), (3, 5, 4)),
        ((1, 2, 5), (3, 5, 1)),
        ((1, 2, 5), (5, 2)),
    ]
    deeper = [((2, 3, 4, 5), (3, 5, 2)), ((2, 1, 4, 5), (1, 3, 5, 2)), ((2, 3, 4, 5), (5, 2))]
    for shape_a, shape_b in [*sizes, *stacks, *deeper]:
        a, b = (rng.integers(-9, 9, shape).astype(np.float32) for shape in (shape_a, shape_b))
        x, y = LAYOUTS[left](a), LAYOUTS[right](b)
        np.testing.assert_array_equal(x, a)
        np.testing.assert_array_equal(y, b)
        assert blas.takes(x, y)
        product = blas.matmul(x, y)
        assert product.dtype == np.float32
        np.testing.assert_array_equal(product, a @ b)


def test_a_matrix_that_is_repeated_without_memory_is_copied(blas):
    a = np.broadcast_to(device(np.arange(3.0)), (4, 3), subok=True)
    np.testing.assert_array_equal(blas.matmul(a, a.T), np.asarray(a) @ np.asarray(a).T)
    assert layout(a.shape, a.strides, 8) is None


@pytest.mark.parametrize(
    ("dtype", "out", "kind"), [("float32", "float32", 68), ("float64", "float64", 70), ("float16", "float32", 68)]
)
def test_sums_are_of_the_kind_of_the_numbers_and_of_float32_for_half_ones(dtype, out, kind, blas):
    a = device(np.arange(6, dtype=dtype).reshape(2, 3))
    product = blas.matmul(a, a.T)
    assert product.dtype == out
    np.testing.assert_array_equal(product, np.asarray(a, out) @ np.asarray(a, out).T)
    assert blas.cublas.calls == [(kind, 1)]


def test_rows_that_follow_one_another_are_one_product(blas):
    blas.matmul(device(np.ones((7, 2, 3), np.float32)), device(np.ones((3, 4), np.float32)))
    assert blas.cublas.calls == [(68, 1)]
    blas.matmul(device(np.ones((2, 3), np.float32)), device(np.ones((3, 4), np.float32)), "tf32")
    assert blas.cublas.calls[1:] == [(77, 1)]


def test_other_products_are_left_to_cupy(blas):
    f32, f64, i32 = (device(np.ones((2, 2), dtype)) for dtype in ("float32", "float64", "int32"))
    empty = device(np.ones((2, 0), np.float32))
    for a, b in [(f32, f64), (i32, i32), (f32[0], f32), (f32, f32[0]), (empty.T, f32[:, :0].T), (f32, f32[:1])]:
        assert not blas.takes(a, b)
