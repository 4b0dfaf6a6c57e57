"""Kinks: points at which a layer or the loss has no derivative, ReLU at 0 or the tie of two maxima.

There the chain rule has nothing to compare the whole network with, and every part is held to the rule of its own: along
any direction, what backward returns for an output lies between the output's left and right derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend
from bpxp.core.random import DIRECTION, HostRandom
from bpxp.core.tree import leaves, unflatten
from bpxp.errors import GradientCheckError
from bpxp.nn.observe import Part, children, observed

STEPS = (1e-4, 1e-5, 1e-6, 1e-7)
FORWARD = np.array([-25.0, 48.0, -36.0, 16.0, -3.0]) / 12.0  # of five points: the error is of fourth order
DIRECTIONS = 4  # random ones, and that of all ones
SAMPLED = 24  # outputs at kinks, whose rows of the Jacobian are looked at one by one


class Kinks(NamedTuple):
    """How many outputs of a layer, an activation or the loss are at a kink."""

    part: str
    at_kinks: int
    outputs: int

    def __str__(self) -> str:
        return f"{self.part}: {self.at_kinks:,} of {self.outputs:,} outputs"


class Call(NamedTuple):
    """What a part was called with: parameters and x, or the logits; and what stays as it is."""

    part: Part
    moved: Any
    fixed: tuple[Any, ...]
    context: Mapping[str, Any]


class Recorded:
    """An observer that keeps what each part is called with in one forward pass."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.closed = False

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Any, context: Mapping[str, Any]) -> Any:
        """Call, and keep the arguments."""
        done = getattr(part.thing, method)(*args, xp=xp, **context)
        if not self.closed and method == "forward":
            self.calls.append(Call(part, args, (), context))
        elif not self.closed and method == "__call__":
            self.calls.append(Call(part, args[:1], args[1:], context))
        return done


def check_parts(
    model: Any, loss: Any, arguments: tuple[Any, ...], backend: Backend, rtol: float, atol: float, seed: int
) -> tuple[Kinks, ...]:
    """Check every part where one forward and backward pass meets it, and return those with outputs at kinks.

    `arguments` are parameters, x, targets, weights and the context of the model.

    Raises
    ------
    GradientCheckError
        A part's backward is outside its one-sided derivatives.
    """
    recorded, (params, x, y, weight, context) = Recorded(), arguments
    watched, watched_loss = observed(model, loss, recorded)
    watched_loss(watched.forward(params, x, xp=backend.xp, **context)[0], y, weight, xp=backend.xp)
    recorded.closed = True
    found: dict[str, Kinks] = {}
    for place, call in enumerate(recorded.calls):
        # An output of a container may depend on several kinks of its parts, each of which is checked by itself.
        inside = f"{call.part.place}."
        if children(call.part.thing) and any(name.startswith(inside) for name in found):
            continue
        kinks = _Linearized(call, backend, HostRandom(seed, (DIRECTION,)).at(place)).kinks(rtol, atol)
        if kinks.at_kinks:
            found[f"{call.part.place}/{place}"] = kinks
    return tuple(found.values())


