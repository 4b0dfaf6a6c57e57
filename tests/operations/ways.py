"""Ways to one gradient: by hand, by differences, by the complex step, with fifty digits, by torch and by JAX.

A `Case` is a number J as a function of a tree of arrays, and its gradient as bpxp derives it. Its two functions are
bpxp's own code, written for any array library: so each way runs the same lines of the forward pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from operations.record import OfLayer, OfLoss

import bpxp.backends
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, tree_map, unflatten
from bpxp.verify.equations.comparison import Comparison
from bpxp.verify.equations.layers import contexts

NUMPY = bpxp.backends.get_backend("numpy").xp
STEPS = (1e-3, 1e-5)  # a kink that is within reach of the first is out of reach of the second
SMOOTH = 1e-9  # what the first step leaves where there is no kink
COMPLEX_STEP = 1e-30
NO_CONTEXT: dict[str, Any] = {}


class Case(NamedTuple):
    """J as a function of arrays.

    Attributes
    ----------
    name : str
    point : tree
        Host arrays of float64: what J is differentiated by.
    rest : tree
        Host arrays that J depends on, too: targets, masks; None may stand in it.
    value : callable
        ``value(point, rest, xp=)``: J, an array of one number.
    gradient : callable
        ``gradient(point, rest, xp=)``: a tree like `point`, as bpxp derives it.
    analytic : bool
    """

    name: str
    point: Any
    rest: Any
    value: Callable[..., Any]
    gradient: Callable[..., Any]
    analytic: bool

    def by_hand(self) -> Any:
        """Return the gradient as bpxp derives it; one of another shape than its quantity would be broadcast."""
        found = self.gradient(self.point, self.rest, xp=NUMPY)
        for g, p in zip(leaves(found), leaves(self.point), strict=True):
            assert g.shape == p.shape, f"{self.name}: a gradient of shape {g.shape} for {p.shape}"
            assert g.dtype == np.float64
        return found


# --- the cases of a record


def samples(record: Any, seed: int = 0, batch: int = 5, shape: Any = None) -> list[tuple[Any, ...]]:
    """Return (layer, params, x, dy, context) of a layer or activation, one for each context that it knows."""
    rng, layer = np.random.default_rng([seed, batch, len(record.name)]), record.thing
    x = record.draw(rng, max(batch, record.least), shape)
    params, out = layer.init(HostRandom(seed), x.shape[1:])
    # Biases that start at 0 and scales that start at 1 would hide mistakes.
    params = tree_map(lambda a: a + 0.5 * rng.standard_normal(a.shape), params)
    dy = rng.standard_normal((len(x), *out))
    known = contexts(Comparison(layer, {}, "numpy", seed, 0.0), x)
    known = [context for context in known if context.get("present") is None or np.any(context["present"])]
    return [(layer, params, x, dy, context) for context in known]


def both_ways(layer: Any, params: Any, x: Any, dy: Any, context: Any, xp: Any) -> tuple[Any, Any, Any]:
    """Return (y, dx, gradients)."""
    y, cache = layer.forward(params, x, xp=xp, **context)
    dx, grads = layer.backward(params, cache, dy, xp=xp)
    return y, dx, grads


def split(context: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is an array of a context, and what is not."""
    static = {name: a for name, a in context.items() if a is None or isinstance(a, bool)}
    return {name: a for name, a in context.items() if name not in static}, static


def cases_of_layer(record: OfLayer, seed: int = 0, batch: int = 5, shape: Any = None) -> list[Case]:
    found = []
    for layer, params, x, dy, context in samples(record, seed, batch, shape):
        arrays, static = split(context)
        names = tuple(arrays)
        by_x = not record.whole

        def parts(point: Any, rest: Any, static: Any = static, names: Any = names, by_x: bool = by_x) -> Any:
            params, *own = point
            dy, *values = rest[: 1 + len(names)]
            x = own[0] if by_x else rest[-1]
            return params, x, dy, {**static, **dict(zip(names, values, strict=True))}

        def value(point: Any, rest: Any, xp: Any, layer: Any = layer, parts: Any = parts) -> Any:
            params, x, dy, context = parts(point, rest)
            y, _ = layer.forward(params, x, xp=xp, **context)
            return xp.reshape(xp.sum(y * dy), (1,))

        def gradient(point: Any, rest: Any, xp: Any, layer: Any = layer, parts: Any = parts, by_x: bool = by_x) -> Any:
            params, x, dy, context = parts(point, rest)
            _, dx, grads = both_ways(layer, params, x, dy, context, xp)
            return (grads, dx) if by_x else (grads,)

        point, rest = ((params, x), ()) if by_x else ((params,), (x,))
        what = ", ".join(f"{name}={a}" for name, a in static.items())
        label = f"{record}, batch {len(x)}, sample {x.shape[1:]}{f', {what}' if what else ''}"
        rest = (dy, *arrays.values(), *rest)
        found.append(Case(label, point, rest, value, gradient, record.analytic))
    return found


