"""A step on NumPy, recorded while it runs once, and replayed into the same memory: NumPy's counterpart of a CUDA graph.

A small step costs more in Python, in dispatch and in memory taken and given back than in numbers. All that is the same
in every step: the operations, their order, the shapes. So the first step runs on arrays that write down what is done
with them, and further steps call the same functions of NumPy on the same buffers, to the same bits.

What is not seen by these arrays would be repeated with old numbers. Therefore the second step runs twice, recorded and
as it is written, and where a single bit differs the recording is given up, and a reason kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bpxp.backends.base import State
from bpxp.backends.capture import Call, NotRecordable, Play, Replay, repeated
from bpxp.core.tree import leaves, tree_map, unflatten
from bpxp.core.typing import Array

# Beyond so many bytes of results a step is not kept back by Python, and fresh memory that is soon given back is nearer
# to the core than a buffer for each result.
ROOM = 16 << 20

COPIED = 64 << 10  # bytes that are sooner copied twice than their indices looked through


class Tape:
    """What was done, in order.

    Attributes
    ----------
    calls : list of (function, arguments)
        All that has to be called for another step.
    known : set of int
        Addresses of the buffers that a call fills, or that were there before.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.known: set[int] = set()
        self.bytes = 0

    def adopt(self, a: np.ndarray) -> Recorded:
        """Return a view of an array that was there before the step."""
        self.known.add(_address(a))
        return self.seen(a)

    def seen(self, a: np.ndarray) -> Recorded:
        """Return a view of a that writes down what is done with it."""
        view = a.view(Recorded)
        view.tape = self
        return view

    def result(self, a: np.ndarray) -> Recorded:
        """Return a new array, made by the call that is written down next, as one that writes down."""
        self.bytes += a.nbytes
        if self.bytes > ROOM:
            raise NotRecordable(f"its results take more than {ROOM >> 20} MiB")
        self.known.add(_address(a))
        return self.seen(a)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.append((function, arguments))

    def operation(self, ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], target: np.ndarray) -> None:
        """Write down a call of a ufunc; a place costs it less than a keyword."""
        function = getattr(ufunc, method)
        if ufunc in (np.maximum, np.minimum):  # for these two NumPy wants the keyword
            self.call(functools.partial(function, out=target), *inputs)
        else:
            self.call(function, *inputs, target)

    def before_writing(self, a: np.ndarray) -> None:
        """Let a buffer that no call fills, such as zeros made by the step, have its numbers again in every step.

        From its beginning: they may have been read before they are written for the first time.
        """
        owner = _owner(a)
        if _address(owner) not in self.known:
            self.known.add(_address(owner))
            self.calls.insert(0, (np.copyto, (owner, owner.copy())))


class Recorded(np.ndarray):
    """An array of NumPy that writes down what is done with it; a view of one with numbers, which does the work."""

    tape: Tape

    def __array_finalize__(self, other: Any) -> None:
        self.tape = getattr(other, "tape", None)  # type: ignore[assignment]

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        tape = self.tape
        plain = tuple(_plain(a) for a in inputs)
        function = getattr(ufunc, method)
        if method == "__call__":
            plain = _numbers_as_arrays(plain)
        out = options.pop("out", None)
        if out is not None:
            if len(out) != 1 or options:
                raise NotRecordable(f"{ufunc.__name__} with {sorted(options) or 'several results'}")
            (target,) = (_plain(a) for a in out)
            tape.before_writing(target)
            tape.operation(ufunc, method, plain, target)
            function(*plain, out=target)
            return out[0] if type(out[0]) is Recorded else tape.seen(target)
        made = function(*plain, **options)
        if isinstance(made, tuple):
            raise NotRecordable(f"{ufunc.__name__} has several results")
        made = np.asarray(made)
        if method == "__call__" and not options:
            tape.operation(ufunc, method, plain, made)
        elif method == "reduce":
            known = {"axis": 0, "dtype": None, "keepdims": False, **options}
            if set(known) != {"axis", "dtype", "keepdims"}:
                raise NotRecordable(f"{ufunc.__name__}.reduce with {sorted(known)}")
            tape.call(function, *plain, known["axis"], known["dtype"], made, known["keepdims"])
        else:
            tape.call(_again, function, plain, options, (made,))
        return tape.result(made)

    def __array_function__(self, function: Any, types: Any, arguments: Any, options: Any) -> Any:
        arguments, options = _plain(arguments), {name: _plain(value) for name, value in options.items()}
        made = function(*arguments, **options)
        return self.tape_of(function, arguments, options, made)

    def tape_of(self, function: Any, arguments: tuple[Any, ...], options: dict[str, Any], made: Any) -> Any:
        """Return what a function returned as recorded arrays: views as they are, what is new as results of a call."""
        tape = self.tape
        several = made if isinstance(made, (tuple, list)) else (made,)
        if not all(isinstance(a, np.ndarray) for a in several):
            raise NotRecordable(f"{getattr(function, '__name__', function)} returns no array")
        given = list(_arrays((arguments, options)))
        new = [a for a in several if not any(np.may_share_memory(a, other) for other in given)]
        if not new:
            seen = [tape.seen(a) for a in several]
        elif len(new) == len(several):
            if len(new) == 1 and function in FILLING:
                tape.call(_into, function, arguments, {**options, "out": new[0]})
            else:
                tape.call(_again, function, arguments, options, tuple(new))
            seen = [tape.result(a) for a in several]
        else:
            raise NotRecordable(f"{getattr(function, '__name__', function)} returns both views and new arrays")
        return type(made)(seen) if isinstance(made, (tuple, list)) else seen[0]

    # Methods of an array do not ask the array.

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Any:
        x, rows = _plain(self), _plain(indices)
        made = x.take(rows, axis)
        if rows.size and made.nbytes > COPIED:
            self.tape.call(_gather, x, rows, axis, made)
        else:
            self.tape.call(x.take, rows, axis, made)
        return self.tape.result(made)

    def astype(self, dtype: Any, *, copy: bool = True) -> Any:  # type: ignore[override]
        if not copy and self.dtype == dtype:
            return self
        x = _plain(self)
        made = x.astype(dtype)
        self.tape.call(np.copyto, made, x, "unsafe")
        return self.tape.result(made)

    def __getitem__(self, place: Any) -> Any:
        if any(isinstance(part, np.ndarray) for part in (place if isinstance(place, tuple) else (place,))):
            raise NotRecordable("it picks by an array of indices, not by take")
        part = super().__getitem__(place)
        return part if isinstance(part, Recorded) else bool(self)

    def __bool__(self) -> bool:
        raise NotRecordable("it looks at a number")

    __int__ = __float__ = __index__ = __complex__ = item = tolist = __setitem__ = __bool__  # type: ignore[assignment]


