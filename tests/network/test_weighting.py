"""A loss or a metric of the user's that ignores weights is refused by name before padding or weights reach it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import bpxp
from bpxp.core.tree import leaves
from bpxp.errors import InvalidValueError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 5)).astype(np.float32)
TARGETS = {"values": X[:, :3].copy(), "classes": np.arange(40) % 3, "labels": (X[:, :3] > 0).astype(np.float32)}


@dataclass(frozen=True)
class Tutorial:
    """The mean squared error as every tutorial writes it."""

    targets = "values"

    def __call__(self, z, y, weight=None, /, *, xp):
        d = z - y
        return xp.reshape(xp.sum(d * d), (1,)) / (3.0 * z.shape[0]), d * (2.0 / (3.0 * z.shape[0]))

    def activate(self, z, /, *, xp):
        return z * 1.0


@dataclass(frozen=True)
class Weighed(Tutorial):
    """Σ w J/Σ w: right."""

    def __call__(self, z, y, weight=None, /, *, xp):
        weight = xp.ones((z.shape[0],), dtype=z.dtype) if weight is None else weight
        share = xp.expand_dims(weight / xp.maximum(xp.sum(weight), xp.full((), 1e-30, dtype=z.dtype)), axis=1)
        d = z - y
        return xp.reshape(xp.sum(share * d * d), (1,)) / 3.0, share * d * (2.0 / 3.0)


@dataclass(frozen=True)
class NotNormalised(Tutorial):
    """Σ w J/batch: padding makes the others count less."""

    def __call__(self, z, y, weight=None, /, *, xp):
        weight = xp.ones((z.shape[0],), dtype=z.dtype) if weight is None else weight
        d, w = z - y, xp.expand_dims(weight, axis=1)
        return xp.reshape(xp.sum(w * d * d), (1,)) / (3.0 * z.shape[0]), w * d * (2.0 / (3.0 * z.shape[0]))


@dataclass(frozen=True)
class HalfWeighed(Weighed):
    """The loss is weighted, its derivative is not."""

    def __call__(self, z, y, weight=None, /, *, xp):
        return super().__call__(z, y, weight, xp=xp)[0], super().__call__(z, y, xp=xp)[1]


class Inherits(bpxp.nn.SoftmaxCrossEntropy):
    """A subclass of a loss of bpxp."""

    def __call__(self, z, y, weight=None, /, *, xp):
        return super().__call__(z, y, None, xp=xp)


def doors(net, y):
    """Yield each way in which weights reach the loss, by name, and ways in which they do not."""
    weight = np.linspace(0.5, 1.5, 40)

    def fit(**how):
        bpxp.Trainer(net, metrics=[], progress=False).fit((X, y), epochs=1, **how)

    yield "fit", lambda: fit(batch_size=32)
    yield "fit", lambda: fit(batch_size=20, weight=weight)
    yield "fit", lambda: fit(batch_size=10, validation=0.1)
    if net.loss.targets == "classes":
        yield "fit", lambda: fit(batch_size=20, class_weight="balanced")
    yield "evaluate", lambda: net.evaluate(X, y, weight=weight, metrics=[])
    yield "evaluate", lambda: net.evaluate(bpxp.data.Dataset(X, y, weight=weight, resident=False), metrics=[])
    yield "loss_and_gradients", lambda: net.loss_and_gradients(X, y, weight)
    yield "gradient_descent", lambda: net.gradient_descent((X, y), 0.1, weight)
    yield "", lambda: fit(batch_size=20)
    yield "", lambda: net.evaluate(X, y, metrics=[])
    yield "", lambda: net.gradient_descent((X, y), 0.1)


@pytest.mark.parametrize(
    "loss", [Tutorial(), NotNormalised(), HalfWeighed(), Inherits()], ids=lambda a: type(a).__name__
)
def test_a_loss_that_ignores_weights(backend, loss):
    net = bpxp.Network([5, 3], loss=loss, backend=backend, seed=0)
    y = TARGETS[loss.targets]
    for where, call in doors(net, y):
        before = [backend.to_numpy(a) for a in leaves(net.params)]
        if not where:
            call()
            continue
        with pytest.raises(
            InvalidValueError, match=f"{where}: {type(loss).__name__}: it ignores the weights"
        ) as caught:
            call()
        assert caught.value.code == "BPX-E019"
        assert all(np.array_equal(backend.to_numpy(a), b) for a, b in zip(leaves(net.params), before, strict=True))


def test_a_loss_that_takes_weights_into_account_learns_as_bpxps(backend):
    histories = []
    for loss in (Weighed(), "mean_squared_error"):
        net = bpxp.Network([5, 3], loss=loss, backend=backend, seed=0)
        for _, call in doors(net, TARGETS["values"]):
            call()
        trainer = bpxp.Trainer(net, progress=False)
        histories.append(trainer.fit((X, TARGETS["values"]), epochs=3, batch_size=32)["loss"])
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)


@pytest.mark.parametrize("loss", list(bpxp.nn.LOSSES))
def test_bpxps_own_pass_the_probe(loss, monkeypatch):
    kind = type(bpxp.nn.get_loss(loss))
    own = type(kind.__name__, (kind,), {"__module__": "elsewhere"})()
    net = bpxp.Network([5, 3], loss=own, backend="numpy", seed=0)
    y = TARGETS.get(own.targets, np.abs(TARGETS["values"]))
    for _, call in doors(net, y):
        call()


@dataclass(frozen=True)
class Counting:
    """Counts the samples that are right, the padding included."""

    name = "right"
    higher_is_better = True

    def init(self, n_out, /, *, xp, dtype):
        return xp.zeros((1,), dtype=xp.int32), xp.zeros((1,), dtype=xp.int32)

    def update(self, counts, logits, y, weight, /, *, xp):
        right = xp.astype(xp.astype(xp.argmax(logits, axis=1), xp.int32) == y, xp.int32)
        return counts[0] + xp.sum(right, dtype=xp.int32), counts[1] + logits.shape[0]

    def result(self, counts, /):
        return float(counts[0][0] / counts[1][0])


@dataclass(frozen=True)
class Right(Counting):
    def update(self, counts, logits, y, weight, /, *, xp):
        one = xp.ones((logits.shape[0],), dtype=xp.int32) if weight is None else xp.astype(weight > 0.0, xp.int32)
        right = xp.astype(xp.astype(xp.argmax(logits, axis=1), xp.int32) == y, xp.int32)
        return counts[0] + xp.sum(right * one, dtype=xp.int32), counts[1] + xp.sum(one, dtype=xp.int32)


def test_a_metric_that_ignores_weights(backend):
    n = 10_007
    x, y = np.random.default_rng(1).normal(size=(n, 5)).astype(np.float32), np.arange(n) % 3
    net = bpxp.Network([5, 3], backend=backend, seed=0)
    chunk = net._chunk
    assert n % chunk
    for call in (
        lambda: net.evaluate(x, y, metrics=[Counting()]),
        lambda: net.evaluate(x[:40], y[:40], weight=np.ones(40), metrics=[Counting()]),
        lambda: bpxp.Trainer(net, metrics=[Counting()], progress=False).fit((X, y[:40]), epochs=1, validation=(x, y)),
    ):
        with pytest.raises(InvalidValueError, match="Counting: it ignores the weights"):
            call()
    found = net.evaluate(x, y, metrics=[Right(), "accuracy"])
    assert found["right"] == pytest.approx(found["accuracy"], rel=1e-12)
    found = net.evaluate(x[:40], y[:40], metrics=[Counting(), "accuracy"])  # there is no padding
    assert found["right"] == pytest.approx(found["accuracy"], rel=1e-12)


def test_what_is_probed_is_left_as_it_is():
    class Keeps:
        targets = "classes"

        def __init__(self):
            self.calls = []

        def __call__(self, z, y, weight=None, /, *, xp):
            self.calls.append(z.shape)
            return bpxp.nn.SoftmaxCrossEntropy()(z, y, weight, xp=xp)

        def activate(self, z, /, *, xp):
            return z * 1.0

    loss = Keeps()
    net = bpxp.Network([5, 3], loss=loss, backend="numpy", seed=0)
    bpxp.Trainer(net, metrics=[], progress=False).fit((X, TARGETS["classes"]), epochs=1, batch_size=32)
    assert set(loss.calls) == {(32, 3)}


def test_a_loss_that_is_not_frozen_is_refused():
    @dataclass
    class Plain:
        targets: str = "values"
        __call__, activate = Tutorial.__call__, Tutorial.activate

    with pytest.raises(TypeError, match="hyper-parameters that can change: got Plain") as caught:
        bpxp.Network([5, 3], loss=Plain(), backend="numpy")
    assert "@dataclass(frozen=True)" in caught.value.fix
    bpxp.Network([5, 3], loss=dataclass(frozen=True)(type("Frozen", (Tutorial,), {}))(), backend="numpy")
