"""The steps themselves, called by hand: what they draw from the data, what they give to the layers, what they return."""

from __future__ import annotations

import numpy as np
import pytest

from bpxp import metrics
from bpxp.backends import get_backend
from bpxp.core.random import HostRandom, make_key
from bpxp.core.tree import leaves, tree_map
from bpxp.network.step import AUGMENTATION, Data, DescentStep, EvaluationStep, State, Sums, TrainingStep
from bpxp.nn import Activation, BatchNorm, Dense, Dropout, Sequential, get_loss
from bpxp.optim import Adam

XP = get_backend("numpy").xp
LOSS = get_loss("softmax_cross_entropy")
N, BATCH = 7, 3
LANE = np.arange(BATCH, dtype=np.int32)
PIXELS = np.arange(0, 9 * N * 4, 9).reshape(N, 4).astype(np.uint8)
Y = np.arange(N, dtype=np.int32) % 3
WEIGHT = np.linspace(0.5, 2.0, N, dtype=np.float32)


class Watching(Activation):
    """Changes nothing, and writes down what it is given."""

    uses = frozenset({"training", "key", "stats", "present"})

    def __init__(self):
        self.seen, self.advanced = [], []

    def forward(self, params, z, /, *, xp, **context):
        self.seen.append((z, xp, context))
        return z, None

    def backward(self, params, cache, da, /, *, xp):
        return da, ()

    def init_stats(self, params, /):
        return (np.zeros(1),)

    def advance(self, stats, cache, /, *, xp):
        self.advanced.append(xp)
        return (stats[0] + 1.0,)


class Value(np.ndarray):
    """An array as JAX has them: ``a += b`` makes a new one, and whoever holds the old one sees nothing of it."""


for name in ("add", "sub", "mul", "truediv", "and", "or", "xor", "lshift"):
    setattr(Value, f"__i{name}__", getattr(np.ndarray, f"__{name}__"))


class Still(Adam):
    """Learns nothing."""

    def update(self, params, grads, state, /, *, xp):
        return params, state


def single(tree):
    return tree_map(lambda a: a.astype(np.float32), tree)


def zeros():
    return np.zeros(1, np.float32)


def begin(model, position=0, order=range(N)):
    """Return the state before a step, whose `order` is padded as the trainer pads it."""
    params = single(model.init(HostRandom(0), (4,))[0])
    opt = Adam(0.01).init(params, xp=XP)
    order = np.array([*order, 0, 0], np.int32)
    at = np.array([position], np.int32)
    return State(params, opt, single(model.init_stats(params)), make_key(5, step=2), order, at, zeros(), zeros())


def training_step(model, **options):
    return TrainingStep(model, LOSS, Adam(0.01), xp=XP, **options)


def same(found, wanted):
    if wanted is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("position", [0, 3, 6])
def test_a_mini_batch_has_the_next_rows_and_what_fills_it_up_counts_nothing(position, weight):
    model = Sequential((Dense(3),))
    order = [4, 2, 0, 6, 1, 3, 5]
    rows = np.array([*order, 0, 0])[position : position + BATCH]
    there = (np.arange(position, position + BATCH) < N).astype(np.float32)
    wanted = (
        (PIXELS / 255.0).astype(np.float32)[rows],
        Y[rows],
        there if weight is None else weight[rows] * there,
        there,
    )
    x, *others = training_step(model).batch(begin(model, position=position, order=order), Data(PIXELS, Y, weight, LANE))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, wanted[0], rtol=1e-6)
    for a, b in zip(others, wanted[1:], strict=True):
        same(a, b)


@pytest.mark.parametrize("weight", [None, WEIGHT[:6]])
def test_whole_mini_batches_have_nothing_to_mask(weight):
    model = Sequential((Dense(3),))
    data = Data(PIXELS[:6].astype(np.float32), Y[:6], weight, LANE)
    x, y, own, present = training_step(model).batch(begin(model, position=3), data)
    same(x, PIXELS[3:6].astype(np.float32))
    same(y, Y[3:6])
    same(own, None if weight is None else weight[3:6])
    assert present is None


def test_rows_that_come_in_parts_stand_in_their_order_already():
    # Six rows are here of N = 7 samples in all: after the sixth comes the first again, which is then the seventh.
    model = Sequential((Dense(3),))
    x, y, weight, present = training_step(model, samples=N).batch(
        begin(model, position=6, order=[3] * N), Data(PIXELS[:6], Y[:6], WEIGHT[:6], LANE)
    )
    np.testing.assert_allclose(x, PIXELS[:3] / 255.0, rtol=1e-6)
    same(y, Y[:3])
    same(weight, WEIGHT[:3] * np.array([1, 0, 0], np.float32))
    same(present, np.array([1, 0, 0], np.float32))


def test_transforms_have_places_of_their_own():
    places = []

    def watch(x, y, key, /, *, xp):
        places.append(key.place)
        assert int(key.step[0]) == 2
        assert xp is XP
        return x + 1.0, y - 1

    model = Sequential((Dense(3),))
    data = Data(PIXELS, Y + 2, None, LANE)
    x, y, _, _ = training_step(model, augment=(watch, watch)).batch(begin(model), data)
    assert places == [(AUGMENTATION, 0), (AUGMENTATION, 1)]
    np.testing.assert_allclose(x, PIXELS[:3] / 255.0 + 2.0, rtol=1e-6)
    same(y, Y[:3])


