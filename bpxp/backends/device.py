"""The device of a backend as the current one of the thread, where operators compute on that one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from bpxp.backends.base import option

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T", bound=type)


def here(backend: Any) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which the arrays of a backend can be computed with; afterwards the device is as before."""
    own = option(backend, "here")
    return contextlib.nullcontext() if own is None else own()


def on_its_device(function: F) -> F:
    """Let a function whose first argument has a backend compute on its device."""

    @functools.wraps(function)
    def there(first: Any, *args: Any, **kwargs: Any) -> Any:
        own = getattr(getattr(first, "backend", None), "here", None)
        if own is None:
            return function(first, *args, **kwargs)
        with own():
            return function(first, *args, **kwargs)

    return there  # type: ignore[return-value]


def methods_on_its_device(cls: T) -> T:
    """Let the public methods of a class whose objects have a backend compute on its device."""
    for name, member in list(vars(cls).items()):
        if callable(member) and not name.startswith("_") and not isinstance(member, (staticmethod, classmethod)):
            setattr(cls, name, on_its_device(member))
    return cls
