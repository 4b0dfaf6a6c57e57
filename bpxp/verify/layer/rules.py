"""The rules of a layer: what each asks for, how to mend a layer that breaks it, and the check that finds out."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.dtypes import has_float64
from bpxp.backends.precision import label
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.errors import BpxpError, InvalidTypeError
from bpxp.network.network import Network
from bpxp.nn import Flatten
from bpxp.nn.observe import GivenParams, children, observed_children
from bpxp.verify.gradients import check_gradients
from bpxp.verify.layer.case import Case
from bpxp.verify.rules import Rules, equations, hashable, on_backends, same, short, source

RUNS = ("protocol", "init", "runs")
RULES = Rules(*RUNS)
rule = RULES.rule


@rule("protocol", "an object with init, forward and backward", "write the methods of bpxp.nn.Layer", needs=())
def _protocol(case: Case) -> Iterator[str]:
    if isinstance(case.layer, type):
        yield f"{case.layer.__name__} is a class; its objects are layers: {case.layer.__name__}(…)"
        return
    for name in ("init", "forward", "backward"):
        if not callable(getattr(case.layer, name, None)):
            yield f"there is no method {name}"


@rule(
    "hashable",
    "hyper-parameters that are frozen, hashable and no arrays",
    "@dataclass(frozen=True), with numbers, strings and tuples as fields; arrays belong into init's parameters",
    needs=("protocol",),
)
def _hashable(case: Case) -> Iterator[str]:
    yield from hashable(case)


@rule(
    "init",
    "init returns host parameters in a tuple and the output's shape, a function of rng's place alone",
    "a NamedTuple of float64 NumPy arrays, drawn with rng.at(0), rng.at(1), …",
    needs=("protocol",),
)
def _init(case: Case) -> Iterator[str]:
    try:
        first, second = (case.layer.init(case.rng.at(1), case.in_shape) for _ in range(2))
    except Exception as error:
        yield f"init raises {short(error)}"
        return
    if not (isinstance(first, tuple) and len(first) == 2 and isinstance(first[0], tuple)):
        yield f"init returns {type(first).__name__}, not (tuple of parameters, shape of the output)"
        return
    if not (isinstance(first[1], tuple) and all(isinstance(n, int) for n in first[1])):
        yield f"the shape of the output is {first[1]!r}, not a tuple of ints"
    for name, a in named_leaves(first[0]):
        if not isinstance(a, np.ndarray) or a.dtype != np.float64 or not a.ndim:
            yield f"parameter {name} is {getattr(a, 'dtype', type(a).__name__)}, not a float64 array of NumPy with axes"
    for (name, a), b in zip(named_leaves(first[0]), leaves(second[0]), strict=True):
        if not np.array_equal(a, b):
            yield f"parameter {name} differs the second time, from the same place of the generator"


@rule("runs", "forward and backward run on NumPy", "see the error", needs=("protocol", "init"))
def _runs(case: Case) -> Iterator[str]:
    try:
        params, x, dy, context, xp = case.on_numpy()
        returned = case.layer.forward(params, x, xp=xp, **context)
        if not (isinstance(returned, tuple) and len(returned) == 2):
            yield "forward returns no pair (y, cache)"
            return
        back = case.layer.backward(params, returned[1], dy, xp=xp)
        if not (isinstance(back, tuple) and len(back) == 2 and isinstance(back[1], tuple)):
            yield "backward returns no pair (dx, tuple of gradients)"
    except Exception as error:
        yield f"on NumPy it raises {short(error)}"


@rule(
    "shapes",
    "y as init says, dx like x, gradients like the parameters, for any batch",
    "return (dx, Params(dW, …)) with a field for each parameter; sum over the batch, not over a fixed size",
)
def _shapes(case: Case) -> Iterator[str]:
    for n in (1, 2, 5) if "stats" not in case.uses else (2, 5):
        params, x, dy, context, xp = case.on_numpy(n)
        y, _ = case.layer.forward(params, x, xp=xp, **context)
        if tuple(y.shape) != dy.shape:
            yield f"y is {tuple(y.shape)} for x {x.shape}, where init says {dy.shape}"
            return
        *_, dx, grads = case.both_ways(params, x, dy, context, xp)
        if tuple(dx.shape) != x.shape:
            yield f"dx is {tuple(dx.shape)}, x is {x.shape}"
        wanted, got = ([(name, tuple(a.shape)) for name, a in named_leaves(tree)] for tree in (params, grads))
        if wanted != got:
            yield f"gradients {got}, parameters {wanted}"
        if dx.shape != x.shape or wanted != got:
            return


@rule(
    "inputs", "parameters, x, dy and the cache are only read", "make a new array first: a = x * 2.0, and then a += 1.0"
)
def _inputs(case: Case) -> Iterator[str]:
    params, x, dy, context, xp = case.on_numpy()
    arrays = {**{f"parameter {n}": a for n, a in named_leaves(params)}, "x": x}
    before = tree_map(np.copy, tuple(arrays.values()))
    _, cache = case.layer.forward(params, x, xp=xp, **context)
    yield from (f"forward writes into {n}" for (n, a), b in zip(arrays.items(), before, strict=True) if not same(a, b))
    arrays |= {"dy": dy, **{f"the cache, {n}": a for n, a in named_leaves(cache) if isinstance(a, np.ndarray)}}
    before = tree_map(np.copy, tuple(arrays.values()))
    case.layer.backward(params, cache, dy, xp=xp)
    yield from (f"backward writes into {n}" for (n, a), b in zip(arrays.items(), before, strict=True) if not same(a, b))


@rule(
    "memory",
    "a parameter's gradient shares memory with nothing",
    "xp.astype(g, g.dtype, copy=True): the update writes into gradients",
    needs=(*RUNS, "shapes"),
)
def _memory(case: Case) -> Iterator[str]:
    params, x, dy, context, xp = case.on_numpy()
    _, cache, _, grads = case.both_ways(params, x, dy, context, xp)
    others = [("x", x), ("dy", dy), *((f"parameter {n}", a) for n, a in named_leaves(params))]
    others += [("the cache", a) for a in leaves(cache) if isinstance(a, np.ndarray)]
    for name, g in named_leaves(grads):
        if sharing := next((what for what, a in others if np.shares_memory(g, a)), ""):
            yield f"the gradient of {name} shares memory with {sharing}"
        others.append((f"the gradient of {name}", g))


@rule(
    "repeatable",
    "the same arguments give the same bits",
    "random numbers come from a key: uses = frozenset({'key'}), and bpxp.core.threefry.bernoulli",
)
def _repeatable(case: Case) -> Iterator[str]:
    params, x, dy, context, xp = case.on_numpy()
    y, cache = case.layer.forward(tree_map(np.copy, params), x.copy(), xp=xp, **context)
    again, _ = case.layer.forward(tree_map(np.copy, params), x.copy(), xp=xp, **context)
    if not same(y, again):
        yield "forward differs the second time"
    kept = copy.deepcopy(cache)
    first = tree_map(np.copy, case.layer.backward(params, cache, dy.copy(), xp=xp))
    second = case.layer.backward(params, kept, dy.copy(), xp=xp)
    if not same(first, second):
        yield "backward differs the second time"


@rule(
    "samples",
    "no sample influences another, or the layer uses `present`",
    "uses = frozenset({'present'}), and weights of 0 for absent samples: they fill up the last mini-batch",
    needs=(*RUNS, "shapes", "repeatable"),
)
def _samples(case: Case) -> Iterator[str]:
    params, x, dy, context, xp = case.on_numpy()
    if "present" not in case.uses:
        y, _ = case.layer.forward(params, x.copy(), xp=xp, **context)
        fewer, _ = case.layer.forward(params, x[:-1].copy(), xp=xp, **context)
        if not np.allclose(y[:-1], fewer, rtol=1e-12, atol=1e-12, equal_nan=True):
            yield "without the last sample the others' y is different"
        return
    context["present"], dy[-1] = np.array([1.0] * (len(x) - 1) + [0.0]), 0.0
    found = []
    for last in (x[-1], 3.0 - x[-1]):
        y, dx, *grads = case.results(params, np.concatenate([x[:-1], last[None]]), dy, context, xp)
        found.append([y[:-1], dx[:-1], *grads])
    if not all(np.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True)):
        yield "a sample that is not present changes what the others get"


@rule(
    "dtype",
    "results have the dtype of what was given",
    "Python numbers, or xp.full((), value, dtype=x.dtype): never np.float64",
)
def _dtype(case: Case) -> Iterator[str]:
    numpy = get_backend("numpy")
    results = case.results(*case.given(numpy, "float32", case.x), numpy.xp)
    for name, a in zip(case.names, results, strict=True):
        if a.dtype != np.float32:
            yield f"{name} is {a.dtype} where everything that was given is float32"


@rule("gradients", "gradients(), if there is one, is the second half of backward()", "let backward call self.gradients")
def _gradients(case: Case) -> Iterator[str]:
    if not hasattr(case.layer, "gradients"):
        case.note = "it has no method gradients"
        return
    params, x, dy, context, xp = case.on_numpy()
    _, cache = case.layer.forward(params, x, xp=xp, **context)
    both = case.layer.backward(params, copy.deepcopy(cache), dy.copy(), xp=xp)[1]
    alone = case.layer.gradients(params, copy.deepcopy(cache), dy.copy(), xp=xp)
    for (name, a), b in zip(named_leaves(both), leaves(alone), strict=True):
        if not np.array_equal(a, b, equal_nan=True):
            yield f"the gradient of {name} is another one in gradients() than in backward()"


@rule(
    "children",
    "children, if there are any, are in the places of their parameters, and with_children replaces them",
    "params[i] for self.children[i]; dataclasses.replace in with_children; see bpxp.nn.Layer",
)
def _children(case: Case) -> Iterator[str]:
    layer = case.layer
    try:
        inside = children(layer)
    except BpxpError as error:
        yield error.what
        return
    if not inside:
        if any(isinstance(a, tuple) for a in case.params):
            case.note = "its parameters are nested, and it has no children: certificates compare it as a whole"
        return
    if layer.with_children(inside) != layer:
        yield "with_children(layer.children) is not equal to the layer"
    if len(case.params) != len(inside):
        yield f"{len(case.params)} entries of the parameters for {len(inside)} children"
        return
    params, x, dy, context, xp = case.on_numpy()
    results = case.results(params, x, dy, context, xp)
    given = GivenParams()
    copied = observed_children(layer, given)
    again, cache = copied.forward(params, x, xp=xp, **context)
    back = copied.backward(params, cache, dy, xp=xp)
    if not same(results, (again, *back)):
        yield "with other children that compute the same it computes something else"
    for i, (child, own) in enumerate(zip(inside, params, strict=True)):
        name = f"child {i} ({type(child).__name__})"
        if str(i) not in given.params:
            yield f"{name} is not called after with_children"
        elif list(map(id, leaves(own))) != list(map(id, leaves(given.params[str(i)]))):
            yield f"{name} does not get entry {i} of the parameters"


@rule(
    "backends",
    "every backend computes it, to within the rounding of float32",
    "only functions of the Array API standard, from xp, with an explicit dtype",
    needs=(*RUNS, "shapes", "inputs", "dtype", "repeatable"),
)
def _backends(case: Case) -> Iterator[str]:
    yield from _compared(case, compiled=False)


@rule(
    "compiled",
    "a compiled step computes the same",
    "no if, float() or NumPy on the numbers of an array: xp.where, or arithmetic with a mask",
    needs=(*RUNS, "shapes", "inputs", "dtype", "repeatable", "backends"),
)
def _compiled(case: Case) -> Iterator[str]:
    yield from _compared(case, compiled=True)


def _compared(case: Case, *, compiled: bool) -> Iterator[str]:
    context = case.context(case.x)
    fixed = {name: a for name, a in context.items() if a is None or isinstance(a, bool)}
    arrays = [name for name in context if name not in fixed]
    samples = (case.x, case.x[::-1].copy())

    def given(backend: Backend, i: int) -> tuple[Any, ...]:
        params, x, dy, own = case.given(backend, "float32", samples[i])
        return params, x, dy, *(own[name] for name in arrays)

    def compute(data: Any, xp: Any) -> tuple[Any, ...]:
        params, x, dy, *own = data
        return case.results(params, x, dy, {**dict(zip(arrays, own, strict=True)), **fixed}, xp)

    yield from on_backends(case, compute, given, case.names, compiled=compiled)


@rule(
    "gradient",
    "backward is the derivative of forward",
    "derive it again: the message names the entry, both values and their ratio",
    needs=(*RUNS, "shapes", "inputs", "dtype", "repeatable", "gradients"),
)
def _gradient(case: Case) -> Iterator[str]:
    skipped = []
    # Where it fails elsewhere, NumPy alone tells whether the mathematics is right.
    for backend in [get_backend("numpy")] if case.broken & {"backends", "compiled"} else case.backends:
        if not has_float64(backend):
            skipped.append(label(backend))
            continue
        options: Any = {"input_shape": case.in_shape, "hidden": "identity", "loss": "mean_squared_error"}
        try:
            net = Network([case.layer, Flatten()], **options, dtype="float64", backend=backend, seed=case.seed)
            net.params = (case.params, ())
            target = case.dy(len(case.x)).reshape(len(case.x), -1)
            check_gradients(net, case.x, target, seed=case.seed)
        except Exception as error:
            if "children" in case.broken and isinstance(error, InvalidTypeError):
                case.note = "its children must be mended first"
            else:
                yield f"{label(backend)}: {short(error)}"
            return
    if len(skipped) == len(case.backends):
        case.note = f"no float64 on {', '.join(skipped)}"


@rule("source", "the source keeps the rules of the mathematics", "see each line", needs=("protocol",))
def _source(case: Case) -> Iterator[str]:
    yield from source(case)


@rule(
    "equations",
    "the equations, if there are any, are what the code computes",
    "correct the line or the code; see bpxp.verify.check_equations for the names",
)
def _equations(case: Case) -> Iterator[str]:
    yield from equations(case, case.x)