def cases_of_loss(record: OfLoss, seed: int = 0, batch: int = 5, n_out: int = 3) -> list[Case]:
    rng, loss = np.random.default_rng([seed, batch, len(record.name)]), record.thing
    z, y = record.draw(rng, batch, n_out)
    targets = {"": y}
    if loss.targets == "classes":
        targets["soft rows"] = rng.multinomial(1024, np.ones(n_out) / n_out, batch) / 1024.0  # their sum is exactly 1
    if loss.targets == "labels":
        targets["labels missing"] = np.where(rng.random(y.shape) < 0.3, np.nan, y)
    weight = rng.uniform(0.5, 2.0, batch)
    if batch > 1:
        weight[1] = 0.0

    def value(point: Any, rest: Any, xp: Any) -> Any:
        return loss(*point, *rest, xp=xp)[0]

    def gradient(point: Any, rest: Any, xp: Any) -> Any:
        return (loss(*point, *rest, xp=xp)[1],)

    return [
        Case(
            ", ".join(filter(None, (str(record), f"{batch} x {n_out}", how, "" if w is None else "weights"))),
            (z,),
            (t, w),
            value,
            gradient,
            record.analytic,
        )
        for how, t in targets.items()
        for w in (None, weight)
    ]


def cases_of_penalty(record: Any, seed: int = 0) -> list[Case]:
    """An optimizer's penalty, as a function of the parameters; half a unit from the kink of |p|."""
    rng, optimizer = np.random.default_rng(seed), record.thing
    point = tree_map(lambda a: a + np.where(a < 0.0, -0.5, 0.5), parameters(rng))

    def value(point: Any, rest: Any, xp: Any) -> Any:
        return optimizer.penalty(point, xp=xp)

    def gradient(point: Any, rest: Any, xp: Any) -> Any:
        return optimizer.add_penalty_gradient(point, tree_map(xp.zeros_like, point), xp=xp)

    if not (optimizer.l1 or optimizer.l2):
        return []
    return [Case(f"{record}, penalty", point, (), value, gradient, not optimizer.l1)]


class Leaves(NamedTuple):
    """Parameters of which one is a weight by its name."""

    W: Any
    b: Any


def parameters(rng: np.random.Generator) -> tuple[Any, ...]:
    return Leaves(rng.standard_normal((3, 2)), rng.standard_normal(2)), ()


def cases(record: Any, seed: int = 0, batch: int = 5) -> list[Case]:
    """Return the cases of a record that has a gradient."""
    if isinstance(record, OfLayer):
        return cases_of_layer(record, seed, batch)
    if isinstance(record, OfLoss):
        return cases_of_loss(record, seed, batch)
    return cases_of_penalty(record, seed)


# --- the ways


def direction(gradient: Any, rng: np.random.Generator) -> Any:
    """Return a direction, in which no entry is small, and along which no two entries of the gradient cancel."""
    return tree_map(lambda g: np.where(g < 0.0, -1.0, 1.0) * rng.uniform(0.5, 1.0, g.shape), gradient)


def along(gradient: Any, d: Any) -> float:
    return math.fsum(float(np.sum(g * e)) for g, e in zip(leaves(gradient), leaves(d), strict=True))


def moved(case: Case, t: Any, d: Any) -> Any:
    return tree_map(lambda p, e: p + t * e, case.point, d)


def by_differences(case: Case, d: Any, h: float) -> float:
    """Return dJ/dt at 0 of J(point + t d), by four points: the error is of fourth order."""

    def f(t: float) -> float:
        return float(case.value(moved(case, t, d), case.rest, xp=NUMPY)[0])

    return (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)


