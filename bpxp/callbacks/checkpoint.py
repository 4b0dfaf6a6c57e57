"""Checkpoints: the run, to go on with, or the network at its best; a disk that fails costs a warning, not the fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bpxp.callbacks.monitor import Best, sign_of, validate_mode
from bpxp.core.aliases import named_arguments
from bpxp.core.atomic import check_writable
from bpxp.core.checks import as_path, positive_int
from bpxp.errors import InvalidValueError, warn
from bpxp.training import resume
from bpxp.training.callback import Callback, Fit

EPOCH = "{epoch}"


class Checkpoint(Callback):
    """Save the run after each epoch, so that ``fit(…, resume=path)`` goes on from there, to the same bits.

    Parameters
    ----------
    path : path
        Where to. The file is replaced as a whole: at any time there is a good one. ``{epoch}`` in its name is replaced
        by the number of epochs done, ``3``, and within an epoch by ``3+120``, three epochs and 120 steps.
    steps : int, optional
        Save after every so many steps, too.
    keep : int, optional
        Keep the newest of the files and remove the others; for a path with ``{epoch}``.
    monitor : str, optional
        Column of the history: save the network alone, after each epoch in which that has improved.
    mode : {"min", "max"}, optional
        As in `EarlyStopping`.

    Attributes
    ----------
    saved : Path or None
        The file that was written last.

    Notes
    -----
    Before the first step `fit` tries whether the file can be written and whether there is room for two. If a save
    fails later, there is a warning, the file of before stays as it was, and training goes on; if the last of a fit
    fails, `fit` raises its error at the end. A network with a parameter that is not finite is not saved.

    Also the file of a run can be opened with `Network.load`.
    """

    @named_arguments
    def __init__(
        self,
        path: str | Path,
        *,
        steps: int | None = None,
        keep: int | None = None,
        monitor: str | None = None,
        mode: str | None = None,
    ) -> None:
        path = as_path(path, "Checkpoint(path=…)")
        self.path, self.monitor, self.mode = str(path), monitor, validate_mode(mode, "Checkpoint")
        self.steps = None if steps is None else positive_int(steps, "Checkpoint(steps=…)")
        self.keep = None if keep is None else positive_int(keep, "Checkpoint(keep=…)")
        if steps is not None and monitor is not None:
            what = f"{monitor!r} is known at the end of an epoch"
            raise InvalidValueError("Checkpoint(steps=…)", what, code="E005", got="steps and monitor")
        if EPOCH in str(path.parent) or (keep is not None and EPOCH not in path.name):
            what, fix = f"{EPOCH} belongs into the file's name", "Checkpoint('run-{epoch}.bpxp', keep=3)"
            raise InvalidValueError("Checkpoint(path=…)", what, code="E005", got=repr(self.path), fix=fix)
        self.saves = "run" if monitor is None else "network"
        self._written: list[Path] = []

    def on_setup(self, trainer: Fit) -> None:
        resume.check_network(trainer)
        self._best = None
        if self.monitor is not None:
            self._best = Best(self.monitor, sign_of(trainer, self, self.monitor, self.mode), 0.0)

    def on_fit_begin(self, trainer: Fit) -> None:
        self.failure, self.saved = None, None
        # Of a run that is resumed, what was written before its place; not what an older run left behind.
        found = self._found() if trainer.resumed_from else []
        self._written = [path for place, path in found if place <= self._place(trainer)]
        check_writable(self._path(trainer), 2 * resume.size(trainer.run))

    def on_epoch_end(self, trainer: Fit, row: dict[str, Any]) -> None:
        if self._best is not None and self._best.improved(row):
            self._save(trainer)

    def on_pause(self, trainer: Fit, why: str) -> None:
        if self._best is not None:
            return
        if why != "steps" or (self.steps is not None and trainer.run.steps % self.steps == 0):
            self._save(trainer)

    def state(self, trainer: Fit) -> dict[str, Any]:
        return {} if self._best is None else self._best.state()

    def resume(self, trainer: Fit, state: dict[str, Any]) -> None:
        assert self._best is not None
        self._best.resume(state)

    def newest(self) -> Path | None:
        """Return the file to resume from, if there is one."""
        found = [] if self.monitor is not None else self._found()
        return max(found)[1] if found else None

    def beside(self, word: str) -> Path:
        """Return the path of a file of another kind: ``run.diverged.bpxp`` beside ``run-{epoch}.bpxp``."""
        path = Path(self.path)
        stem = path.stem.replace(EPOCH, "").strip("-_. ") or "run"
        return path.with_name(f"{stem}.{word}{path.suffix}")

    def _save(self, trainer: Fit) -> None:
        path = self._path(trainer)
        try:
            if not resume.save(trainer, path, whole=self._best is None):
                warn("Checkpoint", f"{trainer.where}: a parameter is not finite; {path} is not written", code="W005")
                return
        except OSError as error:
            self.failure = error
            warn("Checkpoint", f"{trainer.where} could not be saved ({error}); training goes on", code="W006")
            return
        self.failure, self.saved = None, path
        if self.keep is not None:
            self._written = [*(old for old in self._written if old != path), path]
            while len(self._written) > self.keep:
                self._written.pop(0).unlink(missing_ok=True)

    @staticmethod
    def _place(trainer: Fit) -> tuple[int, int]:
        return trainer.net.epoch, trainer.run.done

    def _path(self, trainer: Fit) -> Path:
        epoch, done = self._place(trainer)
        return Path(self.path.replace(EPOCH, f"{epoch}+{done}" if done else str(epoch)))

    def _found(self) -> list[tuple[tuple[int, int], Path]]:
        """Return the files of this name that are there, each with the place that it was saved at, in order."""
        whole = Path(self.path)
        pattern = re.compile(re.escape(whole.name).replace(re.escape(EPOCH), r"(\d+)(?:\+(\d+))?"))
        names = [(pattern.fullmatch(path.name), path) for path in whole.parent.glob("*") if path.is_file()]
        places = [(tuple(int(n or 0) for n in (match.groups() or (0, 0))), path) for match, path in names if match]
        return sorted((place[:2], path) for place, path in places)  # type: ignore[misc]
