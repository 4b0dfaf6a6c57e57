"""A compiled step on a CUDA device: it runs eagerly at first, then as a CUDA graph that was proved equal.

This is what CuPy and PyTorch share: buffers of the state, the proof, and the fallback to the eager step, with a reason.
The first times that a graph runs, the eager step runs beside it on a copy; if a single bit differs, the graph is
dropped.
"""

from __future__ import annotations

import contextlib
import gc
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

from bpxp.backends.base import State, StepFunction
from bpxp.backends.capture import NO_STATE, initial_reason
from bpxp.core.tree import leaves, unflatten
from bpxp.core.typing import Array, Namespace

Play = Callable[[int], None]  # replay so many times


class NotRecordable(Exception):
    """The step cannot be captured; the text says why."""


class CapturedGraph:
    """A compiled step: ``state = run(state, data, count=n)``, one launch of a graph instead of one for each kernel.

    Parameters
    ----------
    step : callable
        ``state = step(state, data)``.
    xp : namespace
        Of the step: its `memo` has to be complete before the capture.

    Attributes
    ----------
    plays : dict of int to callable
        The graphs that are proved, by the number of steps of each.
    reason : str
        Why the step runs eagerly; empty where it is captured, or was not tried yet.

    Notes
    -----
    A graph holds addresses, not arrays. So the state gets buffers of its own, and a state in other arrays is copied
    into them. Large arrays of the data have to be the same ones in every call, or the step is captured again; small
    ones that were seen to change, such as a new order of the samples, are copied too. A graph belongs to the stream
    that was current when it was captured: its memory is reused in the order of that stream.

    The returned state aliases these buffers: it is valid until the next call.
    """

    WORTH = 3  # eager steps before one is captured: they compile kernels and load libraries
    SIZES: tuple[int, ...] = (8, 1)  # how many steps a graph holds, the largest first, the last 1
    PROOFS = 2  # how often a graph runs beside the eager step; the second begins with memory as the first left it
    TRIES = 3  # captures that another thread may break
    FED = 1 << 20  # bytes of an array of the data that is copied rather than captured again

    def __init__(self, step: StepFunction, xp: Namespace, /) -> None:
        self.step, self.xp, self.reason = step, xp, initial_reason()
        self._moving: set[int] = set()
        self._broken = 0
        self._forget([])

    def __deepcopy__(self, memo: dict[int, Any]) -> CapturedGraph:
        # Another object has other arrays, and captures for itself.
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.reason, other._moving = initial_reason(), set()
        other._forget([])
        return other

    def __reduce__(self) -> tuple[Any, ...]:  # what is captured belongs to this process
        return operator.methodcaller("compile", self.step), (self.xp.owner,)

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

    def same(self, pairs: list[tuple[Array, Array]]) -> bool:
        """Return whether the two arrays of each pair, of one shape and dtype, hold the same bits."""
        raise NotImplementedError

    def stream(self) -> Any:
        """Return what identifies the current stream."""
        raise NotImplementedError

    def capture(self, state: State, data: Any, size: int) -> Play:
        """Capture what `work` does, without running it."""
        raise NotImplementedError

    def broken(self, error: Exception) -> bool:
        """Return whether another thread broke the capture."""
        return "StreamCaptureInvalidated" in str(error)

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
        """Return the state in the buffers, if it fits."""
        given = leaves(data)
        if not self._fits(leaves(state), given) or (self._state and self._stream != self.stream()):
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
        """Drop all graphs, and start again with these data."""
        self.plays: dict[int, Play] = {}
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
            own, fed = unflatten(state, self._state), unflatten(data, self._data)
            self._warm_up(own, fed)
            with _no_collection():
                self._unproved[size] = self.capture(own, fed, size), self.PROOFS
        except (
            Exception
        ) as error:  # a library raises its own types; an error of the step itself is raised again eagerly
            return 0, self._give_up(error, state)
        return 0, own

    def _settle(self, before: list[Any], given: list[Any]) -> None:
        """Make buffers for the state, and for data that change: the arrays may be views, or read-only."""
        if not before:
            raise NotRecordable(NO_STATE)
        if not all(map(self.is_array, before)):
            raise NotRecordable("its state holds more than arrays")
        self._stream = self.stream()
        self._state = [self.own(a) for a in before]
        self._homes = {self.place(a)[0]: i for i, a in enumerate(self._state) if _any(a)}
        self._data = [self.own(a) if i in self._moving else a for i, a in enumerate(given)]

    def _warm_up(self, state: State, data: Any) -> None:
        """Run what will be captured on a copy of the state."""
        copies = [self.own(a) for a in leaves(state)]
        after = self.step(unflatten(state, copies), data)
        for into, a in zip(copies, leaves(after), strict=True):
            self.copy(into, a)

    def work(self, state: State, data: Any, size: int) -> None:
        """Run `size` steps on the buffers of the state, for the capture."""
        memo: dict[Any, Array] = getattr(self.xp, "memo", {})
        known = set(memo)
        try:
            for _ in range(size):
                for own, a in self._changed(leaves(self.step(state, data))):
                    self.copy(own, a)
        finally:
            # Tables that are made within a capture have no values yet, and their memory is the graph's.
            new = memo.keys() - known
            for key in new:
                del memo[key]
        if new:
            raise NotRecordable("it makes a table of indices, once, and not when it is warmed up")

    def _changed(self, after: list[Any]) -> list[tuple[Array, Array]]:
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
        """Run steps eagerly and from the graph; return how many, and the state after them."""
        play, left = self._unproved.pop(size)
        try:
            expected = unflatten(state, [self.own(a) for a in self._state])
        except Exception as error:
            return 0, self._give_up(error, state)
        for _ in range(size):
            expected = self.step(expected, data)
        try:
            play(1)
            after = leaves(expected)
            alike = len(after) == len(self._state) and all(map(self._same_kind, after, self._state))
            if not alike or not self.same([pair for pair in zip(after, self._state, strict=True) if _any(pair[0])]):
                raise NotRecordable("the graph did not repeat the step to the bit")
        except Exception as error:
            return size, self._give_up(error, expected)
        if left > 1:
            self._unproved[size] = play, left - 1
        else:
            self.plays[size] = play
        return size, state

    def _give_up(self, error: Exception, state: State) -> State:
        self._forget(self._data)
        self._broken += self.broken(error)
        if not self.broken(error) or self._broken >= self.TRIES:
            text = " ".join(str(error).split())[:300]
            self.reason = text if isinstance(error, NotRecordable) else f"{type(error).__name__}: {text}"
        return state

    def _same_kind(self, a: Any, b: Any) -> bool:
        alike: bool = self.is_array(a) and self.is_array(b) and a.shape == b.shape and a.dtype == b.dtype
        return alike

    def _small(self, a: Any) -> bool:
        return self.is_array(a) and math.prod(a.shape) * a.dtype.itemsize <= self.FED


def _any(a: Array) -> bool:
    return bool(math.prod(a.shape) > 0)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Prevent the collector from freeing other arrays during the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
