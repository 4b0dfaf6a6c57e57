"""Early stopping: end when a column of the history no longer improves."""

from __future__ import annotations

from typing import Any

from bpxp.callbacks.monitor import Best, sign_of, validate_mode
from bpxp.core.aliases import named_arguments
from bpxp.core.checks import number, positive_int
from bpxp.core.tree import tree_map
from bpxp.network.parameters import own
from bpxp.saving.network import adopt, tensors_of
from bpxp.training.callback import Callback, Fit


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
        Whether less or more is better. Default: as the metric says, see `bpxp.metrics.Metric`.
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
        self.monitor, self.restore_best = monitor, restore_best
        self.mode = validate_mode(mode, "EarlyStopping")
        self.patience = positive_int(patience, "EarlyStopping(patience=…)")
        self.min_delta = number(min_delta, "EarlyStopping(min_delta=…)", low=0.0)
        self.best_epoch: int | None = None
        self._kept: Any = None

    def on_setup(self, trainer: Fit) -> None:
        self._best = Best(self.monitor, sign_of(trainer, self, self.monitor, self.mode), self.min_delta)

    def on_fit_begin(self, trainer: Fit) -> None:
        self._waited, self._kept = 0, None
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
