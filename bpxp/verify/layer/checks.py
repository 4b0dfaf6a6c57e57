"""A check for each rule: it yields the ways in which a layer breaks it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from bpxp.backends import get_backend
from bpxp.backends.dtypes import has_float64
from bpxp.backends.precision import label
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.equations.notation import Equations
from bpxp.errors import BpxpError
from bpxp.network.network import Network
from bpxp.nn import Activation, Flatten, Layer
from bpxp.nn.observe import Part, observed_children
from bpxp.verify.equations.check_equations import check_equations
from bpxp.verify.gradients import check_gradients
from bpxp.verify.layer.case import Case, beyond
from bpxp.verify.layer.source import broken_by

METHODS = ("init", "forward", "backward")


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def protocol(case: Case) -> Iterator[str]:
    """Find what is not a layer at all."""
    if isinstance(case.layer, type):
        yield f"{case.layer.__name__} is a class; its objects are layers: {case.layer.__name__}(…)"
        return
    for name in METHODS:
        if not callable(getattr(case.layer, name, None)):
            yield f"there is no method {name}"


def hashable(case: Case) -> Iterator[str]:
    """Find what cannot be a key, or holds arrays."""
    layer = case.layer
    try:
        same = copy.copy(layer)
        if hash(same) != hash(layer) or same != layer:
            yield "a layer of the same hyper-parameters is not equal to it: each would be compiled anew"
    except TypeError as error:
        yield f"it has no hash ({error})"
    if dataclasses.is_dataclass(layer) and not getattr(layer, "__dataclass_params__").frozen:  # noqa: B009  it is not declared
        yield "its hyper-parameters can be changed"
    for name, value in getattr(layer, "__dict__", {}).items():
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            yield f"it holds an array, {name}"


def init(case: Case) -> Iterator[str]:
    """Find parameters that are not host arrays in a tuple, or that differ between two calls."""
    try:
        first, second = (case.layer.init(case.rng.at(1), case.in_shape) for _ in range(2))
    except Exception as error:
        yield f"init raises {_short(error)}"
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


def runs(case: Case) -> Iterator[str]:
    """Find what does not even run on NumPy."""
    try:
        *given, xp = case.on_numpy()
        returned = case.layer.forward(*given[:2], xp=xp, **given[3])
        if not (isinstance(returned, tuple) and len(returned) == 2):
            yield "forward returns no pair (y, cache)"
            return
        back = case.layer.backward(given[0], returned[1], given[2], xp=xp)
        if not (isinstance(back, tuple) and len(back) == 2 and isinstance(back[1], tuple)):
            yield "backward returns no pair (dx, tuple of gradients)"
    except Exception as error:
        yield f"on NumPy it raises {_short(error)}"


def shapes(case: Case) -> Iterator[str]:
    """Find results of another shape or structure, for batches of several sizes."""
    for n in (1, 2, 5) if "stats" not in case.uses else (2, 5):
        params, x, dy, context, xp = case.on_numpy(n)
        y, _ = case.layer.forward(params, x, xp=xp, **context)
        if tuple(y.shape) != dy.shape:
            yield f"y is {tuple(y.shape)} for x {x.shape}, where init says {dy.shape}"
            return
        *_, dx, grads = case.both_ways(params, x, dy, context, xp)
        if tuple(dx.shape) != x.shape:
            yield f"dx is {tuple(dx.shape)}, x is {x.shape}"
        wanted = [(name, a.shape) for name, a in named_leaves(params)]
        got = [(name, tuple(a.shape)) for name, a in named_leaves(grads)]
        if wanted != got:
            yield f"gradients {got}, parameters {wanted}"
        if dx.shape != x.shape or wanted != got:
            return


def only_read(case: Case) -> Iterator[str]:
    """Find arguments and caches that were written into."""
    params, x, dy, context, xp = case.on_numpy()
    arrays = {**{f"parameter {n}": a for n, a in named_leaves(params)}, "x": x}
    before = {name: a.copy() for name, a in arrays.items()}
    _, cache = case.layer.forward(params, x, xp=xp, **context)
    for name, a in arrays.items():
        if not np.array_equal(a, before[name], equal_nan=True):
            yield f"forward writes into {name}"
    arrays |= {"dy": dy, **{f"the cache, {n}": a for n, a in named_leaves(cache) if isinstance(a, np.ndarray)}}
    before = {name: a.copy() for name, a in arrays.items()}
    case.layer.backward(params, cache, dy, xp=xp)
    for name, a in arrays.items():
        if not np.array_equal(a, before[name], equal_nan=True):
            yield f"backward writes into {name}"


def own_memory(case: Case) -> Iterator[str]:
    """Find gradients that share memory: the update writes into them."""
    params, x, dy, context, xp = case.on_numpy()
    *_, cache, _, grads = case.both_ways(params, x, dy, context, xp)
    others = [("x", x), ("dy", dy), *((f"parameter {n}", a) for n, a in named_leaves(params))]
    others += [("the cache", a) for a in leaves(cache) if isinstance(a, np.ndarray)]
    mine = list(named_leaves(grads))
    for i, (name, g) in enumerate(mine):
        for what, a in [*others, *((f"the gradient of {n}", b) for n, b in mine[:i])]:
            if np.shares_memory(g, a):
                yield f"the gradient of {name} shares memory with {what}"
                break


def repeatable(case: Case) -> Iterator[str]:
    """Find results that differ the second time."""
    params, x, dy, context, xp = case.on_numpy()
    y, cache = case.layer.forward(tree_map(np.copy, params), x.copy(), xp=xp, **context)
    again, _ = case.layer.forward(tree_map(np.copy, params), x.copy(), xp=xp, **context)
    if not np.array_equal(y, again, equal_nan=True):
        yield "forward differs the second time"
    kept = copy.deepcopy(cache)
    first = tree_map(np.copy, case.layer.backward(params, cache, dy.copy(), xp=xp))
    second = case.layer.backward(params, kept, dy.copy(), xp=xp)
    if not all(np.array_equal(a, b, equal_nan=True) for a, b in zip(leaves(first), leaves(second), strict=True)):
        yield "backward differs the second time"


def samples(case: Case) -> Iterator[str]:
    """Find samples that influence one another; in a layer that uses `present`, absent samples."""
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
        y, _, dx, grads = case.both_ways(params, np.concatenate([x[:-1], last[None]]), dy, context, xp)
        found.append([y[:-1], dx[:-1], *leaves(grads)])
    if not all(np.allclose(a, b, rtol=1e-12, atol=1e-12) for a, b in zip(*found, strict=True)):
        yield "a sample that is not present changes what the others get"


def kept_dtype(case: Case) -> Iterator[str]:
    """Find float32 that becomes float64."""
    numpy = get_backend("numpy")
    params, x, dy, context = case.given(numpy, "float32", case.x)
    y, _, dx, grads = case.both_ways(params, x, dy, context, numpy.xp)
    for name, a in [("y", y), ("dx", dx), *((f"the gradient of {n}", g) for n, g in named_leaves(grads))]:
        if a.dtype != np.float32:
            yield f"{name} is {a.dtype} where everything that was given is float32"


def gradient(case: Case) -> Iterator[str]:
    """Find a backward pass that is not the derivative of the forward pass."""
    skipped = []
    # Where it fails elsewhere, NumPy alone tells whether the mathematics is right.
    for backend in [get_backend("numpy")] if case.broken & {"backends", "compiled"} else case.backends:
        if not has_float64(backend):
            skipped.append(label(backend))
            continue
        try:
            net = Network(
                [case.layer, Flatten()],
                input_shape=case.in_shape,
                hidden="identity",
                loss="mean_squared_error",
                dtype="float64",
                backend=backend,
                seed=case.seed,
            )
            net.params = (case.params, ())
            target = case.dy(len(case.x)).reshape(len(case.x), -1)
            check_gradients(net, case.x, target, seed=case.seed)
        except Exception as error:
            yield f"{label(backend)}: {_short(error)}"
            return
    if len(skipped) == len(case.backends):
        case.note = f"no float64 on {', '.join(skipped)}"


def two_ways(case: Case) -> Iterator[str]:
    """Find a method `gradients` that disagrees with `backward`."""
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


def children(case: Case) -> Iterator[str]:
    """Find children that do not stand where their parameters do, or that a copy with other children does not call."""
    layer, inside = case.layer, getattr(case.layer, "children", ())
    if not inside:
        if any(isinstance(a, tuple) for a in case.params):
            case.note = "its parameters are nested, and it has no children: certificates compare it as a whole"
        return
    if not isinstance(inside, tuple) or not all(isinstance(child, Layer) for child in inside):
        yield f"children is {inside!r}, not a tuple of layers"
        return
    if not hasattr(layer, "with_children"):
        yield "there is no method with_children"
        return
    if layer.with_children(inside) != layer:
        yield "with_children(layer.children) is not equal to the layer"
    if len(case.params) != len(inside):
        yield f"{len(case.params)} entries of the parameters for {len(inside)} children"
        return
    params, x, dy, context, xp = case.on_numpy()
    y, _, dx, grads = case.both_ways(params, x, dy, context, xp)
    given = _Given()
    copied = observed_children(layer, given)
    again, cache = copied.forward(params, x, xp=xp, **context)
    back = copied.backward(params, cache, dy, xp=xp)
    if not all(
        np.array_equal(a, b, equal_nan=True)
        for a, b in zip(leaves((y, dx, grads)), leaves((again, *back)), strict=True)
    ):
        yield "with other children that compute the same it computes something else"
    for i, (child, own) in enumerate(zip(inside, params, strict=True)):
        name = f"child {i} ({type(child).__name__})"
        if str(i) not in given.params:
            yield f"{name} is not called after with_children"
        elif list(map(id, leaves(own))) != list(map(id, leaves(given.params[str(i)]))):
            yield f"{name} does not get entry {i} of the parameters"


class _Given:
    """An observer that keeps the parameters that each layer gets."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Any, context: Mapping[str, Any]) -> Any:
        if method == "forward" and not isinstance(part.thing, Activation):
            self.params[part.place] = args[0]
        return getattr(part.thing, method)(*args, xp=xp, **context)


