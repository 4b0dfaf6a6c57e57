"""What surrounds the rules: penalties, decay, clipping, average, and the ownership of buffers."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest

from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.errors import InvalidValueError
from bpxp.nn.dense import DenseParams
from bpxp.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Constant,
    CosineDecay,
    OneCycle,
    Plateau,
    RMSprop,
    StepDecay,
    WarmUp,
)

RULES = {
    "sgd": SGD,
    "momentum": lambda *a, **k: SGD(*a, momentum=0.9, **k),
    "nesterov": lambda *a, **k: SGD(*a, momentum=0.9, nesterov=True, **k),
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "adam": Adam,
    "adamw": AdamW,
}
EVERYTHING = {
    "l1": 0.01,
    "l2": 0.02,
    "weight_decay": 0.03,
    "clip_norm": 1.0,
    "clip_value": 0.5,
    "average": 0.9,
}


class Deep(NamedTuple):
    """A layer with a layer inside, and names of all kinds."""

    W_in: object
    inner: object
    gain: object


def host_params(rng, dtype):
    """Two layers, one without parameters between them, and a nested one.

    Two shapes only, six leaves: each shape costs JAX a compilation per operation.
    """

    def draw(*shape):
        return rng.normal(size=shape).astype(dtype)

    return DenseParams(draw(6, 4), draw(4)), (), Deep(draw(6, 4), DenseParams(draw(6, 4), draw(4)), draw(4))


def bring(backend, tree):
    """Fresh arrays on the backend: an update owns what it gets."""
    return tree_map(lambda a: backend.asarray(np.array(a)), tree)


def run(backend, optimizer, params, gradients):
    params = bring(backend, params)
    state = optimizer.init(params, xp=backend.xp)
    for grads in gradients:
        params, state = optimizer.update(params, bring(backend, grads), state, xp=backend.xp)
    return tree_map(backend.to_numpy, params), tree_map(backend.to_numpy, state)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def close(a, b, rtol):
    for x, y in zip(leaves(a), leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=0)


@pytest.fixture
def problem(rng):
    """Parameters and three gradients, float64."""
    return host_params(rng, "float64"), [host_params(rng, "float64") for _ in range(3)]


def is_weight(name):
    return name.split("/")[-1].startswith("W")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "neutral",
    [
        {"clip_norm": 1e30},
        {"clip_value": 1e30},
        {"average": 0.5},
        {"decay_biases": True, "weight_decay": 0.0},
    ],
    ids=str,
)
def test_neutral_options_change_no_bit(backend, problem, rule, neutral):
    if rule == "adamw" and "decay_biases" in neutral:
        plain = Adam(0.1)
    else:
        plain = RULES[rule](0.1)
    assert equal(run(backend, plain, *problem)[0], run(backend, RULES[rule](0.1, **neutral), *problem)[0])


@pytest.mark.parametrize(
    ("neutral", "plain"),
    [
        (SGD(0.1, momentum=0.0), SGD(0.1)),
        (SGD(Constant(0.1)), SGD(0.1)),
        (SGD(StepDecay(0.1, 2, factor=1.0)), SGD(0.1)),
        (SGD(Plateau(0.1)), SGD(0.1)),
        (AdamW(0.1, weight_decay=0.0), Adam(0.1)),
        (Adam(0.1, weight_decay=0.01), AdamW(0.1)),
    ],
)
def test_equal_ways_to_say_the_same(backend, problem, neutral, plain):
    assert equal(run(backend, neutral, *problem)[0], run(backend, plain, *problem)[0])


def test_the_order_of_an_update(backend, problem):
    # Written out for plain descent: penalise, clip by norm, by value, decay, rule, average.
    params, gradients = problem
    got, state = run(backend, SGD(CosineDecay(0.1, 10), **EVERYTHING), params, gradients)
    p = dict(named_leaves(params))
    mean = {name: a.copy() for name, a in p.items()}
    for t, grads in enumerate(gradients):
        lr = 0.05 * (1 + np.cos(np.pi * t / 10))
        g = {n: a + is_weight(n) * (0.02 * p[n] + 0.01 * np.sign(p[n])) for n, a in named_leaves(grads)}
        norm = np.sqrt(sum(np.sum(a * a) for a in g.values()))
        assert norm > 1.0  # or the test would not see the clipping
        g = {n: np.clip(a / norm, -0.5, 0.5) for n, a in g.items()}
        p = {n: a - lr * 0.03 * a * is_weight(n) for n, a in p.items()}
        p = {n: a - lr * g[n] for n, a in p.items()}
        mean = {n: 0.9 * a + 0.1 * p[n] for n, a in mean.items()}
    close(got, tuple(p.values()), 1e-12)
    close(state.average, tuple(mean.values()), 1e-12)
    assert state.learning_rate[0] == pytest.approx(lr, rel=1e-14)


@pytest.mark.parametrize("everywhere", [False, True])
@pytest.mark.parametrize("option", ["l1", "l2", "weight_decay"])
def test_biases_are_decayed_only_on_request(backend, rng, option, everywhere):
    params = host_params(rng, "float64")
    zeros = tree_map(np.zeros_like, params)
    got, _ = run(backend, SGD(0.1, **{option: 0.5}, decay_biases=everywhere), params, [zeros])
    for (name, before), after in zip(named_leaves(params), leaves(got), strict=True):
        if is_weight(name) or everywhere:
            expected = before - 0.05 * (np.sign(before) if option == "l1" else before)
            np.testing.assert_allclose(after, expected, rtol=1e-14, atol=1e-16)
        else:
            assert np.array_equal(before, after)


@pytest.mark.parametrize("optimizer", [SGD(l1=0.3), SGD(l2=0.7), SGD(l1=0.3, l2=0.7, decay_biases=True)], ids=str)
def test_the_penalty_gradient_is_the_derivative_of_the_penalty(backend, rng, optimizer):
    xp = backend.xp
    # Half a unit away from the kink of |W|.
    params = tree_map(lambda a: a + np.where(a < 0, -0.5, 0.5), host_params(rng, "float64"))

    def value(at):
        result = optimizer.penalty(bring(backend, at), xp=xp)
        assert result.shape == (1,)
        return float(backend.to_numpy(result)[0])

    W = [a for name, a in named_leaves(params) if is_weight(name) or optimizer.decay_biases]
    by_hand = optimizer.l1 * sum(np.abs(a).sum() for a in W) + optimizer.l2 / 2 * sum((a * a).sum() for a in W)
    assert value(params) == pytest.approx(by_hand, rel=1e-14)

    start = host_params(rng, "float64")
    grads = optimizer.add_penalty_gradient(bring(backend, params), bring(backend, start), xp)
    added = [backend.to_numpy(g) - s for g, s in zip(leaves(grads), leaves(start), strict=True)]
    for a, slope in zip(leaves(params), added, strict=True):
        for i in itertools.islice(np.ndindex(a.shape), 3):
            kept, h = a[i], 1e-3
            # The penalty is a polynomial of degree 2 on either side of zero: the central difference is exact.
            a[i] = kept + h
            right = value(params)
            a[i] = kept - h
            left = value(params)
            a[i] = kept
            assert slope[i] == pytest.approx((right - left) / (2 * h), rel=1e-9, abs=1e-10)


def test_the_penalty_is_flat_at_zero(backend):
    xp = backend.xp
    zero = (DenseParams(backend.asarray(np.zeros((2, 2))), backend.asarray(np.zeros(2))),)
    grads = (DenseParams(backend.asarray(np.zeros((2, 2))), backend.asarray(np.zeros(2))),)
    grads = SGD(l1=1.0, l2=1.0).add_penalty_gradient(zero, grads, xp=xp)
    assert not backend.to_numpy(grads[0].W).any()
    assert backend.to_numpy(SGD().penalty(zero, xp=xp)).tolist() == [0.0]


def test_the_average_follows_the_parameters_from_the_start(backend, problem):
    params, gradients = problem
    optimizer = Adam(0.1, average=0.75)
    mean = params
    for n in range(1, len(gradients) + 1):
        p, state = run(backend, optimizer, params, gradients[:n])
        mean = tree_map(lambda m, a: 0.75 * m + 0.25 * a, mean, p)
        close(state.average, mean, 1e-12)


SCHEDULES = [
    0.1,
    OneCycle(0.1, 20),
    Plateau(0.1, patience=1),
    WarmUp(Plateau(0.1, patience=1), 2),
]


@pytest.mark.parametrize("rule", RULES)
def test_state_keeps_shapes_dtypes_and_structure(backend, rng, rule):
    # float32: the dtype that a stray float64 would widen.
    xp, dtype = backend.xp, "float32"
    for schedule in SCHEDULES:
        optimizer = RULES[rule](schedule, **EVERYTHING)
        params = bring(backend, host_params(rng, dtype))
        state = optimizer.init(params, xp=xp)
        before = [(name, a.shape, a.dtype) for name, a in named_leaves((params, state))]
        whole = [name for name, _, kind in before if kind == xp.int32]
        assert whole == ["1/t", *(["1/schedule/1"] if state.schedule else [])]  # Plateau counts epochs
        assert all(kind == getattr(xp, dtype) for name, _, kind in before if name not in whole)
        assert state.learning_rate.shape == state.t.shape == (1,)
        for _ in range(2):
            params, state = optimizer.update(params, bring(backend, host_params(rng, dtype)), state, xp=xp)
            state = optimizer.observe(state, xp.ones((1,), dtype=getattr(xp, dtype)), xp=xp)
        assert [(name, a.shape, a.dtype) for name, a in named_leaves((params, state))] == before
        assert optimizer.penalty(params, xp=xp).dtype == getattr(xp, dtype)


class Whole(Adam):
    """Needs all numbers of a leaf at once, and does not say so: Adam's rule acts on each by itself."""

    def rule(self, p, g, slots, factors, /, *, xp):
        g /= xp.sqrt(xp.sum(xp.square(g)))
        return super().rule(p, g, slots, factors, xp=xp)


