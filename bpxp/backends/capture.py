"""Capture and replay: a step runs eagerly at first, then from a captured list of calls that was proved equal.

This is what NumPy, PyTorch and the CUDA graphs of CuPy and PyTorch share: buffers of their own, the proof, and the
fallback to the eager step, with a reason. The first times that a captured step runs, the eager step runs beside it on a
copy; if a single bit differs, the capture is dropped.
"""

from __future__ import annotations

import copy
import functools
import math
import os
from collections.abc import Callable
from typing import Any

from bpxp.backends.base import Backend, State, Step, StepFunction
from bpxp.core.tree import leaves, unflatten
from bpxp.core.typing import Array
from bpxp.errors import InvalidValueError

NO_STATE = "it has no state"  # a plain function, called for its value

Play = Callable[[int], None]  # replay so many times
ENVIRONMENT = "BPXP_CAPTURE"
OFF = "capture is switched off"


class NotRecordable(Exception):
    """The step cannot be captured; the text says why."""


def initial_reason() -> str:
    """Return why a step runs eagerly from the beginning: the environment says so, or ""."""
    return OFF if os.environ.get(ENVIRONMENT) == "0" else ""


def switch_off(run: Step) -> Step:
    """Let a compiled step run eagerly for good."""
    captured = _captured(run)
    if captured is not None:
        captured.reason = OFF
    return run


def prove_within(run: Step, steps: int) -> None:
    """Ask for a proof of a captured step at a random one of its next steps."""
    prove = getattr(_captured(run), "prove_within", None)
    if prove is not None:
        prove(steps)


def without_capture(backend: Backend, name: str, where: str) -> Backend:
    """Return a copy of a backend, of another name, whose steps run eagerly. Arrays of both are the same arrays."""
    if _captured(backend.compile(_unchanged)) is None:
        what, fix = f"{backend.name} captures no steps", f"backend={backend.name!r}"
        raise InvalidValueError(where, what, code="E023", got=repr(name), fix=fix)
    own = copy.copy(backend)
    own.name = name
    own.compile = functools.partial(_compiled_off, backend)  # type: ignore[method-assign]
    return own


def _captured(run: Step) -> Any:
    """Return the captured step within a compiled one, if there is one."""
    run = getattr(run, "run", run)
    return run if hasattr(run, "reason") else None


def _unchanged(state: State, data: Any) -> State:
    return state


def _compiled_off(backend: Backend, step: StepFunction, /) -> Step:
    return switch_off(backend.compile(step))


