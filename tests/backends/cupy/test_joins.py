"""Joins of arrays on CuPy: the numbers of NumPy, in one kernel and without a table of addresses from the host."""

from __future__ import annotations

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")

from bpxp.backends.cupy.joins import MOST, concat, stack  # noqa: E402


@pytest.mark.parametrize("count", [1, 9, MOST + 3])
@pytest.mark.parametrize("dtype", ["float32", "bool"])
def test_arrays_of_one_shape_are_joined_as_numpy_does_it_by_one_kernel(count, dtype, rng, cudasim):
    arrays = [rng.integers(0, 9, (2, 3, 4)).astype(dtype) for _ in range(count)]
    own = [cupy.asarray(a) for a in arrays]
    views = [cupy.asarray(a.T.copy()).T for a in arrays]
    for axis in (0, 1, 2, -1, -3):
        for given in (own, views):
            np.testing.assert_array_equal(concat(given, axis=axis).get(), np.concatenate(arrays, axis=axis))
            np.testing.assert_array_equal(stack(given, axis=axis).get(), np.stack(arrays, axis=axis))
    np.testing.assert_array_equal(concat(own, axis=None).get(), np.concatenate(arrays, axis=None))
    for join in (concat, stack):
        assert [word.split()[0] for word in cudasim.traced(lambda join=join: join(views, axis=1))] == ["kernel"] * (
            1 + (count > MOST)
        )


@pytest.mark.parametrize("count", [2, 8, 9, 70])
def test_other_arrays_are_joined_as_numpy_does_it_too(count, rng, cudasim):
    shapes = [(2, int(n), 3) for n in rng.integers(0, 4, count)]
    for kinds in (["float32"], ["int32", "float64"]):
        arrays = [rng.integers(0, 9, shape).astype(kinds[i % len(kinds)]) for i, shape in enumerate(shapes)]
        own = [cupy.asarray(a) for a in arrays]
        joined, expected = concat(own, axis=1), np.concatenate(arrays, axis=1)
        np.testing.assert_array_equal(joined.get(), expected)
        assert joined.dtype == expected.dtype
        with cudasim.counting() as did:
            concat(own, axis=1)
        assert did["h2d"] == 0
    scalars = [np.float32(1), np.int64(2)]
    np.testing.assert_array_equal(stack([cupy.asarray(a) for a in scalars]).get(), np.stack(scalars))


def test_joins_of_what_does_not_fit_are_errors():
    with pytest.raises(ValueError, match="shape|dim"):
        concat([cupy.zeros((2, 3)), cupy.zeros((2,))], axis=0)
    with pytest.raises(ValueError, match="shape|dim"):
        stack([cupy.zeros((2, 3)), cupy.zeros((3, 2))])