FILLING = {np.concatenate, np.concat, np.stack}


def opaque(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function that goes behind NumPy's back be recorded as one call."""

    def dispatch(*arguments: Any) -> Any:
        for a in arguments:
            if type(a) is Recorded:
                plain = _plain(arguments)
                return a.tape_of(function, plain, {}, function(*plain))
        return function(*arguments)

    return dispatch


def _again(function: Any, arguments: tuple[Any, ...], options: dict[str, Any], into: tuple[np.ndarray, ...]) -> None:
    made = function(*arguments, **options)
    for target, a in zip(into, made if isinstance(made, (tuple, list)) else (made,), strict=True):
        np.copyto(target, a)


def _into(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
    function(*arguments, **options)


def _gather(x: np.ndarray, rows: np.ndarray, axis: int | None, into: np.ndarray) -> None:
    # NumPy copies twice with `out` unless told what to do with an index out of range: so it is asked whether there is.
    if rows.min() >= 0 and rows.max() < (x.size if axis is None else x.shape[axis]):
        x.take(rows, axis, into, "clip")
    else:
        x.take(rows, axis, into)


def _numbers_as_arrays(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return Python's numbers in the dtype that they take beside an array: else NumPy converts them in every call."""
    dtypes = {a.dtype for a in inputs if isinstance(a, np.ndarray)}
    if len(dtypes) != 1:
        return inputs
    (dtype,) = dtypes
    kinds = {"f": (float, int), "i": (int,), "u": (int,)}.get(dtype.kind, ())
    return tuple(np.array(a, dtype) if type(a) in kinds else a for a in inputs)


def _plain(a: Any) -> Any:
    """Return a as NumPy's own array, and what holds arrays likewise."""
    if type(a) is Recorded:
        return a.view(np.ndarray)
    if isinstance(a, (tuple, list)):
        return type(a)(_plain(item) for item in a) if not hasattr(a, "_fields") else a
    return a


def _arrays(tree: Any) -> Iterator[np.ndarray]:
    if isinstance(tree, np.ndarray):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _arrays(item)
    elif isinstance(tree, dict):
        yield from _arrays(list(tree.values()))


def _owner(a: np.ndarray) -> np.ndarray:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a.view(np.ndarray)


def _address(a: np.ndarray) -> int:
    address: int = _owner(a).__array_interface__["data"][0]
    return address


class Recording(Replay):
    """A compiled step of NumPy: the calls of one step, made again."""

    # Before: the two steps that are recorded and proved cost about five.
    WORTH = 8
    # With a state beyond this the results would take more than their room, too: gradients are a third of Adam's state.
    STATE = 4 * ROOM

    def is_array(self, a: Any) -> bool:
        return isinstance(a, np.ndarray)

    def own(self, a: Array) -> Array:
        return np.array(a, order="C")

    def copy(self, into: Array, a: Array) -> None:
        np.copyto(into, a)

    def place(self, a: Array) -> tuple[int, Any]:
        return _address(a), (a.__array_interface__["data"], a.strides)

    def same(self, a: Array, b: Array) -> bool:
        return bool(a.tobytes() == b.tobytes())

    def capture(self, state: State, data: Any, size: int) -> Play:
        """Run a step on arrays that write down what is done with them."""
        tape = Tape()
        own = unflatten(state, [tape.adopt(a) for a in leaves(state)])
        seen = tree_map(lambda a: tape.adopt(a) if isinstance(a, np.ndarray) else a, data)
        for _ in range(size):
            for buffer, a in self.changed([_plain(a) for a in leaves(self.step(own, seen))]):
                tape.call(np.copyto, buffer, a)
                np.copyto(buffer, a)
        return repeated(tape.calls)
