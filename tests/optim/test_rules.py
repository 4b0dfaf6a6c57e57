"""Each rule against numbers worked by hand, on every backend."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bpxp.core.tree import tree_map
from bpxp.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from bpxp.optim.adam import one_minus_power


def walk(optimizer: Optimizer, backend, gradients, start=1.0, dtype="float64"):
    """Return the values of one parameter after each of the given gradients."""
    xp = backend.xp
    params = (backend.asarray(np.full((1,), start, dtype)),)
    state = optimizer.init(params, xp=xp)
    values = []
    for g in gradients:
        params, state = optimizer.update(params, (backend.asarray(np.full((1,), g, dtype)),), state, xp=xp)
        values.append(float(backend.to_numpy(params[0])[0]))
    assert backend.to_numpy(state.t).tolist() == [len(gradients)]
    return values


HAND = {
    # 1 - 0.1·2;  0.8 - 0.1·1
    "sgd": (SGD(0.1), [2.0, 1.0], [0.8, 0.7]),
    # v = 2: 1 - 0.2;  v = 0.5·2 + 1 = 2: 0.8 - 0.2
    "momentum": (SGD(0.1, momentum=0.5), [2.0, 1.0], [0.8, 0.6]),
    # v = 2, 2 + 0.5·2 = 3: 1 - 0.3;  v = 2, 1 + 0.5·2 = 2: 0.7 - 0.2
    "nesterov": (SGD(0.1, momentum=0.5, nesterov=True), [2.0, 1.0], [0.7, 0.5]),
    # s = 4: 1 - 0.1·2/(2 + 0.5) = 0.92;  s = 4 + 2.25 = 6.25: 0.92 - 0.1·1.5/(2.5 + 0.5) = 0.87
    "adagrad": (Adagrad(0.1, epsilon=0.5), [2.0, 1.5], [0.92, 0.87]),
    # v = 0.25·4 = 1: 1 - 0.1·2/(1 + 0.5);  v = 0.75 + 0.25·13 = 4 with g² = 13: - 0.1·√13/(2 + 0.5)
    "rmsprop": (
        RMSprop(0.1, alpha=0.75, epsilon=0.5),
        [2.0, math.sqrt(13.0)],
        [1 - 0.2 / 1.5, 1 - 0.2 / 1.5 - 0.1 * math.sqrt(13.0) / 2.5],
    ),
    # t = 1: m = 0.5·2 = 1, v = 0.25·4 = 1; m̂ = 1/0.5 = 2, v̂ = 1/0.25 = 4: 1 - 0.1·2/(2 + 0.5) = 0.92
    # t = 2: m = 0.5·1 + 0.5·1 = 1, v = 0.75·1 + 0.25·1 = 1; m̂ = 1/0.75 = 4/3, v̂ = 1/(1 - 0.5625) = 16/7:
    #        0.92 - 0.1·(4/3)/(√(16/7) + 0.5)
    "adam": (
        Adam(0.1, beta1=0.5, beta2=0.75, epsilon=0.5),
        [2.0, 1.0],
        [0.92, 0.92 - 0.1 * (4 / 3) / (4 / math.sqrt(7.0) + 0.5)],
    ),
    # β = 0: nothing to correct, m̂ = g, v̂ = g²: 1 - 0.1·2/(2 + 0.5), then - 0.1·1/(1 + 0.5)
    "adam without memory": (
        Adam(0.1, beta1=0.0, beta2=0.0, epsilon=0.5),
        [2.0, 1.0],
        [0.92, 0.92 - 0.1 / 1.5],
    ),
    # Adam's first step, after 1 - 0.1·0.5·1 = 0.95
    "adamw": (
        AdamW(0.1, beta1=0.5, beta2=0.75, epsilon=0.5, weight_decay=0.5, decay_biases=True),
        [2.0],
        [0.87],
    ),
}


@pytest.mark.parametrize("case", HAND)
def test_first_steps_by_hand(backend, case):
    optimizer, gradients, expected = HAND[case]
    assert walk(optimizer, backend, gradients) == pytest.approx(expected, rel=1e-14)


def test_first_step_of_adam_has_the_size_of_the_learning_rate_in_float32(backend):
    # η m̂/(√v̂ + ε) = η g/(|g| + ε) = η to 1e-8/g; from 0, so that nothing is lost in p. Some ten roundings of 6e-8.
    for g in (1.0, 1e3, 1e-2):
        (p,) = walk(Adam(1e-3, epsilon=1e-12), backend, [g], start=0.0, dtype="float32")
        assert p == pytest.approx(-1e-3, rel=12 * 2.0**-24)


def test_epsilon_of_adam_stands_outside_the_root_and_beside_the_corrected_moment(backend):
    # |g| = ε: η/2. Inside the root it would be η·1e-8/√(1e-16 + 1e-8), beside the uncorrected v: η/(1 + √1000).
    (p,) = walk(Adam(0.1, epsilon=1e-8), backend, [1e-8], start=0.0)
    assert p == pytest.approx(-0.05, rel=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bias_correction_is_accurate(backend, dtype):
    xp = backend.xp
    for beta in (0.0, 0.5, 0.9, 0.999, 0.9999):
        for t in (1, 2, 3, 10, 100, 1000, 12345, 1_000_000):
            # The exact value; the exponent is wrong by three roundings at most, expm1 adds some.
            exact = -math.expm1(t * math.log(beta)) if beta else 1.0
            computed = one_minus_power(beta, backend.asarray(np.full((1,), t, dtype)), xp)
            assert computed.dtype == getattr(xp, dtype)
            assert float(backend.to_numpy(computed)[0]) == pytest.approx(exact, rel=5 * float(np.finfo(dtype).eps))


def test_momentum_feels_a_new_learning_rate_at_once(backend):
    # The velocity is kept without η: torch's convention. v = 1, then 1.5 at a tenth of the rate: 0.9 - 0.015.
    xp = backend.xp
    optimizer = SGD(0.1, momentum=0.5)
    params = (backend.asarray(np.ones(1)),)
    state = optimizer.init(params, xp=xp)
    params, state = optimizer.update(params, (backend.asarray(np.ones(1)),), state, xp=xp)
    state = state._replace(learning_rate=backend.asarray(np.full((1,), 0.01)))
    params, state = optimizer.update(params, (backend.asarray(np.ones(1)),), state, xp=xp)
    assert float(backend.to_numpy(params[0])[0]) == pytest.approx(0.885, rel=1e-14)


def test_the_base_has_no_rule(backend):
    with pytest.raises(NotImplementedError):
        walk(Optimizer(0.1), backend, [1.0])


def test_a_rule_of_ones_own_needs_only_its_formula(backend):
    class Signed(Optimizer):
        def rule(self, p, g, slots, lr, /, *, xp):
            assert slots == ()
            p -= lr * (xp.astype(g > 0.0, p.dtype) - xp.astype(g < 0.0, p.dtype))
            return p, slots

    assert walk(Signed(0.25), backend, [3.0, -2.0, -1.0]) == [0.75, 1.0, 1.25]


def test_a_rule_may_return_new_arrays(backend):
    # As it has to on JAX; elsewhere it is only slower.
    class Momentum(Optimizer):
        def slots(self, params, /, *, xp):
            return (tree_map(xp.zeros_like, params),)

        def rule(self, p, g, slots, lr, /, *, xp):
            (v,) = slots
            return p - lr * (v + g), (v + g,)

    # v = 1, 1 + 1 = 2: 1 - 0.25, - 0.5
    assert walk(Momentum(0.25), backend, [1.0, 1.0]) == [0.75, 0.25]
