"""The exceptions of bpxp: objects with fields, rendered once by one template, and the codes that name their kinds.

Each type inherits `BpxpError` and the builtin that people catch, so that ``except ValueError`` keeps working.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any, Self

OWN = os.path.dirname(__file__) + os.sep, contextlib.__file__  # internal frames, skipped for the warning's line
FIELDS = ("where", "what", "code", "got", "expected", "first", "fix", "after")


def printable(text: str, *, keep: str = "") -> str:
    """Return text with control characters and whatever else is not printable escaped, as `repr` escapes it.

    File names and strings of foreign files may contain terminal escapes. The characters in `keep` stay.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


class _Report(Exception):
    """What errors and warnings have in common: the fields of a report, and its text.

    ``where: what: got …, expected …. First bad index and count. Fix: a line of code. [BPX-E031]``

    Parameters
    ----------
    where : str
        The call and argument, ``"Network(layers=…)"``.
    what : str
        What is wrong, in words.
    code : str
        The kind of mistake, ``"E031"``: a key of `CODES`.
    got, expected : str, optional
        Value, shape, dtype or device: never a whole array.
    first : str, optional
        First offending index and how many there are; or what was meant, see `suggestion`.
    fix : str, optional
        One line of code that would help.
    after : str, optional
        How things stand now, where the call could have changed something: "Nothing was changed".

    Attributes
    ----------
    where, what, got, expected, first, fix, after : str
        As given.
    code : str
        ``"BPX-E031"``: stable, and explained in docs/errors.md.
    """

    def __init__(
        self,
        where: str,
        what: str,
        *,
        code: str,
        got: str = "",
        expected: str = "",
        first: str = "",
        fix: str = "",
        after: str = "",
    ) -> None:
        self.where, self.what, self.code = where, what, f"BPX-{code}"
        self.got, self.expected, self.first, self.fix, self.after = got, expected, first, fix, after
        super().__init__(printable(f"{self.sentences} [{self.code}]", keep="\n"))

    def _say(self, after: str) -> None:
        """Say how things stand now, unless it is said already."""
        if not self.after:
            self.after = after
            self.args = (printable(f"{self.sentences} [{self.code}]", keep="\n"),)

    @property
    def sentences(self) -> str:
        """The text without its code."""
        clauses = [f"got {self.got}"] if self.got else []
        clauses += [f"expected {self.expected}"] if self.expected else []
        begin = f"{self.where}: {self.what}" + (f": {', '.join(clauses)}" if clauses else "")
        parts = [begin, self.first, f"Fix: {self.fix}" if self.fix else "", self.after]
        return " ".join(s if s.endswith((".", "?", "!")) else f"{s}." for s in parts if s)

    @property
    def brief(self) -> str:
        """What is wrong and what would help, for a report that has a place and a code of its own."""
        return self.replaced(where="", after="").sentences.removeprefix(": ")

    def replaced(self, **fields: str) -> Self:
        """Return the same report with other fields, of the argument that was passed, say."""
        kind, told, more = self._parts()
        other = kind(**told | fields)
        other.__dict__.update(more)
        return other

    def __reduce__(self) -> tuple[Any, ...]:  # an exception is rebuilt from its text unless it says how
        kind, told, more = self._parts()
        return functools.partial(kind, **told), (), more

    def _parts(self) -> tuple[type[Self], dict[str, str], dict[str, Any]]:
        """Return the type, the fields, and what else the object has."""
        own = vars(self)
        told = {name: own[name] for name in FIELDS} | {"code": self.code.removeprefix("BPX-")}
        return type(self), told, {name: value for name, value in own.items() if name not in FIELDS}


class BpxpError(_Report):
    """Base of every error that bpxp raises on purpose; see `bpxp.errors.CODES` for their kinds."""


class BpxpWarning(_Report, UserWarning):
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
    """A step uses a function that has no rule of cost; see `bpxp.preflight`."""


class FitInProgressError(BpxpError, RuntimeError):
    """What only one fit at a time may do, or what cannot be done while the network is being fitted."""


class FixedAttributeError(BpxpError, AttributeError):
    """An attribute was assigned that belongs to what a network is made of."""


class NoSuchColumnError(BpxpError, KeyError):
    """The history of a fit has no column of this name."""

    __str__ = Exception.__str__  # KeyError would show it in quotes


class DeviceMemoryError(BpxpError, MemoryError):
    """The device has too little memory for a fit; the network is as it was.

    Attributes
    ----------
    needed, free, total : int or None
        Bytes: what the fit takes at its peak, what the device could give before its first step, and what it has. None
        where it is not known.
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
    """The file declares names or sizes beyond the limits of the format."""


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


class RuleCheckError(BpxpError, AssertionError):
    """A loss, a metric or an optimizer breaks rules that those of bpxp keep; `report` is a `bpxp.verify.RuleReport`."""

    report: Any = None


class LayerCheckError(RuleCheckError):
    """A layer breaks rules that the layers of bpxp keep; `report` is a `bpxp.verify.LayerReport`."""


NOTHING_CHANGED = "Nothing was changed"


@contextlib.contextmanager
def nothing_changed() -> Iterator[None]:
    """Let the errors of a call that changes something say that it has not done so yet."""
    try:
        yield
    except BpxpError as error:
        error._say(NOTHING_CHANGED)
        raise


def warn(where: str, what: str, *, code: str, fix: str = "") -> None:
    """Warn by the same template, of the line outside of bpxp that called."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(OWN):
        frame, level = frame.f_back, level + 1
    warnings.warn(BpxpWarning(where, what, code=code, fix=fix), stacklevel=level)


