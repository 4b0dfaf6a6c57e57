"""Clipping: the norm over all leaves, the direction, and what must not happen at zero and at 1e30."""

from __future__ import annotations

import numpy as np
import pytest

from bpxp.core.tree import leaves
from bpxp.optim import clip_by_norm, clip_by_value


def bring(backend, *arrays, dtype="float64"):
    return tuple(backend.asarray(np.array(a, dtype=dtype)) for a in arrays)


def host(backend, tree):
    return [backend.to_numpy(a) for a in leaves(tree)]


def test_the_norm_is_taken_over_all_leaves(backend):
    # ‖(2, 4, 4)‖ = 6: to length 3 by a factor 1/2.
    got = clip_by_norm(bring(backend, [[2.0]], [4.0, 4.0]), 3.0, xp=backend.xp)
    np.testing.assert_allclose(np.concatenate([a.ravel() for a in host(backend, got)]), [1.0, 2.0, 2.0], rtol=1e-15)


@pytest.mark.parametrize("limit", [6.0, 6.1, 1e30])
def test_a_gradient_within_the_limit_keeps_its_bits(backend, limit):
    grads = [[2.0], [4.0, 4.0]]
    got = host(backend, clip_by_norm(bring(backend, *grads), limit, xp=backend.xp))
    assert [a.tolist() for a in got] == grads


def test_zero_stays_zero(backend):
    got = host(backend, clip_by_norm(bring(backend, [0.0, 0.0], dtype="float32"), 1e-3, xp=backend.xp))
    assert got[0].tolist() == [0.0, 0.0]


def test_an_exploding_gradient_does_not_overflow(backend):
    # 3e30² is not a float32.
    got = host(backend, clip_by_norm(bring(backend, [3e30, -4e30], dtype="float32"), 1.0, xp=backend.xp))
    assert got[0].dtype == np.float32
    np.testing.assert_allclose(got[0], [0.6, -0.8], rtol=4 * 2.0**-23)


def test_a_nan_stays_visible(backend):
    got = host(backend, clip_by_norm(bring(backend, [np.nan, 1.0], [2.0]), 1.0, xp=backend.xp))
    assert all(np.isnan(a).all() for a in got)


def test_clipping_by_norm_writes_into_the_gradient(backend):
    if backend.name.split(":")[0] == "jax":
        pytest.skip("JAX arrays are not written")
    grads = bring(backend, [3.0, 4.0])
    clip_by_norm(grads, 1.0, xp=backend.xp)
    np.testing.assert_allclose(host(backend, grads)[0], [0.6, 0.8], rtol=1e-15)


def test_by_value(backend):
    got = clip_by_value(bring(backend, [-3.0, -0.5, 0.0, 0.5, 3.0], [[2.0]]), 1.0, xp=backend.xp)
    assert [a.tolist() for a in host(backend, got)] == [[-1.0, -0.5, 0.0, 0.5, 1.0], [[1.0]]]


def test_nothing_to_clip(backend):
    assert clip_by_norm(((), ()), 1.0, xp=backend.xp) == ((), ())
    assert clip_by_value(((), ()), 1.0, xp=backend.xp) == ((), ())
