"""Where the fit is: a bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import sys
from typing import Any, TextIO

from bpxp.training.callback import Callback, Fit


class Progress(Callback):
    """Show where the fit is: a bar on a terminal, one plain line per epoch elsewhere.

    Parameters
    ----------
    file : text stream, optional
        Default: standard output.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file
        self._file: TextIO = file or sys.stdout
        self._bar: Any = None

    def on_fit_begin(self, trainer: Fit) -> None:
        self._file = self.file or sys.stdout
        if self._file.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(file=self._file), transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        if trainer.resumed_from:
            self._write(f"resumed from {trainer.resumed_from}: {trainer.where}")

    def on_batches(self, trainer: Fit, done: int, total: int) -> None:
        if self._bar is not None:
            name = f"epoch {trainer.net.epoch + 1}"
            self._bar.update(self._task, completed=done, total=total, description=name)

    def on_epoch_end(self, trainer: Fit, row: dict[str, Any]) -> None:
        self._write(describe(row, trainer.last_epoch))

    def on_fit_end(self, trainer: Fit) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if trainer.stop:
            self._write(f"stopped: {trainer.stop}")

    def _write(self, line: str) -> None:
        if self._bar is not None:
            self._bar.console.print(line, highlight=False, soft_wrap=True)
        else:
            print(line, file=self._file, flush=True)


def describe(row: dict[str, Any], last_epoch: int) -> str:
    """Return a row of the history as one line."""
    epoch = f"epoch {row['epoch']:>{len(str(last_epoch))}}/{last_epoch}"
    numbers = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in row.items()
        if name not in ("epoch", "seconds", "learning_rate") and isinstance(value, float)
    ]
    return f"{epoch}  {'  '.join(numbers)}  {row['seconds']:.1f} s"
