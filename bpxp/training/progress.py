"""Where the fit is: a bar on a terminal, one plain line per epoch elsewhere."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, TextIO

from bpxp.core.text import is_terminal, report
from bpxp.errors import printable
from bpxp.training.callback import Callback, Fit

GONE = (OSError, ValueError)  # a closed pipe, a full disk, a file that was closed: no reason to end a fit


class Progress(Callback):
    """Show where the fit is: a bar for the whole fit on a terminal, one plain line per epoch elsewhere.

    Parameters
    ----------
    file : text stream, optional
        Default: standard output, if there is one.
    """

    def __init__(self, file: TextIO | None = None) -> None:
        self.file = file
        self._bar: Any = None

    def on_fit_begin(self, trainer: Fit) -> None:
        self._bar = None
        stream = sys.stdout if self.file is None else self.file
        if is_terminal(stream):
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(file=stream), transient=True)
            self._task = self._bar.add_task("", total=None)
            with suppress(*GONE):
                self._bar.start()
        if trainer.resumed_from:
            self._write(f"resumed from {trainer.resumed_from}: {trainer.where}")

    def on_batches(self, trainer: Fit, done: int, total: int) -> None:
        if self._bar is not None:
            first = trainer.run.first
            place = {
                "completed": (trainer.net.epoch - first) * total + done,
                "total": (trainer.last_epoch - first) * total,
            }
            self._bar.update(self._task, **place, description=f"epoch {trainer.net.epoch + 1}/{trainer.last_epoch}")

    def on_epoch_end(self, trainer: Fit, row: dict[str, Any]) -> None:
        self._write(describe(row, trainer.last_epoch))

    def on_fit_end(self, trainer: Fit) -> None:
        if self._bar is not None:
            with suppress(*GONE):
                self._bar.stop()
            self._bar = None
        if trainer.stop:
            self._write(f"stopped: {printable(trainer.stop)}")

    def _write(self, line: str) -> None:
        if self._bar is None:
            report(line, sys.stdout if self.file is None else self.file)
        else:
            with suppress(*GONE):
                self._bar.console.print(printable(line), markup=False, emoji=False, highlight=False, soft_wrap=True)


def describe(row: dict[str, Any], last_epoch: int) -> str:
    """Return a row of the history as one line."""
    epoch = f"epoch {row['epoch']:>{len(str(last_epoch))}}/{last_epoch}"
    numbers = [
        f"{name.replace('_', ' ')} {value:.4f}"
        for name, value in row.items()
        if name not in ("epoch", "seconds", "learning_rate") and isinstance(value, float)
    ]
    return f"{epoch}  {'  '.join(numbers)}  {row['seconds']:.1f} s"
