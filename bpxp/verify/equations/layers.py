"""Layers and activations compared with their equations, in training and in evaluation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bpxp.core.random import make_key
from bpxp.core.threefry import LEVELS, bernoulli, level
from bpxp.core.tree import named_leaves, tree_map
from bpxp.equations import Equations
from bpxp.nn import Activation, Dropout
from bpxp.nn.observe import Part, children
from bpxp.verify.equations.comparison import Comparison, Values


def compare_layer(case: Comparison, x: Any, context: Values | None) -> None:
    """Compare forward, backward and running statistics for an input, or its shape; without a context, for each."""
    x = 2.0 * case.normal(0, x) if isinstance(x, tuple) else np.array(x, dtype=np.float64)
    for given in contexts(case, x) if context is None else [context]:
        compare_passes(case, x, given)


def contexts(case: Comparison, x: np.ndarray) -> list[Values]:
    """Return what a layer may be given besides x: in training, in evaluation, and in training with an absent sample."""
    layer = case.thing
    uses: frozenset[str] = getattr(layer, "uses", frozenset())
    if not uses:
        return [{}]
    key = tree_map(lambda a: a if isinstance(a, int) else case.backend.asarray(a), make_key(case.seed))
    training: Values = {"training": True, "key": key, "present": None}
    evaluation: Values = {"training": False, "key": None, "present": None}
    if "stats" in uses:
        params, _ = layer.init(case.rng.at(1), x.shape[1:])
        stats = tree_map(lambda a: case.put(a + 0.5 * abs(case.normal(4, a.shape))), layer.init_stats(params))
        training["stats"] = evaluation["stats"] = stats
    all_contexts = [training, evaluation]
    if "present" in uses:
        present = case.put([1.0] * (x.shape[0] - 1) + [0.0])
        all_contexts.append({**training, "present": present})
    return [{name: a for name, a in context.items() if name in uses} for context in all_contexts]


def compare_passes(case: Comparison, x: np.ndarray, context: Values) -> None:
    """Compare one forward and backward pass in a context."""
    layer, xp = case.thing, case.xp
    training = bool(context.get("training") or context.get("key"))
    equations: Equations = layer.equations if training else getattr(layer, "evaluation", layer.equations)
    of = "" if equations is layer.equations else "evaluation"
    params, out_shape = layer.init(case.rng.at(1), x.shape[1:])
    # Biases that start at 0 and scales that start at 1 would hide mistakes.
    params = tree_map(lambda a: a + case.normal(2, a.shape), params)
    dy = case.normal(3, (x.shape[0], *out_shape))
    static = {name: a for name, a in context.items() if a is None or isinstance(a, bool)}
    arrays = {name: a for name, a in context.items() if name not in static}

    def both_ways(_: Any, data: Any) -> tuple[Any, ...]:
        params, x, dy, arrays = data
        y, cache = layer.forward(params, x, xp=xp, **arrays, **static)
        dx, grads = layer.backward(params, cache, dy, xp=xp)
        stats = tree_map(lambda a: xp.astype(a, a.dtype, copy=True), arrays.get("stats", ()))
        return y, dx, grads, layer.advance(stats, cache, xp=xp) if stats and training else ()

    data = (tree_map(case.put, params), case.put(x), case.put(dy), arrays)
    y, dx, grads, advanced = case.backend.compile(both_ways)((), data)
    in_name = "z" if isinstance(layer, Activation) else "x"
    out_name = equations["forward"].target.name
    given: Values = {in_name: x, "delta": dy, f"d{out_name}": dy}
    results: Values = {out_name: y, f"d{in_name}": dx}
    if hasattr(layer, "branch"):
        given |= branch(case, data, context)
    if not children(layer):  # else they belong to the children, and to their equations
        given |= dict(named_leaves(params))
        results |= Part("", layer).results("gradients", grads)
    if isinstance(layer, Dropout) and training:
        kept = level(1.0 - layer.rate) / LEVELS
        host_key = tree_map(lambda a: a if isinstance(a, int) else case.backend.to_numpy(a), context["key"])
        given |= {"p": kept, "m": bernoulli(host_key, x.shape, kept, dtype=np.float64, xp=np)}
    if "present" in getattr(layer, "uses", ()):
        present = np.ones(x.shape[0]) if context.get("present") is None else case.host(context["present"])
        given["present"] = np.repeat(present, math.prod(x.shape[1:-1]))
    if hasattr(layer, "grid"):
        given["before"] = [axis.before for axis in layer.grid(x.shape[1:])]
    if hasattr(arrays.get("stats"), "_asdict"):  # those of a branch belong to its layers
        given |= {name: case.host(a) for name, a in arrays["stats"]._asdict().items()}
        results |= {f"{name}'": a for name, a in advanced._asdict().items()} if advanced else {}
    samples = (in_name, f"d{in_name}", out_name, f"d{out_name}", "delta")
    case.compare(equations, given, results, samples, of)


def branch(case: Comparison, data: Any, context: Values) -> Values:
    """Return F, the output of a residual block's branch, and its Jacobian D[m,k,n,i] = ∂F[m,k]/∂x[n,i]."""
    inner, (params, x, dy, arrays) = case.thing.branch, data
    static = {name: a for name, a in context.items() if name not in arrays}

    def both_ways(_: Any, data: Any) -> tuple[Any, Any]:
        params, x, dy, arrays = data
        y, cache = inner.forward(params, x, xp=case.xp, **arrays, **static)
        return y, inner.backward(params, cache, dy, xp=case.xp)[0]

    run = case.backend.compile(both_ways)
    units = [case.put(unit.reshape(dy.shape)) for unit in np.eye(math.prod(dy.shape))]
    F, *_ = pairs = [tuple(map(case.host, run((), (params, x, unit, arrays)))) for unit in units]
    values = F[0].reshape(-1, dy.shape[-1])
    return {"F": values, "D": np.stack([dx for _, dx in pairs]).reshape(*values.shape, *values.shape)}
