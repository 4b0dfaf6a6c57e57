"""NumPy's handling of floating-point errors: what ``np.seterr(all="raise")`` asks for must not cut a step in half."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])


def never_raising(function: F) -> F:
    """Make a function compute with warnings where NumPy would raise, and with underflow to zero.

    An exponential that underflows is right, and a step that ends half-way leaves parameters of which some are new.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        raising = [kind for kind, way in np.geterr().items() if way == "raise"]
        if not raising:
            return function(*args, **kwargs)
        ways: dict[str, Any] = {kind: "ignore" if kind == "under" else "warn" for kind in raising}
        with np.errstate(**ways):
            return function(*args, **kwargs)

    return cast(F, call)
