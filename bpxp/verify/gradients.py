"""The gradient check: hand-derived gradients against the derivative of the loss itself, in float64.

The loss J is a function of all parameters p and of the input x. Along a direction d its derivative is ⟨∂J/∂p, d⟩; it
is measured by differences of four points, whose error is of fourth order, or by the complex step Im J(p + ihd)/h,
which subtracts nothing and is exact to rounding, where all operations are analytic.

At a kink J has no derivative along d. The gradient is right there if it is right beside the kink, on both sides, and if
every layer is right at the point itself: see `kinks`.
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
from bpxp.verify.kinks import FORWARD, Kinks, check_parts

Vector = dict[str, np.ndarray]  # one host array per quantity: "0/W", "0/b", …, and "x"

STEPS = (1e-3, 1e-4, 1e-5)  # a kink within reach of one step is out of reach of a smaller one
FINE = (1e-6, 1e-7)  # for large networks, which have kinks everywhere
COMPLEX_STEP = 1e-30


class _Differences(NamedTuple):
    """A formula of fourth order for the derivative, from values at steps: its place, points, weights and rounding."""

    at: int
    points: tuple[int, ...]
    weights: tuple[float, ...]
    rounding: float


CENTRAL = _Differences(0, (-2, -1, 1, 2), (1 / 12, -8 / 12, 8 / 12, -1 / 12), 8.0)
ONE_SIDED = tuple(_Differences(0, tuple(i * s for i in range(5)), tuple(s * w for w in FORWARD), 32.0) for s in (-1, 1))
BESIDE = tuple(CENTRAL._replace(at=3 * s) for s in (-1, 1))  # none of their points is on the other side


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
    kinks : int
        Entries, or directions, along which the loss has a kink: checked on both sides of it.
    """

    name: str
    shape: tuple[int, ...]
    method: str
    worst: float
    kinks: int = 0


class GradientReport(NamedTuple):
    """Result of `check_gradients`: one row per quantity, and the largest relative error of all.

    Attributes
    ----------
    checks : tuple of ParameterCheck
    worst : float
    kinks : tuple of Kinks
        The parts with outputs at kinks, where the loss has one: ``"layer 0 (ReLU): 12 of 40 outputs"``.
    """

    checks: tuple[ParameterCheck, ...]
    worst: float
    kinks: tuple[Kinks, ...] = ()

    def __str__(self) -> str:
        rows = [("quantity", "shape", "method", "relative error", *(["at kinks"] if self.kinks else []))]
        for c in self.checks:
            rows.append((c.name, str(c.shape), c.method, f"{c.worst:.1e}", *([str(c.kinks)] if self.kinks else [])))
        return "\n".join([table(rows), *(f"at kinks: {kinks}" for kinks in self.kinks)])


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
    At a kink (ReLU at 0, the tie of two maxima) the loss has no derivative to compare with. Where the differences
    disagree with the gradient, it has to be right beside the point, on both sides; and at the point each layer and the
    loss has to return what lies between the left and the right derivative of its outputs, and the derivative itself
    where these agree. What passes is counted as a kink; all else is a wrong gradient.

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
    problem = _Problem(net, x, y, weight, optimizer, seed)
    small = sum(a.size for a in problem.gradient.values()) <= every_entry
    exact = problem.complex_loss is not None
    rng, checks = HostRandom(seed, (DIRECTION,)), []
    for place, (name, gradient) in enumerate(problem.gradient.items()):
        shape, worst, at_kinks = gradient.shape, 0.0, 0
        every = (_unit(shape, i) for i in range(gradient.size))
        for d in every if small else (_direction(rng.at(place, i), shape) for i in range(directions)):
            found = problem.compare(name, d, rtol, atol)
            if not found.agrees:  # NaN does not agree, either
                found, kink = _look_closer(problem, name, d, rtol, atol)
                at_kinks += kink
            worst = max(worst, found.error / max(abs(found.numeric), abs(found.analytic), atol / rtol))
        where, how = "every entry" if small else f"{directions} directions", "complex step" if exact else "differences"
        checks.append(ParameterCheck(name, shape, f"{where}, {how}", worst, at_kinks))
    kinks = problem.kinks(rtol, atol) if any(check.kinks for check in checks) else ()
    return GradientReport(tuple(checks), max(check.worst for check in checks), kinks)


class _Comparison(NamedTuple):
    """A derivative along a direction: hand-derived and by the loss, their difference and what it may be."""

    analytic: float
    numeric: float
    error: float
    allowed: float

    @property
    def agrees(self) -> bool:
        return self.error <= self.allowed


def _look_closer(problem: _Problem, name: str, d: np.ndarray, rtol: float, atol: float) -> tuple[_Comparison, bool]:
    """Return what tells that the gradient is right though central differences disagree, and whether it is a kink."""
    if problem.complex_loss is not None:
        _fail(problem, name, d, rtol, atol, CENTRAL)
    found = []
    for side in BESIDE:
        found.append(problem.compare(name, d, rtol, atol, side))
        if not found[-1].agrees:
            _fail(problem, name, d, rtol, atol, side)
    kink = bool(problem.kinks(rtol, atol))
    if not kink:  # the second derivative may jump, as that of ELU does: both sides have the same slope
        found = [problem.compare(name, d, rtol, atol, side) for side in ONE_SIDED]
        if not all(side.agrees for side in found):
            _fail(problem, name, d, rtol, atol, CENTRAL)
    return max(found, key=lambda side: side.error), kink


