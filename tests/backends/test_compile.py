"""The contract of `compile`: the same meaning as the plain step, however often and with whatever values."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from bpxp.backends import Step, get_backend

X = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], np.float32)


class State(NamedTuple):
    """A state as training has it: parameters, a nested tree, a position, a learning rate; all arrays."""

    W: Any
    nested: tuple[Any, tuple[Any, ...]]
    position: Any
    learning_rate: Any


def start(backend):
    xp = backend.xp
    zeros = xp.zeros((1,), dtype=xp.float32)
    return State(
        W=xp.ones((2,), dtype=xp.float32),
        nested=(zeros, (xp.asarray(zeros, copy=True), ())),
        position=xp.zeros((1,), dtype=xp.int32),
        learning_rate=xp.full((1,), 0.5, dtype=xp.float32),
    )


def make_step(xp, calls):
    """A step that writes in place, gathers a row of the data, and counts how often Python runs it."""

    def step(state, x):
        calls.append(1)
        row = xp.reshape(xp.take(x, state.position, axis=0), (2,))
        gradient = row * 1.0
        gradient *= state.learning_rate
        W = state.W
        W -= gradient
        seen, (count, nothing) = state.nested
        seen = seen + xp.sum(row)
        count += 1.0
        position = (state.position + 1) % 3
        return State(W, (seen, (count, nothing)), position, state.learning_rate)

    return step


def expected(steps):
    """The same in plain numbers: W = 1 - 0.5 Σ rows."""
    rows = X[np.arange(steps) % 3]
    return 1.0 - 0.5 * rows.sum(axis=0), rows.sum(), steps % 3


def run(backend, counts):
    step = backend.compile(make_step(backend.xp, []))
    assert isinstance(step, Step)
    x = backend.asarray(X)
    state = start(backend)
    for count in counts:
        state = step(state, x, count=count)
    return state, x


@pytest.mark.parametrize("counts", [[1], [3], [1, 1, 1], [2, 5, 1], [7, 7], [0], [0, 4, 0]])
def test_count_repeats_the_step(backend, counts):
    state, x = run(backend, counts)
    W, seen, position = expected(sum(counts))
    np.testing.assert_allclose(backend.to_numpy(state.W), W)
    np.testing.assert_allclose(backend.to_numpy(state.nested[0]), [seen])
    np.testing.assert_array_equal(backend.to_numpy(state.nested[1][0]), [sum(counts)])
    np.testing.assert_array_equal(backend.to_numpy(state.position), [position])
    np.testing.assert_array_equal(backend.to_numpy(x), X)  # the data are only read


def test_once_is_the_default(backend):
    step = backend.compile(make_step(backend.xp, []))
    state = step(start(backend), backend.asarray(X))
    np.testing.assert_array_equal(backend.to_numpy(state.position), [1])


def test_the_state_keeps_its_structure_shapes_and_dtypes(backend):
    state, _ = run(backend, [4])
    first = start(backend)
    assert type(state) is State
    assert state.nested[1][1] == ()
    assert state.position.dtype == backend.xp.int32
    for now, then in [
        (state.W, first.W),
        (state.nested[0], first.nested[0]),
        (state.learning_rate, first.learning_rate),
    ]:
        assert now.dtype == then.dtype
        assert now.shape == then.shape


def test_a_value_changed_between_steps_is_felt(backend):
    xp = backend.xp
    step, x = backend.compile(make_step(xp, [])), backend.asarray(X)
    state = step(start(backend), x, count=3)
    before = backend.to_numpy(state.W)
    state = step(state._replace(learning_rate=xp.full((1,), 0.25, dtype=xp.float32)), x, count=3)
    np.testing.assert_allclose(backend.to_numpy(state.W), before - 0.25 * X.sum(axis=0))


def test_other_data_of_the_same_shape_are_felt(backend):
    step = backend.compile(make_step(backend.xp, []))
    state = step(start(backend), backend.asarray(X), count=3)
    before = backend.to_numpy(state.W)
    state = step(state, backend.asarray(X + 1.0), count=3)
    np.testing.assert_allclose(backend.to_numpy(state.W), before - 0.5 * (X + 1.0).sum(axis=0))


def test_two_steps_do_not_share_anything(backend):
    xp, x = backend.xp, backend.asarray(X)
    one, two = backend.compile(make_step(xp, [])), backend.compile(make_step(xp, []))
    a, b = one(start(backend), x), two(start(backend), x, count=2)
    np.testing.assert_allclose(backend.to_numpy(a.W), expected(1)[0])
    np.testing.assert_allclose(backend.to_numpy(b.W), expected(2)[0])


def test_jax_traces_once_whatever_the_count_and_the_values():
    pytest.importorskip("jax")
    backend = get_backend("jax")
    xp, calls = backend.xp, []
    step, x = backend.compile(make_step(xp, calls)), backend.asarray(X)
    state = step(start(backend), x, count=1)
    state = step(state, x, count=3)
    traced = len(calls)
    assert traced <= 3  # once alone, and in the loop, which JAX may look at twice
    for count in (1, 2, 3, 50, 1):
        rate = xp.full((1,), 1.0 / (count + 1.0), dtype=xp.float32)
        state = step(state._replace(learning_rate=rate), backend.asarray(X * count), count=count)
    assert len(calls) == traced


def test_jax_takes_the_states_buffers():
    pytest.importorskip("jax")
    backend = get_backend("jax")
    step, x = backend.compile(make_step(backend.xp, [])), backend.asarray(X)
    for count in (1, 2):
        given = start(backend)
        step(given, x, count=count)
        assert given.W.is_deleted()
    np.testing.assert_array_equal(backend.to_numpy(x), X)


def test_a_state_that_came_from_the_host_is_given_away_too(backend, readonly):
    host = readonly([1.0, 1.0], "float32")
    state = start(backend)._replace(W=backend.xp.asarray(backend.asarray(host), copy=True))
    step, x = backend.compile(make_step(backend.xp, [])), backend.asarray(X)
    state = step(step(state, x), x, count=2)
    np.testing.assert_allclose(backend.to_numpy(state.W), expected(3)[0])
    np.testing.assert_array_equal(host, [1.0, 1.0])


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_in_place_where_the_library_can(name):
    if name != "numpy":
        pytest.importorskip(name)
    backend = get_backend(name)
    step, state = backend.compile(make_step(backend.xp, [])), start(backend)
    assert step(state, backend.asarray(X), count=2).W is state.W
