"""The calls of a captured step on PyTorch's CPU: functions that write, with ``out=``, into buffers of the plan."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from bpxp.backends.abstract.trace import Operation, Value
from bpxp.backends.plan import IN_PLACE as EAGER_IN_PLACE
from bpxp.backends.program import OUT, Call, with_arrays
from bpxp.core.typing import Array

# Functions of the Array API whose counterpart in PyTorch writes where `out` says what it returns without it.
ELEMENTWISE = {
    name: getattr(torch, name)
    for name in (
        "abs acos acosh add asin asinh atan atan2 atanh bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift"
        " bitwise_xor ceil copysign cos cosh exp expm1 floor floor_divide hypot log log10 log1p log2 logaddexp"
        " logical_and logical_not logical_or logical_xor maximum minimum multiply negative nextafter pow reciprocal"
        " remainder round sign signbit sin sinh sqrt square subtract tan tanh trunc where"
    ).split()
} | {
    "bitwise_invert": torch.bitwise_not,
    "divide": torch.div,
    "equal": torch.eq,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "not_equal": torch.ne,
}
WITH_OUT = ELEMENTWISE | {"concat": torch.cat, "matmul": torch.matmul, "stack": torch.stack}
REDUCED = {"max": torch.amax, "min": torch.amin, "sum": torch.sum}
IN_PLACE = {
    name: getattr(torch.Tensor, f"{name}_")
    for name in "add subtract multiply divide bitwise_and bitwise_or bitwise_xor".split()
} | {
    "bitwise_left_shift": torch.Tensor.bitwise_left_shift_,
    "bitwise_right_shift": torch.Tensor.bitwise_right_shift_,
}

# A number of Python beside an array costs PyTorch 5 µs in each of these, an array without dimensions nothing.
WITH_NUMBERS = set("add subtract multiply divide equal not_equal less less_equal greater greater_equal".split())


class TorchLibrary:
    """PyTorch on the CPU, as `bpxp.backends.plan.Library` describes it."""

    array_type = torch.Tensor
    copy = staticmethod(torch.Tensor.copy_)
    differs = "{0}.shape != {1} or {0}.dtype != {2} or {0}.stride() != {3}"

    def kind(self, a: Any) -> tuple[Any, ...]:
        return a.shape, a.dtype, a.stride()

    def own(self, a: Any) -> Array:
        return torch.empty_strided(a.shape, a.stride(), dtype=a.dtype).copy_(a)

    def writable(self, a: Array) -> bool:
        return not a.requires_grad

    def bounds(self, a: Array) -> tuple[int, int]:
        begin = a.data_ptr()
        return begin, begin + self.extent(self.kind(a))

    def shares(self, a: Any, b: Any) -> bool:
        (begin, end), (first, last) = self.bounds(a), self.bounds(b)
        return begin < last and first < end

    def same(self, a: Any, b: Any) -> bool:
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return a.shape == b.shape and a.dtype == b.dtype and torch.equal(*bits)  # type: ignore[no-any-return]

    def agrees(self, a: Any, shape: Any, kind: Any) -> bool:
        return type(a) is torch.Tensor and tuple(a.shape) == shape and str(a.dtype) == f"torch.{kind}"

    def extent(self, kind: tuple[Any, ...]) -> int:
        shape, dtype, strides = kind
        if 0 in shape:
            return 0
        return int(dtype.itemsize * (1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))))

    def fresh(self, kind: tuple[Any, ...]) -> Callable[[], Array]:
        return functools.partial(torch.empty_strided, kind[0], kind[2], dtype=kind[1])

    def memory(self, size: int) -> Array:
        return torch.empty(size, dtype=torch.uint8)  # PyTorch aligns it to whole lines of the cache

    def placed(self, memory: Array, offset: int, kind: tuple[Any, ...]) -> Array:
        return memory[offset:].view(kind[1]).as_strided(kind[0], kind[2])

    def call(self, op: Operation, function: Any, arguments: tuple[Any, ...], result: Any) -> Call | None:
        name = op.name
        if name == "divide" and not isinstance(op.inputs[0], Value):
            return Call(_quotient, (*op.inputs, OUT), {}, True)
        if name in WITH_OUT:
            inputs = numbers(op.inputs, arguments) if name in WITH_NUMBERS else op.inputs
            return Call(WITH_OUT[name], (*inputs, *op.static.values()), {"out": OUT}, name in ELEMENTWISE)
        if name in REDUCED:
            axis, keepdims = op.static.get("axis"), op.static.get("keepdims", False)
            return Call(REDUCED[name], (*op.inputs, axis, keepdims), {"out": OUT})
        if name == "astype":
            if arguments[0].dtype is torch.bool:
                return Call(_from_bool, (OUT, op.inputs[0]))
            return Call(torch.Tensor.copy_, (OUT, op.inputs[0]))
        if name == "take":
            x = arguments[0]
            axis = op.static.get("axis", 0)
            if x.ndim == 3 and axis in (1, -2) and x.is_contiguous():
                return Call(_take_rows, (*op.inputs, OUT))
            return Call(torch.index_select, (op.inputs[0], axis, op.inputs[1]), {"out": OUT})
        return None

    def call_in_place(self, op: Operation, arguments: tuple[Any, ...]) -> Call:
        if op.name not in IN_PLACE:
            return Call(EAGER_IN_PLACE[op.name], op.inputs)
        inputs = numbers(op.inputs, arguments) if op.name in WITH_NUMBERS else op.inputs
        return Call(IN_PLACE[op.name], inputs)


def _number(a: float, dtype: Any) -> Array:
    return torch.tensor(a, dtype=dtype)


numbers = functools.partial(with_arrays, make=_number, iinfo=torch.iinfo)


def _quotient(number: float, x: Array, into: Array) -> None:
    torch.reciprocal(x, out=into)  # so PyTorch divides a number by an array
    into.mul_(number)


def _from_bool(into: Array, x: Array) -> None:
    into.copy_(x.view(torch.uint8))


def _take_rows(x: Array, indices: Array, into: Array) -> None:
    """Take of a batch of matrices: PyTorch picks rows of one matrix with all its threads."""
    batch, n, c = x.shape
    rows = torch.arange(0, batch * n, n).unsqueeze(1) + indices
    torch.index_select(x.view(-1, c), 0, rows.view(-1), out=into.view(-1, c))
