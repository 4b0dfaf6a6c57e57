"""What the table knows of one public operation: a thing, its samples, its bad inputs, its reference, its kinks."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

Call = Callable[[], Any]


class Refusal(NamedTuple):
    """A call that must be refused, with an error that inherits `kind`, and says what matches `text`."""

    call: Call
    kind: type[Exception]
    text: str


class Kink(NamedTuple):
    """An input where there is no derivative, and what the backward pass says there: PyTorch's convention."""

    x: Any
    slope: Any


@dataclass(frozen=True)
class Record:
    """One public thing, in one of its forms.

    Attributes
    ----------
    name : str
        Of the record; the first word is the thing's class or function.
    thing : object
        An instance, or a function.
    names : tuple of str
        Further public names that it stands for: the parameters of a layer, a registry.
    options : mapping
        For each hyper-parameter a tuple of other values, each of which has to change a result.
    bad : mapping
        For each hyper-parameter a tuple of values that are refused, with a message that names it.
    refuses : tuple of Refusal
        Other calls that are refused.
    """

    name: str
    thing: Any
    names: tuple[str, ...] = ()
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    bad: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    refuses: tuple[Refusal, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def stands_for(self) -> set[str]:
        """The public names whose tests this record is."""
        own = self.thing if inspect.isroutine(self.thing) else type(self.thing)
        return {own.__name__, *self.names}

    @property
    def analytic(self) -> bool:
        """Whether the complex step may be taken."""
        return bool(getattr(self.thing, "analytic", False))

    @property
    def fields(self) -> list[str]:
        """The hyper-parameters that can be set; what begins with _ is dataclasses' own."""
        if not dataclasses.is_dataclass(self.thing):
            return []
        return [f.name for f in dataclasses.fields(self.thing) if f.init and not f.name.startswith("_")]

    def changed(self) -> Iterator[tuple[str, Any]]:
        """Yield (what was changed, the thing with this one option changed)."""
        for name, values in self.options.items():
            for value in values:
                yield f"{name}={value!r}", dataclasses.replace(self.thing, **{name: value})


@dataclass(frozen=True)
class OfLayer(Record):
    """A layer or an activation.

    Attributes
    ----------
    shape : tuple of int
        Of one sample.
    shapes : tuple of tuple of int
        Further ones, for the gradient check.
    least : int
        The smallest batch: one value has no variance.
    whole : int
        0, or the number of things that whole numbers name in x: then there is no derivative by x.
    kinks : tuple of Kink
        Inputs (one sample, or an element) and the dx for a dy of ones.
    jumps : tuple of float
        Where the derivative of an activation jumps: samples keep away.
    value, slope : callable
        Of an activation, with mpmath's numbers: the reference.
    top : float
        The largest number for which an activation's result is finite, as a share of the largest of all.
    """

    shape: tuple[int, ...] = (4,)
    shapes: tuple[tuple[int, ...], ...] = ()
    least: int = 1
    whole: int = 0
    kinks: tuple[Kink, ...] = ()
    jumps: tuple[float, ...] = ()
    value: Callable[[Any], Any] | None = None
    slope: Callable[[Any], Any] | None = None
    top: float = 1.0

    def draw(self, rng: np.random.Generator, batch: int, shape: tuple[int, ...] | None = None) -> np.ndarray:
        """Return an input no nearer than 0.02 to a jump; where a maximum is taken, no two numbers are that near."""
        full = (batch, *(self.shape if shape is None else shape))
        if self.whole:
            return rng.integers(0, self.whole, full).astype(float)
        if getattr(self.thing, "takes_largest", False):
            size = math.prod(full)
            return (rng.permutation(size).reshape(full) - 0.5 * size) * (4.0 / size)
        x = 2.0 * rng.standard_normal(full)
        for jump in self.jumps:
            near = np.abs(x - jump) < 0.02
            x = x + 0.05 * near
        return x


@dataclass(frozen=True)
class OfLoss(Record):
    """A loss.

    Attributes
    ----------
    value : callable
        ``value(z, y)`` is J_n of one sample, from lists of mpmath's numbers: the reference.
    slope : callable
        ``slope(z, y)`` is the list of ∂J_n/∂z_k.
    top : callable
        ``top(finfo)``: the largest logit for which J and delta are finite.
    kinks : tuple of Kink
        (z - y) of one element, and ∂J_n/∂z of a loss with one output.
    jumps : tuple of float
        z - y where the derivative jumps.
    """

    value: Callable[[Any, Any], Any] | None = None
    slope: Callable[[Any, Any], Any] | None = None
    top: Callable[[Any], float] | None = None
    kinks: tuple[Kink, ...] = ()
    jumps: tuple[float, ...] = ()

    def draw(self, rng: np.random.Generator, batch: int, n_out: int) -> tuple[np.ndarray, np.ndarray]:
        """Return logits and targets; z - y is no nearer than 0.02 to a jump."""
        z = 2.0 * rng.standard_normal((batch, n_out))
        match self.thing.targets:
            case "classes":
                y: Any = rng.integers(0, n_out, batch).astype(np.int32)
            case "labels":
                y = (rng.random((batch, n_out)) < 0.5).astype(float)
            case "counts":
                y = rng.poisson(2.0, (batch, n_out)).astype(float)
            case _:
                y = rng.standard_normal((batch, n_out))
                for jump in self.jumps:
                    y = y - 0.05 * (np.abs(z - y - jump) < 0.02)
        return z, y


@dataclass(frozen=True)
class OfRule(Record):
    """An optimizer or a schedule; the equations of its own are its reference."""


@dataclass(frozen=True)
class OfInitializer(Record):
    """An initialiser.

    Attributes
    ----------
    std : callable
        ``std(fan_in, fan_out)`` of the weights.
    bias_std : float
        Of the biases.
    bounded : bool
        Whether weights are uniform, in ±√3 std.
    """

    std: Callable[[int, int], float] | None = None
    bias_std: float = 0.0
    bounded: bool = False


@dataclass(frozen=True)
class OfFunction(Record):
    """A function, or a metric.

    Attributes
    ----------
    draw : callable
        ``draw(rng)``: a tuple of host arrays.
    call : callable
        ``call(xp, *arrays)``: a tree of arrays.
    reference : callable
        ``reference(*arrays)``: the same by NumPy in extended precision, the slow and obvious way.
    """

    draw: Callable[[np.random.Generator], tuple[Any, ...]] | None = None
    call: Callable[..., Any] | None = None
    reference: Callable[..., Any] | None = None


def numbers(low: str = "") -> tuple[Any, ...]:
    """Return what no number may be, and what one with the bound ``"> 0"`` or ``">= 0"`` may not be either."""
    out = {"> 0": (0.0, -1.0), ">= 0": (-1.0,), "": ()}[low]
    return (math.nan, math.inf, "0.1", True, None, *out)


COUNTS = (0, -3, 2.5, "3", True, None)  # what no number of things may be
