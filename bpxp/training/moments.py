"""The moments of a fit: its callbacks are called in turn. The error of one ends the fit, saved, after the others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from bpxp.errors import NOTHING_CHANGED, BpxpError
from bpxp.training.callback import Callback

if TYPE_CHECKING:
    from bpxp.training.resume import Saved


@contextmanager
def told_if_unchanged(trainer: Any) -> Iterator[None]:
    """Let an error that ends a fit before its first step say that nothing was changed."""
    before, epoch = getattr(trainer, "run", None), trainer.net.epoch
    try:
        yield
    except BpxpError as error:
        run = getattr(trainer, "run", None)
        if run is None or run is before or not (run.done or trainer.net.epoch > epoch or trainer.resumed_from):
            error._say(NOTHING_CHANGED)
        raise


class Moments:
    """What calls the callbacks of a trainer.

    Attributes
    ----------
    raised : Exception or None
        By a callback.
    """

    raised: Exception | None = None

    @contextmanager
    def begin_and_end(self, trainer: Any, saved: Saved | None) -> Iterator[None]:
        """Call the callbacks at the beginning and at the end."""
        try:
            self.call(trainer, "on_fit_begin")
            if saved is not None:
                from bpxp.training.resume import resume_callbacks

                resume_callbacks(saved, trainer)
            if savers(trainer.callbacks):
                from bpxp.training.resume import check_callbacks

                check_callbacks(trainer)
            yield
        finally:
            self.call(trainer, "on_fit_end")

    def call(self, trainer: Any, moment: str, *args: Any) -> None:
        """Call all callbacks; raise the first error."""
        already = self.raised is not None
        for callback in trainer.callbacks:
            try:
                getattr(callback, moment, _nothing)(trainer, *args)
            except Exception as error:
                where = f"in the callback {type(callback).__name__}.{moment}, epoch {trainer.net.epoch}"
                error.add_note(where)
                if self.raised is not None:
                    self.raised.add_note(f"and {where}: {error!r}")
                    continue
                self.raised = error
                if moment in ("on_setup", "on_fit_begin"):
                    break
        if self.raised is not None and not already:
            if moment not in ("on_setup", "on_fit_begin", "on_fit_end"):
                save_for(self.raised, trainer)
            raise self.raised


def savers(callbacks: list[Callback]) -> list[Callback]:
    """Return the callbacks that save the run."""
    return [c for c in callbacks if c.saves == "run"]


def save_for(error: Exception, trainer: Any) -> None:
    """Save the run that an error ends, and note how it goes on."""
    for saver in savers(trainer.callbacks):
        before, saver.saved = saver.saved, None
        try:
            saver.on_pause(trainer, "error")
        except Exception as another:
            error.add_note(f"the run could not be saved: {another!r}")
        if saver.saved is not None:
            error.add_note(f"the run is saved; to go on: {trainer.how_to_resume(str(saver.saved))}")
        saver.saved = saver.saved or before


def _nothing(*_: Any) -> None:
    """Stand in for `on_setup`, which a callback may lack."""