def by_complex_step(case: Case, d: Any) -> float:
    """Return the same as Im J(point + ihd)/h, which subtracts nothing."""
    return float(case.value(moved(case, COMPLEX_STEP * 1j, d), case.rest, xp=NUMPY)[0].imag) / COMPLEX_STEP


def relative(one: float, other: float, least: float) -> float:
    """Return the relative error of two numbers, NaN as infinite; what is smaller than `least` counts as `least`."""
    error = abs(one - other) / max(abs(one), abs(other), least)
    return error if error == error else math.inf


def errors(case: Case, seed: int = 0) -> dict[str, float]:
    """Return the relative error of the hand-derived gradient along a direction, by each method that the case allows.

    Of the differences it is that of the step that agrees best; a second is asked for where the first is beside a kink.
    """
    gradient = case.by_hand()
    d = direction(gradient, np.random.default_rng(seed))
    analytic = along(gradient, d)
    found = {"differences": math.inf}
    for h in STEPS:
        found["differences"] = min(found["differences"], relative(analytic, by_differences(case, d, h), 1e-3))
        if found["differences"] <= SMOOTH:
            break
    if case.analytic:
        found["complex step"] = relative(analytic, by_complex_step(case, d), 1e-3)
    return found


def worst_error(found: Any, expected: Any) -> float:
    """Return the largest error of two gradients, in units of the largest entry of each array."""
    errors = [0.0]
    for a, b in zip(leaves(found), leaves(expected), strict=True):
        assert np.shape(a) == np.shape(b)
        error = np.max(np.abs(np.asarray(a) - b), initial=0.0) / max(np.max(np.abs(b), initial=0.0), 1e-3)
        errors.append(float(error) if error == error else math.inf)
    return max(errors)


def put(tree: Any, bring: Callable[[Any], Any]) -> Any:
    """Bring the arrays of a tree somewhere; None and the numbers of a key stay what they are."""
    return tree_map(lambda a: a if a is None or isinstance(a, int) else bring(a), tree)


def by_torch(case: Case) -> Any:
    """Return the gradient that torch.autograd finds through bpxp's own forward code."""
    import torch

    backend = bpxp.backends.get_backend("torch")
    recorded = _recorded(torch)
    point = put(case.point, lambda a: torch.tensor(a).as_subclass(recorded).requires_grad_())
    rest = put(case.rest, lambda a: backend.asarray(np.array(a)).as_subclass(recorded))
    value = case.value(point, rest, xp=backend.xp)
    found = torch.autograd.grad(value.sum(), leaves(point), allow_unused=True)
    zeros = [np.zeros(a.shape) for a in leaves(case.point)]
    arrays = [z if g is None else g.detach().numpy() for g, z in zip(found, zeros, strict=True)]
    return unflatten(case.point, arrays)


def _recorded(torch: Any) -> Any:
    """Return a class of tensors that write nothing in place: autograd has to find again what a step would overwrite."""

    class Recorded(torch.Tensor):  # type: ignore[misc, name-defined]
        pass

    for name in ("add", "sub", "mul", "truediv"):

        def rebind(self: Any, other: Any, name: str = name) -> Any:
            return getattr(self, f"__{name}__")(other)

        setattr(Recorded, f"__i{name}__", rebind)
    return Recorded


def by_jax(all_cases: list[Case]) -> list[Any]:
    """Return the gradients that jax.grad finds through bpxp's own forward code, of all cases in one compilation."""
    import jax

    backend = bpxp.backends.get_backend("jax")

    def gradients(points: Any, rests: Any) -> Any:
        found = []
        for case, point, rest in zip(all_cases, points, rests, strict=True):
            found.append(jax.grad(lambda p, case=case, rest=rest: case.value(p, rest, xp=backend.xp)[0])(point))
        return found

    def bring(a: Any) -> Any:
        return backend.asarray(np.array(a))

    points = [put(case.point, bring) for case in all_cases]
    rests = [put(case.rest, bring) for case in all_cases]
    quick = {"xla_backend_optimization_level": 0}  # to compile: it runs once
    run = jax.jit(gradients, compiler_options=quick)
    return [tree_map(np.asarray, tree) for tree in run(points, rests)]
