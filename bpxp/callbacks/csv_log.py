"""The history as a CSV file, row by row."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

from bpxp.core.atomic import regular
from bpxp.core.checks import as_path
from bpxp.training.callback import Callback, Fit


class CSVLog(Callback):
    """Write each row of the history to a CSV file, as soon as it is there.

    Parameters
    ----------
    path : path
        Created, or replaced; a run that is resumed begins with the rows that it has already.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = as_path(path, "CSVLog(path=…)")
        self._file: TextIO | None = None

    def on_fit_begin(self, trainer: Fit) -> None:
        regular(self.path)
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._columns: list[str] = []
        for row in trainer.history:
            self.on_epoch_end(trainer, row)

    def on_epoch_end(self, trainer: Fit, row: dict[str, Any]) -> None:
        assert self._file is not None
        writer = csv.writer(self._file)
        if not self._columns:
            self._columns = list(row)
            writer.writerow(self._columns)
        writer.writerow([row[name] for name in self._columns])
        self._file.flush()

    def on_fit_end(self, trainer: Fit) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