@pytest.mark.parametrize("rule", [SGD, RMSprop, Adagrad, Adam, AdamW, Whole])
def test_a_large_leaf_is_updated_some_rows_at_a_time_to_the_same_bits(backend, rng, rule, monkeypatch):
    if not hasattr(backend.xp, "workspace"):
        pytest.skip("the namespace does not say what is large")
    shapes = [(37, 4), (81,), (20, 4), (3, 40), (2, 3, 4)]
    params = tuple(rng.normal(size=shape) for shape in shapes)
    problem = params, [tuple(rng.normal(size=a.shape) for a in params) for _ in range(3)]
    options = {"weight_decay": 0.01, "average": 0.9} | ({"momentum": 0.9} if rule is SGD else {})
    optimizer = rule(0.1, **options)
    whole = run(backend, optimizer, *problem)

    sizes, by_itself = [], rule.elementwise

    class Watched(rule):
        elementwise = by_itself

        def rule(self, p, g, slots, factors, /, *, xp):
            assert all(a.shape == p.shape for a in (g, *slots))
            sizes.append(p.shape)
            return super().rule(p, g, slots, factors, xp=xp)

    monkeypatch.setattr(backend.xp, "workspace", 8 * 8 * 10)  # a share is ten numbers
    parts = run(backend, Watched(0.1, **options), *problem)
    assert equal(parts, whole)
    if rule is Whole:
        assert sizes[: len(shapes)] == shapes
    else:
        assert sizes[:19] == [*[(2, 4)] * 18, (1, 4)]
        assert sizes[19:28] == [*[(10,)] * 8, (1,)]  # one number more than the workspace has room for
        assert sizes[28] == (20, 4)  # as many
        assert sizes[29:32] == [(1, 40)] * 3  # a row is more than a share
        assert sizes[32] == (2, 3, 4)


