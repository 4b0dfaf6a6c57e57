"""What a row of bad input is: the call, the exception, its code, and what the message has to say.

`c` is what the call may use: a network, data, a folder and pytest's monkeypatch; see test_bad_input.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

NAN, INF = float("nan"), float("inf")
ROWS: list[Row] = []


@dataclass(frozen=True)
class Row:
    """One mistake: `call` makes it, or returns the bad x or y, with which `kind` says what to do."""

    number: int
    name: str
    call: Callable[..., Any]
    error: type[BaseException] | None
    code: str
    parts: tuple[str, ...]
    kind: str


def row(number: int, error: type[BaseException] | None, code: str, *parts: str, kind: str = "once") -> Any:
    """Add the function that follows: it is called once, or on each backend (`kind`)."""

    def add(call: Callable[..., Any]) -> Callable[..., Any]:
        ROWS.append(Row(number, call.__name__.lstrip("_"), call, error, code, parts, kind))
        return call

    return add


def bad(kind: str, number: int, name: str, value: Any, error: type[BaseException], code: str, *parts: str) -> None:
    """Add a bad "x" or "y", or what makes it, with which every method of a network is called."""
    ROWS.append(Row(number, name, value if callable(value) else lambda: value, error, code, parts, kind))


def ones(*shape: int, put: dict[Any, float] | None = None) -> np.ndarray:
    a = np.ones(shape)
    for index, value in (put or {}).items():
        a[index] = value
    return a


def named(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = name
    return call
