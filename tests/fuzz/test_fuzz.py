"""A few seconds of fuzzing in every run of the tests; and what fuzzing has found once is not forgotten."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.errors import BpxpError

if sys.platform == "win32":
    pytest.skip("the timers of POSIX", allow_module_level=True)

from fuzz import TARGETS
from fuzz.engine import TakesTooLong, Target, batch, fuzz


@pytest.mark.parametrize("name", TARGETS)
def test_only_documented_errors(name, nightly):
    report = fuzz(TARGETS[name](), seconds=20.0 if nightly else 0.7, seed=int(nightly))
    assert report.inputs >= 1000
    assert report.accepted  # some of it is good, and is read
    assert report.findings == []


class Odd(Target):
    """A target with all the faults there are."""

    name, allowed = "odd", (ValueError,)

    def __init__(self, fault):
        self.fault = fault

    def make(self, rng):
        return int(rng.random() * 300)

    def run(self, value):
        if value % 2:
            raise ValueError
        if value == 44:
            self.fault()


def error():
    raise KeyError("x")


def hang():
    while True:
        pass


@pytest.mark.parametrize(
    ("fault", "kind"), [(error, KeyError), (hang, TakesTooLong), (lambda: b"x" * (99 << 20), MemoryError)]
)
def test_what_is_wrong_is_found_and_named(fault, kind):
    report = fuzz(Odd(fault), count=1)
    assert {type(found) for *_, found in report.findings} == {kind}
    assert {value for _, value, _ in report.findings} == {44}
    assert report.inputs == 1000


def test_the_same_seed_makes_the_same_inputs():
    seen = []

    class Seen(Odd):
        def run(self, value):
            seen.append(value)

    for seed, i in ((0, 3), (0, 3), (0, 4), (1, 3)):
        batch(Seen(None), seed, i, fuzz(Odd(lambda: None), count=0))
    parts = [seen[i : i + 1000] for i in range(0, 4000, 1000)]
    assert parts[0] == parts[1]
    assert parts[0] not in parts[2:]


HUGE = 10**400  # beyond all floats


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: bpxp.Network([2**40, nn.LayerNorm()], backend="numpy"),  # 8 TiB, asked for
        lambda: bpxp.Network([10**30, nn.BatchNorm()], backend="numpy"),
        lambda: bpxp.Network([HUGE, HUGE], backend="numpy"),
        lambda: bpxp.Network([2**63, nn.Dense(np.int64(4))], backend="numpy"),  # wider than NumPy's own integers
        lambda: nn.LayerNorm(epsilon=HUGE),
        lambda: nn.LeakyReLU(-HUGE),
        lambda: nn.AvgPool2D(2, padding=np.array([2, 3])),
        lambda: nn.GELU(approximate=np.array([2, 3])),
        lambda: bpxp.Network([2, 2], backend="numpy", matmul=np.zeros((2, 2))),
    ],
    ids=itertools.count(),
)
def test_what_was_found_once(mistake):
    with pytest.raises(BpxpError):
        mistake()


def test_sizes_of_numpys_own_integers_are_saved(tmp_path):
    # A file takes Python's, and the network would have been lost after the training.
    n = np.int64(2)
    nets = [
        bpxp.Network([n, nn.Dense(n), n], backend="numpy", seed=0),
        bpxp.Network(
            [nn.Conv2D(n, n, groups=np.int64(1)), nn.Flatten(), n], input_shape=(3, 3, 1), backend="numpy", seed=0
        ),
        bpxp.Network([nn.Embedding(n, n), nn.Flatten(), n], input_shape=(3,), backend="numpy", seed=0),
    ]
    for net in nets:
        net.save(tmp_path / "net.bpxp")
        assert bpxp.Network.load(tmp_path / "net.bpxp", backend="numpy").layers == net.layers
