"""Copies of a backend: it has no state, so that a deep copy is the same object, and a pickle is its name."""

from __future__ import annotations

import importlib
from typing import Any, Self

from bpxp.backends.base import Backend
from bpxp.backends.precision import label


class Named:
    """A backend that `get_backend` returns for its name."""

    def __copy__(self) -> Self:
        own = object.__new__(type(self))
        vars(own).update(vars(self))
        return own

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        name = label(self)  # type: ignore[arg-type]
        if type(self).__module__.startswith("bpxp."):
            return named, (name,)
        own: Any = object.__reduce_ex__(self, 4)  # a subclass of the user's
        return own  # type: ignore[no-any-return]


def named(name: str) -> Backend:
    """Return the backend of that name."""
    names = importlib.import_module("bpxp.backends.names")  # which imports each backend
    backend: Backend = names.get_backend(name)
    return backend
