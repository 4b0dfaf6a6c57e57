"""Row-major matrices given to a library that counts columns first."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")

from bpxp.backends.cupy.cublas import Blas, layout  # noqa: E402


def device(a):
    return cupy.array(a, order="C")


@pytest.fixture(scope="module")
def blas():
    return Blas()


LAYOUTS = {
    "by rows": lambda a: device(a),
    "by columns": lambda a: device(a.swapaxes(-1, -2).copy()).swapaxes(-1, -2),
    "part of wider rows": lambda a: cupy.concatenate([a, a * 0 - 9], axis=-1)[..., : a.shape[-1]],
    "part of longer columns": lambda a: device(cupy.concatenate([a, a * 0 - 9], axis=-2).swapaxes(-1, -2)).swapaxes(
        -1, -2
    )[..., : a.shape[-2], :],
    "every second column": lambda a: cupy.repeat(a, 2, axis=-1)[..., ::2],
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
        x, y = LAYOUTS[left](device(a)), LAYOUTS[right](device(b))
        np.testing.assert_array_equal(x.get(), a)
        np.testing.assert_array_equal(y.get(), b)
        assert blas.takes(x, y)
        product = blas.matmul(x, y)
        assert product.dtype == np.float32
        np.testing.assert_array_equal(product.get(), a @ b)


def test_a_matrix_that_is_repeated_without_memory_is_copied(blas):
    a = cupy.broadcast_to(cupy.arange(3.0), (4, 3))
    np.testing.assert_array_equal(blas.matmul(a, a.T).get(), a.get() @ a.get().T)
    assert layout(a.shape, a.strides, 8) is None


@pytest.mark.parametrize(
    ("dtype", "out", "kind"), [("float32", "float32", 68), ("float64", "float64", 70), ("float16", "float32", 68)]
)
def test_sums_are_of_the_kind_of_the_numbers_and_of_float32_for_half_ones(dtype, out, kind, blas, calls):
    a = device(np.arange(6, dtype=dtype).reshape(2, 3))
    product = blas.matmul(a, a.T)
    assert product.dtype == out
    np.testing.assert_array_equal(product.get(), a.get().astype(out) @ a.get().T.astype(out))
    assert calls == [("gemm_ex", kind)]


@pytest.fixture
def calls(blas, monkeypatch):
    """The products that cuBLAS is given: the function, and the type of the sum."""
    found = []
    for name in ("gemm_ex", "gemm_strided_batched_ex"):
        function = getattr(blas.cublas, name)

        def call(*arguments, name=name, function=function):
            found.append((name, arguments[-2]))
            return function(*arguments)

        monkeypatch.setattr(blas.cublas, name, call)
    return found


def test_rows_that_follow_one_another_are_one_product(blas, calls):
    blas.matmul(device(np.ones((7, 2, 3), np.float32)), device(np.ones((3, 4), np.float32)))
    blas.matmul(device(np.ones((2, 3), np.float32)), device(np.ones((3, 4), np.float32)), "tf32")
    assert calls == [("gemm_ex", 68), ("gemm_ex", 77)]


def test_other_products_are_left_to_cupy(blas):
    f32, f64, i32 = (device(np.ones((2, 2), dtype)) for dtype in ("float32", "float64", "int32"))
    empty = device(np.ones((2, 0), np.float32))
    for a, b in [(f32, f64), (i32, i32), (f32[0], f32), (f32, f32[0]), (empty.T, f32[:, :0].T), (f32, f32[:1])]:
        assert not blas.takes(a, b)


def test_a_refused_call_is_an_error_and_one_without_memory_a_memory_error(blas, monkeypatch):
    from bpxp.backends.cupy import libcublas

    with pytest.raises(RuntimeError, match="cublasSetWorkspace_v2 returned cuBLAS status 7"):
        blas.cublas.set_workspace(blas.handle, 4096, 16)
    with pytest.raises(MemoryError, match="cuBLAS status 3"):
        libcublas._check(libcublas.ALLOC_FAILED, blas.cublas.gemm_ex, ())
