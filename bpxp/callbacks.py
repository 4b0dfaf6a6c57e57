"""What a user may hang into a fit: early stopping, checkpoints, a log, progress.

A callback overrides the moments that it cares for. It reads the trainer, and may set ``trainer.stop`` to a reason.
"""

from __future__ import annotations

import csv
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from bpxp.errors import InvalidValueError, message
from bpxp.nn.checks import number, positive_int
from bpxp.tree import tree_map

if TYPE_CHECKING:
    from bpxp.trainer import Trainer


class Callback:
    """Base of the callbacks: every moment does nothing."""

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_batches(self, trainer: Trainer, done: int, total: int) -> None:
        """After some mini-batches of an epoch; `done` of `total` are done."""

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After the evaluation; `row` is the new row of the history, and the network holds what was evaluated."""

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, also if the fit was stopped or failed."""


class _Best:
    """Whether a watched column has improved: NaN never does."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float) -> None:
        self.monitor = monitor
        if mode not in (None, "min", "max"):
            raise InvalidValueError(message("mode", "unknown", got=repr(mode), expected="'min' or 'max'"))
        self.sign = -1.0 if (mode or ("min" if "loss" in monitor else "max")) == "max" else 1.0
        self.min_delta = min_delta
        self.value = math.inf

    def improved(self, row: dict[str, Any]) -> bool:
        if self.monitor not in row:
            raise InvalidValueError(
                message(
                    "monitor",
                    "no such column",
                    got=repr(self.monitor),
                    expected=f"one of {', '.join(row)}",
                    fix="fit(…, validation=…) for the validation columns",
                )
            )
        value = self.sign * float(row[self.monitor])
        if not value < self.value - self.min_delta:
            return False
        self.value = value
        return True


class EarlyStopping(Callback):
    """Stop when a column has not improved for `patience` epochs; the best parameters come back.

    Parameters
    ----------
    monitor : str, optional
        Column of the history.
    patience : int, optional
        Epochs without improvement that are borne: the fit stops after the patience-th of them.
    min_delta : float, optional
        What counts as an improvement.
    mode : {"min", "max"}, optional
        By default ``"min"`` for a loss, ``"max"`` otherwise.
    restore_best : bool, optional
        Put the parameters of the best epoch into the network at the end.

    Attributes
    ----------
    best_epoch : int or None
        The epoch whose parameters were best.
    """

    def __init__(
        self,
        monitor: str = "validation_loss",
        *,
        patience: int = 5,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore_best: bool = True,
    ) -> None:
        self.monitor, self.mode, self.restore_best = monitor, mode, restore_best
        self.patience = positive_int(patience, "EarlyStopping(patience=…)")
        self.min_delta = number(min_delta, "EarlyStopping(min_delta=…)", low=0.0)
        self.best_epoch: int | None = None
        self._params: Any = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._best, self._waited, self._params = _Best(self.monitor, self.mode, self.min_delta), 0, None
        self.best_epoch = None

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if self._best.improved(row):
            self._waited, self.best_epoch = 0, row["epoch"]
            if self.restore_best:
                xp = trainer.net.xp
                self._params = tree_map(lambda a: xp.asarray(a, copy=True), trainer.net.params)
            return
        self._waited += 1
        if self._waited >= self.patience:
            trainer.stop = f"{self.monitor} has not improved for {self.patience} epochs (best: {self.best_epoch})"

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._params is not None:
            trainer.net.params = self._params
            self._params = None


class Checkpoint(Callback):
    """Save the network after each epoch, or after each that improves a column.

    Parameters
    ----------
    path : path
        Where to; ``{epoch}`` in it is replaced by the number of the epoch.
    monitor : str or None, optional
        Column of the history; None saves every epoch.
    mode : {"min", "max"}, optional
        As in `EarlyStopping`.
    """

    def __init__(self, path: str | Path, *, monitor: str | None = None, mode: str | None = None) -> None:
        self.path, self.monitor, self.mode = str(path), monitor, mode

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._best = None if self.monitor is None else _Best(self.monitor, self.mode, 0.0)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        if self._best is None or self._best.improved(row):
            trainer.net.save(self.path.replace("{epoch}", str(row["epoch"])))


class CSVLog(Callback):
    """Write each row of the history to a CSV file, as soon as it is there.

    Parameters
    ----------
    path : path
        Created, or replaced.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file: TextIO | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._file = self.path.open("w", newline="", encoding="utf-8")
        self._columns: list[str] = []

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        assert self._file is not None
        writer = csv.writer(self._file)
        if not self._columns:
            self._columns = list(row)
            writer.writerow(self._columns)
        writer.writerow([row[name] for name in self._columns])
        self._file.flush()

    def on_fit_end(self, trainer: Trainer) -> None:
        if self._file is not None:
            self._file.close()


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

    def on_fit_begin(self, trainer: Trainer) -> None:
        self._file = self.file or sys.stdout
        if self._file.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Bar(*columns, console=Console(file=self._file), transient=True)
            self._task = self._bar.add_task("", total=None)
            self._bar.start()

    def on_batches(self, trainer: Trainer, done: int, total: int) -> None:
        if self._bar is not None:
            name = f"epoch {trainer.net.epoch + 1}"
            self._bar.update(self._task, completed=done, total=total, description=name)

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        self._write(describe(row, trainer.last_epoch))

    def on_fit_end(self, trainer: Trainer) -> None:
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
