"""A compiled step of the CPU: it runs eagerly until a capture pays, then as a plan that has proved to do the same.

The step is traced on arrays without numbers (`bpxp.backends.abstract.trace`), so that whatever asks for a number ends
the capture; the plan is made of the trace (`bpxp.backends.plan`). Before its first use, and about once in a thousand
steps, a plan does a step beside the eager one, on a copy of the state: the eager result counts, and one bit that
differs ends the capture.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable
from typing import Any

from bpxp.backends.abstract.trace import NotCapturable, Value, same, short, trace
from bpxp.backends.arguments import Apart, arrays_of, kinds, matcher
from bpxp.backends.base import State, eager
from bpxp.backends.capture import initial_reason
from bpxp.backends.constants import Constants
from bpxp.backends.plan import Library, Plan
from bpxp.backends.proof import first_difference
from bpxp.core.tree import leaves, tree_map, unflatten
from bpxp.core.typing import Array
from bpxp.errors import warn

# Beyond so many bytes that live at a time a step is not kept back by Python, and fresh memory that is soon freed is
# nearer to the core than a buffer for each result.
ROOM = 16 << 20
PROOFS = 200, 1800  # after a number of steps between these a plan is proved again; in a fit, once in an epoch
PLANS = 4  # for as many shapes of arguments; the least recently used go
CHANGES = 3  # how often constants of a step may change before it runs eagerly for good


@dataclasses.dataclass(eq=False)
class Entry:
    """What is known for one kind of arguments: how many eager steps there were, and the plan."""

    seen: int = 0
    proved: bool = False
    plan: Plan | None = None
    own: int = 0  # arrays of the state
    left: int = 0  # steps before the next proof
    since: int = 0  # and after the last
    match: Callable[[Any, Any], tuple[Array, ...] | None] = lambda state, data: None


class CapturedStep:
    """A compiled step: ``state = run(state, data, count=n)``.

    Parameters
    ----------
    step : callable
        A dataclass with a field `xp`; anything else runs eagerly.
    library : Library
        Of the arrays.

    Attributes
    ----------
    reason : str
        Why it runs eagerly; empty where it is captured, or was not worth it yet.
    plans : list of Plan
        Those that are proved.

    Notes
    -----
    The arrays of the state are written in place, as the eager step writes them; nothing else is kept of the arguments.
    The buffers of a plan belong to one call at a time: a second thread runs eagerly meanwhile.
    """

    WORTH = 32  # eager steps before one is captured: by then they have cost about a third of a capture

    def __init__(self, step: Any, library: Library, /) -> None:
        self.step, self.library = step, library
        self.reason = initial_reason()
        self._eager = eager(step)
        self._lock = threading.Lock()
        self._changes = 0
        self._random = random.Random()  # independent of the user's random numbers
        self._forget()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.step, self.library)

    @property
    def plans(self) -> list[Plan]:
        return [entry.plan for entry in self._entries.values() if entry.plan is not None and entry.proved]

    def prove_within(self, steps: int) -> None:
        """Prove the plan again at a random one of the next steps, unless it was proved a moment ago."""
        if self._lock.acquire(False):
            entry = self._entry
            if entry.proved and entry.since + steps > PROOFS[0]:
                entry.left = min(entry.left, self._random.randrange(steps))
            self._lock.release()

    def _forget(self) -> None:
        self._entries: dict[Any, Entry] = {}
        self._entry = Entry()
        self._constants: Constants | None = None
        self._apart = Apart(self.library)

    # ---------------------------------------------------------------- running

    def __call__(self, state: State, data: Any, /, *, count: int = 1) -> State:
        if self.reason or not self._lock.acquire(False):
            return self._eager(state, data, count=count)
        try:
            while count > 0 and not self.reason:
                done, state = self._some(state, data, count)
                count -= done
        finally:
            self._lock.release()
        return self._eager(state, data, count=count) if count else state

    def _some(self, state: State, data: Any, count: int) -> tuple[int, State]:
        """Do one step or more; return how many, and the state after them."""
        entry = self._entry
        arrays = entry.match(state, data)
        if arrays is None:
            entry = self._entry = self._found(state, data)
            arrays = entry.match(state, data)
        if self._constants is not None and self._constants.places and not self._constants.same():
            return 0, self._changed(state)
        if arrays is None:
            if entry.seen >= self.WORTH:
                return self._capture(entry, state, data)
            entry.seen += 1
            return 1, self.step(state, data)
        plan = entry.plan
        if plan is None or (entry.own and not self._apart(arrays, entry.own)):
            return 1, self.step(state, data)
        if not entry.left:
            return self._prove(entry, plan, state, data, arrays)
        times = min(count, entry.left) if plan.stateful else 1
        entry.left -= times
        entry.since += times
        made = plan.play(times, *arrays)
        if plan.stateful:
            return times, state
        outputs = plan.trace.outputs
        return times, unflatten(outputs, made) if isinstance(outputs, tuple) else made[0]

    def _found(self, state: State, data: Any) -> Entry:
        """Return what is known for such arguments."""
        key = tuple(kinds((state, data), self.library))
        entry = self._entries.pop(key, None) or Entry()
        self._entries[key] = entry
        while len(self._entries) > PLANS:
            del self._entries[next(iter(self._entries))]
        return entry

    # ---------------------------------------------------------------- capture

    def _capture(self, entry: Entry, state: State, data: Any) -> tuple[int, State]:
        """Trace the step, and make a plan of it; no step is done."""
        library = self.library
        try:
            if self._constants is None:
                self._constants = Constants(self.step)
            match = matcher(state, data, library)
            arrays = match(state, data) or ()
            if not arrays:
                raise NotCapturable("its arguments are no arrays of the backend")
            entry.own = len(arrays_of(state, library.array_type))
            if entry.own and not self._apart(arrays, entry.own):
                return 1, self.step(state, data)
            traced = trace(self.step, state, data, arrays[0])
            if traced.peak > ROOM:
                raise NotCapturable(f"its results take more than {ROOM >> 20} MiB")
            difference = same(traced, trace(self.step, state, data, arrays[0]))
            if difference:
                raise NotCapturable(f"two traces of it differ: {difference}")
            if not self._constants.same():
                raise NotCapturable(self._constants.difference())
            copies = [library.own(a) for a in arrays[: entry.own]]
            if any(library.kind(a) != library.kind(b) for a, b in zip(copies, arrays, strict=False)):
                raise NotCapturable("its state is not contiguous")
            stateful = entry.own > 0
            if stateful and structure(state, library.array_type) != structure(traced.outputs, Value):
                raise NotCapturable("its state changes its structure")
            entry.plan = Plan(traced, library, self.step.xp, [*copies, *arrays[entry.own :]], entry.own, stateful)
            entry.match = match
        except Exception as error:  # an array library refuses in its own way; the eager step does it again
            self._give_up(short(error))
        return 0, state

    def _prove(self, entry: Entry, plan: Plan, state: State, data: Any, arrays: tuple[Array, ...]) -> tuple[int, State]:
        """Do a step eagerly, and from the plan on a copy of the state; return the eager result."""
        own = entry.own
        before, copies = ([self.library.own(a) for a in arrays[:own]] for _ in range(2))
        expected = self.step(state, data)
        try:
            made = plan.play(1, *copies, *arrays[own:])
            agrees = self._agrees(leaves(expected), copies if plan.stateful else list(made), plan)
        except Exception:
            agrees = False
        if agrees:
            entry.proved, entry.left, entry.since = True, self._random.randint(*PROOFS), 0
            return 1, expected
        state = self._unflatten(state, before)
        first = first_difference(self.step, plan, state, data, [*before, *arrays[own:]])
        self._give_up(f"the plan did not repeat the step to the bit: {first}")
        if entry.proved:
            warn("a captured step", f"it differs from the eager step: {first}", code="W009", fix="net.capture = False")
        return 1, expected

    def _agrees(self, expected: list[Any], made: list[Any], plan: Plan) -> bool:
        kind = self.library.array_type
        if plan.stateful:
            expected = [a for a in expected if type(a) is kind]
        return len(expected) == len(made) and all(
            type(a) is type(b) and (self.library.same(a, b) if type(a) is kind else a == b)
            for a, b in zip(expected, made, strict=True)
        )

    def _unflatten(self, tree: Any, arrays: list[Array]) -> Any:
        """Return a tree with other arrays."""
        rest = iter(arrays)
        return tree_map(lambda a: next(rest) if type(a) is self.library.array_type else a, tree)

    def _changed(self, state: State) -> State:
        """Begin anew with other constants."""
        assert self._constants is not None
        difference = self._constants.difference()
        self._changes += 1
        self._forget()
        if self._changes > CHANGES:
            self.reason = difference
        return state

    def _give_up(self, reason: str) -> None:
        self._forget()
        self.reason = reason


def structure(tree: Any, leaf: type) -> Any:
    """Return a tree without its arrays, of the type `leaf`."""
    if isinstance(tree, tuple):
        return type(tree), *(structure(child, leaf) for child in tree)
    return None if type(tree) is leaf else (type(tree), tree)