class _Linearized:
    """One call of a part: its outputs along directions, and the rows of its Jacobian by backward."""

    def __init__(self, call: Call, backend: Backend, rng: HostRandom) -> None:
        self.call, self.backend, self.rng = call, backend, rng
        self.point = [backend.to_numpy(a).astype(np.float64) for a in leaves(call.moved)]
        self.outputs, *self.kept = self._forward(self.point)

    def _forward(self, point: list[np.ndarray]) -> tuple[np.ndarray, Any, Any]:
        """Return outputs on the host, what backward needs, and the arguments."""
        moved = unflatten(self.call.moved, [self.backend.asarray(a) for a in point])
        thing, xp = self.call.part.thing, self.backend.xp
        if self.call.fixed:
            value, kept = thing(*moved, *self.call.fixed, xp=xp)
        else:
            value, kept = thing.forward(*moved, xp=xp, **self.call.context)
        return self.backend.to_numpy(value).astype(np.float64), kept, moved

    def row(self, weights: np.ndarray) -> list[np.ndarray]:
        """Return the derivative of the weighted sum of the outputs by backward, for each array that moves."""
        kept, moved = self.kept
        if self.call.fixed:
            return [self.backend.to_numpy(kept) * weights]
        params, _ = moved
        dx, grads = self.call.part.thing.backward(params, kept, self.backend.asarray(weights), xp=self.backend.xp)
        return [self.backend.to_numpy(a) for a in (*leaves(grads), dx)]

    def slopes(self, d: list[np.ndarray], step: float) -> tuple[np.ndarray, np.ndarray]:
        """Return left and right derivative of every output along a direction."""

        def side(h: float) -> np.ndarray:
            along = [self._forward([a + i * h * b for a, b in zip(self.point, d, strict=True)])[0] for i in range(1, 5)]
            return np.asarray(np.tensordot(FORWARD, np.stack([self.outputs, *along]), axes=1) / h)

        return side(-step), side(step)

    def directions(self) -> list[list[np.ndarray]]:
        """Return random directions, all ones among them, and for a single output those of single entries, too."""
        scales = [max(1.0, float(np.max(np.abs(a), initial=0.0))) for a in self.point]
        dense = [
            [
                self.rng.at(i, j).uniform(a.shape, -scale, scale)
                for j, (a, scale) in enumerate(zip(self.point, scales, strict=True))
            ]
            for i in range(1, 2 if getattr(self.call.part.thing, "analytic", False) else DIRECTIONS + 1)
        ]
        dense.append([np.full(a.shape, scale) for a, scale in zip(self.point, scales, strict=True)])
        if self.outputs.ndim:
            return dense
        (logits,), (scale,) = self.point, scales
        entries = self.rng.at(0).permutation(logits.size)[:SAMPLED]
        return [*dense, *([scale * np.eye(1, logits.size, int(i)).reshape(logits.shape)] for i in entries)]

    def kinks(self, rtol: float, atol: float) -> Kinks:
        """Compare backward with the one-sided derivatives of the outputs."""
        shape, eps = self.outputs.shape, np.finfo(np.float64).eps
        rounding = 32.0 * eps * float(np.max(np.abs(self.outputs), initial=0.0))
        weights = self.rng.at(0, 1).uniform(shape, 0.5, 1.5)
        kinks, sides = np.zeros(shape, dtype=bool), []
        for d in self.directions():
            slope, error, smooth = np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool)
            last = self.slopes(d, STEPS[0])
            for step in STEPS[1:]:
                left, right = both = self.slopes(d, step)
                allowed = atol + rtol * np.maximum(np.abs(left), np.abs(right)) + rounding / step
                # Both sides and two steps: of a curved function the sides may agree on what is not yet its slope.
                agree = ~smooth & (np.ptp([*last, *both], axis=0) <= allowed)
                slope, error = np.where(agree, (left + right) / 2.0, slope), np.where(agree, allowed, error)
                smooth, last = smooth | agree, both
            kinks |= ~smooth
            sides.append((d, np.minimum(left, right) - allowed, np.maximum(left, right) + allowed))
            got, expected = _along(self.row(np.where(smooth, weights, 0.0)), d), float(np.sum(weights * slope))
            if not abs(got - expected) <= 4.0 * float(np.sum(weights * error)) + atol:
                self.wrong("is wrong where there is no kink", got, f"{expected!r}")
        places = np.flatnonzero(kinks)
        for i in places[self.rng.at(0, 2).permutation(len(places))[:SAMPLED]]:
            unit = np.zeros(shape)
            unit.flat[i] = 1.0
            row = self.row(unit)
            for d, low, high in sides:
                got = _along(row, d)
                if not low.flat[i] <= got <= high.flat[i]:
                    of = f" of output {[int(k) for k in np.unravel_index(i, shape)]}" if shape else ""
                    between = f"from {low.flat[i]:.6g} to {high.flat[i]:.6g}, left and right derivative"
                    self.wrong(f"is wrong at the kink{of}", got, between)
        return Kinks(self.call.part.title, int(kinks.sum()), kinks.size)

    def wrong(self, what: str, value: float, expected: str) -> None:
        """Raise."""
        what, got = f"the derivative of {self.call.part.title} {what}", f"{value!r} by the backward pass"
        raise GradientCheckError("check_gradients", what, code="E080", got=got, expected=expected)


def _along(row: list[np.ndarray], d: list[np.ndarray]) -> float:
    return float(sum(np.sum(a * b) for a, b in zip(row, d, strict=True)))
