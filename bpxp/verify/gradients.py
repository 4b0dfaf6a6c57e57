"""The gradient check: hand-derived gradients against the derivative of the loss itself, in float64.

The loss J is a function of all parameters p and of the input x. Along a direction d its derivative is ⟨∂J/∂p, d⟩; it
is measured by differences of four points, whose error is of fourth order, or by the complex step Im J(p + ihd)/h,
which subtracts nothing and is exact to rounding, where all operations are analytic.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import get_backend
from bpxp.backends.device import on_its_device
from bpxp.backends.dtypes import has_float64
from bpxp.core.checks import positive_int
from bpxp.core.random import DIRECTION, HostRandom
from bpxp.core.text import table
from bpxp.core.tree import named_leaves, tree_map, unflatten
from bpxp.errors import GradientCheckError
from bpxp.network.network import Network, validate_network
from bpxp.network.prepare import prepare
from bpxp.network.step import as_floats, training
from bpxp.nn.observe import locate, validate_children
from bpxp.nn.sequential import activation_of
from bpxp.optim import Optimizer

Vector = dict[str, np.ndarray]  # one host array per quantity: "0/W", "0/b", …, and "x"

STEPS = (1e-3, 1e-4, 1e-5)  # a kink within reach of one step is out of reach of a smaller one
COMPLEX_STEP = 1e-30


class ParameterCheck(NamedTuple):
    """What was found for one quantity.

    Attributes
    ----------
    name : str
        ``"0/W"``: layer and parameter; ``"x"`` is the network's input.
    shape : tuple of int
    method : str
        ``"every entry"`` or ``"directions"``, and ``"complex step"`` or ``"differences"``.
    worst : float
        Largest relative error.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    worst: float


class GradientReport(NamedTuple):
    """Result of `check_gradients`: one row per quantity, and the largest relative error of all."""

    checks: tuple[ParameterCheck, ...]
    worst: float

    def __str__(self) -> str:
        rows = [("quantity", "shape", "method", "relative error")]
        rows += [(c.name, str(c.shape), c.method, f"{c.worst:.1e}") for c in self.checks]
        return table(rows)


@on_its_device
def check_gradients(
    net: Network,
    x: Any,
    y: Any,
    weight: Any = None,
    *,
    optimizer: Optimizer | None = None,
    directions: int = 3,
    every_entry: int = 200,
    rtol: float = 1e-7,
    atol: float = 1e-9,
    seed: int = 0,
) -> GradientReport:
    """Compare the gradients of a network with the derivative of its loss.

    Parameters
    ----------
    net : Network
        Of any dtype; the check computes in float64, on the network's backend if that has it, else on NumPy. The
        network is not changed.
    x, y, weight : array_like
        A batch, as for `Network.loss_and_gradients`. More than one sample finds more mistakes.
    optimizer : Optimizer, optional
        Its L1 and L2 penalties are part of what is checked.
    directions : int, optional
        Random directions per quantity.
    every_entry : int, optional
        Networks with no more parameters than this are checked entry by entry.
    rtol, atol : float, optional
        An entry is right if it differs by at most ``atol + rtol * |value|``. The complex step is held to 1e-12.
    seed : int, optional
        Of the directions.

    Returns
    -------
    GradientReport

    Raises
    ------
    GradientCheckError
        Names the layer, the parameter, the index, and both values.

    Notes
    -----
    At a kink (ReLU at 0) there is no derivative to compare with; a smaller step tells a batch that hits one by chance
    from a wrong gradient.

    Examples
    --------
    >>> import bpxp, numpy as np
    >>> net = bpxp.Network([2, 3, 2], backend="numpy", seed=0)
    >>> report = bpxp.verify.check_gradients(net, np.ones((4, 2)), [0, 1, 1, 0])
    >>> report.worst < 1e-7
    True
    """
    validate_network(net, "check_gradients(net)")
    positive_int(directions, "check_gradients(directions=…)")
    problem = _Problem(net, x, y, weight, optimizer)
    small = sum(a.size for a in problem.gradient.values()) <= every_entry
    exact = problem.complex_loss is not None
    rng, checks = HostRandom(seed, (DIRECTION,)), []
    for place, (name, gradient) in enumerate(problem.gradient.items()):
        shape, worst = gradient.shape, 0.0
        every = (_unit(shape, i) for i in range(gradient.size))
        for d in every if small else (_direction(rng.at(place, i), shape) for i in range(directions)):
            analytic, numeric, error, allowed = problem.compare(name, d, rtol, atol)
            if not error <= allowed:  # NaN is wrong, too
                _fail(problem, name, d, rtol, atol)
            worst = max(worst, error / max(abs(numeric), abs(analytic), atol / rtol))
        where, how = "every entry" if small else f"{directions} directions", "complex step" if exact else "differences"
        checks.append(ParameterCheck(name, shape, f"{where}, {how}", worst))
    return GradientReport(tuple(checks), max(check.worst for check in checks))


