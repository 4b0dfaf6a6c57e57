"""Where there is no derivative, the backward pass says what PyTorch's says: the values stand in the records."""

from __future__ import annotations

import numpy as np
from mpmath import mp
from operations.table import ACTIVATIONS, LAYERS, LOSSES, over

SIZE = 16  # of every array, so that JAX compiles an operation once


@over([record for record in ACTIVATIONS if record.kinks])
def test_activations(record, backend, on):
    z = np.zeros(SIZE)
    z[: len(record.kinks)] = [kink.x for kink in record.kinks]
    _, cache = record.thing.forward((), on(backend, z), xp=backend.xp)
    dz, _ = record.thing.backward((), cache, on(backend, np.ones(SIZE)), xp=backend.xp)
    slopes = [kink.slope for kink in record.kinks]
    np.testing.assert_allclose(backend.to_numpy(dz)[: len(slopes)], slopes, rtol=1e-15, atol=0.0)


@over([record for record in ACTIVATIONS if record.jumps])
def test_beside_a_kink_there_is_a_derivative(record, backend, on):
    """Of the next number on either side; that of 0 is tiny, but not one that a library flushes to 0."""
    beside = [v for jump in record.jumps for v in ((-1e-30, 1e-30) if jump == 0.0 else around(jump))]
    z = np.zeros(SIZE)
    z[: len(beside)] = beside
    _, cache = record.thing.forward((), on(backend, z), xp=backend.xp)
    dz, _ = record.thing.backward((), cache, on(backend, np.ones(SIZE)), xp=backend.xp)
    slopes = [float(record.slope(mp.mpf(v))) for v in beside]
    np.testing.assert_allclose(backend.to_numpy(dz)[: len(beside)], slopes, rtol=1e-12, atol=0.0)


def around(jump):
    return [float(np.nextafter(jump, side)) for side in (-np.inf, np.inf)]


@over([record for record in LAYERS if record.kinks])
def test_ties_of_maxima(record, backend, on):
    for kink in record.kinks:
        y, cache = record.thing.forward((), on(backend, kink.x[None, ...]), xp=backend.xp)
        dx, _ = record.thing.backward((), cache, on(backend, np.ones(tuple(y.shape))), xp=backend.xp)
        np.testing.assert_array_equal(backend.to_numpy(dx)[0], kink.slope)


@over([record for record in LOSSES if record.kinks])
def test_losses(record, backend, on):
    for kink in record.kinks:
        z, y = np.array([[kink.x]]), np.zeros((1, 1))
        _, delta = record.thing(on(backend, z), on(backend, y), xp=backend.xp)
        np.testing.assert_allclose(backend.to_numpy(delta), [[kink.slope]], rtol=1e-15, atol=0.0)
