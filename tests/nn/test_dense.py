"""Dense: where its parameters are drawn, and what is refused. What it computes is in `tests/operations`."""

from __future__ import annotations

import numpy as np
import pytest

from bpxp.core.random import HostRandom
from bpxp.errors import InvalidValueError, ParameterMemoryError
from bpxp.nn import Dense, HeUniform, Normal


def test_parameters_are_drawn_at_their_places():
    rng = HostRandom(5, (2,))
    params, shape = Dense(3, initializer="normal").init(rng, (4,))
    assert shape == (3,)
    np.testing.assert_array_equal(params.W, Normal().draw(rng.at(0), (4, 3), fan_in=4, fan_out=3))
    np.testing.assert_array_equal(params.b, Normal().bias(rng.at(1), (3,)))
    params, _ = Dense(3, initializer="he_uniform").init(rng, (4,))
    np.testing.assert_array_equal(params.W, HeUniform().draw(rng.at(0), (4, 3), fan_in=4, fan_out=3))
    assert not params.b.any()


def test_names_are_resolved_once():
    assert Dense(3, "relu", "normal") == Dense(3, activation="relu", initializer=Normal())
    assert Dense(3, initializer="normal").initializer == Normal()


def test_what_cannot_work_is_refused_by_name():
    with pytest.raises(InvalidValueError, match=r"^Dense\(units=…\).*got 0"):
        Dense(0)
    with pytest.raises(ParameterMemoryError, match=r"^Dense\(1000000000\)"):
        Dense(10**9).init(HostRandom(0), (10**9,))
    with pytest.raises(InvalidValueError, match=r"^Dense: .*at least one axis, i: got samples of shape \(\)"):
        Dense(3).init(HostRandom(0), ())
