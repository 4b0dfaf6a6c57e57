"""One comparison of code with its equations: known values, the loops' results, and the error of the code."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import get_backend
from bpxp.backends.dtypes import has_float64
from bpxp.backends.precision import label
from bpxp.core.random import DIRECTION, HostRandom
from bpxp.core.text import table
from bpxp.equations import Equations
from bpxp.equations.loops import evaluate
from bpxp.equations.notation import Equation, references
from bpxp.errors import BackendNotUsableError, DerivationError

Values = dict[str, Any]


class EquationCheck(NamedTuple):
    """What was found for one equation.

    Attributes
    ----------
    line : str
    worst : float
        Largest error, in units of the largest entry.
    of : str
        Whose equation it is, in a report about several things.
    """

    line: str
    worst: float
    of: str = ""


class DerivationReport(NamedTuple):
    """Result of `check_equations`; as text it is a table.

    Attributes
    ----------
    checks : tuple of EquationCheck
        One row for each equation whose left side the code computes.
    unchecked : tuple of str
        What has no equations, or takes no input that is small enough for loops.
    """

    checks: tuple[EquationCheck, ...]
    unchecked: tuple[str, ...] = ()

    @property
    def worst(self) -> float:
        """The largest error of all."""
        return max((check.worst for check in self.checks), default=0.0)

    def __str__(self) -> str:
        rows: list[tuple[str, ...]] = []
        last = ""
        for check in self.checks:
            rows.append((check.of if check.of != last else "", check.line, f"{check.worst:.1e}"))
            last = check.of
        if not last:
            rows = [row[1:] for row in rows]
        lines = [*([table(rows)] if rows else []), *(f"not checked: {name}" for name in self.unchecked)]
        return "\n".join(lines)


class Comparison:
    """A thing and its equations: the values that the loops start from, and what was found so far.

    A name that neither `given` nor the code explains is a hyper-parameter, an attribute of the thing.
    """

    def __init__(self, thing: Any, given: Mapping[str, Any], backend: Any, seed: int, rtol: float) -> None:
        self.thing, self.given, self.rtol, self.seed = thing, dict(given), rtol, seed
        self.backend = get_backend(backend)
        if not has_float64(self.backend):
            what, got = "the backend has no float64", label(self.backend)
            raise BackendNotUsableError("check_equations", what, code="E012", got=got, fix="backend='numpy'")
        self.xp = self.backend.xp
        self.rng = HostRandom(seed, (DIRECTION,))
        self.found: dict[tuple[str, str], float] = {}

    def put(self, a: Any) -> Any:
        """Return an array on the backend."""
        return self.backend.asarray(np.array(a, dtype=np.float64))

    def host(self, a: Any) -> np.ndarray:
        """Return a copy on the host."""
        return np.array(a if isinstance(a, np.ndarray) else self.backend.to_numpy(a))

    def normal(self, place: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return normal random numbers."""
        drawn: np.ndarray = self.rng.at(place).normal(shape)
        return drawn

    def derive(self, equations: Equations, given: Values) -> dict[str, np.ndarray]:
        """Run equations on what is given, and on the hyper-parameters of the thing."""
        known, needed = {**self._attributes(equations), **given, **self.given}, axes_of(equations)
        return evaluate(equations, {name: a for name, a in known.items() if name in needed})

    def compare(
        self, equations: Equations, given: Values, results: Values, samples: Iterable[str] = (), of: str = ""
    ) -> None:
        """Run equations on what is given, and compare the results of the code, by their names there, with theirs.

        In the arrays (batch, …) that `samples` names axes of length 1 may stand after the first.
        """
        axes = axes_of(equations)
        targets = {equation.target.name for equation in equations.values()}
        if missing := [name for name in results if name not in targets]:
            what = f"no equation says what {', '.join(missing)} is"
            raise DerivationError(type(self.thing).__name__, what, code="E084")

        def fitted(name: str, a: Any) -> np.ndarray:
            return as_rows(a, axes[name], name in samples)

        known = {name: fitted(name, a) for name, a in {**given, **self.given}.items() if name in axes}
        found = {name: fitted(name, self.host(a)) for name, a in results.items()}
        known = {**self._attributes(equations), **known}
        derived = evaluate(equations, known, shapes={name: a.shape for name, a in found.items()})
        for part, equation in equations.items():
            name = equation.target.name
            if name in found:
                self.expect(part, equation.text, found[name], derived[name], of)

    def expect(self, part: str, line: str, code: np.ndarray, loops: np.ndarray, of: str = "") -> None:
        """Record the error of the code, and raise if it is too large."""
        where = f"{type(self.thing).__name__}, {part}: {line!r}"
        error = np.abs(code - loops) / (np.max(np.abs(loops), initial=0.0) or 1.0)
        wrong = ~(error <= self.rtol)  # NaN is wrong, too
        if np.any(wrong):
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            got, expected = f"{code[place].item()!r} by the code", f"{loops[place].item()!r} by the equation"
            first = f"First at {list(place)}, {np.count_nonzero(wrong)} of {wrong.size} entries"
            what = "the code computes something else"
            raise DerivationError(where, what, code="E081", got=got, expected=expected, first=first)
        self.found[of, line] = max(self.found.get((of, line), 0.0), float(np.max(error, initial=0.0)))

    def report(self) -> DerivationReport:
        """Return what was found."""
        return DerivationReport(tuple(EquationCheck(line, worst, of) for (of, line), worst in self.found.items()))

    def _attributes(self, equations: Equations) -> Values:
        """Return the hyper-parameters that equations name; None, an option that is off, is infinite."""
        computed = {equation.target.name for equation in equations.values()}
        names = [name for name in axes_of(equations) if name not in computed and hasattr(self.thing, name)]
        values = {name: getattr(self.thing, name) for name in names}
        numeric = {name: a for name, a in values.items() if a is None or isinstance(a, (int, float, tuple))}
        return {name: math.inf if value is None else value for name, value in numeric.items()}


def slot_names(equations: Mapping[str, Equation]) -> list[str]:
    """Return the names of an optimizer's slots, in the order of its equations: primed, and not p'."""
    names = [equation.target.name for equation in equations.values()]
    return [name for name in names if name.endswith("'") and name != "p'"]


def axes_of(equations: Equations) -> dict[str, int]:
    """Return each name that occurs, and how many indices it has."""
    axes = {equation.target.name: len(equation.target.indices) for equation in equations.values()}
    for equation in equations.values():
        axes |= {reference.name: len(reference.indices) for reference in references(equation.value)}
    return axes


def as_rows(a: Any, axes: int, sample: bool) -> np.ndarray:
    """Return an array with as many axes as its equation has indices.

    Where there are more, the leading ones become one; where a sample has fewer, axes of length 1 stand before its own.
    """
    array: np.ndarray = np.asarray(a)
    if 0 < axes < array.ndim:
        return array.reshape(-1, *array.shape[array.ndim - axes + 1 :])
    if sample and 0 < array.ndim < axes:
        return array.reshape(array.shape[0], *(1,) * (axes - array.ndim), *array.shape[1:])
    return array
