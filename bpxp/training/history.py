"""What happened during a fit: one row of numbers per epoch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

from bpxp.core.aliases import meant
from bpxp.core.text import table
from bpxp.errors import NoSuchColumnError


class History:
    """The rows of a fit, read by column or by row.

    Columns are ``epoch``, ``loss`` (mean over the epoch, measured while training, before each update),
    ``train_…`` and ``validation_…`` (after the epoch), ``learning_rate`` and ``seconds``.

    Examples
    --------
    >>> history = History()
    >>> history.append({"epoch": 1, "loss": 0.5})
    >>> history["loss"], history[-1], len(history)
    ([0.5], {'epoch': 1, 'loss': 0.5}, 1)
    >>> "loss" in history, dict(history)
    (True, {'epoch': [1], 'loss': [0.5]})
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self.rows = [dict(row) for row in rows]

    def append(self, row: dict[str, Any]) -> None:
        """Add an epoch."""
        self.rows.append(row)

    def __getitem__(self, key: str | SupportsIndex | slice) -> Any:
        if isinstance(key, slice):
            return History(self.rows[key])
        if hasattr(key, "__index__"):
            return self.rows[key]
        if key not in self.columns:
            what = f"the columns are {', '.join(self.columns) or 'none yet'}"
            first = meant(str(key), self.columns, "column")
            raise NoSuchColumnError(f"history[{key!r}]", what, code="E054", first=first)
        return [row.get(key, math.nan) for row in self.rows]

    def __contains__(self, key: object) -> bool:
        return key in self.columns or key in self.rows

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    def keys(self) -> list[str]:
        """Return the names of the columns: ``dict(history)`` is a dict of columns, ``list(history)`` the rows."""
        return self.columns

    def values(self) -> list[list[Any]]:
        """Return the columns."""
        return [self[name] for name in self.columns]

    def items(self) -> list[tuple[str, list[Any]]]:
        """Return names and columns."""
        return list(zip(self.columns, self.values(), strict=True))

    @property
    def history(self) -> dict[str, list[Any]]:
        """The columns by name, as Keras has them."""
        return dict(self.items())

    def __repr__(self) -> str:
        if not self.rows:
            return "<History of 0 epochs>"
        return table(
            [self.columns, *([_cell(row.get(c, math.nan)) for c in self.columns] for row in self.rows)], numbers=True
        )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flat(found: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return metrics with prefixed names; a metric with several values becomes several columns."""
    row: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict):
            row.update(flat(value, f"{prefix}{name}_"))
        else:
            row[f"{prefix}{name}"] = value
    return row
