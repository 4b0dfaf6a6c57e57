"""Relations: tests that hypothesis runs on many examples, and problems for them to run on.

100 examples of each, the same in every run, so that a failure is one for everybody; with BPXP_NIGHTLY=1 it is 2,000,
and other ones each time.
"""

from __future__ import annotations

import collections
import functools
import os
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from operations.table import ACTIVATIONS, LOSSES
from operations.ways import NUMPY

from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.nn import Dense, Sequential

NIGHTLY = bool(os.environ.get("BPXP_NIGHTLY"))
EXAMPLES = 2000 if NIGHTLY else 100
COUNTED: collections.Counter[str] = collections.Counter()  # examples that ran, by relation
SEEDS = st.integers(0, 2**32 - 1)


def relation(**strategies):
    """Make a test of a function of examples."""

    def wrap(test):
        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=not NIGHTLY,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        @given(**strategies)
        @functools.wraps(test)
        def run(*arguments, **example):
            COUNTED[test.__name__] += 1
            test(*arguments, **example)

        return run

    return wrap


class Problem(NamedTuple):
    """A network with one hidden layer, and a batch for its loss."""

    model: Sequential
    loss: Any
    params: Any
    x: np.ndarray
    y: np.ndarray
    weight: np.ndarray | None

    def logits(self):
        return self.model.forward(self.params, self.x, xp=NUMPY)[0]

    def solve(self):
        """Return J, the gradients, dx and delta."""
        logits, caches = self.model.forward(self.params, self.x, xp=NUMPY)
        value, delta = self.loss(logits, self.y, self.weight, xp=NUMPY)
        dx, grads = self.model.backward(self.params, caches, delta, xp=NUMPY)
        return value, grads, dx, delta

    def rows(self, index):
        weight = None if self.weight is None else self.weight[index]
        return self._replace(x=self.x[index], y=self.y[index], weight=weight)


@st.composite
def problems(draw, least=1):
    """Draw a problem of at least so many samples, of any activation and loss, weighted or not, small or large."""
    record, activation = draw(st.sampled_from(LOSSES)), draw(st.sampled_from(ACTIVATIONS))
    n_out = 3 if isinstance(getattr(record.thing, "pos_weight", 0.0), tuple) else draw(st.integers(2, 5))
    batch, n_in, hidden = draw(st.integers(least, 8)), draw(st.integers(1, 6)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(SEEDS))
    model = Sequential((Dense(hidden, activation.thing), Dense(n_out)))
    params, _ = model.init(HostRandom(int(rng.integers(2**32))), (n_in,))
    params = tree_map(lambda a: a + 0.5 * rng.standard_normal(a.shape), params)
    _, y = record.draw(rng, batch, n_out)
    x = rng.standard_normal((batch, n_in)) * draw(st.sampled_from([1e-3, 1.0, 1.0, 4.0]))
    weight = rng.uniform(0.5, 2.0, batch) if draw(st.booleans()) else None
    return Problem(model, record.thing, params, x, y, weight)


def close(found, expected, rtol=1e-11):
    """Compare trees: the error of each array relative to its largest entry."""
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        size = max(np.max(np.abs(a), initial=0.0), np.max(np.abs(b), initial=0.0))
        np.testing.assert_allclose(a, b, rtol=0.0, atol=rtol * size + 1e-15)


def equal(found, expected):
    """Compare trees bit by bit, but for the sign of a zero."""
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