class _Problem:
    """The loss as a function of host vectors in float64, and its hand-derived gradient."""

    def __init__(self, net: Network, x: Any, y: Any, weight: Any, optimizer: Optimizer | None, seed: int) -> None:
        x, y, weight = prepare(net.spec, net.backend, (x, y), weight, "check_gradients")
        x, y = (net.backend.to_numpy(a) for a in (x, y))
        self.weight = None if weight is None else net.backend.to_numpy(weight).astype(np.float64)
        if not has_float64(net.backend):
            net = net.to("numpy")
        self.backend, self.model, self.loss, self.optimizer = net.backend, net.model, net.loss, optimizer
        self.seed = seed
        self._kinks: tuple[Kinks, ...] | None = None
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
        self.gradient, self.loss_here = self._hand_derived(), self.value(self.point)
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

    def _hosted(self, params: Any, grads: Any) -> Vector:
        """Return gradients, with those of the penalties, on the host."""
        if self.optimizer is not None:
            grads = self.optimizer.add_penalty_gradient(params, grads, xp=self.backend.xp)
        return {name: self.backend.to_numpy(a) for name, a in named_leaves(grads)}

    def _gradient_at(self, params: Any, x: Any) -> Vector:
        """Return what the backward pass of the model says of a point."""
        _, caches, delta = self._loss(self.backend.xp, params, x, *self._constants)
        dx, grads = self.model.backward(params, caches, delta, xp=self.backend.xp)
        return {**self._hosted(params, grads), "x": self.backend.to_numpy(dx)}

    def _hand_derived(self) -> Vector:
        """Return the gradient, which must have the right shapes and be the same in both ways to it."""
        xp = self.backend.xp
        params, x = self._split(self.point, self._put)
        *_, stats, key = self._constants
        validate_children(self.model, params, x, training(self.model, stats, key, None), xp=xp)
        found = self._gradient_at(params, x)
        for name, a in found.items():
            # A bias of shape (batch, n) would broadcast as well, and have exactly this derivative.
            if a.shape != self.point[name].shape:
                what, expected = f"the gradient of {name} has another shape", f"{self.point[name].shape}"
                raise GradientCheckError("check_gradients", what, code="E080", got=f"{a.shape}", expected=expected)
        # Training skips the first dx: both ways must agree.
        _, caches, delta = self._loss(xp, params, x, *self._constants)
        for name, a in self._hosted(params, self.model.gradients(params, caches, delta, xp=xp)).items():
            if not np.array_equal(a, found[name], equal_nan=True):
                what = f"gradients() and backward() of the model differ in {name}"
                raise GradientCheckError("check_gradients", what, code="E080")
        return found

    def kinks(self, rtol: float, atol: float) -> tuple[Kinks, ...]:
        """Return the parts with outputs at kinks; a part that is wrong at this point is an error."""
        if self._kinks is None:
            y, weight, stats, key = self._constants
            arguments = (*self._split(self.point, self._put), y, weight, training(self.model, stats, key, None))
            self._kinks = check_parts(self.model, self.loss, arguments, self.backend, rtol, atol, self.seed)
        return self._kinks

    def _moved(self, name: str, d: np.ndarray, t: Any) -> Vector:
        """Return point + t d, where d moves the quantity `name` alone."""
        return {**self.point, name: self.point[name] + t * d}

    def derivative(self, name: str, d: np.ndarray, h: float, by: _Differences) -> float:
        """Return the derivative of J(point + t d) with respect to t, with steps of h."""
        if self.complex_loss is not None:
            return self.complex_loss(self._moved(name, d, COMPLEX_STEP * 1j)).imag / COMPLEX_STEP
        values = (
            w * self.value(self._moved(name, d, (by.at + i) * h)) for i, w in zip(by.points, by.weights, strict=True)
        )
        return sum(values) / h

    def compare(self, name: str, d: np.ndarray, rtol: float, atol: float, by: _Differences = CENTRAL) -> _Comparison:
        """Compare the derivative along d with that of the loss, for the step that agrees best."""
        gradient, best = self.gradient, _Comparison(math.nan, math.nan, math.inf, 0.0)
        if self.complex_loss is not None:
            rtol, atol = min(rtol, 1e-12), min(atol, 1e-14)
        for step in (COMPLEX_STEP,) if self.complex_loss is not None else STEPS if by is CENTRAL else (*STEPS, *FINE):
            h = step * max(1.0, float(np.max(np.abs(self.point[name]), initial=0.0)))
            if by.at:
                gradient = self._gradient_at(*self._split(self._moved(name, d, by.at * h), self._put))
            analytic, numeric = float(np.sum(gradient[name] * d)), self.derivative(name, d, h, by)
            size = max(abs(numeric), abs(analytic))
            # Rounding of J, divided by the step: what differences cannot see.
            rounding = 0.0 if self.complex_loss else by.rounding * np.finfo(np.float64).eps * abs(self.loss_here) / step
            allowed = atol + rtol * size + (min(rounding, 1e-4 * size) if step in FINE else rounding)
            found = _Comparison(analytic, numeric, abs(numeric - analytic), allowed)
            if not found.error - found.allowed >= best.error - best.allowed:
                best = found
            if found.agrees:
                break
        return best


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


def _fail(problem: _Problem, name: str, d: np.ndarray, rtol: float, atol: float, by: _Differences) -> None:
    """Find a wrong entry of a quantity by halving the direction that failed, and raise."""
    rows = np.flatnonzero(d)
    while len(rows) > 1:
        halves = [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
        errors = []
        for half in halves:
            part = np.zeros(d.shape)
            part.flat[half] = d.flat[half]
            errors.append(problem.compare(name, part, rtol, atol, by).error)
        rows = halves[int(errors[1] > errors[0])]
    part = _unit(d.shape, int(rows[0]))
    index = tuple(int(i) for i in np.unravel_index(rows[0], d.shape))
    analytic, numeric, error, _ = problem.compare(name, part, rtol, atol, by)
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
