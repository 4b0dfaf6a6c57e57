"""The core with fifty digits: differences that see a mistake of one part in 10³⁰, and the rounding of float64.

The Array API namespace of `mparray` runs bpxp's own code on mpmath's numbers. The sizes are powers of two, so that 1/n
is exact: a rounded constant would be a mistake of one part in 10¹⁷.
"""

from __future__ import annotations

import mparray
import numpy as np
import pytest
from mpmath import mp
from operations.table import RECORDS
from operations.ways import NUMPY, cases_of_layer, cases_of_loss, direction, moved, put

from bpxp.backends.base import namespace
from bpxp.core.tree import leaves, tree_map

XP = namespace(mparray, None)
DIGITS, STEP, LIMIT = 50, "1e-15", 1e-30

CORE = [
    "Dense",
    "Conv2D",
    "Conv2D, with all options",
    "AvgPool2D",
    "GlobalAvgPool2D",
    "BatchNorm",
    "LayerNorm",
    "Residual",
    "Sequential",
    "Identity",
    "Sigmoid",
    "Tanh",
    "ReLU",
    "LeakyReLU",
    "ELU",
    "SELU",
    "SiLU",
    "Softplus",
    "Softsign",
    "Mish",
    "SoftmaxCrossEntropy",
    "BinaryCrossEntropy",
    "BinaryCrossEntropy, weighted and smoothed",
    "MeanSquaredError",
    "MeanAbsoluteError",
    "Huber",
    "Poisson",
]
WORST = {"gradient": mp.mpf(0), "rounding": 0.0}


def cases(name):
    record = RECORDS[name]
    if hasattr(record.thing, "targets"):
        return cases_of_loss(record, batch=4, n_out=2)
    shape = {"Conv2D": (2, 4, 2), "AvgPool2D": (4, 4, 1), "GlobalAvgPool2D": (2, 2, 2)}.get(name, record.shape)
    shape = (2,) if record.value is not None else shape
    return cases_of_layer(record, batch=4, shape=shape)


def exact(tree):
    return put(tree, lambda a: XP.asarray(np.array(a)))


def error_of(case, gradient):
    """Return the relative error of a gradient along a direction, and (J, gradient), all with fifty digits."""
    point, rest = exact((case.point, case.rest))
    d = exact(direction(case.by_hand(), np.random.default_rng(0)))
    found = gradient(point, rest, xp=XP)
    pairs = zip(leaves(found), leaves(d), strict=True)
    analytic = mp.fsum(g * e for a, b in pairs for g, e in zip(a._data.ravel(), b._data.ravel(), strict=True))
    own = case._replace(point=point)

    def f(t):
        return own.value(moved(own, t, d), rest, xp=XP)._data[0]

    h = mp.mpf(STEP)
    numeric = (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h)
    error = abs(analytic - numeric) / max(abs(analytic), abs(numeric), mp.mpf("1e-3"))
    return error, (own.value(point, rest, xp=XP), found)


@pytest.mark.parametrize("name", CORE)
def test_core(name):
    with mp.workdps(DIGITS):
        for case in cases(name):
            error, exactly = error_of(case, case.gradient)
            WORST["gradient"] = max(WORST["gradient"], error)
            assert error <= LIMIT, case.name
            found = (case.value(case.point, case.rest, xp=NUMPY), case.by_hand())
            rounding = max(map(rounded, leaves(found), leaves(exactly)))
            WORST["rounding"] = max(WORST["rounding"], rounding)
            assert rounding <= 1e-13, case.name


def rounded(a, b):
    """The error of float64, in units of the largest entry."""
    b = b._data.astype(float)
    return float(np.max(np.abs(a - b), initial=0.0) / max(np.max(np.abs(b), initial=0.0), 1e-3))


def test_a_mistake_that_no_float_could_hold_is_seen():
    with mp.workdps(DIGITS):
        (case,) = cases("Sigmoid")

        def wrong(point, rest, xp):
            return tree_map(lambda g: g * (1 + XP.asarray(mp.mpf("1e-25"))), case.gradient(point, rest, xp=xp))

        assert mp.mpf("1e-26") < error_of(case, wrong)[0] < mp.mpf("1e-24")


def test_the_worst_is_told(promise):
    what = "Core with fifty digits: worst relative error of the gradients against differences (at most 1e-30)"
    promise(what, f"{mp.nstr(WORST['gradient'], 2)}, {len(CORE)} operations")
    promise("Core in float64 against fifty digits: worst rounding of values and gradients", f"{WORST['rounding']:.1e}")
