"""Random layers on backends that capture: the bits of the eager step, or an eager step with a reason.

A layer is a list of instructions: functions of the namespace, operators in place and not, views, methods of the arrays,
branches on numbers, counters and random numbers. BPXP_NIGHTLY=1 runs 20,000 examples; mutation testing runs few.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import bpxp
from bpxp.backends.base import eager
from bpxp.core.tree import leaves

EXAMPLES = 20_000 if os.environ.get("BPXP_NIGHTLY") == "1" else 60 if "MUTANT_UNDER_TEST" in os.environ else 300
STEPS, ROWS, COLUMNS = 26, 4, 6


class State(NamedTuple):
    w: Any
    total: Any


# Each takes two matrices (rows, columns) and the namespace, and returns a matrix of the same shape.
PURE = {
    "exp": lambda a, b, xp: xp.exp(a * 0.1),
    "log1p": lambda a, b, xp: xp.log1p(xp.abs(a)),
    "tanh": lambda a, b, xp: xp.tanh(a),
    "sqrt": lambda a, b, xp: xp.sqrt(xp.abs(a)),
    "add": lambda a, b, xp: a + b,
    "subtract": lambda a, b, xp: 1.0 - a * b,
    "divide": lambda a, b, xp: 0.3 / (xp.abs(b) + 1.5),
    "quotient": lambda a, b, xp: a / (xp.square(b) + 1.0),
    "power": lambda a, b, xp: xp.abs(a) ** 0.5,
    "square": lambda a, b, xp: (a * 0.1) ** 2,
    "maximum": lambda a, b, xp: xp.maximum(a, b),
    "minimum": lambda a, b, xp: xp.minimum(a, xp.full((), 1.0, dtype=a.dtype)),
    "where": lambda a, b, xp: xp.where(a > b, a, b * 0.5),
    "mask": lambda a, b, xp: xp.astype(a > 0.1, a.dtype) * b,
    "asarray": lambda a, b, xp: xp.asarray(a <= 4.0, dtype=a.dtype) * b,
    "sum": lambda a, b, xp: a - xp.sum(a, axis=0, keepdims=True) * 0.1,
    "max": lambda a, b, xp: a - xp.max(b, axis=1, keepdims=True),
    "min": lambda a, b, xp: a + xp.min(b),
    "mean": lambda a, b, xp: a - xp.mean(b, axis=1, keepdims=True),
    "total": lambda a, b, xp: a * (1.0 / (xp.abs(xp.sum(b)) + 1.0)),
    "matmul": lambda a, b, xp: xp.matmul(xp.matmul(a, xp.matrix_transpose(b)) * 0.05, b),
    "transpose": lambda a, b, xp: xp.matrix_transpose(xp.reshape(xp.matrix_transpose(a), (COLUMNS, ROWS))),
    "reshape": lambda a, b, xp: xp.reshape(xp.reshape(a, (-1,)), a.shape),
    "folded": lambda a, b, xp: xp.reshape(xp.reshape(xp.matrix_transpose(a), (-1,)), a.shape),
    "flip": lambda a, b, xp: xp.flip(a, axis=1) + b,
    "concat": lambda a, b, xp: xp.concat([a[:1, :], b[1:, :]], axis=0),
    "stack": lambda a, b, xp: xp.sum(xp.stack([a, b], axis=0), axis=0),
    "take": lambda a, b, xp: xp.take(a, xp.arange(ROWS, dtype=xp.int32) * 0 + 1, axis=0),
    "gather": lambda a, b, xp: xp.take(a, xp.astype(xp.abs(b[:, 0]) * 0.0, xp.int32), axis=0),
    "sort": lambda a, b, xp: xp.sort(a, axis=1),
    "along": lambda a, b, xp: xp.take_along_axis(a, xp.argsort(b, axis=1), axis=1),
    "roll": lambda a, b, xp: xp.roll(a, 1, axis=1),
    "cumulative": lambda a, b, xp: xp.cumulative_sum(a, axis=1) * 0.1,
    "argmax": lambda a, b, xp: a + xp.astype(xp.expand_dims(xp.argmax(b, axis=1), axis=1), a.dtype),
    "floor": lambda a, b, xp: a - xp.floor(a),
    "remainder": lambda a, b, xp: a % 1.5,
    "integers": lambda a, b, xp: xp.astype((xp.astype(a * 8.0, xp.int32) ^ 5) >> 1, a.dtype) * 0.125,
    "broadcast": lambda a, b, xp: xp.broadcast_to(a[:1, :], a.shape) * b,
    "clip": lambda a, b, xp: xp.clip(a, -1.0, 1.0),
    "unique": lambda a, b, xp: a + xp.astype(xp.unique_values(xp.floor(a))[:1], a.dtype),
    "nonzero": lambda a, b, xp: a * float(len(xp.nonzero(a > 0.0)[0])) * 0.01,
    "float64": lambda a, b, xp: xp.astype(xp.astype(a, xp.float64) * 0.1, a.dtype),
    # methods, and ways out of the namespace
    "method": lambda a, b, xp: a * float(a.max()) * 0.01,
    "item": lambda a, b, xp: a * (0.5 if b[0, 0].item() > 0.2 else 1.0),
    "bool": lambda a, b, xp: a * (0.5 if bool(xp.any(b > 1.0)) else 1.0),
    "python": lambda a, b, xp: a * (0.5 if sum(map(sum, b.tolist())) > 0.0 else 1.0),
    "numpy": lambda a, b, xp: a * (0.5 if float(np.asarray(b).max()) > 1.0 else 1.0),
    "text": lambda a, b, xp: a * (0.5 if "9" in str(b) else 1.0),
    "type": lambda a, b, xp: a * (0.5 if type(a).__name__ == type(b).__name__ else 1.0),
    "isinstance": lambda a, b, xp: a * (0.5 if isinstance(a, np.ndarray) else 1.0),
    "index": lambda a, b, xp: a[xp.argsort(b[:, 0])],
    "random": lambda a, b, xp: a * random.random(),
    "draw": lambda a, b, xp: a * (0.5 if random.random() < 0.05 else 1.0),
}


def written(a, b, xp, how):
    """Return a matrix that is written in place: of its own, a view of one, or zeros."""
    own = a * 1.0
    if how == "self":
        own *= own
        own *= 0.1
    elif how == "view":
        part = own[1:, :]
        part += b[:1, :]
        own -= 0.25
    elif how == "overlapping":
        part = own[:, 1:]
        part -= own[:, :-1] * 0.5
    elif how == "zeros":
        own = xp.zeros_like(a)
        own += b
        own /= 3.0
    elif how == "constant":
        own = xp.ones((ROWS, COLUMNS), dtype=a.dtype)
        before = own + a
        own *= b
        own += before
    elif how == "turned":
        turned = xp.matrix_transpose(own)
        turned *= 0.5
    return own


WRITING = ["self", "view", "overlapping", "zeros", "constant", "turned"]
COUNTERS = ["attribute", "list", "class"]


class Counter:
    calls = 0


@dataclass
class Ticks:
    """A counter in each of the places where Python has room for one."""

    how: str
    calls: int = 0
    kept: list[int] = field(default_factory=lambda: [0])

    def __call__(self):
        if self.how == "attribute":
            self.calls += 1
            return self.calls
        if self.how == "list":
            self.kept[0] += 1
            return self.kept[0]
        type(self).total = getattr(type(self), "total", 0) + 1
        return type(self).total


@dataclass(frozen=True)
class Program:
    """A step that follows instructions."""

    instructions: tuple[tuple[str, int, int], ...]
    ticks: Any = None
    xp: Any = field(kw_only=True, compare=False, repr=False)

    def __call__(self, state, data, /):
        xp = self.xp
        kept = [state.w * 0.5, data]
        for name, i, j in self.instructions:
            a, b = kept[i % len(kept)], kept[j % len(kept)]
            if name in WRITING:
                kept.append(written(a, b, xp, name))
            elif name == "tick":
                kept.append(a * (0.5 if self.ticks() % 7 == 6 else 1.0))
            elif name == "keep":
                kept.append(b[:ROWS, :])
            else:
                kept.append(run(name, a, b, xp))
        w, total = state
        change = xp.tanh(kept[-1] + kept[len(kept) // 2])
        total += xp.sum(change, axis=0)
        if len(self.instructions) % 2:
            return State(w * 0.9 + change, total)
        w *= 0.9
        w += change
        return State(w, total)


def run(name, a, b, xp):
    return PURE[name](a, b, xp)


def fixed(function):
    """Return a step of one instruction, which reads no table."""

    @dataclass(frozen=True)
    class One:
        xp: Any = field(kw_only=True, compare=False, repr=False)
        ticks: Any = None

        def __call__(self, state, data, /):
            change = self.xp.tanh(function(state.w, data, self.xp))
            total = state.total
            total += self.xp.sum(change, axis=0)
            return State(state.w * 0.9 + change, total)

    return One


names = st.sampled_from([*PURE, *WRITING, *WRITING, "keep"])
programs = st.lists(st.tuples(names, st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8)


def done(backend, step, run, seed, dtype):
    """Return the bits after every call, and the type of the error that ended them, if one did."""
    rng = np.random.default_rng(seed)
    random.seed(seed)
    if step.ticks is not None:
        step.ticks.calls, step.ticks.kept[0], Ticks.total = 0, 0, 0
    state = State(*(backend.asarray(np.zeros(shape, dtype)) for shape in ((ROWS, COLUMNS), (COLUMNS,))))
    bits = []
    for k in range(STEPS):
        x = rng.normal(size=(ROWS, COLUMNS)).astype(dtype)
        if k > STEPS // 2:
            x *= 4.0  # what was rare in the first steps
        try:
            state = run(state, backend.asarray(x), count=1 + k % 3)
        except (AttributeError, TypeError) as error:  # what only one of the two libraries has
            return bits, type(error)
        bits.append([backend.to_numpy(a).tobytes() for a in leaves(state)])
    return bits, None


@pytest.fixture(params=["numpy", "torch"])
def backend(request):
    if request.param == "torch":
        pytest.importorskip("torch")
    return bpxp.get_backend(request.param)


def agree(backend, step, seed=0, dtype="float32"):
    compiled = backend.compile(step)
    compiled = getattr(compiled, "run", compiled)
    compiled.WORTH = 2
    with np.errstate(all="ignore"):
        plain = done(backend, step, eager(step), seed, dtype)
        assert done(backend, step, compiled, seed, dtype) == plain
    if plain[1] is not None:
        return None
    assert bool(compiled.plans) != bool(compiled.reason)
    return compiled


@settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], print_blob=True
)
@given(programs, st.integers(0, 1000), st.sampled_from(["float32", "float64"]))
def test_a_random_step_is_the_same_bits(backend, monkeypatch, instructions, seed, dtype):
    # The table of instructions is the test's own, and never changes: here it may be read.
    monkeypatch.setattr("bpxp.backends.captured.Constants", Unchanged)
    impure = {"random", "draw"}
    step = Program(tuple(i for i in instructions if i[0] not in impure) or (("exp", 0, 0),), xp=backend.xp)
    compiled = agree(backend, step, seed, dtype)
    if compiled is not None:
        event(f"{backend.name}: {'eager' if compiled.reason else 'captured'}")


class Unchanged:
    places = ()

    def __init__(self, step):
        pass

    def same(self):
        return True


@settings(max_examples=EXAMPLES // 10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs, st.integers(0, 1000), st.sampled_from(COUNTERS), st.integers(0, 7))
def test_a_random_step_with_a_counter_runs_eagerly(backend, instructions, seed, how, where):
    instructions.insert(where, ("tick", 0, 0))
    compiled = agree(backend, Program(tuple(instructions), Ticks(how), xp=backend.xp), seed)
    assert compiled is None or compiled.reason


@pytest.mark.parametrize("name", PURE)
def test_a_step_of_one_instruction_is_the_same_bits(backend, name):
    compiled = agree(backend, fixed(PURE[name])(xp=backend.xp))
    refused = ["clip", "unique", "nonzero", "method", "item", "bool", "python", "numpy", "text", "index"]
    if compiled is not None and name not in ("type", "isinstance"):
        assert bool(compiled.reason) == (name in [*refused, "random", "draw"]), compiled.reason
