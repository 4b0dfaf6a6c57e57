"""Compare what a layer, activation, loss or optimizer computes with the equations that stand beside its code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import get_backend
from bpxp.dtypes import has_float64
from bpxp.equations import Equations, references
from bpxp.errors import BackendNotUsableError, DerivationError, InvalidTypeError, message
from bpxp.nn.activations import Activation
from bpxp.nn.losses import Loss
from bpxp.optim import Optimizer
from bpxp.random import DIRECTION, HostRandom
from bpxp.tree import tree_map
from bpxp.verify.loops import evaluate

Values = dict[str, Any]
STEPS = 3  # of an optimizer: the second is the first that remembers anything, the third the first that mixes


class EquationCheck(NamedTuple):
    """What was found for one equation: its line, and the largest error in units of the largest entry."""

    line: str
    worst: float


class DerivationReport(NamedTuple):
    """Result of `check_equations`: one row for each equation whose left side the code computes."""

    checks: tuple[EquationCheck, ...]

    @property
    def worst(self) -> float:
        return max(check.worst for check in self.checks)

    def __str__(self) -> str:
        width = max(len(check.line) for check in self.checks)
        return "\n".join(f"{check.line.ljust(width)}  {check.worst:.1e}" for check in self.checks)


def check_equations(
    thing: Any,
    x: Any = (3, 4),
    /,
    *,
    given: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    backend: str | None = None,
    seed: int = 0,
    rtol: float = 1e-12,
) -> DerivationReport:
    """Run the equations of a thing as slow loops, and compare with its code, in float64.

    Parameters
    ----------
    thing : Layer, Activation, Loss or Optimizer
        With an attribute `equations`.
    x : tuple of int, or array, optional
        The shape (batch, …) of a random input, or the input. Keep it small: loops are slow.
    given : mapping, optional
        Values of further names in the equations. A name that is neither given nor computed is an attribute of the
        thing: a hyper-parameter.
    context : mapping, optional
        What `forward` of a layer is given beside x: ``training``, ``key``, ``stats``, ``present``.
    backend : str or None, optional
        As for `Network`.
    seed : int, optional
        Of parameters, inputs and incoming gradients.
    rtol : float, optional
        Allowed error, relative to the largest entry of the array.

    Returns
    -------
    DerivationReport

    Raises
    ------
    DerivationError
        Names the equation, the first wrong entry, and both values. Also if a result of the code has no equation.
    EquationError
        An equation is not in the notation, or cannot be evaluated.
    BackendNotUsableError
        The backend has no float64.

    Notes
    -----
    The names that the code's arguments and results have in the equations: a layer maps x to the left side of its
    equation ``forward``, an activation z to a; the gradient that comes in is ``d`` and the name of the output, or
    ``delta``; a parameter's gradient is ``d`` and its name. A layer of windows has before, the padding above and on
    the left. A loss has z, y, w, J, delta, and a for what `activate` returns. A rule has p, g, t, and a primed name
    for each new value, in the order of its slots.

    Where an array has more axes than its equation has indices, the first index stands for all the leading ones.

    Examples
    --------
    >>> import bpxp
    >>> print(bpxp.verify.check_equations(bpxp.nn.Dense(2)))  # doctest: +SKIP
    z[n,j] = sum_i x[n,i]*W[i,j] + b[j]   1.1e-16
    dW[i,j] = sum_n x[n,i]*delta[n,j]     1.2e-16
    db[j] = sum_n delta[n,j]              0.0e+00
    dx[n,i] = sum_j delta[n,j]*W[i,j]     8.9e-17
    """
    equations = getattr(thing, "equations", None)
    if not isinstance(equations, Equations):
        raise InvalidTypeError(
            message("check_equations", "no equations", got=repr(thing), expected="an attribute `equations`")
        )
    case = _Case(thing, equations, dict(given or {}), backend, seed, rtol)
    if isinstance(thing, Optimizer):
        return case.optimizer()
    if isinstance(thing, Loss):
        return case.loss()
    return case.layer(x, dict(context or {}))


class _Case:
    """One comparison: the values so far, and what was found."""

    def __init__(
        self, thing: Any, equations: Equations, given: Values, backend: str | None, seed: int, rtol: float
    ) -> None:
        self.thing, self.equations, self.given, self.rtol = thing, equations, given, rtol
        self.backend = get_backend(backend)
        if not has_float64(self.backend):
            raise BackendNotUsableError(
                message("check_equations", "the backend has no float64", got=self.backend.name, fix="backend='numpy'")
            )
        self.xp = self.backend.xp
        self.rng = HostRandom(seed, (DIRECTION,))
        self.found: dict[str, float] = {}

    def put(self, a: Any) -> Any:
        return self.backend.asarray(np.array(a, dtype=np.float64))

    def normal(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        drawn: np.ndarray = self.rng.at(place).normal(shape)
        return drawn

    def layer(self, x: Any, context: Values) -> DerivationReport:
        """Compare forward, backward and the running statistics of a layer or an activation."""
        x = 2.0 * self.normal(0, x) if isinstance(x, tuple) else np.array(x, dtype=np.float64)
        params, out_shape = self.thing.init(self.rng.at(1), x.shape[1:])
        # Biases that start at 0 and scales that start at 1 would hide mistakes.
        params = tree_map(lambda a: a + self.normal(2, a.shape), params)
        dy = self.normal(3, (x.shape[0], *out_shape))
        arrays = {name: a for name, a in context.items() if isinstance(a, tuple)}
        static = {name: a for name, a in context.items() if name not in arrays}

        def both_ways(_: Any, data: Any) -> tuple[Any, ...]:
            params, x, dy, arrays = data
            y, cache = self.thing.forward(params, x, xp=self.xp, **arrays, **static)
            dx, grads = self.thing.backward(params, cache, dy, xp=self.xp)
            stats = tree_map(lambda a: self.xp.astype(a, a.dtype, copy=True), arrays.get("stats", ()))
            return y, dx, grads, self.thing.advance(stats, cache, xp=self.xp) if stats else ()

        data = (tree_map(self.put, params), self.put(x), self.put(dy), arrays)
        y, dx, grads, advanced = self.backend.compile(both_ways)((), data)
        given_name = "z" if isinstance(self.thing, Activation) else "x"
        out_name = self.equations["forward"].target.name
        names = getattr(params, "_fields", ())
        given = {given_name: x, "delta": dy, f"d{out_name}": dy, **dict(zip(names, params, strict=True))}
        results = {out_name: y, f"d{given_name}": dx} | {f"d{n}": g for n, g in zip(names, grads, strict=True)}
        if hasattr(self.thing, "grid"):
            given["before"] = [axis.before for axis in self.thing.grid(x.shape[1:])]
        if advanced:
            old = context["stats"]
            given |= {name: self.backend.to_numpy(a) for name, a in zip(old._fields, old, strict=True)}
            results |= {f"{name}'": a for name, a in zip(old._fields, advanced, strict=True)}
        self.compare(given, results)
        return self.report()

    def loss(self) -> DerivationReport:
        """Compare value, delta and the reading of a loss, with and without weights of the samples."""
        z, u = self.normal(0, (4, 3)), self.rng.at(1).uniform((4, 3))
        y = {
            "classes": u / np.sum(u, axis=1, keepdims=True),
            "labels": u,
            "values": self.normal(2, (4, 3)),
            "counts": np.floor(4.0 * u),
        }[self.thing.targets]
        for w in (self.rng.at(3).uniform((4,)), None):
            weight = None if w is None else self.put(w)
            J, delta = self.thing(self.put(z), self.put(y), weight, xp=self.xp)
            results = {"J": self.xp.reshape(J, ()), "delta": delta}
            if "a" in self.targets():
                results["a"] = self.thing.activate(self.put(z), xp=self.xp)
            self.compare({"z": z, "y": y, "w": np.ones(4) if w is None else w}, results)
        return self.report()

    def optimizer(self) -> DerivationReport:
        """Compare some steps of an update rule, for each component of a weight by itself."""
        params: Any = _Weight(self.put(self.normal(0, (2, 2))))
        state = self.thing.init(params, xp=self.xp)
        kept = [name for name in self.targets() if name.endswith("'") and name != "p'"]
        for step in range(STEPS):
            g = self.normal(step + 1, (2, 2))
            before = {"p": self.backend.to_numpy(params.W).copy(), "g": g}
            for i, name in enumerate(kept):
                old = self.backend.to_numpy(state.slots[i].W).copy() if state.slots else np.zeros((2, 2))
                before[name.rstrip("'")] = old
            params, state = self.thing.update(params, _Weight(self.put(g)), state, xp=self.xp)
            after = {"p'": self.backend.to_numpy(params.W)}
            if state.slots:
                after |= {name: self.backend.to_numpy(state.slots[i].W) for i, name in enumerate(kept)}
            rate = self.backend.to_numpy(state.learning_rate)[0]
            for place in np.ndindex(2, 2):
                given = {name: a[place] for name, a in before.items()} | {"t": step + 1, "learning_rate": rate}
                self.compare(given, {name: np.asarray(a[place]) for name, a in after.items()})
        return self.report()

    def targets(self) -> list[str]:
        return [equation.target.name for equation in self.equations.values()]

    def compare(self, given: Values, results: Values) -> None:
        """Run the equations on what was given, and hold the results of the code against theirs."""
        results = {name: a if isinstance(a, np.ndarray) else self.backend.to_numpy(a) for name, a in results.items()}
        axes = {e.target.name: len(e.target.indices) for e in self.equations.values()}
        for equation in self.equations.values():
            axes |= {reference.name: len(reference.indices) for reference in references(equation.value)}
        missing = [name for name in results if name not in self.targets()]
        if missing:
            raise DerivationError(f"{type(self.thing).__name__}: no equation says what {', '.join(missing)} is")
        given = {name: _rows(a, axes[name]) for name, a in {**given, **self.given}.items() if name in axes}
        results = {name: _rows(a, axes[name]) for name, a in results.items()}
        for name in axes:
            if name not in given and hasattr(self.thing, name):
                given[name] = getattr(self.thing, name)
        derived = evaluate(self.equations, given, shapes={name: a.shape for name, a in results.items()})
        for label, equation in self.equations.items():
            name = equation.target.name
            if name in results:
                self.hold(label, equation.text, results[name], derived[name])

    def hold(self, label: str, line: str, code: np.ndarray, loops: np.ndarray) -> None:
        where = f"{type(self.thing).__name__}, {label}: {line!r}"
        error = np.abs(code - loops)
        error = error / (np.max(np.abs(loops), initial=0.0) or 1.0)
        wrong = ~(error <= self.rtol)  # NaN is wrong, too
        if np.any(wrong):
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise DerivationError(
                message(
                    where,
                    "the code computes something else",
                    got=f"{code[place].item()!r} by the code",
                    expected=f"{loops[place].item()!r} by the equation",
                    first=f"First at {list(place)}, {np.count_nonzero(wrong)} of {wrong.size} entries",
                )
            )
        self.found[line] = max(self.found.get(line, 0.0), float(np.max(error, initial=0.0)))

    def report(self) -> DerivationReport:
        return DerivationReport(tuple(EquationCheck(line, worst) for line, worst in self.found.items()))


class _Weight(NamedTuple):
    """A parameter whose name says that it is a weight."""

    W: Any


def _rows(a: Any, axes: int) -> np.ndarray:
    """Return an array with its leading axes made one, so that it has at most as many as the equation has indices."""
    array: np.ndarray = np.asarray(a)
    return array.reshape(-1, *array.shape[array.ndim - axes + 1 :]) if 0 < axes < array.ndim else array
