"""The gradient check in float64: every record, and a grid of networks of every loss, activation, size and penalty.

scikit-learn's MLPRegressor has had one wrong cell in such a grid since 2017 (scikit-learn#8349), so all cells are run.
Along a direction in which no entry of the gradient is small, four-point differences agree to 1e-7 and, where all
operations are analytic, the complex step to 1e-12.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from operations.table import ACTIVATIONS, LAYERS, LOSSES, OPTIMIZERS, over
from operations.ways import (
    Case,
    cases_of_layer,
    cases_of_loss,
    cases_of_penalty,
    errors,
)

import bpxp
from bpxp import nn, optim
from bpxp.core.random import HostRandom
from bpxp.network.step import loss_and_gradients
from bpxp.nn import Dense, Sequential

LIMITS = {"differences": 1e-7, "complex step": 1e-12}
BATCHES, FEATURES, OUTPUTS = (1, 2, 5, 7), (1, 3, 8), (1, 2, 3, 5)
PENALTIES = [
    optim.SGD(0.1),
    optim.SGD(0.1, l2=0.3),
    optim.SGD(0.1, l1=0.02, l2=0.1, decay_biases=True),
]
SIZES = [
    (batch, n_in, n_out, optimizer)
    for batch, n_in, n_out, optimizer in itertools.product(BATCHES, FEATURES, OUTPUTS, PENALTIES)
    if not optimizer.l1 or (n_in == 3 and batch in (1, 5))
]
HIDDEN, LOSS = sorted(nn.ACTIVATIONS), sorted(nn.LOSSES)

WORST = {"differences": {}, "complex step": {}}
COUNTED = {"differences": 0, "complex step": 0}


def check(case, where):
    """Hold the gradient of a case against what differences and the complex step find; count it."""
    for method, found in errors(case).items():
        WORST[method][where] = max(WORST[method].get(where, 0.0), found)
        COUNTED[method] += 1
        assert found <= LIMITS[method], f"{case.name}: {method} differ by {found:.1e}"


# --- the records


def shapes_of(record):
    return dict.fromkeys((record.shape, *record.shapes))


@over(LAYERS, ACTIVATIONS)
def test_layers(record):
    for batch, shape in itertools.product(BATCHES, shapes_of(record)):
        for case in cases_of_layer(record, batch=batch, shape=shape):
            check(case, str(record))


@over(LOSSES)
def test_losses(record):
    for batch, n_out in itertools.product(BATCHES, OUTPUTS):
        if isinstance(getattr(record.thing, "pos_weight", 0.0), tuple) and n_out != 3:
            continue
        for case in cases_of_loss(record, batch=batch, n_out=n_out):
            check(case, str(record))


@over(OPTIMIZERS)
def test_penalties(record):
    for case in cases_of_penalty(record):
        check(case, str(record))


# --- the grid


def network(loss, hidden, batch, n_in, n_out, optimizer):
    """The objective of a network n_in-4-n_out as a function of parameters and inputs."""
    rng = np.random.default_rng([batch, n_in, n_out])
    model = Sequential((Dense(4, hidden, "scaled_normal"), Dense(n_out, None, "scaled_normal")))
    params, _ = model.init(HostRandom(3), (n_in,))
    x = rng.standard_normal((batch, n_in))
    u = rng.random((batch, n_out))
    y = {
        "classes": np.argmax(u, axis=1).astype(np.int32),
        "labels": np.round(u),
        "values": rng.standard_normal((batch, n_out)),
        "counts": np.floor(4.0 * u),
    }[loss.targets]

    def value(point, rest, xp):
        params, x = point
        logits, _ = model.forward(params, x, xp=xp)
        return loss(logits, *rest, xp=xp)[0] + optimizer.penalty(params, xp=xp)

    def gradient(point, rest, xp):
        params, x = point
        logits, caches = model.forward(params, x, xp=xp)
        dx, grads = model.backward(params, caches, loss(logits, *rest, xp=xp)[1], xp=xp)
        _, alone, _ = loss_and_gradients(model, loss, params, x, *rest, None, {}, xp=xp)
        # The way of a training step, which spares dx, has to end at the same bits.
        for a, b in zip(bpxp.core.tree.leaves(grads), bpxp.core.tree.leaves(alone), strict=True):
            assert np.array_equal(a, b)
        return optimizer.add_penalty_gradient(params, grads, xp=xp), dx

    analytic = model.analytic and getattr(loss, "analytic", False) and not optimizer.l1
    name = f"{n_in}-4-{n_out}, batch {batch}, l1 {optimizer.l1}, l2 {optimizer.l2}"
    return Case(name, (params, x), (y,), value, gradient, analytic)


def cells(loss, hidden):
    for batch, n_in, n_out, optimizer in SIZES:
        if n_out == 1 and loss.targets == "classes":
            continue  # the softmax of one output is constant, and refused
        yield network(loss, hidden, batch, n_in, n_out, optimizer)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("loss", LOSS)
def test_networks(loss, hidden):
    for case in cells(nn.get_loss(loss), hidden):
        check(case, f"{hidden} + {loss}")


def test_cells_are_counted(promise):
    """Of a run of this whole file: how many there were, and the worst."""
    for method, limit in LIMITS.items():
        worst = WORST[method]
        if not worst:
            continue
        where = max(worst, key=worst.get)
        assert not math.isnan(worst[where])
        what = f"Gradient check in float64 by {method}: cells, and the worst relative error (at most {limit:g})"
        promise(what, f"{COUNTED[method]:,} cells, {worst[where]:.1e} ({where})")


def test_there_are_enough_cells():
    one = sum(1 for _ in cells(nn.get_loss("huber"), "relu"))
    assert one * (len(LOSS) - 1) * len(HIDDEN) >= 2000
