"""Neutral options: an option at the value that does nothing does nothing, and one thing has one result however said."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from operations.relation import SEEDS, close, equal, problems, relation
from operations.table import LOSSES, OPTIMIZERS
from operations.ways import NUMPY, Leaves, both_ways

from bpxp import nn, optim
from bpxp.core.random import make_key
from bpxp.core.tree import leaves, tree_map
from bpxp.nn import Conv2D, Dropout, Huber, LeakyReLU, MeanSquaredError, NormParams, ReLU, RunningStats

STEPS = 3
RULES = [
    optim.SGD(0.1),
    optim.SGD(0.1, momentum=0.9),
    optim.SGD(0.1, momentum=0.9, nesterov=True),
    optim.RMSprop(0.1),
    optim.Adagrad(0.1),
    optim.Adam(0.1),
    optim.AdamW(0.1),
]


def run(optimizer, seed, rate=None):
    """Return parameters and state after some updates; `rate` is written into the state first."""
    rng = np.random.default_rng(seed)

    def draw():
        return Leaves(rng.standard_normal((3, 2)), rng.standard_normal(2)), Leaves(*rng.standard_normal((2, 1)))

    params = draw()
    state = optimizer.init(params, xp=NUMPY)
    if rate is not None:
        state = state._replace(learning_rate=np.array([rate]))
    before = tree_map(np.copy, params)
    for _ in range(STEPS):
        params, state = optimizer.update(params, draw(), state, xp=NUMPY)
    return params, state, before


SAME = [
    (optim.SGD(0.1, momentum=0.0), optim.SGD(0.1)),
    (optim.AdamW(0.1, weight_decay=0.0), optim.Adam(0.1)),
    (optim.Adam(0.1, weight_decay=0.01), optim.AdamW(0.1)),
    (optim.SGD(optim.Constant(0.1)), optim.SGD(0.1)),
    (optim.SGD(optim.StepDecay(0.1, 2, factor=1.0)), optim.SGD(0.1)),
    (optim.Adam(optim.ExponentialDecay(0.1, 1.0)), optim.Adam(0.1)),
    (optim.SGD(optim.CosineDecay(0.1, 10, floor=0.1)), optim.SGD(0.1)),
    (optim.SGD(optim.Plateau(0.1)), optim.SGD(0.1)),
]
NOTHING = [
    {"l1": 0.0},
    {"l2": 0.0},
    {"clip_norm": 1e30},
    {"clip_value": 1e30},
    {"average": 0.5},
    {"decay_biases": True, "weight_decay": 0.0},
]


@relation(pair=st.sampled_from(SAME), seed=SEEDS)
def test_one_rule_said_in_two_ways(pair, seed):
    equal(run(pair[0], seed)[0], run(pair[1], seed)[0])


@relation(rule=st.sampled_from(RULES), option=st.sampled_from(NOTHING), seed=SEEDS)
def test_options_that_are_off(rule, option, seed):
    plain = dataclasses.replace(rule, weight_decay=0.0) if "weight_decay" in option else rule
    equal(run(dataclasses.replace(rule, **option), seed)[0], run(plain, seed)[0])


@relation(record=st.sampled_from(OPTIMIZERS), seed=SEEDS)
def test_a_rate_of_0_leaves_every_bit(record, seed):
    """A rate of 0 is refused where it is written, but it may be written into the state."""
    assume(not isinstance(record.thing.learning_rate, optim.Schedule))
    params, state, before = run(record.thing, seed, rate=0.0)
    for a, b in zip(leaves(params), leaves(before), strict=True):
        assert a.tobytes() == b.tobytes()
    assert state.t[0] == STEPS


@relation(record=st.sampled_from(OPTIMIZERS), seed=SEEDS, factor=st.sampled_from([0.5, 2.0, 4.0]))
def test_a_step_is_proportional_to_the_rate(record, seed, factor):
    """Of the first update, without what acts on the parameters by itself; a power of two rounds nothing."""
    rule = dataclasses.replace(record.thing, learning_rate=0.25, l1=0.0, l2=0.0, weight_decay=0.0, average=None)
    rng = np.random.default_rng(seed)
    g = rng.standard_normal(5)
    changes = []
    for rate in (0.25, 0.25 * factor):
        own = dataclasses.replace(rule, learning_rate=rate)
        p = (np.zeros(5),)
        (p,), _ = own.update(p, (g.copy(),), own.init(p, xp=NUMPY), xp=NUMPY)
        changes.append(p)
    equal(factor * changes[0], changes[1])


@relation(problem=problems(), ones=st.sampled_from([1.0, 0.5, 4.0]))
def test_equal_weights_are_no_weights(problem, ones):
    weight = np.full(len(problem.x), ones)
    close(problem._replace(weight=weight).solve(), problem._replace(weight=None).solve(), 1e-13)


@relation(problem=problems())
def test_penalties_of_0_add_nothing(problem):
    _, grads, _, _ = problem.solve()
    found = optim.SGD(0.1, l1=0.0, l2=0.0).add_penalty_gradient(problem.params, tree_map(np.copy, grads), xp=NUMPY)
    equal(found, grads)
    equal(optim.SGD(0.1).penalty(problem.params, xp=NUMPY), np.zeros(1))


@relation(record=st.sampled_from(LOSSES), seed=SEEDS)
def test_losses_with_options_that_are_off(record, seed):
    rng = np.random.default_rng(seed)
    z, y = record.draw(rng, 5, 3)
    off = {"label_smoothing": 0.0, "pos_weight": 1.0}
    plain = dataclasses.replace(record.thing, **{name: value for name, value in off.items() if name in record.fields})
    if plain == nn.BinaryCrossEntropy():
        equal(nn.BinaryCrossEntropy((1.0, 1.0, 1.0))(z, y, xp=NUMPY), plain(z, y, xp=NUMPY))
    if plain == nn.SoftmaxCrossEntropy():
        rows = np.eye(3)[y]
        equal(plain(z, rows, xp=NUMPY), plain(z, y, xp=NUMPY))
        soft = (1.0 - 0.25) * rows + 0.25 / 3
        close(plain(z, soft, xp=NUMPY), nn.SoftmaxCrossEntropy(0.25)(z, y, xp=NUMPY), 1e-13)
    if isinstance(plain, Huber):
        J, delta = MeanSquaredError()(z, y, xp=NUMPY)
        close(Huber(1e6)(z, y, xp=NUMPY), (J / 2, delta / 2), 1e-13)
        J, delta = nn.MeanAbsoluteError()(z, y, xp=NUMPY)
        np.testing.assert_allclose(Huber(1e-9)(z, y, xp=NUMPY)[0] / 1e-9, J, rtol=1e-6, atol=1e-9)
        equal(np.sign(Huber(1e-9)(z, y, xp=NUMPY)[1]), np.sign(delta))


@relation(seed=SEEDS, batch=st.integers(1, 5))
def test_layers_with_options_that_are_off(seed, batch):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, batch, 3))
    for layer, context in ((Dropout(0.0), {"key": make_key(seed)}), (Dropout(0.5), {"key": None})):
        equal(both_ways(layer, (), x, dy, context, NUMPY)[:2], (x, dy))
    equal(both_ways(LeakyReLU(0.0), (), x, dy, {}, NUMPY), both_ways(ReLU(), (), x, dy, {}, NUMPY))
    equal(both_ways(LeakyReLU(1.0), (), x, dy, {}, NUMPY)[:2], (x, dy))
    equal(both_ways(nn.ELU(0.0), (), x, dy, {}, NUMPY), both_ways(ReLU(), (), x, dy, {}, NUMPY))
    none = nn.DenseParams(np.zeros((3, 3)), np.zeros(3))
    equal(both_ways(nn.Residual(nn.Dense(3)), (none,), x, dy, {}, NUMPY)[:2], (x, dy))
    own = nn.Residual(nn.Reshape((3,)))
    equal(both_ways(own, ((),), x, dy, {}, NUMPY)[:2], (2.0 * x, 2.0 * dy))


@relation(seed=SEEDS, channels=st.integers(1, 5))
def test_convolutions_with_options_that_are_off(seed, channels):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, 4, 4, channels)), rng.standard_normal((2, 3, 3, 2))
    W = rng.standard_normal((2, 2, channels, 2))
    plain = both_ways(Conv2D(2, 2), nn.ConvParams(W, np.zeros(2)), x, dy, {}, NUMPY)
    for other in (Conv2D(2, 2, stride=1, padding=0, dilation=1, groups=1), Conv2D(2, 2, padding=((0, 0), (0, 0)))):
        equal(both_ways(other, nn.ConvParams(W, np.zeros(2)), x, dy, {}, NUMPY), plain)
    y, dx, grads = both_ways(Conv2D(2, 2, bias=False), nn.ConvWeights(W), x, dy, {}, NUMPY)
    equal((y, dx, grads.W), (*plain[:2], plain[2].W))
    for pool in (nn.MaxPool2D(1), nn.AvgPool2D(1)):
        equal(both_ways(pool, (), x, x, {}, NUMPY)[:2], (x, x))


@relation(seed=SEEDS, batch=st.integers(2, 6), a=st.floats(0.5, 4.0), b=st.floats(-5.0, 5.0))
def test_normalisation_sees_neither_scale_nor_shift(seed, batch, a, b):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((batch, 4))
    assume(np.min(np.std(x, axis=0)) > 0.1)
    assume(np.min(np.std(x, axis=1)) > 0.1)
    params = NormParams(rng.standard_normal(4), rng.standard_normal(4))
    for layer, context in ((nn.BatchNorm(epsilon=1e-12), {"training": True}), (nn.LayerNorm(epsilon=1e-12), {})):
        y, z = (layer.forward(params, v, xp=NUMPY, **context)[0] for v in (x, a * x + b))
        close(z, y, 1e-8)


@relation(seed=SEEDS, batch=st.integers(2, 6))
def test_batch_normalisation_with_everybody_present(seed, batch):
    rng = np.random.default_rng(seed)
    x, dy = rng.standard_normal((2, batch, 3))
    params, layer = NormParams(rng.standard_normal(3), rng.standard_normal(3)), nn.BatchNorm(momentum=1.0)
    context = {"training": True, "stats": RunningStats(np.zeros(3), np.ones(3))}
    plain = both_ways(layer, params, x, dy, context, NUMPY)
    close(both_ways(layer, params, x, dy, {**context, "present": np.ones(batch)}, NUMPY), plain, 1e-12)
    # With a momentum of 1 the statistics are the batch's: evaluation with its variance is training's y.
    _, cache = layer.forward(params, x, xp=NUMPY, **context)
    stats = layer.advance(tree_map(np.copy, context["stats"]), cache, xp=NUMPY)
    close(stats.var * (batch - 1) / batch, np.var(x, axis=0), 1e-12)
    biased = stats._replace(var=stats.var * (batch - 1) / batch)
    close(layer.forward(params, x, xp=NUMPY, stats=biased)[0], plain[0], 1e-11)
