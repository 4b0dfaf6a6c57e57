"""Relations of batches, of symmetries and of linearity: what must not change when something is rearranged."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from operations.record import OfLayer
from operations.relation import SEEDS, close, equal, problems, relation
from operations.table import ACTIVATIONS, LAYERS, LOSSES, RECORDS
from operations.ways import COMPLEX_STEP, NUMPY, both_ways, samples

from bpxp import nn
from bpxp.core.tree import leaves, tree_map
from bpxp.nn import Dense, DenseParams, Sequential

# Numbers of every kind: zeros of both signs, subnormals, and half the largest of all.
NUMBERS = st.floats(-(2.0**1022), 2.0**1022, allow_nan=False)
MODERATE = st.floats(-50.0, 50.0, allow_nan=False)
DIFFERENTIABLE = [*LAYERS, *ACTIVATIONS]


def mass(problem):
    return float(len(problem.x)) if problem.weight is None else float(np.sum(problem.weight))


# --- batches


@relation(problem=problems(least=2), cut=st.floats(0.0, 1.0))
def test_parts_of_a_batch_add_up(problem, cut):
    cut = 1 + int(cut * (len(problem.x) - 2))
    whole, parts = problem.solve(), [problem.rows(slice(0, cut)), problem.rows(slice(cut, None))]
    shares = [mass(part) / mass(problem) for part in parts]
    (J1, g1, dx1, _), (J2, g2, dx2, _) = (part.solve() for part in parts)
    close(whole[0], shares[0] * J1 + shares[1] * J2)
    close(whole[1], tree_map(lambda a, b: shares[0] * a + shares[1] * b, g1, g2))
    close(whole[2], np.concatenate([shares[0] * dx1, shares[1] * dx2]))


@relation(problem=problems(), seed=SEEDS)
def test_the_order_of_the_samples_does_not_matter(problem, seed):
    order = np.random.default_rng(seed).permutation(len(problem.x))
    J, grads, dx, delta = problem.solve()
    close(problem.rows(order).solve(), (J, grads, dx[order], delta[order]))


@relation(problem=problems(), times=st.integers(2, 3))
def test_a_data_set_twice_over_has_the_same_mean(problem, times):
    J, grads, dx, _ = problem.solve()
    again = problem.rows(np.tile(np.arange(len(problem.x)), times)).solve()
    close(again[:2], (J, grads))
    close(again[2][: len(dx)], dx / times)


@relation(problem=problems(), size=st.integers(1, 4))
def test_outputs_chunk_by_chunk_are_the_outputs(problem, size):
    chunks = [problem.rows(slice(i, i + size)).logits() for i in range(0, len(problem.x), size)]
    close(np.concatenate(chunks), problem.logits())


@relation(problem=problems(), factor=st.floats(1e-3, 1e3))
def test_only_the_proportion_of_the_weights_matters(problem, factor):
    weight = np.ones(len(problem.x)) if problem.weight is None else problem.weight
    close(problem._replace(weight=factor * weight).solve(), problem.solve())


@relation(problem=problems(least=2), seed=SEEDS)
def test_a_sample_of_weight_0_is_not_there(problem, seed):
    rng = np.random.default_rng(seed)
    weight = np.ones(len(problem.x)) if problem.weight is None else problem.weight.copy()
    weight[-1] = 0.0
    x = problem.x.copy()
    x[-1] = rng.standard_normal(x.shape[1])
    full = problem._replace(weight=weight, x=x)
    J, grads, dx, _ = full.solve()
    rest = full.rows(slice(0, -1)).solve()
    close((J, grads), rest[:2])
    equal(dx[-1], np.zeros_like(dx[-1]))


# --- symmetries


@relation(problem=problems(), seed=SEEDS)
def test_hidden_units_have_no_order(problem, seed):
    (W1, b1), (W2, b2) = problem.params
    order = np.random.default_rng(seed).permutation(len(b1))
    J, (g1, g2), dx, delta = problem.solve()
    mixed = problem._replace(params=(DenseParams(W1[:, order], b1[order]), DenseParams(W2[order], b2)))
    expected = J, (DenseParams(g1.W[:, order], g1.b[order]), DenseParams(g2.W[order], g2.b)), dx, delta
    close(mixed.solve(), expected)


@relation(problem=problems(), seed=SEEDS)
def test_outputs_have_no_order(problem, seed):
    if isinstance(getattr(problem.loss, "pos_weight", 0.0), tuple):
        problem = problem._replace(loss=nn.BinaryCrossEntropy(2.0))
    (first, (W, b)), y = problem.params, problem.y
    order = np.random.default_rng(seed).permutation(len(b))
    y = np.argsort(order).astype(np.int32)[y] if y.ndim == 1 else y[:, order]
    J, (g1, g2), dx, delta = problem.solve()
    mixed = problem._replace(params=(first, DenseParams(W[:, order], b[order])), y=y)
    close(mixed.solve(), (J, (g1, DenseParams(g2.W[:, order], g2.b[order])), dx, delta[:, order]))


@relation(problem=problems(), seed=SEEDS, more=st.integers(1, 3))
def test_features_that_are_0_change_nothing(problem, seed, more):
    """Whatever their weights are; and with weights of 0 nothing comes back to them either."""
    rng = np.random.default_rng(seed)
    first, second = problem.params
    J, (g1, g2), dx, delta = problem.solve()
    x = np.concatenate([problem.x, np.zeros((len(problem.x), more))], axis=1)
    for rows in (rng.standard_normal((more, len(first.b))), np.zeros((more, len(first.b)))):
        wide = DenseParams(np.concatenate([first.W, rows]), first.b)
        found = problem._replace(x=x, params=(wide, second)).solve()
        wide_g = DenseParams(np.concatenate([g1.W, np.zeros_like(rows)]), g1.b)
        close((found[0], found[1], found[2][:, : dx.shape[1]], found[3]), (J, (wide_g, g2), dx, delta))
    equal(found[2][:, dx.shape[1] :], np.zeros((len(x), more)))


@relation(z=arrays(float, array_shapes(min_dims=1, max_dims=3, max_side=5), elements=MODERATE), c=MODERATE)
def test_a_shift_of_all_logits_is_not_seen(z, c):
    close(nn.softmax(z + c, xp=NUMPY), nn.softmax(z, xp=NUMPY), 1e-12)
    close(np.sum(nn.softmax(z, xp=NUMPY), axis=-1), np.ones(z.shape[:-1]), 1e-14)


@relation(z=arrays(float, array_shapes(min_dims=2, max_dims=2, max_side=5), elements=NUMBERS), seed=SEEDS)
def test_probabilities_are_probabilities_of_whatever_logits(z, seed):
    """No warning, no NaN, between 0 and 1, in the order of the logits, and J is not negative."""
    for record in LOSSES:
        if record.thing.targets not in ("classes", "labels"):
            continue
        a = record.thing.activate(z, xp=NUMPY)
        assert np.all((a >= 0.0) & (a <= 1.0))
        assert np.all((z[:, :1] > z) <= (a[:, :1] >= a))
    y = np.random.default_rng(seed).integers(0, z.shape[1], len(z)).astype(np.int32)
    value, delta = nn.SoftmaxCrossEntropy()(z, y, xp=NUMPY)
    assert value[0] >= 0.0
    assert np.all(np.abs(delta) <= 1.0)


@relation(z=arrays(float, (4, 3), elements=MODERATE), y=arrays(float, (4, 3), elements=st.floats(0.0, 1.0)))
def test_a_label_and_its_opposite(z, y):
    loss = nn.BinaryCrossEntropy()
    (J, delta), (K, epsilon) = loss(z, y, xp=NUMPY), loss(-z, 1.0 - y, xp=NUMPY)
    close((J, delta), (K, -epsilon), 1e-12)


@relation(z=arrays(float, (5, 2), elements=MODERATE), seed=SEEDS)
def test_the_softmax_of_two_is_the_sigmoid_of_their_difference(z, seed):
    y = np.random.default_rng(seed).integers(0, 2, 5).astype(np.int32)
    J, delta = nn.SoftmaxCrossEntropy()(z, y, xp=NUMPY)
    d = z[:, 1:] - z[:, :1]
    K, epsilon = nn.BinaryCrossEntropy()(d, y[:, None].astype(float), xp=NUMPY)
    np.testing.assert_allclose(J, K, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(delta, np.concatenate([-epsilon, epsilon], axis=1), rtol=1e-12, atol=1e-15)


@relation(z=arrays(float, (4, 3), elements=MODERATE), y=arrays(float, (4, 3), elements=MODERATE))
def test_distances_are_symmetric(z, y):
    for name in ("MeanSquaredError", "MeanAbsoluteError", "Huber"):
        (J, delta), (K, epsilon) = RECORDS[name].thing(z, y, xp=NUMPY), RECORDS[name].thing(y, z, xp=NUMPY)
        equal((J, delta), (K, -epsilon))


@relation(z=arrays(float, (7,), elements=MODERATE))
def test_gates_and_their_opposites(z):
    """σ(z) + σ(-z) = 1; what is z times a gate of that kind, f, has f(z) - f(-z) = z; tanh and softsign are odd."""

    def f(name, z):
        return RECORDS[name].thing.forward((), z, xp=NUMPY)[0]

    for name in ("Sigmoid", "HardSigmoid"):
        np.testing.assert_allclose(f(name, z) + f(name, -z), 1.0, rtol=1e-15)
    for name in ("SiLU", "GELU", "GELU by tanh", "Softplus", "ReLU"):
        np.testing.assert_allclose(f(name, z) - f(name, -z), z, rtol=1e-14, atol=1e-15)
    for name in ("Tanh", "Softsign", "Identity"):
        equal(f(name, -z), -f(name, z))


# --- linearity


@relation(problem=problems(), c=st.floats(-1e3, 1e3))
def test_a_multiple_of_the_loss_has_that_multiple_of_the_gradient(problem, c):
    logits, caches = problem.model.forward(problem.params, problem.x, xp=NUMPY)
    _, delta = problem.loss(logits, problem.y, problem.weight, xp=NUMPY)
    dx, grads = problem.model.backward(problem.params, caches, delta, xp=NUMPY)
    found = problem.model.backward(problem.params, caches, c * delta, xp=NUMPY)
    close(found, tree_map(lambda a: c * a, (dx, grads)), 1e-12)


@relation(record=st.sampled_from(DIFFERENTIABLE), seed=SEEDS, a=st.floats(-3.0, 3.0), b=st.floats(-3.0, 3.0))
def test_backward_is_linear_in_what_comes_back(record, seed, a, b):
    rng = np.random.default_rng(seed)
    for layer, params, x, dy, context in samples(record, seed, batch=3):
        other = rng.standard_normal(dy.shape)
        _, cache = layer.forward(params, x, xp=NUMPY, **context)
        one, two, both = (layer.backward(params, cache, d, xp=NUMPY) for d in (dy, other, a * dy + b * other))
        expected = tree_map(lambda p, q: a * p + b * q, one, two)
        for f, e, p in zip(leaves(both), leaves(expected), leaves(one), strict=True):
            np.testing.assert_allclose(f, e, rtol=0.0, atol=1e-13 * (1.0 + np.max(np.abs(p), initial=0.0)) * 30.0)


@relation(record=st.sampled_from([record for record in DIFFERENTIABLE if record.analytic]), seed=SEEDS)
def test_adjoint_identity(record, seed):
    """⟨J v, w⟩ = ⟨v, Jᵀ w⟩: J v is what the complex step finds forwards, Jᵀ w what backward says."""
    rng = np.random.default_rng(seed)
    for layer, params, x, w, context in samples(record, seed, batch=3):
        _, dx, grads = both_ways(layer, params, x, w, context, NUMPY)
        v = tree_map(lambda a: rng.standard_normal(a.shape), (params, x))
        own, z = tree_map(lambda p, d: p + COMPLEX_STEP * 1j * d, (params, x), v)
        forwards = layer.forward(own, z, xp=NUMPY, **context)[0].imag / COMPLEX_STEP
        terms = [g * d for g, d in zip(leaves((grads, dx)), leaves(v), strict=True)]
        size = sum(float(np.sum(np.abs(t))) for t in terms) + float(np.sum(np.abs(forwards * w)))
        error = abs(sum(float(np.sum(t)) for t in terms) - float(np.sum(forwards * w)))
        assert error <= 1e-12 * size + 1e-15


# --- compositions


@relation(seed=SEEDS, cut=st.integers(0, 3))
def test_layers_in_a_row_may_be_bracketed(seed, cut):
    layers = (Dense(4, "tanh"), nn.LayerNorm(), Dense(3, "silu"))
    flat, nested = Sequential(layers), Sequential((Sequential(layers[:cut]), Sequential(layers[cut:])))
    rng = np.random.default_rng(seed)
    record = OfLayer("Sequential", flat, shape=(3,))
    ((_, params, x, dy, _),) = samples(record, seed, batch=int(rng.integers(1, 6)))
    y, dx, grads = both_ways(flat, params, x, dy, {}, NUMPY)
    found = both_ways(nested, (params[:cut], params[cut:]), x, dy, {}, NUMPY)
    equal(found[:2], (y, dx))
    equal(tuple(leaves(found[2])), tuple(leaves(grads)))


@relation(seed=SEEDS, count=st.integers(1, 6), dim=st.integers(1, 4), batch=st.integers(1, 5))
def test_an_embedding_is_a_product_with_one_hot_rows(seed, count, dim, batch):
    rng = np.random.default_rng(seed)
    W, x = rng.standard_normal((count, dim)), rng.integers(0, count, batch).astype(float)
    dy = rng.standard_normal((batch, dim))
    rows = np.eye(count)[x.astype(int)]
    layer = nn.Embedding(count, dim)
    y, cache = layer.forward(nn.EmbeddingParams(W), x, xp=NUMPY)
    z, _ = Dense(dim).forward(DenseParams(W, np.zeros(dim)), rows, xp=NUMPY)
    close(y, z)
    close(layer.gradients(nn.EmbeddingParams(W), cache, dy, xp=NUMPY).W, rows.T @ dy)
