"""The notation of equations: read it, print it as LaTeX, run it as loops."""

from typing import Any

from bpxp.equations.equations import Equations

__all__ = ["Equation", "Equations", "parse"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # the parser comes at first use: training needs none of it
        from bpxp.equations import notation

        return getattr(notation, name)
    raise AttributeError(f"module 'bpxp.equations' has no attribute {name!r}")
