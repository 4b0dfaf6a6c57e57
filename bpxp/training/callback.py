"""The moments of a fit at which a callback is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from bpxp.errors import InvalidTypeError

if TYPE_CHECKING:
    from bpxp.training.trainer import Trainer


class Callback:
    """Base of the callbacks: every moment does nothing.

    A callback overrides the moments that it cares for. It reads the trainer, and may set ``trainer.stop`` to a reason.

    Attributes
    ----------
    steps : int or None
        Ask for a pause after so many steps.
    failure : Exception or None
        What the callback could not do: the fit goes on, and raises it at its end.
    """

    steps: int | None = None
    failure: Exception | None = None

    def on_fit_begin(self, trainer: Trainer) -> None:
        """Before the first epoch."""

    def on_batches(self, trainer: Trainer, done: int, total: int) -> None:
        """After some mini-batches of an epoch; `done` of `total` are done."""

    def on_epoch_end(self, trainer: Trainer, row: dict[str, Any]) -> None:
        """After the evaluation; `row` is the new row of the history, and the network holds what was evaluated."""

    def on_pause(self, trainer: Trainer, why: str) -> None:
        """Where the run could go on from at another time: callbacks have seen the epochs that are done, and no more.

        Parameters
        ----------
        trainer : Trainer
        why : {"epoch", "steps", "interrupt", "error"}
            At the end of an epoch, where a callback has asked for it, or before an interrupted fit ends; `Checkpoint`
            alone is called before the error of another callback ends it.
        """

    def on_fit_end(self, trainer: Trainer) -> None:
        """After the last epoch, also if the fit was stopped or failed."""

    def state(self, trainer: Trainer) -> dict[str, Any]:
        """Return what a checkpoint must hold of this callback: JSON values and NumPy arrays, by name."""
        return {}

    def resume(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, after `on_fit_begin`."""


def checked_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    """Return them as a list, if that is what they are: each an object, and not the class of one."""
    found: list[Any] = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    wrong = [c for c in found if not isinstance(c, Callback)]
    if wrong or found == [callbacks]:
        thing = (wrong or found)[0]
        raise InvalidTypeError(
            "Trainer(callbacks=…)",
            "not a list of callbacks",
            code="E004",
            got=f"the class {thing.__name__}" if isinstance(thing, type) else type(thing).__name__,
            fix="callbacks=[bpxp.callbacks.Checkpoint('run.bpxp')]",
        )
    return found
