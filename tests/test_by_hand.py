"""First steps of 2-2-1 networks, worked by hand: every number below can be checked with pencil and paper."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bpxp
from bpxp.nn import DenseParams


def network(backend, **options):
    return bpxp.Network([2, 2, 1], backend=backend, seed=0, dtype="float32", **options)


def assert_params(net, *expected):
    for own, (W, b) in zip(net.params, expected, strict=True):
        np.testing.assert_allclose(net.backend.to_numpy(own.W), W, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(net.backend.to_numpy(own.b), b, rtol=1e-6, atol=1e-7)


def test_sigmoid_and_binary_cross_entropy(backend):
    # One sample, x = (1, -1), y = 1.
    #   z1 = x W1 = (1 - 1, 2 - 2) = (0, 0),  a1 = σ(0) = (1/2, 1/2)
    #   z2 = 1/2 - 1/2 + 0 = 0,               a2 = 1/2,   J = -log(1/2) = log 2
    #   delta2 = a2 - y = -1/2
    #   dW2 = a1 delta2 = (-1/4, -1/4),       db2 = -1/2
    #   da1 = delta2 W2 = (-1/2, 1/2),        delta1 = da1 · 1/2 · 1/2 = (-1/8, 1/8)
    #   dW1 = xᵀ delta1 = ((-1/8, 1/8), (1/8, -1/8)),  db1 = (-1/8, 1/8)
    net = network(backend, loss="binary_cross_entropy")
    net.params = (DenseParams([[1.0, 2.0], [1.0, 2.0]], [0.0, 0.0]), DenseParams([[1.0], [-1.0]], [0.0]))
    x, y = [[1.0, -1.0]], [[1.0]]
    loss, grads = net.loss_and_gradients(x, y)
    assert float(net.backend.to_numpy(loss)) == pytest.approx(math.log(2.0))
    found = [net.backend.to_numpy(a) for own in grads for a in own]
    np.testing.assert_allclose(found[0], [[-1 / 8, 1 / 8], [1 / 8, -1 / 8]])
    np.testing.assert_allclose(found[1], [-1 / 8, 1 / 8])
    np.testing.assert_allclose(found[2], [[-1 / 4], [-1 / 4]])
    np.testing.assert_allclose(found[3], [-1 / 2])
    # η = 1: p ← p - dp.
    net.gradient_descent((x, y), learning_rate=1.0)
    assert_params(
        net,
        ([[1.125, 1.875], [0.875, 2.125]], [0.125, -0.125]),
        ([[1.25], [-0.75]], [0.5]),
    )


def test_two_steps_of_relu_and_squared_error(backend):
    # Two samples, x = (1, 2) with y = 3 and x = (2, 1) with y = 0; W1 = ((1, -1), (1, -1)), W2 = (1, 1), no biases.
    #   z1 = (3, -3) for both, a1 = (3, 0), ŷ = 3 for both: errors 0 and 3.
    #   J = (0 + 9)/2 = 9/2; delta2 = 2 (ŷ - y)/2 = (0, 3)
    #   dW2 = (3·0 + 3·3, 0) = (9, 0),  db2 = 3
    #   delta1 = delta2 W2 · [z1 > 0] = (0, 0) and (3, 0)
    #   dW1 = (2·3, 0; 1·3, 0) = ((6, 0), (3, 0)),  db1 = (3, 0)
    net = network(backend, hidden="relu", loss="mean_squared_error")
    net.params = (DenseParams([[1.0, -1.0], [1.0, -1.0]], [0.0, 0.0]), DenseParams([[1.0], [1.0]], [0.0]))
    x, y = [[1.0, 2.0], [2.0, 1.0]], [[3.0], [0.0]]
    loss, _ = net.loss_and_gradients(x, y)
    assert float(net.backend.to_numpy(loss)) == pytest.approx(4.5)
    net.gradient_descent((x, y), learning_rate=0.1)
    # η = 0.1: W1 = ((0.4, -1), (0.7, -1)), b1 = (-0.3, 0); W2 = (0.1, 1), b2 = -0.3
    assert_params(net, ([[0.4, -1.0], [0.7, -1.0]], [-0.3, 0.0]), ([[0.1], [1.0]], [-0.3]))
    # Again: z1 = (0.4 + 1.4 - 0.3, -3) = (1.5, -3) and (0.8 + 0.7 - 0.3, -3) = (1.2, -3)
    #   ŷ = 0.15 - 0.3 = -0.15 and 0.12 - 0.3 = -0.18; errors -3.15 and -0.18; J = (9.9225 + 0.0324)/2
    #   delta2 = (-3.15, -0.18); dW2 = (1.5·-3.15 + 1.2·-0.18, 0) = (-4.941, 0); db2 = -3.33
    #   delta1 = 0.1 · delta2 in the first unit: -0.315 and -0.018
    #   dW1 = (1·-0.315 + 2·-0.018, 2·-0.315 + 1·-0.018) = (-0.351, -0.648); db1 = -0.333
    loss, _ = net.loss_and_gradients(x, y)
    assert float(net.backend.to_numpy(loss)) == pytest.approx((9.9225 + 0.0324) / 2)
    net.gradient_descent((x, y), learning_rate=1.0)
    assert_params(
        net,
        ([[0.751, -1.0], [1.348, -1.0]], [0.033, 0.0]),
        ([[5.041], [1.0]], [3.03]),
    )


def test_softmax_cross_entropy_of_zero_weights(backend):
    # All parameters 0: the softmax of two equal logits is (1/2, 1/2), J = log 2, delta = (a - y)/batch.
    #   Classes 0, 1, 1: Σ delta = ((-1/2 + 1/2 + 1/2), (1/2 - 1/2 - 1/2))/3 = (1/6, -1/6) = db2.
    #   a1 = σ(0) = 1/2: dW2 = db2/2 in each row. W2 = 0: nothing reaches the first layer.
    net = bpxp.Network([2, 2, 2], backend=backend, init="zeros")
    loss, grads = net.loss_and_gradients([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], [0, 1, 1])
    first, second = ([net.backend.to_numpy(a) for a in own] for own in grads)
    assert float(net.backend.to_numpy(loss)) == pytest.approx(math.log(2.0))
    np.testing.assert_allclose(second[1], [1 / 6, -1 / 6], rtol=1e-6)
    np.testing.assert_allclose(second[0], [[1 / 12, -1 / 12]] * 2, rtol=1e-6)
    assert not first[0].any()
    assert not first[1].any()
