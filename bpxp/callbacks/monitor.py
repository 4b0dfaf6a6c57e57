"""The column of the history that a callback monitors: it is there, and it is known which way it gets better."""

from __future__ import annotations

import math
from typing import Any

from bpxp.core.aliases import meant
from bpxp.errors import InvalidValueError
from bpxp.training.callback import Callback, Fit, overrides


class Best:
    """Whether a monitored column has improved: what is not finite never does."""

    def __init__(self, monitor: str, sign: float, min_delta: float) -> None:
        self.monitor, self.sign, self.min_delta = monitor, sign, min_delta
        self.value = math.inf

    def improved(self, row: dict[str, Any]) -> bool:
        if self.monitor not in row:
            raise no_such_column("monitor", self.monitor, list(row), "The network is as it was after this epoch")
        value = self.sign * float(row[self.monitor])
        if not math.isfinite(value) or not value < self.value - self.min_delta:
            return False
        self.value = value
        return True

    def state(self) -> dict[str, Any]:
        return {"best": self.value if math.isfinite(self.value) else None}

    def resume(self, state: dict[str, Any]) -> None:
        self.value = math.inf if state["best"] is None else float(state["best"])


def validate_mode(mode: str | None, where: str) -> str | None:
    """Return "min", "max" or None, or raise."""
    if mode not in (None, "min", "max"):
        raise InvalidValueError(f"{where}(mode=…)", "unknown", code="E003", got=repr(mode), expected="'min' or 'max'")
    return mode


def sign_of(trainer: Fit, callback: Callback, monitor: str, mode: str | None) -> float:
    """Return 1 if less of a monitored column is better, -1 if more is: as the callback says, or as the metric does.

    Raises
    ------
    InvalidValueError
        Before the first step: there will be no such column, or it is not known which way it gets better. A column that
        an earlier callback might add is looked for after the first epoch.
    """
    kind, known = type(callback).__name__, trainer.columns.higher_is_better
    if monitor not in known and not any(map(_may_add, trainer.callbacks[: trainer.callbacks.index(callback)])):
        raise no_such_column(f"{kind}(monitor=…)", monitor, list(known))
    higher = known.get(monitor) if mode is None else mode == "max"
    if higher is None:
        what = f"it is not known whether more or less of {monitor!r} is better"
        fix = "mode='min' or mode='max'; or higher_is_better = True or False in the class of the metric"
        raise InvalidValueError(f"{kind}(mode=…)", what, code="E059", fix=fix)
    return -1.0 if higher else 1.0


def no_such_column(
    where: str, monitor: str, columns: list[str], after: str = "Nothing was changed"
) -> InvalidValueError:
    """Return the error for a column that is not there, with the one that is meant if there is one."""
    evaluated = next((name for name in (f"validation_{monitor}", f"train_{monitor}") if name in columns), "")
    first = f"Did you mean {evaluated!r}?" if evaluated else meant(monitor, columns, "column")
    lacking = monitor.startswith("val") and not any(name.startswith("validation_") for name in columns)
    fix = "fit(…, validation=0.1) for the validation columns" if lacking else ""
    first = first if any(repr(name) in first for name in columns) and not lacking else ""
    expected = f"one of {', '.join(columns)}"
    what = "the history has no such column"
    return InvalidValueError(
        where, what, code="E054", got=repr(monitor), expected=expected, first=first, fix=fix, after=after
    )


def _may_add(callback: Callback) -> bool:
    """Return whether a callback is not bpxp's and sees the rows: it may add a column."""
    own = type(callback).__module__.partition(".")[0] == "bpxp"
    return not own and overrides(callback, "on_epoch_end")
