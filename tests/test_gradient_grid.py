"""Every loss with every activation and regulariser, 1, 2, 3 and 5 outputs, batches of 1, 2 and 7: gradients in float64.

scikit-learn's MLPRegressor has had one wrong cell in such a grid since 2017 (scikit-learn#8349): all cells are run.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.step import loss_and_gradients
from bpxp.tree import leaves, tree_map

REGULARISERS = {
    "none": {},
    "l1": {"l1": 0.05},
    "l2": {"l2": 0.3},
    "l1 and l2, biases too": {"l1": 0.02, "l2": 0.1, "decay_biases": True},
}
STEPS = (1e-3, 1e-5)  # a kink that is within reach of the first is out of reach of the second
xp = bpxp.get_backend("numpy").xp


def targets(kind, rng, batch, n_out):
    return {
        "classes": lambda: rng.integers(0, n_out, batch),
        "labels": lambda: rng.integers(0, 2, (batch, n_out)).astype(float),
        "values": lambda: rng.normal(size=(batch, n_out)),
        "counts": lambda: rng.integers(0, 4, (batch, n_out)).astype(float),
    }[kind]()


def relative_error(net, optimizer, x, y, rng):
    """Return the error of the gradient along a random direction in the space of all parameters."""

    def objective(params):
        value, _, _ = loss_and_gradients(net.model, net.loss, params, x, y, None, {}, xp=xp)
        return float((value + optimizer.penalty(params, xp=xp))[0])

    _, grads, _ = loss_and_gradients(net.model, net.loss, net.params, x, y, None, {}, xp=xp)
    grads = optimizer.add_penalty_gradient(net.params, grads, xp=xp)
    # No entry of the direction is small, so that each entry of the gradient is seen.
    d = tree_map(lambda a: rng.choice([-1.0, 1.0], a.shape) * rng.uniform(0.5, 1.0, a.shape), net.params)
    analytic = sum(float(np.sum(g * e)) for g, e in zip(leaves(grads), leaves(d), strict=True))
    errors = []
    for h in STEPS:
        f1, g1, f2, g2 = (
            objective(tree_map(lambda p, e, t=t: p + t * e, net.params, d)) for t in (h, -h, 2.0 * h, -2.0 * h)
        )
        numeric = (8.0 * (f1 - g1) - (f2 - g2)) / (12.0 * h)
        rounding = 1e-15 * abs(f1) / h
        errors.append(max(abs(numeric - analytic) - rounding, 0.0) / max(abs(numeric), abs(analytic), 1e-2))
    return min(errors)


@pytest.mark.parametrize("hidden", sorted(nn.ACTIVATIONS))
@pytest.mark.parametrize("loss", sorted(nn.LOSSES))
def test_cells(loss, hidden):
    rng = np.random.default_rng([len(loss), len(hidden)])
    for n_out, batch, regulariser in itertools.product((1, 2, 3, 5), (1, 2, 7), REGULARISERS):
        if n_out == 1 and nn.get_loss(loss).targets == "classes":
            continue  # the softmax of one output is constant, and refused
        net = bpxp.Network(
            [3, 4, n_out], hidden=hidden, loss=loss, backend="numpy", dtype="float64", seed=3, init="scaled_normal"
        )
        x, y = rng.normal(size=(batch, 3)), targets(net.loss.targets, rng, batch, n_out)
        optimizer = bpxp.optim.SGD(0.1, **REGULARISERS[regulariser])
        cell = f"{n_out} outputs, batch {batch}, {regulariser}"
        assert relative_error(net, optimizer, x, y, rng) < 1e-7, cell