def given(layer):
    """Return what a layer was given, once, and check what is the same in every step."""
    ((x, xp, context),) = layer.seen
    assert x.dtype == np.float32
    assert xp is XP
    assert context.keys() == layer.uses
    return context


def test_a_layer_in_a_training_step():
    layer = Watching()
    model = Sequential((Dense(3), layer))
    state = training_step(model)(begin(model, position=6), Data(PIXELS, Y, None, LANE))
    context = given(layer)
    assert context["training"] is True
    assert context["key"].place == (1,)
    assert context["stats"] == (0.0,)
    same(context["present"], np.array([1, 0, 0], np.float32))
    assert (state.stats, layer.advanced) == (((), (1.0,)), [XP])
    assert int(state.key.step[0]) == 3


def test_a_layer_in_a_step_from_a_given_mini_batch():
    layer = Watching()
    model = Sequential((Dense(3), layer))
    old = begin(model)
    step = DescentStep(model, LOSS, Adam(0.01), xp=XP)
    params, opt, stats, key = step((old.params, old.opt, old.stats, old.key), (PIXELS, Y, None))
    context = given(layer)
    assert (context["training"], context["present"]) == (True, None)
    assert context["key"].place == (1,)
    assert context["stats"] == (0.0,)
    assert (stats, layer.advanced) == (((), (1.0,)), [XP])
    assert (int(key.step[0]), int(opt.t[0])) == (3, 1)
    assert not np.array_equal(params[0].W, begin(model).params[0].W)


def test_a_layer_in_an_evaluation():
    layer = Watching()
    model = Sequential((Dense(3), layer))
    state = begin(model)
    sums = Sums(state.position, zeros(), zeros(), ())
    EvaluationStep(model, LOSS, (), xp=XP)(sums, (state.params, state.stats, Data(PIXELS, Y, None, LANE)))
    context = given(layer)
    assert (context["training"], context["key"], context["present"]) == (False, None, None)
    assert context["stats"] == (0.0,)
    assert not layer.advanced


def test_weights_of_a_given_mini_batch_count():
    model = Sequential((Dense(3),))
    found = []
    for rows, weight in ((slice(0, 3), np.array([1, 0, 0], np.float32)), (slice(0, 1), None), (slice(0, 3), None)):
        old = begin(model)
        step = DescentStep(model, LOSS, Adam(0.01), xp=XP)
        found.append(step((old.params, old.opt, (), ()), (PIXELS[rows], Y[rows], weight))[0][0].W)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5)
    assert not np.allclose(found[0], found[2], rtol=1e-3)


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("weight", [None, WEIGHT])
@pytest.mark.parametrize("parts", [False, True])
def test_sums_of_an_evaluation_and_of_an_epoch(n, weight, parts):
    model = Sequential((Dense(3),))
    weight = None if weight is None else weight[:n]
    whole = n if parts else None
    state = begin(model)
    rows = (PIXELS[:n] / 255.0).astype(np.float32)
    own = np.ones(n, np.float32) if weight is None else weight
    logits, _ = model.forward(state.params, rows, xp=XP)
    losses = np.array([LOSS(logits[i : i + 1], Y[i : i + 1], None, xp=XP)[0][0] for i in range(n)])
    right = int(np.sum(np.argmax(logits, axis=1) == Y[:n]))
    accuracy = metrics.Accuracy()
    step = EvaluationStep(model, LOSS, (accuracy,), whole, xp=XP)
    sums = Sums(np.zeros(1, np.int32), zeros(), zeros(), (accuracy.init(3, xp=XP, dtype=np.float32),))
    data = Data(PIXELS[:n], Y[:n], weight, LANE)
    count = -(-n // BATCH)
    for _ in range(count):
        sums = step(sums, (state.params, (), data))
    np.testing.assert_allclose(sums.loss, np.sum(losses * own), rtol=1e-5)
    np.testing.assert_allclose(sums.weight, np.sum(own), rtol=1e-6)
    assert sums.position == count * BATCH
    assert accuracy.result(tuple(np.asarray(c) for c in sums.metrics[0])) == pytest.approx(right / n)

    step = TrainingStep(model, LOSS, Still(0.01), (), whole, xp=XP)
    for _ in range(count):
        state = step(state, data)
    np.testing.assert_allclose(state.loss, np.sum(losses * own), rtol=1e-5)
    np.testing.assert_allclose(state.weight, np.sum(own), rtol=1e-6)
    assert state.position == count * BATCH


def test_a_step_returns_all_that_it_changes():
    # Where arrays are written in place it would not be noticed that a step forgets to return one.
    model = Sequential((Dense(5, "relu"), BatchNorm(), Dropout(0.4), Dense(3)))
    step, descent = training_step(model), DescentStep(model, LOSS, Adam(0.01), xp=XP)
    results = []
    for kind in (np.ndarray, Value):
        data, state, other = tree_map(
            lambda a, kind=kind: a.view(kind), (Data(PIXELS, Y, WEIGHT, LANE), begin(model), begin(model))
        )
        four = other.params, other.opt, other.stats, other.key
        for _ in range(3):
            state, four = step(state, data), descent(four, data[:3])
        results.append(leaves((state, four)))
    for a, b in zip(*results, strict=True):
        assert type(b) is Value
        np.testing.assert_array_equal(a, b)
