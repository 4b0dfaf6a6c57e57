"""Columns of a data frame: their names, numbers in each, and the order in which a network was trained on them."""

from __future__ import annotations

from typing import Any

import numpy as np

from bpxp.errors import InvalidTypeError, InvalidValueError

Names = tuple[str | int, ...]
LONGEST = 1 << 16  # characters of all names: the header of a file holds them


def column_names(frame: Any) -> Names:
    """Return the names of a data frame's columns, if each is a str or an int.

    () without them, if they only count (0, 1, … in pandas, column_0, … in polars), and if they are too long for a file.
    """
    if not hasattr(frame, "columns"):
        return ()
    names = tuple(getattr(frame, "column_names", frame.columns))  # pyarrow has the names apart
    plain = tuple(int(name) if isinstance(name, np.integer) else name for name in names)
    counted = tuple(range(len(plain))), tuple(f"column_{i}" for i in range(len(plain)))
    if plain in counted or not all(isinstance(name, (str, int)) for name in plain):
        return ()
    return plain if sum(len(str(name)) + 8 for name in plain) < LONGEST else ()


def check_columns(frame: Any, where: str) -> None:
    """Raise for a column that does not hold numbers."""
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        text = str(dtype).lower()
        if not any(word in text for word in ("int", "float", "bool", "double", "decimal")):
            drop = f"columns=[{name!r}]" if hasattr(frame, "iloc") else repr(name)  # pandas, or polars
            what, fix = f"column {name!r} is not numeric", f"x.drop({drop}), or encode it"
            raise InvalidTypeError(where, what, code="E031", got=f"dtype {dtype}", expected="numbers", fix=fix)


def order_of(names: Names, trained: Names, where: str) -> list[int] | None:
    """Return where in `names` the columns of training are; None where they stand in its order, or nothing is known."""
    if not names or not trained or names == trained:
        return None
    unknown, missing = _others(names, trained), _others(trained, names)
    if not missing and len(set(names)) == len(names) == len(trained):
        return [names.index(name) for name in trained]
    if len(names) == len(trained) or not missing:
        what = "not the columns that the network was trained on"
        got = f"{_some(unknown)}" if unknown else f"{len(names)} columns, some of them twice"
        expected = _some(missing or trained)
        fix = (
            "x[list(net.spec.inputs.features)]" if not missing else "name the columns as in training, or pass an array"
        )
        raise InvalidValueError(where, what, code="E036", got=got, expected=expected, fix=fix)
    return None  # the check of the shape says how many are too few, or too many


def _others(names: Names, known: Names) -> Names:
    those = set(known)
    return tuple(name for name in names if name not in those)


def _some(names: Names) -> str:
    return ", ".join(map(repr, names[:3])) + (f", … ({len(names)} columns)" if len(names) > 3 else "")
