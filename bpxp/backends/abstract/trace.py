"""A trace: the operations of a step in their order, written down while it runs on arrays without numbers."""

from __future__ import annotations

import dataclasses
import gc
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends.abstract.array import Meter, ShapeArray
from bpxp.backends.abstract.namespace import shape_namespace, shape_of
from bpxp.backends.base import DTYPES
from bpxp.core.tree import tree_map
from bpxp.core.typing import Shape
from bpxp.errors import BpxpError, InvalidTypeError

PLAIN = (type(None), bool, int, float, complex, str, slice, type(...), np.dtype, type)


class NotCapturable(Exception):
    """The step does what cannot be repeated without Python: the text says what."""


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """An array of a trace: the arguments come first, then the results."""

    number: int


class Operation(NamedTuple):
    """One operation.

    Attributes
    ----------
    name : str
        The function of the Array API; "getitem" is ``x[…]``.
    inputs : tuple
        Its positional arguments: values, Python numbers, shapes, sequences of values.
    static : dict
        Its keywords.
    outputs : tuple of Value
    infix : bool
        It was written as an operator.
    into : Value or None
        What an operator writes in place.
    """

    name: str
    inputs: tuple[Any, ...]
    static: dict[str, Any]
    outputs: tuple[Value, ...]
    infix: bool = False
    into: Value | None = None


class Trace(NamedTuple):
    """A step without numbers.

    Attributes
    ----------
    operations : list of Operation
    kinds : list of (shape, dtype)
        Of each value.
    outputs : tree
        What the step returns: a `Value` for each array.
    peak : int
        Bytes of the arrays that live at the same time, without the arguments.
    """

    operations: list[Operation]
    kinds: list[tuple[Shape, Any]]
    outputs: Any
    peak: int


class Tracer(Meter):
    """Writes the operations down; its arrays say that they are those of a library.

    Parameters
    ----------
    xp : namespace
        Of the backend.
    example : array
        One of its arrays.
    """

    def __init__(self, xp: Any, example: Any) -> None:
        super().__init__()
        self.array_type, self.plain = type(example), (*PLAIN, type(example.dtype))
        if not isinstance(example.dtype, np.dtype):
            self.dtypes = {np.dtype(name): getattr(xp, name) for name in DTYPES if hasattr(xp, name)}
        self.operations: list[Operation] = []
        self.kinds: list[tuple[Shape, Any]] = []

    def argument(self, a: Any) -> ShapeArray:
        """Return an argument of the step without its numbers."""
        bare = shape_of(a, self)
        self._value(bare)
        return bare

    def note(
        self, name: str, inputs: tuple[Any, ...], static: dict[str, Any], result: Any, infix: bool, into: bool
    ) -> None:
        read = self.encoded(inputs)
        keywords = {key: self.encoded(value) for key, value in static.items()}
        outputs = tuple(map(self._value, result if isinstance(result, (tuple, list)) else (result,)))
        self.operations.append(Operation(name, read, keywords, outputs, infix, outputs[0] if into else None))

    def encoded(self, a: Any) -> Any:
        """Return a tree with values in the place of arrays."""
        if type(a) is ShapeArray:
            if a.buffer.meter is not self or a.number is None:
                raise NotCapturable("an array of another trace")
            return Value(a.number)
        if isinstance(a, (tuple, list)):
            return tuple(map(self.encoded, a))
        if not isinstance(a, self.plain):
            got = type(a).__name__
            raise InvalidTypeError("a trace", "neither an array of the step nor a Python number", code="E027", got=got)
        return a

    def _value(self, a: ShapeArray) -> Value:
        if a.number is None:
            a.number = len(self.kinds)
            self.kinds.append((a.shape, a.kind))
        return Value(a.number)


def trace(step: Any, state: Any, data: Any, example: Any) -> Trace:
    """Run a step on arrays without numbers, and return what it did.

    Parameters
    ----------
    step : dataclass
        With a field `xp`, the namespace that it computes in.
    state, data : trees
    example : array
        One of the backend's.

    Raises
    ------
    NotCapturable
        If the step asks for numbers, uses a function without a rule, or keeps an array.
    """
    tracer = Tracer(step.xp, example)
    xp = shape_namespace(tracer, step.xp)
    given = tree_map(lambda a: tracer.argument(a) if type(a) is type(example) else a, (state, data))
    resident, tracer.peak = tracer.live, tracer.live
    try:
        after = dataclasses.replace(step, xp=xp)(*given)
        outputs = tree_map(lambda a: tracer.encoded(a), after)
    except Exception as error:  # a layer of the user's own may do anything
        tracer.refused = tracer.refused or error
        after = outputs = None
    if tracer.refused is not None:
        raise NotCapturable(short(tracer.refused))
    del after, given
    getattr(xp, "memo", {}).clear()
    if tracer.live:
        gc.collect()
    if tracer.live:
        raise NotCapturable("it keeps an array beyond the step")
    return Trace(tracer.operations, tracer.kinds, outputs, tracer.peak - resident)


def short(error: Exception) -> str:
    """Return what an error says, on one line."""
    brief = f"{error.where}: {error.brief}" if isinstance(error, BpxpError) else str(error)
    text = " ".join(brief.split())[:300]
    return text if isinstance(error, (NotCapturable, BpxpError)) else f"{type(error).__name__}: {text}"


def same(one: Trace, other: Trace) -> str:
    """Return where two traces differ, as text; "" where they do not."""
    for a, b in zip(one.operations, other.operations, strict=False):
        if repr(a) != repr(b):  # -0.0 and 0.0 differ, and NaN does not
            return f"{a.name}{plain_operands(a)} once, then {b.name}{plain_operands(b)}"
    if len(one.operations) != len(other.operations) or repr(one.outputs) != repr(other.outputs):
        return f"{len(one.operations)} operations once, then {len(other.operations)}"
    return ""


def plain_operands(operation: Operation) -> str:
    """Return the plain operands of an operation, for a message."""
    plain = [repr(a) for a in operation.inputs if isinstance(a, (bool, int, float)) and not isinstance(a, Value)]
    return f"({', '.join(plain)})" if plain else ""
