"""Purity: inputs and caches are only read, the same call gives the same bits, and a gradient shares memory with nothing."""

from __future__ import annotations

import numpy as np
import pytest
from operations.table import ACTIVATIONS, FUNCTIONS, LAYERS, LOSSES, METRICS, over
from operations.ways import put, samples

from bpxp.core.tree import leaves, tree_map

# A new shape for the same numbers: the output may be the input, and neither is written.
VIEWS = {"Flatten", "Reshape"}
APART = {
    "clip_by_norm",  # it writes into the gradients that it is given
    "default_metrics",  # it takes no arrays
}


def arrays(tree):
    """Return what is an array in a tree: a cache may hold numbers and None, too."""
    return [a for a in leaves(tree) if hasattr(a, "shape")]


def host(backend, tree):
    return [backend.to_numpy(a) for a in arrays(tree)]


def same(one, other):
    """Bit for bit; -0 is not 0, and a NaN is a NaN."""
    return len(one) == len(other) and all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def shares(backend, a, b):
    """Whether two arrays share memory, where the library shows it."""
    if backend.name == "numpy":
        return np.shares_memory(a, b)
    if backend.name.startswith("torch"):
        return 0 != a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    return False


def disjoint(backend, results, others):
    for i, a in enumerate(results):
        for b in [*results[:i], *others]:
            assert not shares(backend, a, b)


@pytest.fixture(autouse=True)
def writable(backend):
    if backend.name.startswith("jax"):
        pytest.skip("arrays of JAX are immutable")


@over(LAYERS, ACTIVATIONS)
def test_layers(record, backend, on):
    for layer, *host_inputs, context in samples(record, batch=3):
        given = put((*host_inputs, tuple(context.values())), lambda a: on(backend, a))
        params, x, dy, values = given
        known = dict(zip(context, values, strict=True))
        before = host(backend, given)
        y, cache = layer.forward(params, x, xp=backend.xp, **known)
        kept = host(backend, (y, cache))
        first = layer.backward(params, cache, dy, xp=backend.xp)
        found = host(backend, first)
        again = layer.backward(params, cache, dy, xp=backend.xp)
        assert same(found, host(backend, again)), "backward twice"
        assert same(found, host(backend, first)), "the first result was written into"
        assert same(kept, host(backend, (y, cache))), "the cache or the output was written into"
        assert same(before, host(backend, given)), "an input was written into"
        assert same(kept[:1], host(backend, layer.forward(params, x, xp=backend.xp, **known)[0])), "forward twice"
        if hasattr(layer, "gradients"):
            alone = layer.gradients(params, cache, dy, xp=backend.xp)
            assert same(host(backend, first[1]), host(backend, alone)), "gradients() and backward()"
        if type(layer).__name__ in VIEWS:
            continue
        disjoint(backend, arrays(first), arrays((given, y, cache, again)))
        disjoint(backend, arrays(y), arrays(given))
        if known.get("stats"):
            stats = tree_map(lambda a: backend.xp.asarray(a, copy=True), known["stats"])
            moved = layer.advance(stats, cache, xp=backend.xp) if known.get("training", True) else stats
            disjoint(backend, arrays(moved), arrays((given, cache, y)))


@over(LOSSES)
def test_losses(record, backend, on):
    z, y = record.draw(np.random.default_rng(4), 5, 3)
    for weight in (None, np.array([1.0, 0.0, 2.5, 0.25, 1.0])):
        given = put((z, y, weight), lambda a: on(backend, a))
        before = host(backend, given)
        found = (*record.thing(*given, xp=backend.xp), record.thing.activate(given[0], xp=backend.xp))
        first = host(backend, found)
        again = (*record.thing(*given, xp=backend.xp), record.thing.activate(given[0], xp=backend.xp))
        assert same(first, host(backend, again)), "twice"
        assert same(first, host(backend, found)), "the first result was written into"
        assert same(before, host(backend, given)), "an input was written into"
        disjoint(backend, arrays(found), arrays((given, again)))


@over([record for record in (*FUNCTIONS, *METRICS) if record.call and record.name.partition(",")[0] not in APART])
def test_functions(record, backend, on):
    given = tuple(on(backend, a) for a in record.draw(np.random.default_rng(5)))
    before = host(backend, given)
    found = record.call(backend.xp, *given)
    first = host(backend, found)
    again = record.call(backend.xp, *given)
    assert same(first, host(backend, again)), "twice"
    assert same(before, host(backend, given)), "an input was written into"
