"""Early stopping: end when a column of the history no longer improves."""

from __future__ import annotations

import math
from typing import Any

from bpxp.core.aliases import meant, named_arguments
from bpxp.core.checks import number, positive_int
from bpxp.core.tree import tree_map
from bpxp.errors import InvalidValueError
from bpxp.network.parameters import own
from bpxp.saving.network import adopt, tensors_of
from bpxp.training.callback import Callback, Fit


class Best:
    """Whether a watched column has improved: what is not finite never does."""

    def __init__(self, monitor: str, mode: str | None, min_delta: float) -> None:
        self.monitor = monitor
        if mode not in (None, "min", "max"):
            raise InvalidValueError("mode", "unknown", code="E003", got=repr(mode), expected="'min' or 'max'")
        self.sign = -1.0 if (mode or ("min" if "loss" in monitor else "max")) == "max" else 1.0
        self.min_delta = min_delta
        self.value = math.inf

    def improved(self, row: dict[str, Any]) -> bool:
        if self.monitor not in row:
            got, expected = repr(self.monitor), f"one of {', '.join(row)}"
            fix, after = "fit(…, validation=…) for the validation columns", "The network is as it was after this epoch"
            first = meant(self.monitor, row, "column")
            raise InvalidValueError(
                "monitor", "no such column", code="E054", got=got, expected=expected, first=first, fix=fix, after=after
            )
        value = self.sign * float(row[self.monitor])
        if not math.isfinite(value) or not value < self.value - self.min_delta:
            return False
        self.value = value
        return True

    def state(self) -> dict[str, Any]:
        return {"best": self.value if math.isfinite(self.value) else None}

    def resume(self, state: dict[str, Any]) -> None:
        self.value = math.inf if state["best"] is None else float(state["best"])


class EarlyStopping(Callback):
    """Stop when a column has not improved for `patience` epochs; the best parameters come back.

    Parameters
    ----------
    monitor : str, optional
        Column of the history.
    patience : int, optional
        The fit stops after this many epochs without improvement.
    min_delta : float, optional
        What counts as an improvement.
    mode : {"min", "max"}, optional
        By default ``"min"`` for a loss, ``"max"`` otherwise.
    restore_best : bool, optional
        Put the parameters of the best epoch, and its running statistics, into the network at the end.

    Attributes
    ----------
    best_epoch : int or None
        The epoch whose parameters were best.
    """

    @named_arguments
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
        self._kept: Any = None

    def on_fit_begin(self, trainer: Fit) -> None:
        self._best, self._waited, self._kept = Best(self.monitor, self.mode, self.min_delta), 0, None
        self.best_epoch = None

    def on_epoch_end(self, trainer: Fit, row: dict[str, Any]) -> None:
        if self._best.improved(row):
            self._waited, self.best_epoch = 0, row["epoch"]
            if self.restore_best:
                xp = trainer.net.xp
                self._kept = tree_map(lambda a: xp.asarray(a, copy=True), (trainer.net.params, trainer.net.stats))
            return
        self._waited += 1
        if self._waited >= self.patience:
            trainer.stop = f"{self.monitor} has not improved for {self.patience} epochs (best: {self.best_epoch})"

    def on_fit_end(self, trainer: Fit) -> None:
        if self._kept is not None:
            trainer.net.params, trainer.net.stats = self._kept
            self._kept = None

    def state(self, trainer: Fit) -> dict[str, Any]:
        kept = {} if self._kept is None else dict(tensors_of(*self._kept))
        arrays = {name: trainer.net.backend.to_numpy(a) for name, a in kept.items()}
        return {**self._best.state(), "waited": self._waited, "best_epoch": self.best_epoch, **arrays}

    def resume(self, trainer: Fit, state: dict[str, Any]) -> None:
        net = trainer.net
        self._best.resume(state)
        self._waited, best = int(state["waited"]), state["best_epoch"]
        self.best_epoch = None if best is None else int(best)
        if self.restore_best and self.best_epoch is not None:
            found = dict(state)
            kept = adopt(net.params, found, "params"), adopt(net.stats, found, "stats")
            self._kept = tree_map(lambda a: own(a, net.backend, net.dtype), kept)
