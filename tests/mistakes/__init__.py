"""Bad input, a row for each way to make a mistake; their numbers group them by the mistake that users make."""

from __future__ import annotations

from mistakes import files, networks, runs, samples
from mistakes.rows import ROWS, Row

__all__ = ["ROWS", "Row", "files", "networks", "runs", "samples"]
