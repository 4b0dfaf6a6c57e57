"""The protocol of a callback: the moments of a fit at which it is called, and what it may read of the fit."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from bpxp.core.checks import positive_int
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.network.network import Network
from bpxp.training.columns import Columns
from bpxp.training.history import History
from bpxp.training.run import FitProgress

if TYPE_CHECKING:
    from pathlib import Path

SAVING = "callbacks=[bpxp.callbacks.Checkpoint('run.bpxp')]"


class Fit(Protocol):
    """What a callback is given: the trainer, as far as it may be read; `stop` and arrays of `net` may be set.

    Attributes
    ----------
    net : Network
    history : History
        Of the fit, with the rows of the epochs that are done.
    run : FitProgress
        The state, the epoch and the place there. `run.state` is a snapshot.
    callbacks : list of Callback
    stop : str
        Why the fit ends before its last epoch; a callback sets it to the reason.
    last_epoch : int
        The number of epochs after which the fit ends.
    columns : Columns
        The columns that the history will have, and which way each gets better.
    resumed_from : str
        The file that the fit goes on from; empty for a new one.
    where : str
        ``"epoch 7, step 340 of 938"``.
    """

    net: Network
    history: History
    run: FitProgress
    callbacks: list[Callback]
    stop: str
    last_epoch: int
    columns: Columns
    resumed_from: str

    @property
    def where(self) -> str: ...


@runtime_checkable
class Callback(Protocol):
    """The protocol of a callback, and the base of those that exist: each moment does nothing.

    A callback inherits from this class and overrides the moments that it needs. It may read the trainer, see
    `bpxp.training.callback.Fit`, and set ``trainer.stop`` to a reason. What it assigns to ``trainer.net.params``,
    ``stats`` or ``opt_state`` counts from the next step on; what it reads there is a snapshot. Another optimizer or
    network is refused.

    Attributes
    ----------
    steps : int or None
        Ask for a pause after every so many steps.
    failure : Exception or None
        What the callback could not do: the fit goes on, and raises it at its end.
    saves : {"", "run", "network"}
        What it writes to a file: the run, in `on_pause`, for ``fit(resume=…)``; the network alone; or neither.
    saved : Path or None
        The file that was written last.
    """

    steps: int | None = None
    failure: Exception | None = None
    saves: str = ""
    saved: Path | None = None

    def on_setup(self, trainer: Any) -> None:
        """Before anything begins: raise an error to refuse the fit. A callback without this base may lack it."""
        return

    def on_fit_begin(self, trainer: Any) -> None:
        """Before the first epoch."""
        return

    def on_batches(self, trainer: Any, done: int, total: int) -> None:
        """After some mini-batches of an epoch; `done` of `total` are done."""
        return

    def on_epoch_end(self, trainer: Any, row: dict[str, Any]) -> None:
        """After the evaluation; `row` is the new row of the history, and the network holds what was evaluated."""
        return

    def on_pause(self, trainer: Any, why: str) -> None:
        """Where the run could be resumed: callbacks have seen the epochs that are done, and no more.

        Parameters
        ----------
        trainer : Trainer
        why : {"epoch", "steps", "interrupt", "error"}
            At the end of an epoch, after `steps` steps, or before an interrupted fit ends; before the error of another
            callback ends it only callbacks that save the run are called.
        """
        return

    def on_fit_end(self, trainer: Any) -> None:
        """After the last epoch, also if the fit was stopped or failed."""
        return

    def state(self, trainer: Any) -> dict[str, Any]:
        """Return what a checkpoint must hold of this callback: JSON values and NumPy arrays, by name."""
        return {}

    def resume(self, trainer: Any, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, after `on_fit_begin`."""
        return

    def newest(self) -> Path | None:
        """Return the file to resume from, if the callback has written one."""
        return None

    def beside(self, word: str) -> Path | None:
        """Return the path of a file of another kind, ``run.diverged.bpxp`` beside ``run.bpxp``."""
        return None