def everywhere(case: Case) -> Iterator[str]:
    """Find backends on which it fails, or is farther from float64 than rounding can bring it."""
    for backend in case.backends:
        try:
            params, x, dy, context = case.given(backend, "float32", case.x)
            y, _, dx, grads = case.both_ways(params, x, dy, context, backend.xp)
        except Exception as error:
            yield f"{label(backend)}: {_short(error)}"
            continue
        got = [backend.to_numpy(a) for a in (y, dx, *leaves(grads))]
        for name, share in beyond(case, backend, got, case.x):
            yield f"{label(backend)}: {name} is {share:.3g} times as far from float64 as rounding can bring it"


def compiled(case: Case) -> Iterator[str]:
    """Find results that change when the step is compiled: values that were inspected while it was traced."""
    context = case.context(case.x)
    fixed = {name: a for name, a in context.items() if a is None or isinstance(a, bool)}
    for backend in case.backends:

        def step(_: tuple[()], data: Any, xp: Any = backend.xp) -> Any:
            params, x, dy, arrays = data
            y, _, dx, grads = case.both_ways(params, x, dy, {**arrays, **fixed}, xp)
            return (), (y, dx, grads)

        run = backend.compile(step)
        for x in (case.x, case.x[::-1].copy(), case.x):  # captured with the first, proved with the second
            params, given, dy, context = case.given(backend, "float32", x)
            arrays = {name: a for name, a in context.items() if name not in fixed}
            try:
                _, (y, dx, grads) = run((), (params, given, dy, arrays))
            except Exception as error:
                yield f"{label(backend)}: {_short(error)}"
                break
            got = [backend.to_numpy(a) for a in (y, dx, *leaves(grads))]
            wrong = [name for name, _ in beyond(case, backend, got, x)]
            if wrong:
                yield f"{label(backend)}: {', '.join(wrong)} differ from what the step as it is written computes"
                break


def source(case: Case) -> Iterator[str]:
    """Find, without running it, what one library accepts and another does not."""
    found = broken_by(case.layer)
    if found is None:
        case.note = "there is no source to read"
    else:
        yield from found


def equations(case: Case) -> Iterator[str]:
    """Find code that does not compute its equations."""
    if not isinstance(getattr(case.layer, "equations", None), Equations):
        case.note = "it states no equations"
        return
    try:
        check_equations(case.layer, case.x, seed=case.seed, backend="numpy")
    except BpxpError as error:
        yield _short(error)