class Replay:
    """A compiled step: ``state = replay(state, data, count=n)``.

    Parameters
    ----------
    step : callable
        ``state = step(state, data)``.

    Attributes
    ----------
    plays : dict of int to callable
        The captures that are proved, by the number of steps of each.
    reason : str
        Why the step runs eagerly; empty where it is captured, or was not tried yet.

    Notes
    -----
    A capture holds addresses, not arrays. So the state gets buffers of its own, and a state in other arrays is copied
    into them. Large arrays of the data have to be the same ones in every call, or the step is captured again; small
    ones that were seen to change, such as a new order of the samples, are copied too.

    The returned state aliases these buffers: it is valid until the next call.
    """

    WORTH = 8  # eager steps before one is captured
    SIZES: tuple[int, ...] = (1,)  # how many steps a capture holds, the largest first, the last 1
    PROOFS = 1  # how often a capture runs beside the eager step
    RUNS = True  # whether capturing also runs the step
    FAILURES: tuple[type[Exception], ...] = (NotRecordable,)  # make it eager; other errors are the step's own
    FED = 1 << 20  # bytes of an array of the data that is copied rather than captured again
    STATE = math.inf  # bytes of the largest state that is copied for it

    def __init__(self, step: StepFunction, /) -> None:
        self.step, self.reason = step, initial_reason()
        self.plays: dict[int, Play] = {}
        self._moving: set[int] = set()
        self._forget([])

    def __deepcopy__(self, memo: dict[int, Any]) -> Replay:
        # Another object has other arrays, and captures for itself.
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.reason, other._moving = "", set()
        other._forget([])
        return other

    # ---------------------------------------------------------------- what a library defines

    def is_array(self, a: Any) -> bool:
        """Return whether `a` is an array of this library, on the device of the step."""
        raise NotImplementedError

    def own(self, a: Array) -> Array:
        """Return a copy of `a` in memory of its own, in C order."""
        raise NotImplementedError

    def copy(self, into: Array, a: Array) -> None:
        """Copy `a` into an array of the same shape and dtype."""
        raise NotImplementedError

    def place(self, a: Array) -> tuple[int, Any]:
        """Return the address of the memory of `a`, and which view of it `a` is."""
        raise NotImplementedError

    def same(self, a: Array, b: Array) -> bool:
        """Return whether two arrays of the same shape and dtype hold the same bits."""
        raise NotImplementedError

    def capture(self, state: State, data: Any, size: int) -> Play:
        """Capture `size` steps on the buffers of the state."""
        raise NotImplementedError

    def wait(self) -> None:
        """Wait for pending work before its memory is freed."""

    # ---------------------------------------------------------------- running

    def __call__(self, state: State, data: Any, /, *, count: int = 1) -> State:
        if not self.reason:
            state = self._ready(state, data)
        while count > 0:
            done, state = self._some(state, data, count)
            count -= done
        return state

    def _some(self, state: State, data: Any, count: int) -> tuple[int, State]:
        """Run some steps and return how many, perhaps none, and the state after them."""
        if self.reason:
            return 1, self.step(state, data)
        size = next(size for size in self.SIZES if size <= count)
        play = self.plays.get(size)
        if play is not None:
            play(count // size)
            return count - count % size, state
        if size in self._unproved:
            return self._prove(state, data, size)
        if self._seen < self.WORTH:
            self._seen += 1
            return 1, self.step(state, data)
        return self._record(state, data, size)

    def _ready(self, state: State, data: Any) -> State:
        """Return the state in the captured buffers, if they fit."""
        given = leaves(data)
        if not self._fits(leaves(state), given):
            self._forget(given)
        elif self._state:
            for i in self._moving:
                self.copy(self._data[i], given[i])
            return self._adopted(state)
        return state

    def _fits(self, now: list[Any], given: list[Any]) -> bool:
        if len(given) != len(self._data):
            return False
        fits = True
        for i, (a, b) in enumerate(zip(given, self._data, strict=True)):
            if a is not b and (i not in self._moving or not self._same_kind(a, b)):
                fits = False
                if self._small(a) and self._same_kind(a, b):
                    self._moving.add(i)
        if not self._state or not fits:
            return fits
        return len(now) == len(self._state) and all(map(self._same_kind, now, self._state))

    def _forget(self, given: list[Any]) -> None:
        """Drop all captures, and start again with these data."""
        if self.plays:
            self.wait()
        self.plays = {}
        self._unproved: dict[int, tuple[Play, int]] = {}
        self._state: list[Array] = []
        self._homes: dict[int, int] = {}
        self._data = given
        self._moving = {i for i in self._moving if i < len(given) and self._small(given[i])}
        self._seen = 0

    def _adopted(self, state: State) -> State:
        moved = [(own, a) for own, a in zip(self._state, leaves(state), strict=True) if own is not a]
        if not moved:
            return state
        if any(self.place(a)[0] in self._homes for _, a in moved):
            moved = [(own, self.own(a)) for own, a in moved]  # two may have been swapped
        for own, a in moved:
            self.copy(own, a)
        return unflatten(state, self._state)

    # ---------------------------------------------------------------- capturing

    def _record(self, state: State, data: Any, size: int) -> tuple[int, State]:
        try:
            if not self._state:
                self._settle(leaves(state), leaves(data))
            play = self.capture(unflatten(state, self._state), unflatten(data, self._data), size)
        except self.FAILURES as error:
            return 0, self._give_up(error, state)
        self._unproved[size] = play, self.PROOFS
        return size if self.RUNS else 0, unflatten(state, self._state)

    def _settle(self, before: list[Any], given: list[Any]) -> None:
        """Make buffers for the state, and for data that change: the arrays may be views, or read-only."""
        if not before:
            raise NotRecordable(NO_STATE)
        if not all(map(self.is_array, before)):
            raise NotRecordable("its state holds more than arrays")
        if sum(map(_bytes, before)) > self.STATE:
            raise NotRecordable(f"its state takes more than {int(self.STATE) >> 20} MiB")
        self._state = [self.own(a) for a in before]
        self._homes = {self.place(a)[0]: i for i, a in enumerate(self._state) if _any(a)}
        self._data = [self.own(a) if i in self._moving else a for i, a in enumerate(given)]

    def changed(self, after: list[Any]) -> list[tuple[Array, Array]]:
        """Return (buffer, array) for each part of a state that a step returned in another array.

        Raises
        ------
        NotRecordable
            If the next step could not have it in the same buffers.
        """
        if len(after) != len(self._state) or not all(map(self._same_kind, after, self._state)):
            raise NotRecordable("its state changes its structure")
        new = []
        for i, (own, a) in enumerate(zip(self._state, after, strict=True)):
            if not _any(a):
                continue
            home = self._homes.get(self.place(a)[0])
            if home is None:
                new.append((own, a))
            elif home != i or self.place(a) != self.place(own):
                raise NotRecordable("its state trades places")
        return new

    def _prove(self, state: State, data: Any, size: int) -> tuple[int, State]:
        """Run steps eagerly and from the capture; return how many, and the state after them."""
        play, left = self._unproved.pop(size)
        try:
            expected = unflatten(state, [self.own(a) for a in self._state])
        except self.FAILURES as error:
            return 0, self._give_up(error, state)
        for _ in range(size):
            expected = self.step(expected, data)
        try:
            play(1)
            after = leaves(expected)
            if not all(map(self._same_kind, after, self._state)) or not all(map(self.same, after, self._state)):
                raise NotRecordable("the recording did not repeat the step to the bit")
        except self.FAILURES as error:
            return size, self._give_up(error, expected)
        if left > 1:
            self._unproved[size] = play, left - 1
        else:
            self.plays[size] = play
        return size, state

    def _give_up(self, error: Exception, state: State) -> State:
        self.reason = " ".join(str(error).split())[:300]
        if not isinstance(error, NotRecordable):
            self.reason = f"{type(error).__name__}: {self.reason}"
        self._forget(self._data)
        return state

    def _same_kind(self, a: Any, b: Any) -> bool:
        alike: bool = self.is_array(a) and self.is_array(b) and a.shape == b.shape and a.dtype == b.dtype
        return alike

    def _small(self, a: Any) -> bool:
        return self.is_array(a) and _bytes(a) <= self.FED


def _bytes(a: Array) -> int:
    return int(math.prod(a.shape) * a.dtype.itemsize)


def _any(a: Array) -> bool:
    return bool(math.prod(a.shape) > 0)