def overrides(callback: Callback, moment: str) -> bool:
    """Return whether a callback has a method of its own for a moment."""
    method = getattr(callback, moment)
    return getattr(method, "__func__", method) is not getattr(Callback, moment)


def validate_callbacks(callbacks: Iterable[Callback]) -> list[Callback]:
    """Return callbacks as a list, or raise: each is an object with every member of the protocol."""
    where, fix = "Trainer(callbacks=…)", SAVING
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, (str, bytes)):
        cls = callbacks if isinstance(callbacks, type) else type(callbacks)
        got = f"the class {cls.__name__}" if cls is callbacks else cls.__name__
        fix = f"callbacks=[{cls.__name__}(…)]" if Callback in cls.__mro__ else fix
        raise InvalidTypeError(where, "not a list of callbacks", code="E004", got=got, fix=fix)
    found: list[Any] = list(callbacks)
    for callback in found:
        if isinstance(callback, type):
            got = f"the class {callback.__name__}"
            raise InvalidTypeError(where, "not an object", code="E004", got=got, fix=f"{callback.__name__}(…)")
        lacking = [name for name in MEMBERS if not hasattr(callback, name)]
        if lacking:
            what = "not a list of callbacks" if len(lacking) == len(MEMBERS) else f"it lacks {', '.join(lacking)}"
            got, fix = type(callback).__name__, f"class {type(callback).__name__}(bpxp.callbacks.Callback), or {fix}"
            raise InvalidTypeError(where, what, code="E004", got=got, fix=fix)
        for name in MOMENTS:
            _check_signature(callback, name)
        if unknown := sorted(name for name in dir(callback) if name.startswith("on_") and name not in MOMENTS):
            raise _no_such_moment(type(callback).__name__, unknown[0])
        if callback.steps is not None:
            positive_int(callback.steps, f"Trainer(callbacks=…): steps of {type(callback).__name__}")
    return found


def _check_signature(callback: Any, moment: str) -> None:
    """Raise unless a method takes what a callback is called with at this moment."""
    method = getattr(callback, moment, None)
    given = list(inspect.signature(getattr(Callback, moment)).parameters)[1:]
    try:
        signature = inspect.signature(method) if callable(method) else None
    except (TypeError, ValueError):  # of a function that is not written in Python
        return
    try:
        if signature is not None:
            signature.bind(*given)
    except TypeError as error:
        where, fix = f"{type(callback).__name__}.{moment}", f"def {moment}(self, {', '.join(given)})"
        raise InvalidTypeError(
            where, f"it cannot be called ({error})", code="E004", got=str(signature), fix=fix
        ) from None


def _no_such_moment(kind: str, name: str) -> InvalidValueError:
    """Return the error for a method that would never be called, with the moment that other libraries call so."""
    meant = ELSEWHERE.get(name, "")
    fix = f"def {meant}(self, …)" if meant else f"name it _{name} if it is a method of your own"
    what, expected = f"no moment of a fit is called {name}", f"one of {', '.join(MOMENTS)}"
    return InvalidValueError(f"Trainer(callbacks=…): {kind}", what, code="E003", expected=expected, fix=fix)


MOMENTS = [name for name in vars(Callback) if name.startswith("on_")]
MEMBERS = sorted({*Callback.__annotations__, *(name for name in vars(Callback) if not name.startswith("_"))})
MEMBERS.remove("on_setup")
ELSEWHERE = {  # what other libraries call these moments
    **dict.fromkeys(("on_train_begin", "on_train_start", "on_fit_start"), "on_fit_begin"),
    **dict.fromkeys(("on_train_end", "on_fit_finish", "on_fit_stop"), "on_fit_end"),
    **dict.fromkeys(("on_batch_end", "on_train_batch_end", "on_step_end", "on_batch"), "on_batches"),
    **dict.fromkeys(("on_train_epoch_end", "on_validation_end", "on_validation_epoch_end"), "on_epoch_end"),
}
