"""A trace: the operations of a step as they were written, what lives meanwhile, and what is refused."""

from __future__ import annotations

import contextlib
import types

import numpy as np
import pytest
from helpers.captured_steps import HOSTS, Lab, State, Written

from bpxp.backends.abstract.array import ShapeArray
from bpxp.backends.abstract.trace import (
    NotCapturable,
    Operation,
    Trace,
    Tracer,
    Value,
    plain_operands,
    same,
    short,
    trace,
)
from bpxp.errors import InvalidTypeError


@pytest.fixture(params=HOSTS, scope="module")
def lab(request):
    pytest.importorskip(request.param)
    return Lab(request.param)


def traced(lab, function, state=None, data=None):
    state, data = lab.start() if state is None else state, lab.quarters if data is None else data
    return trace(Written(function, xp=lab.xp), state, data, lab.quarters)


def test_the_operations_of_a_step(lab):
    def step(state, data, xp):
        a = xp.exp(data) * 2.0
        part = a[1:, None]
        total = state.total
        total += xp.sum(part, axis=0, keepdims=False)
        joined = xp.concat([a, data], axis=0)
        return State(1.0 - state.w, total), (joined, 3, "text", None)

    found = traced(lab, step)
    v = [Value(i) for i in range(10)]
    assert found.operations == [
        Operation("exp", (v[2],), {}, (v[3],)),
        Operation("multiply", (v[3], 2.0), {}, (v[4],), True),
        Operation("getitem", (v[4], (slice(1, None), None)), {}, (v[5],), True),
        Operation("sum", (v[5],), {"axis": 0, "keepdims": False}, (v[6],)),
        Operation("add", (v[1], v[6]), {}, (v[1],), True, v[1]),
        Operation("concat", ((v[4], v[2]),), {"axis": 0}, (v[7],)),
        Operation("subtract", (1.0, v[0]), {}, (v[8],), True),
    ]
    shapes = [(4,), (1,), (4,), (4,), (4,), (3, 1), (1,), (8,), (4,)]
    assert found.kinds == [(shape, np.dtype("float64")) for shape in shapes]
    assert found.outputs == (State(v[8], v[1]), (v[7], 3, "text", None))
    assert all(op.into is None for i, op in enumerate(found.operations) if i != 4)


def test_dtypes_are_those_of_the_library(lab):
    seen = []

    def step(state, data, xp):
        seen.append((data.dtype, xp.float32, xp.result_type(data, xp.float32)))
        return xp.astype(data, xp.float32), xp.ones((2,), dtype=data.dtype)

    found = traced(lab, step, ())
    assert seen == [(lab.xp.float64, lab.xp.float32, lab.xp.float64)]
    assert found.operations[0] == Operation("astype", (Value(0), lab.xp.float32), {}, (Value(1),))
    assert found.operations[1] == Operation("ones", ((2,),), {"dtype": lab.xp.float64}, (Value(2),))
    assert found.kinds[1:] == [((4,), np.dtype("float32")), ((2,), np.dtype("float64"))]


def test_an_array_says_that_it_is_one_of_the_library(lab):
    seen = []

    def step(state, data, xp):
        seen.append((isinstance(data, lab.library.array_type), data.__class__, type(data)))
        return data

    traced(lab, step, ())
    assert seen == [(True, lab.library.array_type, ShapeArray)]


def test_the_peak_counts_what_lives_and_not_the_arguments(lab):
    def step(state, data, xp):
        a = xp.exp(data)  # 32 bytes
        b = xp.tanh(a)
        del a
        c = xp.sum(b)
        return State(state.w + c, state.total)

    assert traced(lab, step).peak == 32 + 32 + 8
    assert traced(lab, lambda s, d, xp: s).peak == 0
    assert traced(lab, lambda s, d, xp: xp.exp(xp.exp(d)), (), lab.array(np.zeros(100))).peak == 1600


def test_a_step_that_does_nothing(lab):
    found = traced(lab, lambda s, d, xp: (s, d, 1))
    assert found == Trace([], found.kinds, (State(Value(0), Value(1)), Value(2), 1), 0)
    assert len(found.kinds) == 3


def test_plain_values_among_the_arguments_stay(lab):
    found = traced(lab, lambda s, d, xp: (s[0] * d[1], d[0]), (lab.quarters,), ("text", 2.5))
    assert found.operations == [Operation("multiply", (Value(0), 2.5), {}, (Value(1),), True)]
    assert found.outputs == (Value(1), "text")


KEPT = []


def keeps(state, data, xp):
    KEPT.append(xp.exp(data))
    return state


def catches(state, data, xp):
    with contextlib.suppress(InvalidTypeError):
        float(data[0])
    return state


