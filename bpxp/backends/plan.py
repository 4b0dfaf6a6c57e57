"""A plan: the operations of a trace as calls of a library into buffers that are used again and again.

The trace is interpreted once on real arrays, by the functions of the backend's own namespace: so layouts, views and
dtypes are those of the eager step. What the plan then calls writes, with ``out=``, into memory that is planned: a
buffer is free when its last view was read. Arguments are arguments of the plan too, so it keeps nothing of them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from bpxp.backends.abstract.array import ARITHMETIC, COMPARISONS, UNARY
from bpxp.backends.abstract.trace import NotCapturable, Operation, Trace, Value
from bpxp.backends.program import OUT, Call, Code, Offsets, filled, several, values
from bpxp.core.tree import leaves
from bpxp.core.typing import Array, Namespace

INFIX: dict[str, Callable[..., Any]] = {
    name: getattr(operator, f"__{short}__") for name, short in (ARITHMETIC | COMPARISONS | UNARY).items()
} | {"getitem": operator.getitem}
IN_PLACE: dict[str, Callable[..., Any]] = {name: getattr(operator, f"__i{s}__") for name, s in ARITHMETIC.items()}
SHAPE_ONLY = {"empty_like", "full_like", "ones_like", "zeros_like"}  # their results are constants


class Library(Protocol):
    """What a plan needs of an array library."""

    array_type: type
    differs: str  # "{0} has not the shape {1}, or not the dtype {2}, or not the strides {3}", as an expression
    copy: Callable[[Any, Any], Any]  # copy(into, a)

    def kind(self, a: Any) -> tuple[Any, ...]:
        """Return shape, dtype and strides."""

    def own(self, a: Any) -> Array:
        """Return a copy in the layout of `a`."""

    def writable(self, a: Array) -> bool:
        """Return whether an array may be written."""

    def bounds(self, a: Array) -> tuple[int, int]:
        """Return the addresses between which an array lies."""

    def shares(self, a: Any, b: Any) -> bool:
        """Return whether two arrays share memory."""

    def same(self, a: Any, b: Any) -> bool:
        """Return whether two arrays have the same shape, dtype and bits."""

    def agrees(self, a: Any, shape: Any, kind: Any) -> bool:
        """Return whether an array has the shape and dtype of a trace."""

    def extent(self, kind: tuple[Any, ...]) -> int:
        """Return the bytes from the first to the last number of a layout."""

    def fresh(self, kind: tuple[Any, ...]) -> Callable[[], Array]:
        """Return what makes an array of a layout."""

    def placed(self, memory: Any, offset: int, kind: tuple[Any, ...]) -> Array:
        """Return an array of a layout in some bytes."""

    def memory(self, size: int) -> Any:
        """Return so many bytes."""

    def call(self, op: Operation, function: Any, arguments: tuple[Any, ...], result: Any) -> Call | None:
        """Return a call that computes the operation into `OUT`; None where there is none."""

    def call_in_place(self, op: Operation, arguments: tuple[Any, ...]) -> Call:
        """Return a call that computes an operator in place."""


class Done(NamedTuple):
    """An operation that was interpreted: what it called, and how it is computed again (None: it is a view)."""

    operation: Operation
    function: Callable[..., Any]
    call: Call | None
    view: bool


class Plan:
    """The calls of a step.

    Parameters
    ----------
    trace : Trace
    library : Library
    xp : namespace
        Of the backend.
    arguments : list of array
        Of the state, then of the data. They are written as the step writes them.
    state : int
        How many of them are the state's.
    stateful : bool
        Whether what the step returns is the next state; else it is given new arrays.

    Attributes
    ----------
    play : callable
        ``play(count, *arguments)`` does so many steps, and returns the arrays that are no state's.
    bytes : int
        Of the buffers.
    """

    def __init__(
        self, trace: Trace, library: Library, xp: Namespace, arguments: list[Array], state: int, stateful: bool
    ) -> None:
        self.trace, self.library, self.xp, self.state = trace, library, xp, state
        self.given = len(arguments)
        self.outputs = [a for a in leaves(trace.outputs) if isinstance(a, Value)] if stateful else leaves(trace.outputs)
        self.stateful = stateful
        self.root = list(range(self.given))  # of each value the one whose memory it is
        self.kind = [library.kind(a) for a in arguments]
        self.done = self._interpreted(arguments)
        if stateful:
            self._check_outputs()
        kept = self._needed()
        self.constant = self._constants(kept)
        self.play, self.bytes = self._written(kept, arguments)

    # ---------------------------------------------------------------- interpretation

    def _interpreted(self, arguments: list[Array]) -> list[Done]:
        """Do the step once, operation by operation."""
        library, real = self.library, dict(enumerate(arguments))
        last = {v: i for i, op in enumerate(self.trace.operations) for v in values((op.inputs, op.static, op.outputs))}
        done = []
        for i, op in enumerate(self.trace.operations):
            inputs, keywords = filled(op.inputs, real), filled(op.static, real)
            if op.into is not None:
                function = IN_PLACE[op.name]
                if self.root[op.into.number] >= self.state and self.root[op.into.number] < self.given:
                    raise NotCapturable("it writes into what is not its own")
                if function(*inputs) is not real[op.into.number]:
                    raise NotCapturable("it writes into a number, not into an array")
                done.append(Done(op, function, library.call_in_place(op, inputs), False))
            else:
                function = INFIX[op.name] if op.infix else getattr(self.xp, op.name)
                results = several(function(*inputs, **keywords))
                views = [self._noted(v.number, a, real, op) for v, a in zip(op.outputs, results, strict=True)]
                if any(views) and not all(views):
                    raise NotCapturable(f"{op.name} returns both views and new arrays")
                call = None if any(views) else self._call(op, function, inputs, results, real)
                done.append(Done(op, function, call, any(views)))
            for v in set(values((op.inputs, op.static, op.outputs))):
                if last[v] == i:
                    real.pop(v, None)
        return done

    def _noted(self, number: int, a: Any, real: dict[int, Any], op: Operation) -> bool:
        """Take a result, and return whether it is a view of an operand."""
        library = self.library
        shape, kind = self.trace.kinds[number]
        if not library.agrees(a, shape, kind):
            raise NotCapturable(f"{op.name} returned {a.dtype} {tuple(a.shape)}, and {kind} {shape} was traced")
        of = [v for v in values((op.inputs, op.static)) if library.shares(a, real[v])]
        if number in real:  # the operand itself was traced as the result
            if not of or library.kind(a) != self.kind[number]:
                raise NotCapturable(f"{op.name} returned a copy, and its operand was traced")
            return True
        assert number == len(self.kind)
        self.kind.append(library.kind(a))
        self.root.append(self.root[of[0]] if of else number)
        real[number] = a
        return bool(of)

    def _call(self, op: Operation, function: Any, inputs: Any, results: Any, real: dict[int, Any]) -> Call | None:
        """Return the call that computes an operation into a buffer, if there is one that does so to the bit."""
        if len(results) != 1:
            return None
        call = self.library.call(op, function, inputs, results[0])
        if call is not None:
            out = self.library.fresh(self.kind[op.outputs[0].number])()
            with_out = {**real, OUT.number: out}
            try:
                call.function(*filled(call.arguments, with_out), **filled(call.keywords, with_out))
            except Exception:  # a function may refuse its out
                return None
            if not self.library.same(out, results[0]):
                return None
        return call

    def _check_outputs(self) -> None:
        """Raise where the state that the step returns could not be the next one in the same arrays."""
        seen = set()
        for i, value in enumerate(self.outputs):
            root, kind = self.root[value.number], self.kind[value.number]
            if root < self.given and (root != i or kind != self.kind[i]):
                raise NotCapturable("its state trades places")
            if kind[:2] != self.kind[i][:2]:
                raise NotCapturable("its state changes its structure")
            if root in seen:
                raise NotCapturable("two parts of its state are one array")
            seen.add(root)

    # ---------------------------------------------------------------- what is needed

    def _needed(self) -> list[Done]:
        """Return the operations that anything comes of."""
        roots = set(range(self.state)) | {self.root[v.number] for v in self.outputs if isinstance(v, Value)}
        shown = {v.number for v in self.outputs if isinstance(v, Value)}
        kept = []
        for one in reversed(self.done):
            op = one.operation
            made = {v.number for v in op.outputs}
            if (made & shown) if one.view else any(self.root[v] in roots for v in made):
                kept.append(one)
                if op.name not in SHAPE_ONLY:
                    read = set(values((op.inputs, op.static)))
                    shown |= read
                    roots |= {self.root[v] for v in read}
        return kept[::-1]

    def _constants(self, kept: list[Done]) -> set[int]:
        """Return the roots that are the same in every step: made of nothing, or of such, and never written."""
        written = {self.root[op.into.number] for op, *_ in kept if op.into is not None}
        if not self.stateful:
            written |= {self.root[v.number] for v in self.outputs if isinstance(v, Value)}
        constant: set[int] = set()
        for op, _, _, view in kept:
            made = {v.number for v in op.outputs}
            if not view and op.into is None and not made & written and self._of_constants(op, constant):
                constant |= made
        return constant

    def _of_constants(self, op: Operation, constant: set[int]) -> bool:
        return op.name in SHAPE_ONLY or all(self.root[v] in constant for v in values((op.inputs, op.static)))

    # ---------------------------------------------------------------- the program

    def _written(self, kept: list[Done], arguments: list[Array]) -> tuple[Callable[..., Any], int]:
        """Write the plan as a function of Python: nothing is faster, and its arguments are bound in each call."""
        library = self.library
        outputs = [v for v in self.outputs if isinstance(v, Value)]
        made = set() if self.stateful else {self.root[v.number] for v in outputs} - set(range(self.given))
        offsets, size = self._planned(kept, made)
        memory = library.memory(size)
        real: dict[int, Any] = dict(enumerate(arguments))
        for root, offset in offsets.items():
            real[root] = library.placed(memory, offset, self.kind[root])
        code = Code(library.copy)
        local = {i: f"a{i}" for i in range(self.given)}  # values that are local variables of the program
        for root in sorted(made):
            make = library.fresh(self.kind[root])
            real[root], local[root] = make(), f"a{root}"
            code.before.append(f"a{root} = {code.constant(make)}()")
        for op, function, call, view in kept:
            numbers = [v.number for v in op.outputs]
            if view and not set(numbers) <= set(values(op.inputs)):
                for number, a in zip(numbers, self._called(op, function, real), strict=True):
                    real.setdefault(number, a)
                    if self.kind[number] != library.kind(a):
                        raise NotCapturable(f"{op.name} has another layout in a buffer")
                if any(v in local for v in values(op.inputs)):
                    names = ", ".join(local.setdefault(number, f"a{number}") for number in numbers)
                    code.before.append(f"{names} = {code.call(function, op.inputs, op.static, real, local)}")
            elif view:
                continue
            elif op.into is None and self._of_constants(op, self.constant):
                for number, a in zip(numbers, self._called(op, function, real), strict=True):
                    if number in self.constant:
                        real[number] = library.own(a)
                    else:
                        code.copy(real, local, number, library.own(a))
            elif call is None:
                code.again(function, op, real, local)
            else:
                out = {OUT.number: real[numbers[0]]}
                named = {OUT.number: local[numbers[0]]} if numbers[0] in local else {}
                code.during.append(code.call(call.function, call.arguments, call.keywords, real | out, local | named))
        for i, value in enumerate(outputs):
            if self.stateful and self.root[value.number] != i:
                code.copy(real, local, i, value)
        returned = () if self.stateful else tuple(self.outputs)
        return code.program(self.given, code.shown(returned, real, local)), size

    def _called(self, op: Operation, function: Callable[..., Any], real: dict[int, Any]) -> Any:
        if op.name in SHAPE_ONLY:
            real = {v: self.library.fresh(self.kind[v])() for v in values((op.inputs, op.static))}
        return several(function(*filled(op.inputs, real), **filled(op.static, real)))

    def _planned(self, kept: list[Done], made: set[int]) -> tuple[dict[int, int], int]:
        """Return the offset of each buffer in the plan's memory, and its size."""
        library, root = self.library, self.root
        last: dict[int, int] = {}
        for i, (op, _, _, view) in enumerate(kept):
            if not view:
                last |= {root[v]: i for v in values((op.inputs, op.static, op.outputs))}
        last |= {root[v.number]: len(kept) for v in self.outputs if isinstance(v, Value)}
        memory, offsets = Offsets(), {}
        for i, (op, _, call, view) in enumerate(kept):
            if view:
                continue
            dying = [r for r in {root[v] for v in values((op.inputs, op.static))} if last[r] == i and r in offsets]
            for v in op.outputs:
                own = v.number
                if root[own] != own or own in offsets or own in made or own in self.constant or own < self.given:
                    continue
                heir = next(
                    (r for r in dying if call is not None and call.elementwise and self._whole(op, r, own)), None
                )
                if heir is None:
                    offsets[own] = memory.take(library.extent(self.kind[own]))
                else:
                    offsets[own] = offsets[heir]
                    dying.remove(heir)
            unread = {v.number for v in op.outputs if v.number in offsets and last[v.number] == i}
            for r in unread.union(dying):
                memory.give(offsets[r], library.extent(self.kind[r]))
        return offsets, memory.size

    def _whole(self, op: Operation, r: int, own: int) -> bool:
        """Return whether the operands in buffer r lie exactly as the result will."""
        kind = self.kind[own]
        return all(self.kind[v] == kind == self.kind[r] for v in values(op.inputs) if self.root[v] == r)
