"""Equations of a layer, an activation, a loss, an optimizer or a schedule: lines in index notation, as data.

The lines are written beside the code that computes them fast. `bpxp.verify` runs them as slow loops and compares,
`bpxp.equations.latex` prints them: page and program cannot drift apart. The notation is in `bpxp.equations.notation`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bpxp.equations.notation import Equation, Node


class Equations(Mapping[str, "Equation"]):
    """The equations of one thing, in the order in which they can be computed.

    Parameters
    ----------
    ranges : str, optional
        Of indices that stand alone in no array, ``"i < kernel[0], j < kernel[1]"``: from 0 on.
    **lines : str
        A name for each equation, and the equation. They are read when first asked for.

    Raises
    ------
    EquationError
        When asked for, if a line is not in the notation.

    Examples
    --------
    >>> lines = Equations(forward="z[n,j] = sum_i x[n,i]*W[i,j] + b[j]")
    >>> lines["forward"].target.name
    'z'
    """

    def __init__(self, *, ranges: str = "", **lines: str) -> None:
        self.lines = {name: " ".join(line.split()) for name, line in lines.items()}
        self._ranges = ranges
        self._owner = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._owner = f"{owner.__name__}."

    @functools.cached_property
    def ranges(self) -> dict[str, Node]:
        """The number of values of each declared index."""
        from bpxp.equations.notation import parse_ranges

        return parse_ranges(self._ranges, f"{self._owner}equations, ranges")

    @functools.cached_property
    def _parsed(self) -> dict[str, Equation]:
        from bpxp.equations.notation import parse  # at first use: the layers, losses, … all state their equations

        return {name: parse(line, f"{self._owner}equations, {name}") for name, line in self.lines.items()}

    def __getitem__(self, name: str) -> Equation:
        return self._parsed[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines)

    def __len__(self) -> int:
        return len(self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines.values())

    def __repr__(self) -> str:
        return f"Equations({', '.join(f'{name}={line!r}' for name, line in self.lines.items())})"
