"""Arrays without numbers: their shapes, dtypes, views and errors are NumPy's, and their bytes live as long as NumPy's."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bpxp.backends.abstract.array import Meter, new
from bpxp.backends.abstract.namespace import shape_namespace, shape_of
from bpxp.errors import BpxpError, InvalidTypeError, InvalidValueError, ShapeRuleError


@pytest.fixture
def meter():
    return Meter()


@pytest.fixture
def xp(meter):
    return shape_namespace(meter)


# ---------------------------------------------------------------- views, beside NumPy's


@st.composite
def looked_at(draw):
    """An array on which a few views were taken, with NumPy and without numbers."""
    shape = tuple(draw(st.lists(st.integers(2, 4), min_size=1, max_size=4)))
    real, bare = np.zeros(shape, np.float32), new(METER, shape, "float32")
    for what in draw(st.lists(st.sampled_from(["turn", "flip", "cut", "step", "one", "none", "spread"]), max_size=3)):
        axis = draw(st.integers(0, real.ndim - 1)) if real.ndim else 0
        if what == "turn":
            order = tuple(draw(st.permutations(range(real.ndim))))
            real, bare = real.transpose(order), XP.permute_dims(bare, order)
        elif what == "flip" and real.ndim:
            real, bare = np.flip(real, axis), XP.flip(bare, axis=axis)
        elif what == "spread":
            wide = (3, *real.shape)
            real, bare = np.broadcast_to(real, wide), XP.broadcast_to(bare, wide)
        elif real.ndim and 0 not in real.shape:
            index = {"cut": slice(1, None), "step": slice(None, None, -2), "one": 0, "none": None}[what]
            index = (*[slice(None)] * axis, index, ...)
            real, bare = real[index], bare[index]
    return real, bare


METER = Meter()
XP = shape_namespace(METER)


def assert_alike(real, bare):
    assert bare.shape == real.shape
    assert bare.dtype == real.dtype
    for n, step, strides in zip(real.shape, bare.strides, real.strides, strict=True):
        assert n <= 1 or 0 in real.shape or step * real.itemsize == strides


@settings(max_examples=60, deadline=None)
@given(looked_at())
def test_views_are_numpys(pair):
    assert_alike(*pair)


@settings(max_examples=60, deadline=None)
@given(looked_at(), st.randoms())
def test_reshape_copies_where_numpy_does(pair, random):
    real, bare = pair
    factors = [p for n in real.shape for p in {1: [], 2: [2], 3: [3], 4: [2, 2]}.get(n, [n])]
    random.shuffle(factors)
    shape = tuple(factors) if 0 not in real.shape else (0, 2)
    shape = (*shape, 1) if random.random() < 0.3 else shape
    expected, result = real.reshape(shape), XP.reshape(bare, shape)
    assert result.shape == expected.shape
    if real.size > 1:
        assert (result.buffer is bare.buffer) == np.may_share_memory(real, expected)


@settings(max_examples=60, deadline=None)
@given(looked_at())
def test_a_result_lies_in_memory_as_numpys(pair):
    real, bare = pair
    assume(0 not in real.strides)  # of axes that are broadcast NumPy has a rule of its own
    assert_alike(real * 2.0, bare * 2.0)
    assert_alike(np.stack([real, real]), XP.stack([bare, bare]))
    if real.ndim:
        assert_alike(np.concatenate([real, real]), XP.concat([bare, bare]))


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(3)), st.permutations(range(3)))
def test_of_two_operands_the_first_of_the_largest_says_how_a_result_lies(one, other):
    bare = new(METER, (2, 2, 2), "float32")
    a, b = XP.permute_dims(bare, tuple(one)), XP.permute_dims(bare, tuple(other))
    assert (a + b).strides == a.strides
    assert (b[:, :1, :] + a).strides == a.strides


# ---------------------------------------------------------------- what lives, and what is counted


def test_bytes_live_as_long_as_an_array_refers_to_them(xp, meter):
    a = xp.zeros((10, 10), dtype=xp.float32)
    view = a[2:, :]
    del a
    assert meter.live == 400
    view = xp.matmul(view, xp.matrix_transpose(view))
    assert (meter.live, meter.peak) == (4 * 64, 400 + 4 * 64)
    del view
    assert meter.live == 0


def test_a_start_forgets_what_was_counted_and_not_what_lives(xp, meter):
    a = xp.exp(xp.ones((3, 5), dtype=xp.float64))
    assert meter.total.operations == 2
    meter.start()
    assert (meter.total.operations, meter.live, meter.peak) == (0, a.size * 8, a.size * 8)


def test_a_product_counts_two_for_each_multiplication_and_addition(xp, meter):
    xp.matmul(xp.empty((7, 2, 3), dtype=xp.float32), xp.empty((3, 5), dtype=xp.float32))
    assert meter.matmuls == [(2, 3, 5)]
    assert meter.total == (1, 4 * (7 * 6 + 15 + 7 * 10), 2 * 7 * 2 * 3 * 5)


def test_a_number_that_is_broadcast_is_read_once(xp, meter):
    xp.sum(xp.broadcast_to(xp.empty((1, 4), dtype=xp.float32), (100, 4)), axis=0)
    assert meter.total.bytes == 16 + 16


def test_what_a_namespace_keeps_is_its_own(meter):
    like = types.SimpleNamespace(workspace=1 << 20, memo={"table": 1}, threefry=None)
    xp = shape_namespace(meter, like)
    assert xp.workspace == 1 << 20
    assert xp.memo == {}
    assert xp.memo is not like.memo


def test_arrays_of_every_library(backend, meter):
    for name in ("float32", "float64", "int32", "uint8"):
        bare = shape_of(backend.xp.zeros((2, 3), dtype=getattr(backend.xp, name)), meter)
        assert (bare.shape, bare.dtype) == ((2, 3), np.dtype(name))


# ---------------------------------------------------------------- errors


def test_numbers_cannot_be_looked_at(xp):
    a = xp.ones((1,), dtype=xp.float32)
    for look in (bool, float, int, len, list, np.asarray):
        with pytest.raises(InvalidTypeError, match="it has no numbers to look at"):
            look(a)
    with pytest.raises(InvalidTypeError):
        a[0] = 1.0
    assert repr(a) == "ShapeArray((1,), float32)"


def test_a_function_without_a_rule_says_so(xp):
    with pytest.raises(ShapeRuleError, match=r"xp\.unique_values: no rule says what this function costs"):
        xp.unique_values  # noqa: B018
    assert issubclass(ShapeRuleError, BpxpError)
    assert not hasattr(xp, "threefry")
    with pytest.raises(AttributeError, match="'no_such_thing'"):
        xp.no_such_thing  # noqa: B018


def test_kinds_of_numbers_are_not_mixed(xp):
    x, i, b = (xp.ones((2,), dtype=kind) for kind in (xp.float32, xp.int32, xp.bool))
    for mixed in (lambda: x + i, lambda: i * 0.5, lambda: b + 1, lambda: x + b, lambda: i / i, lambda: x > b):
        with pytest.raises(InvalidTypeError, match="mixed kinds of numbers"):
            mixed()
    assert (x + xp.ones((1,), dtype=xp.float64)).dtype == xp.float64
    assert (2 * x).dtype == xp.float32
    assert (x > 0.0).dtype == xp.bool
    assert xp.where(b, x, 0.0).dtype == xp.float32
    assert xp.sum(i).dtype == xp.int64


def test_shapes_that_do_not_fit(xp):
    a, b = xp.ones((2, 3), dtype=xp.float32), xp.ones((4, 5), dtype=xp.float32)

    def grow(x, y):
        x += y

    for wrong in (
        lambda: a + b,
        lambda: xp.matmul(a, b),
        lambda: xp.concat([a, b]),
        lambda: xp.stack([a, b]),
        lambda: xp.reshape(a, (4,)),
        lambda: xp.broadcast_to(a, (2, 4)),
        lambda: xp.sum(a, axis=2),
        lambda: a[5, :],
        lambda: grow(xp.ones((3,), dtype=xp.float32), a),
        lambda: grow(a, xp.ones((2, 3), dtype=xp.float64)),
    ):
        with pytest.raises(InvalidValueError):
            wrong()


def test_an_array_is_no_index_and_a_number_no_operand_of_maximum(xp):
    a = xp.ones((2, 3), dtype=xp.float32)
    with pytest.raises(InvalidTypeError, match=r"xp\.take\(x, …\)"):
        a[xp.zeros((1,), dtype=xp.int32)]
    with pytest.raises(InvalidTypeError, match="Python number"):
        xp.maximum(a, 0.0)
