"""Bounds of rounding errors: no float32 result is beyond them, and they are not much larger than they must be."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from bpxp.backends.base import FUNCTIONS
from bpxp.errors import ShapeRuleError
from bpxp.verify.parity.error_bounds import bounded_namespace, quiet
from bpxp.verify.parity.rounding import Arithmetic, Rounded, shares

F32, ESTIMATE = Arithmetic("float32"), Arithmetic("float32", statistical=True)
XP = bounded_namespace(F32)

ONE = {
    "abs": lambda xp, x: xp.abs(x),
    "exp": lambda xp, x: xp.exp(x),
    "expm1": lambda xp, x: xp.expm1(x),
    "tanh": lambda xp, x: xp.tanh(x),
    "log": lambda xp, x: xp.log(xp.abs(x) + 0.1),
    "log1p": lambda xp, x: xp.log1p(xp.abs(x)),
    "sqrt": lambda xp, x: xp.sqrt(xp.abs(x)),
    "square": lambda xp, x: xp.square(x),
    "cos": lambda xp, x: xp.cos(x),
    "reciprocal": lambda xp, x: 1.0 / (xp.abs(x) + 0.5),
    "power": lambda xp, x: (xp.abs(x) + 0.1) ** 1.7,
    "sum": lambda xp, x: xp.sum(x, axis=0),
    "mean": lambda xp, x: xp.mean(x, axis=1, keepdims=True),
    "max": lambda xp, x: xp.max(x, axis=1),
    "matmul": lambda xp, x: xp.matmul(x, xp.matrix_transpose(x)),
    "difference": lambda xp, x: x - xp.mean(x, axis=0, keepdims=True),
    "chain": lambda xp, x: xp.exp(xp.tanh(xp.matmul(x, xp.matrix_transpose(x)) * 0.1) - 0.3) / 1.7,
    "extremum": lambda xp, x: xp.maximum(xp.minimum(x, xp.full((), 0.3, dtype=x.dtype)), x * 0.1),
    "mask": lambda xp, x: xp.astype(x > 0.1, x.dtype) * x,
    "where": lambda xp, x: xp.where(x > 0.1, x, 0.0),
    "moved": lambda xp, x: xp.reshape(xp.permute_dims(xp.concat([x, xp.flip(x, axis=1)]), (1, 0)), (-1,)) * 1.1,
    "logaddexp": lambda xp, x: xp.logaddexp(x, xp.zeros_like(x)),
}


def rounded(a, e=None, rules=F32):
    return Rounded(np.asarray(a, dtype=np.float64), e, rules)


@pytest.mark.parametrize("name", ONE)
def test_float32_is_never_beyond_the_bound_and_the_bound_is_near(rng, name):
    nearest = 0.0
    for _ in range(20):
        x = rng.normal(size=(17, 40)).astype(np.float32)
        with quiet():
            expected = ONE[name](XP, rounded(x))
        _, _, share = shares(ONE[name](np, x), expected.v, expected.bound)
        nearest = max(nearest, float(np.max(share)))
    assert nearest <= 1.0
    # Exact ones have nothing to round; in sums of 40 terms roundings cancel, where the bound has them all on one side.
    exact = {"abs", "max", "where", "mask"}
    assert nearest > 0.01 or (name in exact and nearest == 0.0)


def test_operands_that_are_wrong_carry_on(rng):
    # The operands of float32 are off by up to e: wherever they are, the result is within its bound.
    for name, function in ONE.items():
        x, e = rng.normal(size=(9, 12)), 1e-3
        with quiet():
            expected = function(XP, rounded(x, e))
        for sign in (-1.0, 1.0, rng.choice([-1.0, 1.0], size=x.shape)):
            other = x + 0.999 * sign * e
            _, _, share = shares(function(np, other), expected.v, expected.bound)
            assert np.max(share) <= 1.0, name


def test_sums_in_any_order_are_within_gamma():
    # Recursive summation of numbers that grow: the worst that the order can do, in exact arithmetic beside it.
    x = np.array([1.0] + [2.0**-24] * 63, dtype=np.float32)
    total = np.float32(0.0)
    for a in x:
        total = np.float32(total + a)
    exactly = float(sum(Fraction(float(a)) for a in x))
    assert total != exactly
    bound = XP.sum(rounded(x))
    assert abs(float(total) - bound.v) <= bound.e
    assert bound.e < 5.0 * abs(float(total) - bound.v)


def test_the_estimate_is_sharper_where_many_are_added():
    for n, sharper in ((1, False), (10, False), (784, True)):
        assert (ESTIMATE.summed(n) < F32.summed(n)) is sharper
    assert ESTIMATE.summed(784) == pytest.approx(6.0 * 28.0 * 2.0**-24, rel=1e-6)


def test_a_comparison_within_reach_is_in_doubt():
    z = rounded([0.5, 1e-9, -1e-9, -0.5], 1e-8)
    mask = XP.astype(z > 0.0, XP.float64)
    assert mask.v.tolist() == [1.0, 1.0, 0.0, 0.0]
    assert mask.e.tolist() == [0.0, 1.0, 1.0, 0.0]
    chosen = XP.where(z > 0.0, z * 0.0 + 3.0, 1.0)
    assert (chosen.e >= 1.9).tolist() == [False, True, True, False]


def test_division_by_what_may_be_nothing_says_nothing():
    with quiet():
        quotient = rounded([1.0, 1.0]) / rounded([1e-3, 1.0], 1e-2)
    assert np.isinf(quotient.e).tolist() == [True, False]
    assert shares(np.array([1e30]), np.array([0.0]), np.array([np.inf]))[2].tolist() == [0.0]


def test_nan_has_no_excuse():
    found, expected = np.array([np.nan, np.nan, 1.0, np.nan]), np.array([1.0, np.nan, np.nan, 1.0])
    _, _, share = shares(found, expected, np.array([1e30, 1e30, 1e30, np.inf]))
    assert share.tolist() == [np.inf, 0.0, np.inf, 0.0]  # of an infinite bound nothing can be said


def test_what_float32_cannot_hold_has_no_bound():
    assert (rounded([1e30, 1.0]) * 1e10).e.tolist()[0] == np.inf
    assert np.isfinite((rounded([1e30, 1.0], None, Arithmetic("float64")) * 1e10).e).all()


def test_fewer_bits_have_wider_bounds(rng):
    a, b = rng.normal(size=(2, 20, 20))
    widths = []
    for products in ("float32", "float16", "tf32", "bfloat16"):
        rules = Arithmetic("float32", products)
        product = bounded_namespace(rules).matmul(rounded(a, None, rules), rounded(b, None, rules))
        widths.append(float(np.max(product.e)))
        if products == "bfloat16":

            def cut(x):
                return (x.astype(np.float32).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)

            # Cutting off loses twice what rounding loses: a bound that let it pass would be too wide by far.
            assert np.max(shares(cut(a) @ cut(b), product.v, product.e)[2]) > 0.1
    assert widths[0] < widths[2] <= widths[1] < widths[3]


def test_constants_that_float32_does_not_have():
    assert F32.constant(0.5) == F32.constant(255.0) == 0.0
    assert F32.constant(0.1) > 0.0
    assert Arithmetic("float64").constant(0.1) == 0.0
    assert XP.full((2,), 0.1, dtype=XP.float64).e.tolist() == [F32.u * 0.1] * 2


def test_a_function_without_a_rule_says_so():
    unknown = [name for name in FUNCTIONS if not hasattr(np, name)]
    assert unknown == []
    with pytest.raises(ShapeRuleError, match=r"xp\.sinh|has no rule for rounding errors"):
        XP.cumulative_sum(rounded([1.0]))
    with pytest.raises(AttributeError, match="no 'nothing'"):
        XP.nothing  # noqa: B018


def test_integers_stay_exact_and_plain():
    assert isinstance(XP.arange(3, dtype=XP.int32), np.ndarray)
    assert isinstance(XP.astype(rounded([1.2, 2.0]), XP.int32), np.ndarray)
    assert XP.round(rounded([1.2], 0.1)).bound.tolist() == [0.0]
    assert XP.round(rounded([1.45], 0.1)).bound.tolist() == [1.0]
    assert XP.take(rounded([[1.0, 2.0]], [[0.5, 0.25]]), np.array([1]), axis=1).e.tolist() == [[0.25]]
