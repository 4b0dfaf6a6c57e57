"""What the museum asks of every layer alike, and of networks: calls that raise where something is wrong."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from helpers.small_runs import Cut
from museum.instruments import call
from optim import test_update
from training import test_resume

import bpxp
from bpxp import nn
from bpxp.callbacks import Checkpoint
from bpxp.core.random import DIRECTION, HostRandom
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.verify.equations.comparison import Comparison
from bpxp.verify.equations.layers import contexts
from bpxp.verify.equations.small_inputs import small

XP = bpxp.get_backend("numpy").xp
VIEWS = (nn.Flatten, nn.Reshape)  # they return their input under another shape

# ---------------------------------------------------------------- networks


def check(layers: list[Any], options: dict[str, Any], batch: int, optimizer: Any = None) -> None:
    """Check the gradients of a network on a batch of random samples, along a few directions each."""
    net = bpxp.Network(layers, **options, backend="numpy", dtype="float64", seed=1, init="scaled_normal")
    rng = HostRandom(batch, (DIRECTION,))
    x = rng.at(0).normal((batch, *net.input_shape))
    x.flat[::5] = 0.0  # a zero is not a value that was left out
    if any(isinstance(layer, nn.Embedding) for layer in layers):
        x = np.floor(5.0 * rng.at(1).uniform(x.shape))
    u = rng.at(2).uniform((batch, *net.output_shape))
    y = {
        "classes": np.argmax(u, axis=1),
        "labels": np.round(u),
        "values": rng.at(3).normal(u.shape),
        "counts": np.floor(4.0 * u),
    }[net.loss.targets]
    bpxp.verify.check_gradients(net, x, y, optimizer=optimizer, directions=2, every_entry=0)


def set_and_get() -> None:
    """Parameters that are set are there, and are what the network computes with."""
    a, b = (bpxp.Network([4, 5, 3], backend="numpy", seed=seed) for seed in (0, 1))
    b.params = a.params
    x = np.ones((2, 4))
    assert all(np.array_equal(p, q) for p, q in zip(leaves(a.params), leaves(b.params), strict=True))
    assert np.array_equal(a.logits(x), b.logits(x))


def cut_and_resumed() -> None:
    """A run that was cut in its second epoch goes on to the bits of one that was not."""
    case = test_resume.CASES["momentum, average, early stopping"]
    whole, cut, resumed = (case.net("numpy") for _ in range(3))
    wanted = case.fit(whole)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.bpxp"
        with contextlib.suppress(Cut.Now):
            case.fit(cut, [Checkpoint(path, steps=1), Cut(4)])
        found = case.fit(resumed, resume=path)
    assert test_resume.rows(found) == test_resume.rows(wanted)
    assert test_resume.differing(test_resume.state(resumed), test_resume.state(whole)) == []


# ---------------------------------------------------------------- one layer


def examples(layer: Any) -> Iterator[tuple[Any, Any, Any, np.ndarray, dict[str, Any]]]:
    """Yield (a small copy of the layer, params, x, dy, what else forward is given), in float64."""
    layer, x = small(layer)
    case = Comparison(layer, {}, "numpy", 0, 1e-12)
    x = 2.0 * case.normal(0, x) if isinstance(x, tuple) else np.array(x, np.float64)
    params, out_shape = layer.init(case.rng.at(1), x.shape[1:])
    params = tree_map(lambda a: a + case.normal(2, a.shape), params)
    dy = case.normal(3, (len(x), *out_shape))
    for context in contexts(case, x):
        yield layer, params, x, dy, context


def cast(tree: Any, dtype: str) -> Any:
    """Return copies of the arrays that hold real numbers in another dtype; nobody can write into them."""

    def own(a: Any) -> Any:
        if not isinstance(a, np.ndarray):
            return a
        copy = np.array(a, dtype if a.dtype.kind == "f" else a.dtype)
        copy.flags.writeable = False
        return copy

    if isinstance(tree, dict):
        return {name: cast(value, dtype) for name, value in tree.items()}
    return tree_map(own, tree)


def passes(layer: Any, params: Any, x: Any, dy: Any, context: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Return y, the cache, and what comes back."""
    y, cache = layer.forward(params, x, xp=XP, **context)
    for a in arrays(cache):
        a.flags.writeable = False
    return y, cache, layer.backward(params, cache, dy, xp=XP)


def arrays(tree: Any) -> list[np.ndarray]:
    return [a for a in leaves(tree) if isinstance(a, np.ndarray)]


