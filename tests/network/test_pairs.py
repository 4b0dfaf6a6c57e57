"""Samples and targets as two arguments, as a pair or as a Dataset: every method takes all of them."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import optim
from bpxp.core.tree import leaves
from bpxp.data import Dataset

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(12, 4)), np.arange(12) % 3
W = rng.random(12)
FORMS = {"two": (X, Y), "pair": ((X, Y),), "list": ([X, Y],), "dataset": (Dataset(X, Y),)}


def network(backend, **options):
    return bpxp.Network([4, 5, 3], backend=backend, seed=0, **options)


def bits(net, tree):
    return [net.backend.to_numpy(a).tobytes() for a in leaves(tree)]


@pytest.mark.parametrize("form", FORMS)
def test_every_method_takes_every_form(backend, form):
    given, net = FORMS[form], network(backend)
    host = net.backend.to_numpy
    assert net.evaluate(*given) == net.evaluate(X, Y)
    assert bits(net, net.loss_and_gradients(*given)) == bits(net, net.loss_and_gradients(X, Y))
    assert bits(net, net.loss_and_gradients(*given, weight=W)) == bits(net, net.loss_and_gradients(X, Y, W))
    if form != "list":  # a list is a batch
        for method in (net.predict, net.predict_proba, net.logits):
            assert np.array_equal(host(method(*given)), host(method(X)))
    nets = [network(backend) for _ in range(2)]
    nets[0].gradient_descent(*given, 0.5)
    nets[1].gradient_descent((X, Y), learning_rate=0.5)
    assert bits(nets[0], nets[0].params) == bits(nets[1], nets[1].params) != bits(net, net.params)
    nets = [network(backend) for _ in range(2)]
    fits = [bpxp.Trainer(own, optim.SGD(0.5), progress=False) for own in nets]
    fits[0].fit(*given, epochs=2, batch_size=5, validation=given[0] if len(given) == 1 else given)
    fits[1].fit((X, Y), epochs=2, batch_size=5, validation=(X, Y))
    assert fits[0].history["validation_loss"] == fits[1].history["validation_loss"]
    assert bits(nets[0], nets[0].params) == bits(nets[1], nets[1].params)


@pytest.mark.parametrize(
    "arguments",
    [
        ((X, Y, 0.5, W), {}),
        ((X, Y, 0.5), {"weight": W}),
        ((X, Y), {"learning_rate": 0.5, "weight": W}),
        (((X, Y), 0.5, W), {}),
        (((X, Y), 0.5), {"weight": W}),
        (((X, Y),), {"learning_rate": 0.5, "weight": W}),
        (([X, Y], np.float64(0.5), W), {}),
        ((Dataset(X, Y, W), 0.5), {}),
        ((Dataset(X, Y), 0.5, W), {}),
        ((), {"batch": (X, Y), "learning_rate": 0.5, "weight": W}),
        ((), {"batch": X, "y": Y, "learning_rate": 0.5, "weight": W}),
        ((X.tolist(), Y.tolist(), 0.5, W), {}),
    ],
)
def test_the_arguments_of_gradient_descent(arguments):
    net, expected = network("numpy", dtype="float64"), network("numpy", dtype="float64")
    _, grads = expected.loss_and_gradients(X, Y, W)
    net.gradient_descent(*arguments[0], **arguments[1])
    for a, p, g in zip(*(leaves(t) for t in (net.params, expected.params, grads)), strict=True):
        np.testing.assert_allclose(a, p - 0.5 * g, rtol=1e-12)


@pytest.mark.parametrize("arguments", [(X, Y), ((X, Y),), ((X, Y), "fast"), (X, Y, "fast"), ((X, Y), None)])
def test_a_learning_rate_that_is_missing_is_named(arguments):
    net = network("numpy")
    before = bits(net, net.params)
    with pytest.raises(TypeError, match=r"gradient_descent\(learning_rate=…\): not a number"):
        net.gradient_descent(*arguments)
    assert bits(net, net.params) == before


def test_two_samples_in_a_tuple_are_two_samples(backend):
    host = backend.to_numpy
    net = network(backend)
    for two in ((X[0], X[1]), (X[0].tolist(), X[1].tolist()), [X[0], X[1]]):
        assert np.array_equal(host(net.logits(two)), host(net.logits(X[:2])))
    for two in ((X[:2], X[:2]), (X[:2].tolist(), Y[:2].tolist()), (X[:2], None)):  # the targets of an autoencoder, say
        assert np.array_equal(host(net.logits(two)), host(net.logits(X[:2])))
    images = rng.normal(size=(2, 6, 6, 1))
    net = bpxp.Network([bpxp.nn.Conv2D(2, 3), bpxp.nn.Flatten(), 3], input_shape=(6, 6, 1), backend=backend, seed=0)
    assert np.array_equal(host(net.logits((images[0], images[1]))), host(net.logits(images)))
    assert np.array_equal(host(net.logits((images, [0, 1]))), host(net.logits(images)))


def test_predict_takes_and_ignores_targets(backend):
    net = network(backend)
    pair = X, Y
    assert np.array_equal(backend.to_numpy(net.predict(*pair)), backend.to_numpy(net.predict(X)))
