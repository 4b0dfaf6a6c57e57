"""Four ways to one gradient, of every record: by hand, complex step, torch.autograd and jax.grad of bpxp's own forward code.

Autograd and JAX differentiate the very lines of the forward pass, so that their answer belongs to the value that was
computed, and not to another library's layer of the same name. ``BPXP_TEST_BACKENDS`` names the libraries.
"""

from __future__ import annotations

import functools
import os

import numpy as np
import pytest
from operations.table import ACTIVATIONS, LAYERS, LOSSES, OPTIMIZERS, over
from operations.ways import (
    along,
    by_complex_step,
    by_jax,
    by_torch,
    cases,
    direction,
    relative,
    worst_error,
)

ASKED = os.environ.get("BPXP_TEST_BACKENDS", "")
torch, jax = (library in ASKED for library in ("torch", "jax"))
if not (torch or jax):
    pytest.skip("BPXP_TEST_BACKENDS names neither torch nor jax", allow_module_level=True)

FAMILIES = {"layers": LAYERS, "activations": ACTIVATIONS, "losses": LOSSES, "penalties": OPTIMIZERS}
LIMIT, COMPLEX = 1e-12, 1e-12
# XLA compiles it for as long as all activations; it is made of what has records of its own.
LONG = set() if os.environ.get("BPXP_NIGHTLY") else {"Sequential, with everything"}
WORST: dict[str, float] = {}
COUNTED: dict[str, int] = {}


@functools.cache
def jax_of(family):
    """All cases of a family in one compilation, by the name of the record."""
    every = [(record.name, cases(record)) for record in FAMILIES[family] if record.name not in LONG]
    found = iter(by_jax([case for _, some in every for case in some]))
    return {name: [next(found) for _ in some] for name, some in every}


def family_of(record):
    return next(name for name, records in FAMILIES.items() if record in records)


def note(way, error, limit, case):
    WORST[way] = max(WORST.get(way, 0.0), error)
    COUNTED[way] = COUNTED.get(way, 0) + 1
    assert error <= limit, f"{case.name}: {way} differs by {error:.1e}"


@over(*FAMILIES.values())
def test_four_ways(record):
    for i, case in enumerate(cases(record)):
        by_hand = case.by_hand()
        if case.analytic:
            d = direction(by_hand, np.random.default_rng(0))
            note("complex step", relative(along(by_hand, d), by_complex_step(case, d), 1e-3), COMPLEX, case)
        if torch:
            note("torch.autograd", worst_error(by_torch(case), by_hand), LIMIT, case)
        if jax and record.name not in LONG:
            note("jax.grad", worst_error(jax_of(family_of(record))[record.name][i], by_hand), LIMIT, case)


def test_a_wrong_gradient_is_seen_by_each_way():
    (case, *_) = cases(ACTIVATIONS[2])
    wrong = tuple(
        tuple(a * (1.0 + 1e-9) for a in part) if isinstance(part, tuple) else part * (1.0 + 1e-9)
        for part in case.by_hand()
    )
    if torch:
        assert worst_error(by_torch(case), wrong) > LIMIT
    if jax:
        assert worst_error(by_jax([case])[0], wrong) > LIMIT


def test_the_worst_of_each_way_is_told(promise):
    for way, worst in WORST.items():
        what = f"Gradients by hand against {way} through bpxp's own forward code: worst relative error (at most 1e-12)"
        promise(what, f"{COUNTED[way]} cases, {worst:.1e}")