def test_what_is_refused(lab):
    other = Tracer(lab.xp, lab.quarters).argument(lab.quarters)
    where = "a shape-only array: it has no numbers to look at: neither could a compiled step, without waiting for the device"
    where += ": got ShapeArray((), float64)."
    plain = "a trace: neither an array of the step nor a Python number"
    for step, reason in (
        (lambda s, d, xp: State(s.w * float(d[0]), s.total), where),
        (catches, where),
        (lambda s, d, xp: State(s.w + other, s.total), "an array of another trace"),
        (lambda s, d, xp: (s, other), "an array of another trace"),
        (lambda s, d, xp: (s, lab.quarters), f"{plain}: got {lab.library.array_type.__name__}."),
        (lambda s, d, xp: (s, object()), f"{plain}: got object."),
        (lambda s, d, xp: (s, xp.sum(d, keepdims=np.bool_(True))), f"{plain}: got bool."),
        (lambda s, d, xp: 1 // 0, "ZeroDivisionError: integer division or modulo by zero"),
        (keeps, "it keeps an array beyond the step"),
    ):
        with pytest.raises(NotCapturable) as caught:
            traced(lab, step)
        assert str(caught.value) == reason
        KEPT.clear()


def test_the_first_refusal_is_the_reason(lab):
    def step(state, data, xp):
        for look in (lambda: xp.unique_values(data), lambda: float(data[0])):
            with contextlib.suppress(Exception):
                look()
        raise ValueError("later")

    with pytest.raises(NotCapturable, match=r"unique_values"):
        traced(lab, step)


def test_arrays_in_a_circle_are_collected(lab):
    def step(state, data, xp):
        circle = [xp.exp(data)]
        circle.append(circle)
        return state

    assert [op.name for op in traced(lab, step).operations] == ["exp"]


def test_what_the_namespace_keeps_is_let_go(lab):
    def step(state, data, xp):
        xp.memo["table"] = xp.exp(data)
        return state

    if hasattr(lab.xp, "memo"):
        assert [op.name for op in traced(lab, step).operations] == ["exp"]
        assert "table" not in lab.xp.memo


def test_a_namespace_that_keeps_nothing(lab):
    xp = types.SimpleNamespace(**{name: a for name, a in vars(lab.xp).items() if name != "memo"})
    found = trace(Written(lambda s, d, xp: xp.exp(d), xp=xp), (), lab.quarters, lab.quarters)
    assert found.outputs == Value(1)


def test_an_operation_with_two_results(lab):
    word = lab.array(np.zeros(3, np.int32))
    found = traced(lab, lambda s, d, xp: xp.threefry(*d), (), (word, word, word, word))
    (operation,) = found.operations
    assert operation.outputs == found.outputs == (Value(4), Value(5))
    assert found.kinds[4:] == [((3,), np.dtype("int32"))] * 2


def test_what_a_tracer_encodes(lab):
    tracer = Tracer(lab.xp, lab.quarters)
    a, b = tracer.argument(lab.quarters), tracer.argument(lab.array(np.zeros((2, 3), np.float32)))
    assert (a.number, b.number, a.shape, b.shape) == (0, 1, (4,), (2, 3))
    assert tracer.kinds == [((4,), np.dtype("float64")), ((2, 3), np.dtype("float32"))]
    tree = [a, (1, 2.5, True, None, "x", slice(1, 2), ..., 1j, lab.xp.float32, int), [b]]
    encoded = tracer.encoded(tree)
    assert encoded == (Value(0), tuple(tree[1]), (Value(1),))
    for other in ({}, object(), lab.quarters, np.zeros(2)):
        with pytest.raises(InvalidTypeError, match="neither an array of the step") as caught:
            tracer.encoded((1, other))
        assert caught.value.got == type(other).__name__
    unnumbered = a.view((2, 2), (2, 1))
    with pytest.raises(NotCapturable, match="^an array of another trace$"):
        tracer.encoded(unnumbered)
    assert tracer.array_type is lab.library.array_type
    if lab.name == "torch":
        assert tracer.dtypes[np.dtype("float32")] is lab.xp.float32
        assert np.dtype("bool") in tracer.dtypes
        assert None not in tracer.dtypes.values()
    else:
        assert not tracer.dtypes


def test_errors_on_one_line():
    assert short(NotCapturable("one\n  two")) == "one two"
    assert short(ValueError("one\n  two")) == "ValueError: one two"
    assert short(InvalidTypeError("here", "what", code="E027", got="3")) == "here: what: got 3."
    assert short(ValueError("x" * 400)) == "ValueError: " + "x" * 300
    assert short(NotCapturable("x" * 400)) == "x" * 300


def operation(*inputs, **static):
    return Operation("f", inputs, static, (Value(1),))


def test_where_two_traces_differ():
    one = Trace([operation(Value(0), 0.0), operation(Value(0), k=1)], [], Value(1), 0)
    assert same(one, one._replace(operations=list(one.operations), peak=3, kinds=[1])) == ""
    other = one._replace(operations=[operation(Value(0), -0.0), operation(Value(0), k=1)])
    assert same(one, other) == "f(0.0) once, then f(-0.0)"
    other = one._replace(operations=[one.operations[0], operation(Value(0), k=2)])
    assert same(one, other) == "f once, then f"
    other = one._replace(operations=[one.operations[0], one.operations[1]._replace(name="g")])
    assert same(one, other) == "f once, then g"
    assert same(one, one._replace(operations=one.operations[:1])) == "2 operations once, then 1"
    assert same(one._replace(operations=[]), one) == "0 operations once, then 2"
    assert same(one, one._replace(outputs=Value(0))) == "2 operations once, then 2"
    nan = Trace([operation(float("nan"))], [], 0, 0)
    assert same(nan, Trace([operation(float("nan"))], [], 0, 0)) == ""
    assert same(nan, nan._replace(outputs=-0.0)) != ""


def test_the_plain_operands_of_an_operation():
    assert plain_operands(operation(Value(0), 1, "text", 2.5, True, None)) == "(1, 2.5, True)"
    assert plain_operands(operation(Value(0))) == ""
