"""Text tables."""

from __future__ import annotations

from collections.abc import Sequence


def table(rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    """Return rows of cells as lines with aligned columns: to the right for numbers, else to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    align = str.rjust if numbers else str.ljust
    return "\n".join("  ".join(map(align, row, widths)).rstrip() for row in rows)
