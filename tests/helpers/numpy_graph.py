"""A device made of NumPy, on which a capture is a tape of calls: for tests of what the CUDA graphs share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from bpxp.backends.capture import NotRecordable, Replay
from bpxp.core.typing import Array

# Bytes of results, beyond which Python is not the bottleneck, and fresh memory that is soon freed stays in the cache
# better than a buffer for each result.
RESULTS = 16 << 20

COPIED = 64 << 10  # bytes, below which copying twice is cheaper than checking the indices


class Tape:
    """The recorded calls, in order.

    Attributes
    ----------
    calls : list of (function, arguments)
        The calls of one step.
    known : set of int
        Addresses of the buffers that a call fills, or that existed before.
    """

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []
        self.known: set[int] = set()
        self.bytes = 0

    def adopt(self, a: np.ndarray) -> Recorded:
        """Return a recording view of an array that existed before the step."""
        self.known.add(_address(a))
        return self.seen(a)

    def seen(self, a: np.ndarray) -> Recorded:
        """Return a view of `a` that records its operations."""
        view = a.view(Recorded)
        view.tape = self
        return view

    def result(self, a: np.ndarray) -> Recorded:
        """Return the result of the call that is recorded next, as an array that records."""
        self.bytes += a.nbytes
        if self.bytes > RESULTS:
            raise NotRecordable(f"its results take more than {RESULTS >> 20} MiB")
        self.known.add(_address(a))
        return self.seen(a)

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.calls.append((function, arguments))

    def operation(self, ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], target: np.ndarray) -> None:
        """Record a call of a ufunc; a positional `out` is cheaper than a keyword."""
        function = getattr(ufunc, method)
        if ufunc in (np.maximum, np.minimum):  # these two need the keyword
            self.call(functools.partial(function, out=target), *inputs)
        else:
            self.call(function, *inputs, target)

    def before_writing(self, a: np.ndarray) -> None:
        """Restore a buffer that no call fills, such as zeros made by the step, at the beginning of every step.

        At the beginning, since it may have been read before it is first written.
        """
        owner = _owner(a)
        if _address(owner) not in self.known:
            self.known.add(_address(owner))
            self.calls.insert(0, (np.copyto, (owner, owner.copy())))


class Recorded(np.ndarray):
    """A view of a NumPy array that computes and records its operations."""

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
        """Return the results of a function as recording arrays: views as they are, new arrays as results of a call."""
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

    # Methods do not go through the protocols above.

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
    """Make a function whose inner operations cannot be intercepted one recorded call."""

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
    # With `out` and the default mode NumPy buffers the result, to stay intact on errors; so indices are checked first.
    if rows.min() >= 0 and rows.max() < (x.size if axis is None else x.shape[axis]):
        x.take(rows, axis, into, "clip")
    else:
        x.take(rows, axis, into)


def _numbers_as_arrays(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return Python numbers as arrays of the dtype that they promote to: NumPy would convert them in every call."""
    dtypes = {a.dtype for a in inputs if isinstance(a, np.ndarray)}
    if len(dtypes) != 1:
        return inputs
    (dtype,) = dtypes
    kinds = {"f": (float, int), "i": (int,), "u": (int,)}.get(dtype.kind, ())
    return tuple(np.array(a, dtype) if type(a) in kinds else a for a in inputs)


def _plain(a: Any) -> Any:
    """Return `a`, or the arrays in a tuple or list, as plain arrays."""
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


class NumpyReplay(Replay):
    """What a library says of its arrays, for NumPy's."""

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