class _Problem:
    """The loss as a function of host vectors in float64, and its hand-derived gradient."""

    def __init__(self, net: Network, x: Any, y: Any, weight: Any, optimizer: Optimizer | None) -> None:
        x, y, weight = prepare(net.spec, net.backend, (x, y), weight, "check_gradients")
        x, y = (net.backend.to_numpy(a) for a in (x, y))
        self.weight = None if weight is None else net.backend.to_numpy(weight).astype(np.float64)
        if not has_float64(net.backend):
            net = net.to("numpy")
        self.backend, self.model, self.loss, self.optimizer = net.backend, net.model, net.loss, optimizer
        self.template = tree_map(net.backend.to_numpy, net.params)
        # Random masks are frozen at the network's next step: the loss is a function of its parameters alone.
        self.stats = tree_map(lambda a: net.backend.to_numpy(a).astype(np.float64), net.stats)
        self.key = tree_map(net.backend.to_numpy, net.key)
        inputs = as_floats(x, np.float64, xp=get_backend("numpy").xp).astype(np.float64)
        self.y = y if y.dtype.kind == "i" else y.astype(np.float64)
        self.point: Vector = {name: a.astype(np.float64) for name, a in named_leaves(self.template)}
        self.point["x"] = inputs
        self._value = self.backend.compile(lambda _, data: self._loss(self.backend.xp, *data)[0])
        self._constants = self._rest(self._put)
        self.gradient = self._hand_derived()
        self.complex_loss: Callable[[Vector], complex] | None = None
        if all(map(_analytic, (*self.model.layers, self.loss))) and not (optimizer and optimizer.l1):
            self.complex_loss = self._complex_loss

    def _split(self, vector: Vector, put: Callable[[np.ndarray], Any]) -> tuple[Any, Any]:
        """Return (parameters, x) in the model's structure from a vector."""
        values = [put(vector[name]) for name, _ in named_leaves(self.template)]
        return unflatten(self.template, values), put(vector["x"])

    def _loss(self, xp: Any, params: Any, x: Any, y: Any, weight: Any, stats: Any, key: Any) -> tuple[Any, Any, Any]:
        logits, caches = self.model.forward(params, x, xp=xp, **training(self.model, stats, key, None))
        value, delta = self.loss(logits, y, weight, xp=xp)
        if self.optimizer is not None:
            value = value + self.optimizer.penalty(params, xp=xp)
        return value, caches, delta

    def _put(self, a: np.ndarray) -> Any:
        return self.backend.asarray(np.array(a))

    def _rest(self, put: Callable[[np.ndarray], Any]) -> tuple[Any, Any, Any, Any]:
        """Return what the loss depends on beside parameters and x: targets, weights, statistics and key."""
        weight = None if self.weight is None else put(self.weight)
        return put(self.y), weight, tree_map(put, self.stats), tree_map(put, self.key)

    def value(self, vector: Vector) -> float:
        params, x = self._split(vector, self._put)
        return float(self.backend.to_numpy(self._value((), (params, x, *self._constants))).reshape(()))

    def _complex_loss(self, vector: Vector) -> complex:
        params, x = self._split(vector, lambda a: a.astype(np.complex128))
        value = self._loss(get_backend("numpy").xp, params, x, *self._rest(lambda a: a))[0]
        return complex(np.asarray(value).reshape(()))

    def _hand_derived(self) -> Vector:
        xp = self.backend.xp
        params, x = self._split(self.point, self._put)

        def hosted(grads: Any) -> Vector:
            """Return gradients, with those of the penalties, on the host."""
            if self.optimizer is not None:
                grads = self.optimizer.add_penalty_gradient(params, grads, xp=xp)
            return {name: self.backend.to_numpy(a) for name, a in named_leaves(grads)}

        *_, stats, key = self._constants
        validate_children(self.model, params, x, training(self.model, stats, key, None), xp=xp)
        _, caches, delta = self._loss(xp, params, x, *self._constants)
        dx, grads = self.model.backward(params, caches, delta, xp=xp)
        found = {**hosted(grads), "x": self.backend.to_numpy(dx)}
        for name, a in found.items():
            # A bias of shape (batch, n) would broadcast as well, and have exactly this derivative.
            if a.shape != self.point[name].shape:
                what, expected = f"the gradient of {name} has another shape", f"{self.point[name].shape}"
                raise GradientCheckError("check_gradients", what, code="E080", got=f"{a.shape}", expected=expected)
        # Training skips the first dx: both ways must agree.
        _, caches, delta = self._loss(xp, params, x, *self._constants)
        for name, a in hosted(self.model.gradients(params, caches, delta, xp=xp)).items():
            if not np.array_equal(a, found[name], equal_nan=True):
                what = f"gradients() and backward() of the model differ in {name}"
                raise GradientCheckError("check_gradients", what, code="E080")
        return found

    def derivative(self, name: str, d: np.ndarray, step: float) -> float:
        """Return dJ/dt at t = 0 of J(point + t d), where d moves the quantity `name` alone."""

        def at(t: Any) -> Vector:
            return {**self.point, name: self.point[name] + t * d}

        if self.complex_loss is not None:
            return self.complex_loss(at(COMPLEX_STEP * 1j)).imag / COMPLEX_STEP
        h = step * max(1.0, float(np.max(np.abs(self.point[name]), initial=0.0)))
        one = self.value(at(h)) - self.value(at(-h))
        two = self.value(at(2.0 * h)) - self.value(at(-2.0 * h))
        return (8.0 * one - two) / (12.0 * h)

    def compare(self, name: str, d: np.ndarray, rtol: float, atol: float) -> tuple[float, float, float, float]:
        """Return (hand-derived, numerical derivative, error, allowed error), for the step that agrees best."""
        analytic, best = float(np.sum(self.gradient[name] * d)), (math.nan, math.inf, 0.0)
        if self.complex_loss is not None:
            rtol, atol = min(rtol, 1e-12), min(atol, 1e-14)
        for step in STEPS if self.complex_loss is None else (COMPLEX_STEP,):
            numeric = self.derivative(name, d, step)
            allowed = atol + rtol * max(abs(numeric), abs(analytic))
            # Rounding of J, divided by the step: what differences cannot see.
            if self.complex_loss is None:
                allowed += 8.0 * np.finfo(np.float64).eps * abs(self.value(self.point)) / step
            error = abs(numeric - analytic)
            if not error - allowed >= best[1] - best[2]:
                best = (numeric, error, allowed)
            if error <= allowed:
                break
        return analytic, *best


