"""What layers use beside x: `Sequential` gives each its own, and a plain layer sees nothing."""

from __future__ import annotations

import numpy as np

import bpxp
from bpxp.core.random import HostRandom, make_key
from bpxp.nn import Activation, BatchNorm, Dense, Dropout, Embedding, LayerNorm, Residual, Sequential

XP = bpxp.backends.get_backend("numpy").xp


class Nosy(Activation):
    """Keeps what it was given."""

    uses = frozenset({"training", "key", "stats", "present"})

    def forward(self, params, z, /, *, xp, **context):
        return z, context

    def backward(self, params, cache, da, /, *, xp):
        return da, ()

    def init_stats(self, params, /):
        return (np.zeros(1),)

    def advance(self, stats, cache, /, *, xp):
        return (stats[0] + 1.0,)


class Plain(Nosy):
    uses = frozenset()


def test_each_layer_gets_what_it_uses():
    model = Sequential((Plain(), Nosy(), Sequential((Plain(), Plain(), Nosy()))))
    assert model.uses == Nosy.uses
    params, _ = model.init(HostRandom(0), (2,))
    stats = model.init_stats(params)
    assert [len(own) for own in stats] == [0, 1, 3]
    key, present = make_key(0), np.ones(3)
    _, caches = model.forward(params, np.ones((3, 2)), xp=XP, training=True, key=key, stats=stats, present=present)
    assert caches[0][0] == {}
    own = caches[1][0]
    assert own["training"] is True
    assert own["key"].place == (1,)
    assert own["stats"] is stats[1]
    assert own["present"] is present
    assert caches[2][0][1][0] == {}
    inner = caches[2][0][2][0]
    assert inner["key"].place == (2, 2)
    assert inner["stats"] is stats[2][2]
    after = model.advance(stats, caches, xp=XP)
    assert after == ((), (np.ones(1),), ((), (), (np.ones(1),)))


def test_what_is_not_given_is_as_in_evaluation():
    model = Sequential((Nosy(),))
    _, caches = model.forward(((),), np.ones((3, 2)), xp=XP)
    assert caches[0][0] == {"training": False, "key": None, "stats": None, "present": None}


def test_a_plain_network_uses_nothing():
    model = Sequential((Dense(3, "relu"), LayerNorm(), Residual(Dense(3))))
    assert model.uses == frozenset()
    params, _ = model.init(HostRandom(0), (2,))
    assert model.init_stats(params) == ((), (), ())


def network(backend, **options):
    layers = [
        bpxp.nn.Dense(5, "tanh"),
        BatchNorm(),
        Residual([Dense(6, "tanh"), Dropout(0.3), BatchNorm(), Dense(5)]),
        LayerNorm(),
        Dropout(0.25),
        3,
    ]
    return bpxp.Network(layers, input_shape=4, backend=backend, seed=1, **options)


def test_whole_network_has_the_right_gradient(rng):
    report = bpxp.verify.check_gradients(network("numpy"), rng.standard_normal((6, 4)), rng.integers(0, 3, 6))
    assert report.worst < 1e-7


def test_embedding_in_a_network(rng):
    class Flatten(Activation):
        def init(self, rng, in_shape, /):
            return (), (int(np.prod(in_shape)),)

        def forward(self, params, z, /, *, xp):
            return xp.reshape(z, (z.shape[0], -1)), z.shape

        def backward(self, params, shape, da, /, *, xp):
            return xp.reshape(da, shape), ()

    net = bpxp.Network([Embedding(5, 2), Flatten(), 3], input_shape=4, backend="numpy", seed=0)
    x, y = rng.integers(0, 5, (6, 4)).astype(np.int32), rng.integers(0, 3, 6)
    assert bpxp.verify.check_gradients(net, x, y).worst < 1e-7


def test_training_is_the_same_on_every_backend(backend, rng):
    x, y = rng.standard_normal((23, 4)), rng.integers(0, 3, 23)
    nets = [network(name) for name in ("numpy", backend.name)]
    for net in nets:
        bpxp.Trainer(net, bpxp.optim.SGD(0.1), progress=False).fit((x, y), epochs=3, batch_size=8)
    for a, b in zip(*(bpxp.core.tree.leaves((net.params, net.stats)) for net in nets), strict=True):
        np.testing.assert_allclose(nets[1].backend.to_numpy(b), a, rtol=1e-4, atol=1e-5)
    whole = nets[1].backend.to_numpy(nets[1].predict_proba(x))
    one = nets[1].backend.to_numpy(nets[1].predict_proba(x[:1]))
    np.testing.assert_allclose(one[0], whole[0], rtol=1e-5)


def test_a_saved_network_goes_on_with_the_same_masks_and_statistics(tmp_path, rng):
    x, y = rng.standard_normal((16, 4)), rng.integers(0, 3, 16)
    net = network("numpy")
    for _ in range(3):
        net.gradient_descent((x, y), 0.1)
    net.save(tmp_path / "net.bpxp")
    again = bpxp.Network.load(tmp_path / "net.bpxp", backend="numpy")
    np.testing.assert_array_equal(again.predict_proba(x), net.predict_proba(x))
    for one in (net, again):
        one.gradient_descent((x, y), 0.1)
    for a, b in zip(*(bpxp.core.tree.leaves((n.params, n.stats)) for n in (net, again)), strict=True):
        np.testing.assert_array_equal(a, b)