def address(a):
    if isinstance(a, np.ndarray):
        return a.__array_interface__["data"][0]
    return a.data_ptr() if hasattr(a, "data_ptr") else a.data.ptr


@pytest.mark.parametrize("rule", RULES)
def test_updates_write_in_place_and_buffers_are_disjoint(backend, rng, rule):
    # Addresses that stay are what a captured CUDA graph relies on; JAX has none, array-api-strict does not show them.
    if backend.name.split(":")[0] not in ("numpy", "torch", "cupy"):
        pytest.skip("the library does not show addresses")
    xp = backend.xp
    for schedule in SCHEDULES:
        optimizer = RULES[rule](schedule, **EVERYTHING)
        params = bring(backend, host_params(rng, "float32"))
        state = optimizer.init(params, xp=xp)
        before = [address(a) for a in leaves((params, state))]
        assert len(set(before)) == len(before)
        for _ in range(2):
            params, state = optimizer.update(params, bring(backend, host_params(rng, "float32")), state, xp=xp)
            state = optimizer.observe(state, xp.ones((1,), dtype=xp.float32), xp=xp)
        assert [address(a) for a in leaves((params, state))] == before


def test_init_only_reads(backend, on, rng):
    params = host_params(rng, "float32")
    given = tree_map(lambda a: on(backend, a), params)
    Adam(Plateau(0.1), **EVERYTHING).init(given, xp=backend.xp)
    assert equal(tree_map(backend.to_numpy, given), params)


def test_a_learning_rate_written_into_the_state_is_felt(backend):
    xp = backend.xp
    for optimizer in (SGD(0.1), SGD(Constant(0.1))):
        params = (backend.asarray(np.ones(2)),)
        state = optimizer.init(params, xp=xp)
        state = state._replace(learning_rate=backend.asarray(np.full((1,), 0.25)))
        params, state = optimizer.update(params, (backend.asarray(np.ones(2)),), state, xp=xp)
        assert backend.to_numpy(params[0]).tolist() == [0.75, 0.75]
        assert backend.to_numpy(state.learning_rate).tolist() == [0.25]