def _analytic(part: Any) -> bool:
    """Whether a layer or loss consists of analytic operations alone, as it says itself."""
    activation = activation_of(part)
    return all(getattr(one, "analytic", False) for one in ([part] if activation is None else [part, activation]))


def _unit(shape: tuple[int, ...], i: int) -> np.ndarray:
    d = np.zeros(shape)
    d.flat[i] = 1.0
    return d


def _direction(rng: HostRandom, shape: tuple[int, ...]) -> np.ndarray:
    """Return a random unit vector, none of whose entries is small: each entry of the gradient is seen."""
    size = math.prod(shape)
    u = rng.uniform((size,), -1.0, 1.0)
    d = np.where(u < 0.0, -1.0, 1.0) * (0.1 + 0.9 * np.abs(u))
    unit: np.ndarray = d / np.sqrt(np.sum(d * d))
    return unit.reshape(shape)


def _fail(problem: _Problem, name: str, d: np.ndarray, rtol: float, atol: float) -> None:
    """Find a wrong entry of a quantity by halving the direction that failed, and raise."""
    rows = np.flatnonzero(d)
    while len(rows) > 1:
        halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        errors = []
        for half in halves:
            part = np.zeros(d.shape)
            part.flat[half] = d.flat[half]
            errors.append(problem.compare(name, part, rtol, atol)[2])
        rows = halves[int(errors[1] > errors[0])]
    part = _unit(d.shape, int(rows[0]))
    index = tuple(int(i) for i in np.unravel_index(rows[0], d.shape))
    analytic, numeric, error, _ = problem.compare(name, part, rtol, atol)
    if name == "x":
        what = f"dx{list(index)}"
    else:
        layer, parameter = locate(problem.model, name)
        above, slash, field = parameter.rpartition("/")
        what = f"{layer.title}, {above}{slash}d{field}{list(index)}"
    ratio = f", ratio {analytic / numeric:.6g}" if numeric else ""
    got = f"{analytic!r} by the backward pass"
    expected = f"{numeric!r} by the loss (difference {error:.2e}{ratio})"
    raise GradientCheckError("check_gradients", f"{what} is wrong", code="E080", got=got, expected=expected)
