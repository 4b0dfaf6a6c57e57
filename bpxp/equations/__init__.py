"""The notation of equations: read it, print it as LaTeX, run it as loops."""

from bpxp.equations.notation import Equation, Equations, parse

__all__ = ["Equation", "Equations", "parse"]
