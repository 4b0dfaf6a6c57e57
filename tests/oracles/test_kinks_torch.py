"""The slopes at kinks, and of ties of maxima: what bpxp computes, and what the operation table states, is PyTorch's."""

from __future__ import annotations

import numpy as np
import pytest
from operations.table import ACTIVATIONS, LAYERS, LOSSES, RECORDS, over
from operations.ways import NUMPY

torch = pytest.importorskip("torch")
F = torch.nn.functional

FUNCTIONS = {
    "ReLU": F.relu,
    "LeakyReLU": F.leaky_relu,
    "LeakyReLU of slope 0.2": lambda z: F.leaky_relu(z, 0.2),
    "LeakyReLU of slope 0": lambda z: F.leaky_relu(z, 0.0),
    "ELU": F.elu,
    "ELU of level 0.3": lambda z: F.elu(z, 0.3),
    "ELU of level 0": lambda z: F.elu(z, 0.0),
    "SELU": F.selu,
    "Softsign": F.softsign,
    "HardSigmoid": F.hardsigmoid,
}
DISTANCES = {
    "MeanAbsoluteError": F.l1_loss,
    "Huber": F.huber_loss,
    "Huber, 0.3": lambda z, y: F.huber_loss(z, y, delta=0.3),
}


def slope(function, x):
    leaf = torch.tensor(x, requires_grad=True)
    function(leaf).sum().backward()
    return leaf.grad.numpy()


@over([record for record in ACTIVATIONS if record.kinks])
def test_activations(record):
    z = np.array([kink.x for kink in record.kinks])
    _, cache = record.thing.forward((), z, xp=NUMPY)
    dz, _ = record.thing.backward((), cache, np.ones(len(z)), xp=NUMPY)
    theirs = slope(FUNCTIONS[record.name], z)
    # F.hardsigmoid's derivative in float64 is the float32 number 1/6
    rtol = 1e-7 if record.name == "HardSigmoid" else 1e-15
    np.testing.assert_allclose([kink.slope for kink in record.kinks], theirs, rtol=rtol)
    np.testing.assert_allclose(dz, theirs, rtol=rtol)


@over([record for record in LOSSES if record.kinks])
def test_losses(record):
    for kink in record.kinks:
        z = np.array([[kink.x]])
        theirs = slope(lambda z: DISTANCES[record.name](z, torch.zeros_like(z)), z)
        np.testing.assert_allclose([[kink.slope]], theirs, rtol=1e-15)
        np.testing.assert_allclose(record.thing(z, np.zeros((1, 1)), xp=NUMPY)[1], theirs, rtol=1e-15)


@over([record for record in LAYERS if record.kinks])
def test_ties(record):
    layer = record.thing
    for kink in record.kinks:
        image = np.moveaxis(kink.x, 2, 0)[None]
        found = slope(lambda x: F.max_pool2d(x, layer.pool, layer.stride), image)
        theirs = np.moveaxis(found[0], 0, 2)
        y, cache = layer.forward((), kink.x[None], xp=NUMPY)
        np.testing.assert_array_equal(kink.slope, theirs)
        np.testing.assert_array_equal(layer.backward((), cache, np.ones(y.shape), xp=NUMPY)[0][0], theirs)


def test_every_kink_is_compared():
    assert {name for name, record in RECORDS.items() if record in ACTIVATIONS and record.kinks} == set(FUNCTIONS)
    assert {name for name, record in RECORDS.items() if record in LOSSES and record.kinks} == set(DISTANCES)