def test_a_schedule_writes_the_learning_rate_of_the_last_update(backend):
    xp = backend.xp
    optimizer = SGD(StepDecay(0.5, 2, factor=0.5))
    params = (backend.asarray(np.zeros(1)),)
    state = optimizer.init(params, xp=xp)
    rates = [float(backend.to_numpy(state.learning_rate)[0])]
    for _ in range(5):
        params, state = optimizer.update(params, (backend.asarray(np.ones(1)),), state, xp=xp)
        rates.append(float(backend.to_numpy(state.learning_rate)[0]))
    assert rates == [0.5, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert backend.to_numpy(params[0]).tolist() == [-1.625]


def test_steps_through_compile(backend, problem):
    """Donated state, several steps per call: the same numbers as one update after the other."""
    params, gradients = problem
    optimizer = Adam(WarmUp(Plateau(0.1), 2), **EVERYTHING)

    def step(state, data):
        given = tree_map(lambda g: g * 1.0, data)  # data is only read, an update uses its gradients up
        return optimizer.update(state[0], given, state[1], xp=backend.xp)

    state = (bring(backend, params), optimizer.init(bring(backend, params), xp=backend.xp))
    compiled = backend.compile(step)
    state = compiled(state, bring(backend, gradients[0]))
    state = compiled(state, bring(backend, gradients[1]), count=3)
    expected, memory = run(backend, optimizer, params, [gradients[0], *[gradients[1]] * 3])
    # XLA may contract a multiplication and an addition into one rounding.
    close(tree_map(backend.to_numpy, state[0]), expected, 1e-11)
    close(tree_map(backend.to_numpy, state[1]), memory, 1e-11)


@pytest.mark.parametrize("rule", RULES)
def test_zero_gradients_leave_the_parameters_alone(backend, rng, rule):
    params = host_params(rng, "float32")
    zeros = tree_map(np.zeros_like, params)
    optimizer = RULES[rule](0.1, clip_norm=1.0, clip_value=1.0, **({"weight_decay": 0.0} if rule == "adamw" else {}))
    assert equal(run(backend, optimizer, params, [zeros, zeros])[0], params)


@pytest.mark.parametrize("rule", RULES)
def test_a_network_without_parameters(backend, rule):
    optimizer = RULES[rule](0.1, **EVERYTHING)
    for nothing in ((), ((), ())):
        state = optimizer.init(nothing, xp=backend.xp)
        params, state = optimizer.update(nothing, nothing, state, xp=backend.xp)
        assert params == nothing
        assert backend.to_numpy(state.t).tolist() == [1]
        assert backend.to_numpy(optimizer.penalty(nothing, xp=backend.xp)).tolist() == [0.0]


def test_a_network_with_a_single_array(backend):
    # Such as one convolution without a bias.
    xp, ones = backend.xp, np.ones((2, 2))
    optimizer = SGD(0.1, l1=0.5, l2=1.0, clip_norm=1.0, clip_value=0.25, decay_biases=True)
    params = (backend.asarray(ones.copy()),)
    assert backend.to_numpy(optimizer.penalty(params, xp=xp)).tolist() == [4.0]
    # The gradient is 0.5 + 1 + 0.5 each, of norm 4: 0.5 each, then 0.25.
    params, state = optimizer.update(params, (backend.asarray(0.5 * ones),), optimizer.init(params, xp=xp), xp=xp)
    np.testing.assert_allclose(backend.to_numpy(params[0]), 0.975 * ones, rtol=1e-14)
    assert (state.slots, state.average) == ((), ())  # plain descent remembers nothing


def test_a_gradient_of_another_shape_is_refused_not_broadcast(backend):
    params = (DenseParams(backend.asarray(np.ones((2, 3))), backend.asarray(np.ones(3))),)
    wrong = (DenseParams(backend.asarray(np.ones((2, 3))), backend.asarray(np.ones((1, 3)))),)
    optimizer = SGD(0.1)
    with pytest.raises(InvalidValueError, match=r"gradient \(1, 3\), expected \(3,\)"):
        optimizer.update(params, wrong, optimizer.init(params, xp=backend.xp), xp=backend.xp)


def test_a_missing_gradient_is_refused(backend):
    params = (backend.asarray(np.ones(2)), backend.asarray(np.ones(3)))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        SGD(0.1).update(params, params[:1], SGD(0.1).init(params, xp=backend.xp), xp=backend.xp)
