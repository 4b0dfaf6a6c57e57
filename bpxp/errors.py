"""The exceptions of bpxp, and the one template by which all their messages are written.

Each type inherits `BpxpError` and the builtin that people catch, so that ``except ValueError`` keeps working.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import sys
import warnings
from collections.abc import Iterable
from typing import Any, NewType, Self

OWN = os.path.dirname(__file__) + os.sep, contextlib.__file__  # files that nobody is to be warned about
Message = NewType("Message", str)  # what `message` wrote, and so ends with a code


class _Coded(Exception):
    @property
    def code(self) -> str:
        """Which kind of mistake it is, ``"BPX-E031"``: stable, and explained on the page of errors."""
        found = re.search(r"\[(BPX-[EW]\d{3})\]$", str(self))
        return found[1] if found else ""


class BpxpError(_Coded):
    """Base of every error that bpxp raises on purpose; its text is what `message` writes."""

    def __init__(self, text: Message) -> None:
        super().__init__(text)

    def at(self, where: str) -> Self:
        """Return the same error, told of the argument that was passed instead of the function that refused it."""
        return type(self)(Message(f"{where}: {str(self).partition(': ')[2]}"))


class BpxpWarning(_Coded, UserWarning):
    """Something was accepted that deserves a second look."""


class InvalidValueError(BpxpError, ValueError):
    """An argument has the right type and a value that cannot work."""


class InvalidTypeError(BpxpError, TypeError):
    """An argument has a type that cannot work."""


class DeviceMismatchError(InvalidValueError):
    """An array lives on another device than the network; bpxp never copies it silently."""


class BackendNotInstalledError(BpxpError, ImportError):
    """The array library of the backend is not installed."""


class BackendNotUsableError(BpxpError, RuntimeError):
    """The array library imports, but a matmul or an elementwise kernel does not run on the device."""


class ParameterMemoryError(BpxpError, MemoryError):
    """The parameters would not fit into memory; raised before anything is allocated."""


class ShapeRuleError(BpxpError, AttributeError):
    """A step uses a function of which nobody has said what it costs; see `bpxp.preflight`."""


class FitInProgressError(BpxpError, RuntimeError):
    """`Trainer.fit` was called while another fit of the same network runs."""


class NoSuchColumnError(BpxpError, KeyError):
    """The history of a fit has no column of this name."""

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would show it in quotes


class DeviceMemoryError(BpxpError, MemoryError):
    """The device has too little memory for a fit; the network is as it was.

    Attributes
    ----------
    needed, free, total : int or None
        Bytes: what the fit takes at its peak, what the device could give before its first step, and what it has. None
        where nobody knows.
    largest_batch : int or None
        The largest batch size that would fit; 0 if none does.
    """

    needed: int | None = None
    free: int | None = None
    total: int | None = None
    largest_batch: int | None = None


class DivergenceError(BpxpError, FloatingPointError):
    """A number of a training run is NaN or infinite; the network is as it was before the step that made it so.

    Attributes
    ----------
    epoch, step : int
        Where: the step of the epoch, both counted from 1.
    layer : int or None
        The first layer, in the order in which a step computes, with a quantity that is not finite; None for the input
        and the loss, or if it could not be found.
    quantity : str
        Which: x, W, z, a, loss, delta, dW, dx, "W after the step", …; empty if it could not be found.
    samples : ndarray of int
        The samples of the mini-batch, as indices into the data set.
    bad_samples : ndarray of int
        Those of them whose rows of the quantity are not finite; all, where it has no rows of samples.
    learning_rate : float
    seen : list of Quantity
        Largest magnitude, norm and finiteness of every quantity of the step; see `bpxp.replay`.
    bundle : Bundle or None
        All that is needed to do the step again: ``error.bundle.write(path)``, then `bpxp.replay`.
    file : Path or None
        Where it is written already.
    """

    epoch: int = 0
    step: int = 0
    layer: int | None = None
    quantity: str = ""
    samples: Any = ()
    bad_samples: Any = ()
    learning_rate: float = 0.0
    seen: Any = ()
    bundle: Any = None
    file: Any = None


class CheckpointError(InvalidValueError):
    """A file is not a network that can be loaded."""


class CheckpointCorruptError(CheckpointError):
    """The file is damaged: garbage, truncated, or its checksum differs."""


class CheckpointFormatError(CheckpointError):
    """The file has another format (a pickle, say, which bpxp refuses to read)."""


class CheckpointSecurityError(CheckpointError):
    """The file declares names or sizes that nobody would write by accident."""


class CheckpointVersionError(CheckpointError):
    """The file was written by a newer bpxp."""


class CheckpointMismatchError(CheckpointError):
    """Names, shapes or dtypes in the file differ from the network's."""


class DatasetFormatError(InvalidValueError):
    """A data file does not have the format that its name promises."""


class DatasetChecksumError(BpxpError, OSError):
    """A data file has other bytes than the published ones."""


class DatasetUnavailableError(BpxpError, OSError):
    """A data set is neither on this machine nor reachable."""


class GradientCheckError(BpxpError, AssertionError):
    """A gradient differs from the numerical derivative of the loss."""


class EquationError(InvalidValueError):
    """A line of `Equations` is not in the notation, or cannot be evaluated."""


class DerivationError(BpxpError, AssertionError):
    """The code computes something else than its equation says."""


class LayerCheckError(BpxpError, AssertionError):
    """A layer breaks rules that the layers of bpxp keep; `report` is a `bpxp.verify.LayerReport`."""

    report: Any = None


def message(
    where: str,
    what: str,
    *,
    code: str,
    got: str = "",
    expected: str = "",
    first: str = "",
    fix: str = "",
    after: str = "Nothing was changed",
) -> Message:
    """Write an error by the house's template.

    ``where: what: got …, expected …. First bad index and count. Fix: a line of code. Nothing was changed. [BPX-E031]``

    Parameters
    ----------
    where : str
        The call and argument, ``"Network(layers=…)"``.
    what : str
        What is wrong, in words.
    code : str
        The kind of mistake, ``"E031"``: see `bpxp.codes`.
    got, expected : str, optional
        Value, shape, dtype or device: never a whole array.
    first : str, optional
        First offending index and how many there are; or what was meant, see `suggestion`.
    fix : str, optional
        One line of code that would help.
    after : str, optional
        How things stand now.
    """
    clauses = [f"got {got}"] if got else []
    clauses += [f"expected {expected}"] if expected else []
    begin = f"{where}: {what}" + (f": {', '.join(clauses)}" if clauses else "")
    sentences = [begin, first, f"Fix: {fix}" if fix else "", after]
    text = " ".join(s if s.endswith((".", "?", "!")) else f"{s}." for s in sentences if s)
    return Message(f"{text} [BPX-{code}]")


def warn(where: str, what: str, *, code: str, fix: str = "") -> None:
    """Warn by the same template, of the line outside of bpxp that called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN):
        frame, level = frame.f_back, level + 1
    warnings.warn(message(where, what, code=code, fix=fix, after=""), BpxpWarning, stacklevel=level)


def suggestion(name: str, allowed: Iterable[str]) -> str:
    """Return ``"Did you mean 'relu'?"`` for a near miss, an empty string otherwise."""
    near = difflib.get_close_matches(name.lower(), list(allowed), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""
