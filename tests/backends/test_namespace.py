"""The functions that the mathematics uses mean the same on every backend, and keep the dtype.

`xp` is the backend's own namespace, and some of its functions are not the library's: each is compared with NumPy.
"""

from __future__ import annotations

import numpy as np
import pytest

A = np.array([[-2.0, 0.0, 3.5], [1.0, -0.5, 3.5]], np.float32)
B = np.array([[1.0, -4.0, 2.0], [1.0, 0.5, -7.0]], np.float32)
C = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 7.0
ROWS = np.array([1, 0, 1], np.int32)

# name -> (function of xp and of arrays of the backend, the arrays on the host)
CASES = {
    "abs": (lambda xp, a: xp.abs(a), A),
    "exp": (lambda xp, a: xp.exp(a), A),
    "expm1": (lambda xp, a: xp.expm1(a), A),
    "tanh": (lambda xp, a: xp.tanh(a), A),
    "log": (lambda xp, a: xp.log(xp.abs(a) + 1.0), A),
    "log1p": (lambda xp, a: xp.log1p(xp.abs(a)), A),
    "sqrt": (lambda xp, a: xp.sqrt(xp.abs(a)), A),
    "square": (lambda xp, a: xp.square(a), A),
    "isfinite": (lambda xp, a: xp.isfinite(a), A),
    "isnan": (lambda xp, a: xp.isnan(a), A),
    "cos": (lambda xp, a: xp.cos(a), A),
    "floor": (lambda xp, a: xp.floor(a), A),
    "logaddexp": (lambda xp, a, b: xp.logaddexp(a, b), A, B),
    "maximum": (lambda xp, a, b: xp.maximum(a, b), A, B),
    "minimum": (lambda xp, a, b: xp.minimum(a, b), A, B),
    "maximum, 0-d": (lambda xp, a: xp.maximum(a, xp.zeros((), dtype=a.dtype)), A),
    "maximum, broadcast": (lambda xp, a: xp.maximum(a, xp.ones((1,), dtype=a.dtype)), A),
    "where": (lambda xp, a, b: xp.where(a > b, a, b), A, B),
    "where, scalar": (lambda xp, a: xp.where(a > 0.0, a, 0.0), A),
    "where, scalar first": (lambda xp, a: xp.where(a > 0.0, 1.0, a), A),
    "arithmetic": (lambda xp, a, b: (1.0 - a) * b / 2.0 + a**2 - (-b), A, B),
    "equal": (lambda xp, a: a == 3.5, A),
    "matmul": (lambda xp, a, b: xp.matmul(a, xp.matrix_transpose(b)), A, B),
    "matmul, 3-d": (lambda xp, c: xp.matmul(c, xp.matrix_transpose(c)), C),
    "matrix_transpose, 3-d": (lambda xp, c: xp.matrix_transpose(c), C),
    "permute_dims": (lambda xp, c: xp.permute_dims(c, (2, 0, 1)), C),
    "reshape": (lambda xp, c: xp.reshape(c, (3, -1)), C),
    "expand_dims": (lambda xp, c: xp.expand_dims(c, axis=1), C),
    "expand_dims, last": (lambda xp, c: xp.expand_dims(c, axis=-1), C),
    "squeeze": (lambda xp, c: xp.squeeze(xp.expand_dims(c, axis=1), axis=1), C),
    "concat": (lambda xp, a, b: xp.concat([a, b], axis=1), A, B),
    "stack": (lambda xp, a, b: xp.stack([a, b], axis=1), A, B),
    "flip": (lambda xp, c: xp.flip(c, axis=1), C),
    "roll": (lambda xp, c: xp.roll(c, 2, axis=2), C),
    "tile": (lambda xp, a: xp.tile(a, (2, 1)), A),
    "broadcast_to": (lambda xp, a: xp.broadcast_to(a, (4, 2, 3)), A),
    "take, rows": (lambda xp, a, i: xp.take(a, i, axis=0), A, ROWS),
    "take, columns": (lambda xp, a, i: xp.take(a, i, axis=1), A, ROWS),
    "take, last axis": (lambda xp, c, i: xp.take(c, i, axis=-1), C, ROWS),
    "take, 1-d": (lambda xp, i, j: xp.take(i, j), np.array([7, 8, 9], np.int32), ROWS),
    "take_along_axis": (lambda xp, a: xp.take_along_axis(a, xp.argsort(a, axis=1), axis=1), A),
    "argsort": (lambda xp, b: xp.astype(xp.argsort(b, axis=1), xp.int32), B),
    "argsort, descending": (lambda xp, b: xp.astype(xp.argsort(b, axis=1, descending=True), xp.int32), B),
    "argsort, descending ties": (lambda xp, a: xp.astype(xp.argsort(a, axis=0, descending=True), xp.int32), A),
    "sort": (lambda xp, b: xp.sort(b, axis=1), B),
    "sort, descending": (lambda xp, b: xp.sort(b, axis=1, descending=True), B),
    "argmax": (lambda xp, b: xp.astype(xp.argmax(b, axis=1), xp.int32), B),
    "argmax, ties": (lambda xp, a: xp.astype(xp.argmax(a, axis=0), xp.int32), A),
    "sum": (lambda xp, c: xp.sum(c), C),
    "sum, axis": (lambda xp, c: xp.sum(c, axis=1), C),
    "sum, axes": (lambda xp, c: xp.sum(c, axis=(0, 2), keepdims=True), C),
    "mean": (lambda xp, c: xp.mean(c, axis=-1, keepdims=True), C),
    "max": (lambda xp, c: xp.max(c), C),
    "max, axis": (lambda xp, a: xp.max(a, axis=-1, keepdims=True), A),
    "max, axes": (lambda xp, c: xp.max(c, axis=(0, 2)), C),
    "min": (lambda xp, c: xp.min(c), C),
    "min, axis": (lambda xp, a: xp.min(a, axis=0), A),
    "min, axes": (lambda xp, c: xp.min(c, axis=(1, 2), keepdims=True), C),
    "max of integers": (lambda xp, i: xp.max(i), ROWS),
    "cumulative_sum": (lambda xp, a: xp.cumulative_sum(a, axis=1), A),
    "any": (lambda xp, a: xp.any(a > 3.0, axis=1), A),
    "all": (lambda xp, a: xp.all(a > -9.0), A),
    "astype to integer": (lambda xp, a: xp.astype(a, xp.int32), A),
    "astype to bool": (lambda xp, a: xp.astype(a, xp.bool), A),
    "astype from bool": (lambda xp, a: xp.astype(a > 0.0, xp.float32), A),
    "astype, no copy": (lambda xp, a: xp.astype(a, xp.float32, copy=False), A),
    "tril": (lambda xp, a: xp.tril(a), A),
    "integer division": (lambda xp, i: (i + 5) // 2 % 3, ROWS),
    "bits": (lambda xp, i: ((i << 3) ^ (i | 5)) & 0xFF, ROWS),
    "asarray, copy": (lambda xp, a: xp.asarray(a, copy=True), A),
    "one-hot by comparison": (
        lambda xp, i: xp.astype(xp.expand_dims(i, axis=1) == xp.arange(3, dtype=i.dtype), xp.float32),
        ROWS,
    ),
}


class NumpyNamespace:
    """NumPy with the standard's spelling of what it spells otherwise."""

    def __getattr__(self, name):
        return getattr(np, name)

    @staticmethod
    def expand_dims(a, axis=0):
        return np.expand_dims(a, axis)

    @staticmethod
    def argsort(a, axis=-1, descending=False):
        return np.argsort(-a if descending else a, axis=axis, kind="stable")

    @staticmethod
    def sort(a, axis=-1, descending=False):
        return -np.sort(-a, axis=axis) if descending else np.sort(a, axis=axis)


@pytest.mark.parametrize("case", CASES)
def test_it_means_what_numpy_means(backend, on, case):
    function, *hosts = CASES[case]
    expected = np.asarray(function(NumpyNamespace(), *hosts))
    result = function(backend.xp, *(on(backend, host) for host in hosts))
    assert result.dtype == getattr(backend.xp, expected.dtype.name)
    assert tuple(result.shape) == expected.shape
    np.testing.assert_allclose(backend.to_numpy(result), expected, rtol=1e-6, atol=1e-7)


def test_astype_copies_unless_told_otherwise(backend, on):
    xp, a = backend.xp, on(backend, A)
    b = xp.astype(a, xp.float32)
    b *= 2.0
    np.testing.assert_array_equal(backend.to_numpy(a), A)


def test_the_largest_of_values_with_nan_is_nan(backend, on):
    a = A.copy()
    a[0, 1] = np.nan
    for function in (backend.xp.max, backend.xp.min):
        result = backend.to_numpy(function(on(backend, a), axis=1))
        np.testing.assert_array_equal(np.isnan(result), [True, False])


def test_int32_wraps_without_a_warning(backend, on):
    largest = on(backend, np.array([2**31 - 1], np.int32))
    np.testing.assert_array_equal(backend.to_numpy(largest + 1), [-(2**31)])
