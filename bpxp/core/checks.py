"""Validation of hyper-parameters: a wrong one raises where it is written, and the message has the fix."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from bpxp.core.aliases import meant
from bpxp.core.memory import host_memory
from bpxp.errors import InvalidTypeError, InvalidValueError, ParameterMemoryError

if TYPE_CHECKING:
    from pathlib import Path

PLENTY = 1 << 26  # bytes that are assumed to be free
T = TypeVar("T")


def positive_int(value: Any, where: str) -> int:
    """Return `value` as an int >= 1; floats, bools and strings are refused."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidTypeError(
            where, "not an int", code="E001", got=f"{type(value).__name__} {value!r}", expected="an int >= 1"
        )
    if value < 1:
        raise InvalidValueError(where, "must be >= 1", code="E002", got=str(value))
    return int(value)


def number(
    value: Any,
    where: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    low_open: bool = False,
    high_open: bool = False,
) -> float:
    """Return `value` as a finite float within the bounds (closed, unless said otherwise).

    Raises
    ------
    InvalidTypeError
        If it is not a real number (a bool, a string, an array).
    InvalidValueError
        If it is NaN, infinite or out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidTypeError(
            where, "not a number", code="E001", got=f"{type(value).__name__} {value!r}", expected="a number"
        )
    try:
        x = float(value)
    except OverflowError:  # an int beyond all floats
        x = math.inf if value > 0 else -math.inf  # type: ignore[operator]
    below = x <= low if low_open else x < low
    above = x >= high if high_open else x > high
    if not math.isfinite(x) or below or above:
        raise InvalidValueError(
            where, "out of range", code="E002", got=repr(x), expected=_range(low, high, low_open, high_open)
        )
    return x


def _range(low: float, high: float, low_open: bool, high_open: bool) -> str:
    if math.isinf(high):
        return "a finite number" + ("" if math.isinf(low) else f" {'>' if low_open else '>='} {low:g}")
    return f"a number in {'(' if low_open else '['}{low:g}, {high:g}{')' if high_open else ']'}"


def set_numbers(thing: Any, *names: str, **bounds: Any) -> None:
    """Validate fields of a frozen dataclass, and keep each as a Python float, which widens no array."""
    for name in names:
        set_field(thing, name, number(getattr(thing, name), f"{type(thing).__name__}({name}=…)", **bounds))


def set_counts(thing: Any, *names: str) -> None:
    """Validate fields of a frozen dataclass that are ints >= 1."""
    for name in names:
        set_field(thing, name, positive_int(getattr(thing, name), f"{type(thing).__name__}({name}=…)"))


def set_field(thing: Any, name: str, value: Any) -> None:
    """Write a field of a frozen dataclass, in its `__post_init__`."""
    object.__setattr__(thing, name, value)


def as_path(value: Any, where: str) -> Path:
    """Return `value` as a path, with ``~`` as the home folder.

    Only a str or a Path is accepted: an int would be a file descriptor.
    """
    text = os.fspath(value) if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(text, str):
        raise InvalidTypeError(where, "not a path", code="E001", got=type(value).__name__, expected="a str or a Path")
    if not text or "\0" in text:
        what = "a path with a null character" if text else "an empty path"
        raise InvalidValueError(where, what, code="E068", got=repr(text), expected="the name of a file or a folder")
    from pathlib import Path  # with urllib behind it: at first use

    path = Path(os.path.expanduser(text))
    return path.absolute() if str(path).startswith("~") else path  # a file of that name, "./~": it stays one


def resolve(value: Any, kind: type[Any], table: Mapping[str, T], where: str, *, fix: str) -> T:
    """Return the object that a name stands for, or the object itself.

    Raises
    ------
    InvalidValueError
        Unknown name; the message lists the known ones, and the nearest.
    InvalidTypeError
        Neither a name nor of this kind.
    """
    if isinstance(value, kind) and not isinstance(value, type):
        found: T = value
        try:
            hash(found)
        except TypeError as error:
            what, got = "hyper-parameters that can change", f"{type(value).__name__} ({error})"
            fix = f"@dataclass(frozen=True) for {type(value).__name__}, with numbers, strings and tuples as fields"
            raise InvalidTypeError(where, what, code="E004", got=got, fix=fix) from None
        return found
    if not isinstance(value, str):
        what = f"neither a name nor {'an' if kind.__name__[0] in 'AEIOU' else 'a'} {kind.__name__}"
        raise InvalidTypeError(where, what, code="E004", got=f"{type(value).__name__} {value!r}", fix=fix)
    if value not in table:
        known, nearest = f"one of {', '.join(table)}", meant(value, table, kind.__name__)
        raise InvalidValueError(where, "unknown name", code="E003", got=repr(value), expected=known, first=nearest)
    return table[value]


def one_of(value: Any, allowed: tuple[str, ...], where: str) -> None:
    """Raise unless `value` is one of the words allowed."""
    if value not in allowed:
        expected = " or ".join(map(repr, allowed))
        raise InvalidValueError(where, "unknown", code="E003", got=repr(value), expected=expected)


def fits_in_memory(parameters: int, where: str) -> None:
    """Raise before drawing more float64 parameters than this machine has free memory for."""
    if 8 * parameters < PLENTY:  # asking the system takes longer than drawing so few
        return
    memory = host_memory()
    if memory is not None and 8 * parameters > memory.free:
        needed, free = (f"{(n + (1 << 29)) >> 30:,} GiB" for n in (8 * parameters, memory.free))
        raise ParameterMemoryError(where, f"needs {needed} of parameters, {free} available", code="E011")
