"""A captured step of PyTorch on the CPU: recorded while it runs once, then replayed into the same memory.

As for NumPy (`bpxp.backends.numpy.capture`): operations, their order and shapes are the same in every step, so later
steps call the same kernels with the same buffers. That saves nearly everything between the kernels: the Python of the
mathematics, the allocator, and half of PyTorch's dispatch.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bpxp.backends.base import State
from bpxp.backends.capture import Call, NotRecordable, Play, repeated
from bpxp.backends.numpy.capture import RESULTS
from bpxp.backends.torch.tensors import TorchReplay
from bpxp.core.tree import leaves
from bpxp.core.typing import Array

# Functions that take `out`.
WITH_OUT = {
    name: getattr(torch, name)
    for name in (
        "abs acos acosh add all amax amin any argmax argmin asin asinh atan atan2 atanh bitwise_and bitwise_left_shift"
        " bitwise_not bitwise_or bitwise_right_shift bitwise_xor bmm cat ceil cos cosh cumsum div eq exp expm1 floor"
        " floor_divide fmod ge gt index_select le log log10 log1p log2 logaddexp logical_and logical_not logical_or"
        " logical_xor lt maximum mean minimum mm mul ne neg pow prod reciprocal remainder round rsqrt sigmoid sign sin"
        " sinh sqrt square stack sub sum tan tanh trunc where"
    ).split()
}
WITH_OUT |= {
    "__and__": torch.bitwise_and,
    "__lshift__": torch.bitwise_left_shift,
    "__or__": torch.bitwise_or,
    "__rshift__": torch.bitwise_right_shift,
    "__xor__": torch.bitwise_xor,
    "_to_copy": lambda x, *, out, **_: out.copy_(x),
    "clone": lambda x, *, out, **_: out.copy_(x),
    "rsub": lambda x, a, *, out: torch.sub(a, x, out=out),
}

# Rare functions without `out`, whose results are copied.
COPIED = {name: getattr(torch.ops.aten, name) for name in ("constant_pad_nd", "flip", "repeat", "roll", "tril", "triu")}

# A Python number beside an array costs PyTorch 5 µs in each of these, a 0-d array nothing.
WITH_NUMBERS = {name + end for name in "add sub mul div eq ne lt le gt ge".split() for end in ("", "_")} | {"rsub"}

_here = threading.local()  # the tape of this thread while it records


class Tape(TorchDispatchMode):  # type: ignore[misc]
    """The recorded calls, in order.

    Attributes
    ----------
    calls : list of (function, arguments)
        The calls of one step.
    constants : dict of int to tensor
        Made by the step from no input: the same in every step, as long as they are not written.
    """

    def __init__(self, own: list[Array]) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.constants: dict[int, Array] = {}
        self.bytes = 0
        self._filled = set(map(_memory, own))  # by a call, or before the step

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Otherwise PyTorch imports its compiler, to exclude the method below: seconds, and 70 MB.
        return False

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), options: dict[str, Any] | None = None
    ) -> Any:
        options = options or {}
        name = function._schema.name.partition("::")[2]
        said = _numbers_as_arrays(arguments) if name in WITH_NUMBERS else arguments
        if function._schema.is_mutable:
            target = arguments[0]
            if not hasattr(target, name):
                raise NotRecordable(f"{name} writes, and not into what it is called on")
            self._before_writing(target)
            self._call(getattr(target, name), said[1:], options)
            return function(*arguments, **options)
        made = function(*arguments, **options)
        several = made if isinstance(made, (tuple, list)) else [made]
        if not all(isinstance(a, torch.Tensor) for a in several):
            raise NotRecordable(f"it looks at numbers ({name})")
        given = [_memory(a) for a in _tensors((arguments, options))]
        if all(a.numel() == 0 or _memory(a) in given for a in several):  # views need no call
            return made
        if not isinstance(made, torch.Tensor):
            raise NotRecordable(f"{name} has several results")
        if all(memory in self.constants for memory in given):
            self.constants[_memory(made)] = made
        elif name in WITH_OUT:
            self._call(WITH_OUT[name], said, {**options, "out": self._result(made)})
        elif name in COPIED:
            self._call(_again, (COPIED[name], arguments, options, (self._result(made),)), {})
        else:
            raise NotRecordable(f"there is no way to call {name} again")
        return made

    def behind(self, function: Callable[..., tuple[Array, ...]], arguments: tuple[Array, ...]) -> tuple[Array, ...]:
        """Record what goes behind PyTorch's back as one call."""
        made = function(*arguments)
        self._call(_again, (function, arguments, {}, tuple(map(self._result, made))), {})
        return made

    def _call(self, function: Callable[..., Any], arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.calls.append((functools.partial(function, **options) if options else function, arguments))

    def _result(self, a: Array) -> Array:
        self.bytes += a.numel() * a.element_size()
        if self.bytes > RESULTS:
            raise NotRecordable(f"its results take more than {RESULTS >> 20} MiB")
        self._filled.add(_memory(a))
        return a

    def _before_writing(self, a: Array) -> None:
        """Let what the step makes of nothing, such as zeros, have its numbers again when the next step begins."""
        if _memory(a) in self._filled:
            return
        whole = self.constants.pop(_memory(a), None)
        if whole is None:
            raise NotRecordable("it writes into what is not its own")
        self.calls.insert(0, (whole.copy_, (whole.clone(),)))
        self._filled.add(_memory(a))


class TorchRecording(TorchReplay):
    """A compiled step of PyTorch on the CPU: the calls of one step, made again."""

    STATE = 4 * RESULTS
    FAILURES = (Exception,)  # a function may refuse its `out`; what the step itself does wrong, it does again

    def is_array(self, a: Any) -> bool:
        return isinstance(a, torch.Tensor) and a.device.type == "cpu"

    def capture(self, state: State, data: Any, size: int) -> Play:
        """Run a step under a dispatch mode that records every operation."""
        tape = _here.tape = Tape(leaves(state))
        try:
            with tape:
                for _ in range(size):
                    for buffer, a in self.changed(leaves(self.step(state, data))):
                        buffer.copy_(a)
        finally:
            del _here.tape
        return repeated(tape.calls)


def opaque(function: Callable[..., tuple[Array, ...]]) -> Callable[..., tuple[Array, ...]]:
    """Let a function of tensors that goes behind PyTorch's back be recorded as one call."""

    def dispatch(*arguments: Array) -> tuple[Array, ...]:
        tape: Tape | None = getattr(_here, "tape", None)
        return function(*arguments) if tape is None else tape.behind(function, arguments)

    return dispatch


def _again(function: Any, arguments: tuple[Any, ...], options: dict[str, Any], into: tuple[Array, ...]) -> None:
    made = function(*arguments, **options)
    for target, a in zip(into, made if isinstance(made, tuple) else (made,), strict=True):
        target.copy_(a)


def _numbers_as_arrays(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return Python's numbers in the dtype that they take beside an array."""
    dtypes = {a.dtype for a in arguments if isinstance(a, torch.Tensor)}
    if len(dtypes) != 1:
        return arguments
    (dtype,) = dtypes
    kinds = (float, int) if dtype.is_floating_point else (int,)
    return tuple(torch.tensor(a, dtype=dtype) if type(a) in kinds else a for a in arguments)


def _tensors(tree: Any) -> Iterator[Array]:
    if isinstance(tree, torch.Tensor):
        yield tree
    elif isinstance(tree, (tuple, list)):
        for item in tree:
            yield from _tensors(item)
    elif isinstance(tree, dict):
        yield from _tensors(list(tree.values()))


def _memory(a: Array) -> int:
    return int(a.untyped_storage().data_ptr())
