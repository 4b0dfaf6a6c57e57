"""Under jax.jit: one trace for all values, a changed learning rate is felt, buffers are donated."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import bpxp.backends  # noqa: E402
from bpxp.core.tree import leaves  # noqa: E402
from bpxp.optim import SGD, Adam, CosineDecay, Plateau  # noqa: E402


@pytest.fixture(scope="module")
def backend():
    return bpxp.backends.get_backend("jax")


def jitted(optimizer, backend):
    """Return a jitted update that counts its traces, and a first (params, state)."""
    traces = []

    def update(params, grads, state):
        traces.append(1)
        return optimizer.update(params, grads, state, xp=backend.xp)

    params = (backend.asarray(np.ones((2, 3), "float32")), backend.asarray(np.ones(3, "float32")))
    # The gradients are not donated: nothing of their size would be left to put there, and XLA would say so.
    return jax.jit(update, donate_argnums=(0, 2)), params, optimizer.init(params, xp=backend.xp), traces


def ones(backend):
    return (backend.asarray(np.ones((2, 3), "float32")), backend.asarray(np.ones(3, "float32")))


def test_a_changed_learning_rate_is_felt_without_a_new_trace(backend):
    update, params, state, traces = jitted(SGD(0.5), backend)
    params, state = update(params, ones(backend), state)
    assert float(params[1][0]) == 0.5
    state = state._replace(learning_rate=backend.asarray(np.full((1,), 0.25, "float32")))
    params, state = update(params, ones(backend), state)
    assert float(params[1][0]) == 0.25
    assert len(traces) == 1


@pytest.mark.parametrize(
    "optimizer",
    [
        Adam(CosineDecay(0.1, 5), l1=0.1, l2=0.1, weight_decay=0.1, clip_norm=1.0, clip_value=0.5, average=0.5),
        SGD(Plateau(0.1, patience=1), momentum=0.9, nesterov=True),
    ],
    ids=str,
)
def test_schedules_and_counters_make_no_new_trace(backend, optimizer):
    update, params, state, traces = jitted(optimizer, backend)
    for _ in range(4):
        params, state = update(params, ones(backend), state)
        state = optimizer.observe(state, backend.asarray(np.ones(1, "float32")), xp=backend.xp)
    assert len(traces) == 1
    assert state.t.tolist() == [4]


@pytest.mark.parametrize("optimizer", [SGD(0.1), Adam(0.1, average=0.5)], ids=str)
def test_the_buffers_of_parameters_and_state_are_used_again(backend, optimizer):
    update, params, state, _ = jitted(optimizer, backend)
    params, state = update(params, ones(backend), state)
    before = {a.unsafe_buffer_pointer() for a in leaves((params, state))}
    given = leaves((params, state))
    params, state = update(params, ones(backend), state)
    assert all(a.is_deleted() for a in given)
    assert {a.unsafe_buffer_pointer() for a in leaves((params, state))} == before


def test_the_average_may_be_donated_beside_the_parameters(backend):
    # JAX refuses to donate one buffer twice: the average must be a copy from the start.
    update, params, state, _ = jitted(Adam(0.1, average=0.5), backend)
    update(params, ones(backend), state)
