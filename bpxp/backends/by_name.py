"""Pickling by name: a library, its devices and what is captured there belong to a process, and another has its own."""

from __future__ import annotations

from typing import Any

from bpxp.backends.names import get_backend
from bpxp.backends.precision import label


class ByName:
    """A backend that is pickled, and copied, by its name."""

    def __copy__(self) -> Any:
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        return get_backend, (label(self),)  # type: ignore[arg-type]