# A code keeps its meaning for ever: a new kind of mistake gets a new one, and the code of a kind that no longer exists
# is not used again. docs/errors.md shows for each a call that causes it.
CODES = {
    "E001": "An argument has a type that cannot work.",
    "E002": "A number is out of its range.",
    "E003": "Unknown name.",
    "E004": "An argument is neither a name nor an object of its kind.",
    "E005": "Two arguments contradict each other.",
    # layers, losses, parameters
    "E010": "The list of layers is invalid.",
    "E011": "The parameters do not fit into memory.",
    "E012": "The dtype is not supported for training.",
    "E013": "The loss does not fit the outputs.",
    "E014": "A layer does not fit the samples that it gets.",
    "E015": "A batch has too few values to normalize by.",
    "E016": "Parameters with another structure or shape.",
    "E017": "An array has the wrong shape.",
    "E018": "A metric does not fit the loss and the outputs.",
    "E019": "A loss or a metric ignores the weights of samples.",
    # backends
    "E020": "There is no array library of this name.",
    "E021": "A library is not installed.",
    "E022": "An array library is installed but does not work.",
    "E023": "There is no such device.",
    "E024": "The precision of matrix products is not available.",
    "E025": "An array is on another device.",
    "E026": "A step uses a function without a cost rule.",
    "E027": "A step does something that cannot be compiled.",
    "E028": "The outputs are not numbers.",
    "E029": "An id that the table of an embedding does not have.",
    # samples
    "E030": "Something that is not data.",
    "E031": "Something other than real numbers.",
    "E032": "A sparse matrix.",
    "E033": "Masked values.",
    "E034": "A tensor that records gradients.",
    "E035": "Rows of different lengths.",
    "E036": "Samples of the wrong shape.",
    "E037": "No samples, or samples without features.",
    "E038": "NaN or infinite numbers.",
    "E039": "Numbers too large for the dtype.",
    # targets and weights
    "E040": "Samples and targets differ in number.",
    "E041": "Labels out of range.",
    "E042": "Labels that are not integers.",
    "E043": "Labels that are text.",
    "E044": "Targets of the wrong shape.",
    "E045": "NaN or infinite targets.",
    "E046": "Targets that the loss does not accept.",
    "E047": "Invalid sample weights.",
    "E048": "Invalid class weights.",
    # training
    "E050": "A part of the data would be empty.",
    "E051": "The network is being fitted.",
    "E052": "The loss or a parameter is no longer finite.",
    "E053": "The device has too little memory.",
    "E054": "The history has no such column.",
    "E055": "There is no run to resume.",
    "E056": "Invalid transform.",
    "E057": "Layers are nested too deeply.",
    "E058": "What a network is made of cannot be replaced.",
    "E059": "It is not known which way a column gets better.",
    # files of networks and runs
    "E060": "The file is damaged.",
    "E061": "The file has another format.",
    "E062": "The file declares names or sizes beyond the limits of the format.",
    "E063": "The file is newer than this bpxp.",
    "E064": "The file belongs to another network or run.",
    "E065": "Something that cannot be written to a file.",
    "E066": "The file names an unknown layer.",
    "E067": "The file cannot be written; the previous one is intact.",
    "E068": "A path that names nothing.",
    # data sets
    "E070": "A data file is malformed.",
    "E071": "A data file fails its checksum.",
    "E072": "A data set is not available.",
    "E073": "Sample indices out of range.",
    "E074": "An array that the format cannot hold.",
    "E075": "A picture that the network cannot use.",
    "E080": "A gradient differs from the derivative of the loss.",
    "E081": "The code differs from its equation.",
    "E082": "An equation is not in the notation.",
    "E083": "An equation cannot be evaluated.",
    "E084": "There are no equations to check.",
    "E085": "A layer breaks a rule.",
    "E086": "A loss, a metric or an optimizer breaks a rule.",
    "W001": "A column of labels is read as a vector.",
    "W002": "All labels are the same class.",
    "W003": "The batch size exceeds the number of samples.",
    "W004": "A run is resumed with other settings.",
    "W005": "A network that is not finite is not saved.",
    "W006": "A run could not be saved.",
    "W007": "A data set could not be cached.",
    "W008": "The device may have too little memory.",
    "W009": "A captured step differed from the eager step.",
    "W010": "Numbers that differ become equal in the network's dtype.",
    "W011": "The learning rate reaches its end long before the fit.",
    "W012": "A pickled network is on another backend.",
    "W016": "Samples far outside of the range of training.",
    "W017": "Integers that look like pixels are not scaled.",
    "W018": "A GPU is there, and CuPy does not compute on it.",
    "W020": "An input shape that looks channels-first.",
}