def pure(layer: Any) -> None:
    """Nothing that is given is written, twice gives the same bits, and what is returned shares memory with nothing."""
    for thing, *given in examples(layer):
        params, x, dy, context = (*cast(tuple(given[:3]), "float64"), cast(given[3], "float64"))
        y, cache, back = passes(thing, params, x, dy, context)
        again = thing.backward(params, cache, dy, xp=XP)
        assert all(np.array_equal(a, b) for a, b in zip(arrays(back), arrays(again), strict=True)), "not twice the same"
        other, *_ = passes(thing, params, x, dy, context)
        assert np.array_equal(y, other), "forward remembers"
        if not isinstance(thing, VIEWS):
            assert not np.shares_memory(y, x), "the output is the input"
            kept = [x, dy, y, *arrays(params), *arrays(cache)]
            assert not any(np.shares_memory(a, b) for a in arrays(back) for b in kept), "a gradient is something else"
            assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(arrays(back), 2))


def narrow(layer: Any) -> None:
    """float32 stays float32 and float64 float64, and both compute the same."""
    found = {}
    for dtype in ("float32", "float64"):
        found[dtype] = []
        for thing, *given in examples(layer):
            y, _, back = passes(thing, *cast(tuple(given[:3]), dtype), cast(given[3], dtype))
            found[dtype] += [y, *arrays(back)]
        assert {a.dtype.name for a in found[dtype]} == {dtype}
    for a, b in zip(found["float32"], found["float64"], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.max(np.abs(b), initial=0.0))


def narrow_loss(loss: Any) -> None:
    """Likewise for a loss; its value is as accurate as its dtype."""
    rng, values = np.random.default_rng(0), {}
    z, y = rng.normal(size=(6, 3)), np.round(rng.uniform(size=(6, 3)))
    y = np.eye(3)[[0, 1, 2, 0, 1, 2]] if loss.targets == "classes" else y
    for dtype in ("float32", "float64"):
        value, delta = loss(*cast((z, y), dtype), xp=XP)
        assert {value.dtype.name, delta.dtype.name, loss.activate(z.astype(dtype), xp=XP).dtype.name} == {dtype}
        values[dtype] = value
    np.testing.assert_allclose(values["float32"], values["float64"], rtol=1e-5)
    one_by_one = np.mean([loss(z[n : n + 1], y[n : n + 1], xp=XP)[0] for n in range(6)])
    np.testing.assert_allclose(values["float64"], [one_by_one], rtol=1e-14)


# ---------------------------------------------------------------- losses, backends


def parts_add_up(loss: Any) -> None:
    """The loss of a batch is the mean of those of its parts, with weights too; so are the output errors."""
    rng = np.random.default_rng(1)
    z, u, weight = rng.normal(size=(7, 4)), rng.uniform(size=(7, 4)), rng.uniform(size=7)
    y = np.eye(4)[np.argmax(u, axis=1)] if loss.targets == "classes" else np.round(u)
    for w in (np.ones(7), weight):
        value, delta = loss(z, y, w, xp=XP)
        parts = [loss(z[rows], y[rows], w[rows], xp=XP) for rows in (slice(3), slice(3, 7))]
        share = np.array([np.sum(w[:3]), np.sum(w[3:])]) / np.sum(w)
        np.testing.assert_allclose(value, sum(s * v for s, (v, _) in zip(share, parts, strict=True)), rtol=1e-13)
        expected = np.concatenate([s * d for s, (_, d) in zip(share, parts, strict=True)])
        np.testing.assert_allclose(delta, expected, rtol=1e-12)
        plain = loss(z, y, xp=XP) if w[0] == 1.0 else (value, delta)
        np.testing.assert_allclose(plain[1], delta, rtol=1e-13)


def agree(layer: Any) -> None:
    """array-api-strict computes what NumPy does; for windows on sizes that no kernel divides."""
    other = bpxp.get_backend("strict:device1")
    for thing, params, x, dy, context in examples(layer):
        arguments = {name: value for name, value in context.items() if name in ("training", "stats", "present", "key")}
        call(_agree, {"backend": other.name, "layer": thing, "params": params, "x": x, "dy": dy, "context": arguments})


def _agree(agrees_with_numpy, backend, layer, params, x, dy, context):
    agrees_with_numpy(backend, layer, params, x, dy, "float64", **context)


def agree_on_updates(rule: type) -> None:
    """Likewise for three updates with every option."""
    rng = np.random.default_rng(0)
    params = test_update.host_params(rng, "float64")
    gradients = [test_update.host_params(rng, "float64") for _ in range(3)]
    found = []
    for name in ("numpy", "strict:device1"):
        optimizer = rule(0.1, **test_update.EVERYTHING)
        found.append(test_update.run(bpxp.get_backend(name), optimizer, params, gradients))
    for (name, a), (_, b) in zip(named_leaves(found[0]), named_leaves(found[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-14, err_msg=name)
