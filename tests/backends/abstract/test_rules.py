"""Each rule of arrays without numbers beside NumPy: shape, dtype, memory order, bytes, FLOPs; and what it refuses."""

from __future__ import annotations

import types

import numpy as np
import pytest

from bpxp.backends.abstract.array import (
    ARITHMETIC,
    COMPARISONS,
    UNARY,
    Buffer,
    Cost,
    Meter,
    ShapeArray,
    compact,
    described,
    indexed,
    memory_order,
    new,
    noted,
    promoted,
    reshaped,
)
from bpxp.backends.abstract.namespace import (
    KERNEL_RULES,
    NO_NUMBERS,
    REDUCTIONS,
    RULES,
    SAME_DTYPE,
    TO_BOOL,
    as_dtype,
    dtype_name,
    shape_namespace,
    shape_of,
)
from bpxp.backends.base import CONSTANTS, DTYPES
from bpxp.errors import InvalidTypeError, InvalidValueError, ShapeRuleError

KINDS = {"f": ("float32", "float64"), "i": ("int32", "uint8", "int64"), "b": ("bool",)}


def bare_of(a, meter):
    """Return an array without numbers, in C order or in that of its transpose."""
    if not isinstance(a, np.ndarray):
        return [bare_of(x, meter) for x in a] if isinstance(a, list) else a
    if a.flags.c_contiguous:
        return shape_of(a, meter)
    turned = shape_of(a.T, meter)
    return turned.view(a.shape, turned.strides[::-1])


def check(real, bare, *, strides=True):
    assert type(bare) is ShapeArray
    assert (bare.shape, bare.kind) == (real.shape, real.dtype)
    assert (bare.ndim, bare.size) == (real.ndim, real.size)
    if strides and real.size > 1:
        for n, own, step in zip(real.shape, bare.strides, real.strides, strict=True):
            assert n == 1 or own * real.itemsize == step


def run(name, *operands, expected=None, cost=None, strides=True, **static):
    """Apply a function of the namespace and NumPy's: compare the results, and the costs."""
    meter = Meter()
    xp = shape_namespace(meter)
    bare = [bare_of(a, meter) for a in operands]
    meter.start()
    before = meter.live
    result = getattr(xp, name)(*bare, **static)
    with np.errstate(all="ignore"):
        real = np.asarray(getattr(np, name)(*operands, **static) if expected is None else expected)
    check(real, result, strides=strides)
    arrays = [x for a in operands for x in (a if isinstance(a, list) else [a]) if isinstance(x, np.ndarray)]
    moved = sum(a.nbytes for a in arrays) + real.nbytes if cost is None else cost
    assert meter.by_name == ({name: Cost(1, moved, 0)} if moved is not False else {})
    assert meter.live - before == (real.nbytes if moved is not False else 0)
    assert meter.peak == meter.live
    return result


X = np.ones((3, 4), np.float32)
ROW = np.ones((4,), np.float32)
COLUMN = np.ones((3, 1), np.float32)
INTEGERS = np.ones((3, 4), np.int32)
FLAGS = np.ones((3, 4), bool)
TWO = "add atan2 bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor copysign divide".split()
TWO += "floor_divide hypot logaddexp maximum minimum multiply nextafter pow remainder subtract".split()
TWO += [name for name in TO_BOOL if name not in ("isfinite", "isinf", "isnan", "logical_not", "signbit")]


@pytest.mark.parametrize("name", [*SAME_DTYPE, *TO_BOOL])
def test_elementwise_functions(name):
    x = FLAGS if name.startswith("logical") else INTEGERS if name.startswith("bitwise") else X
    if name not in TWO:
        run(name, x)
        run(name, x.T)
        return
    row, column = x[0].copy(), x[:, :1].copy()
    for operands in ((x, x), (x, row), (column, x), (column, row), (x.T.copy().T, x.T.copy().T)):
        run(name, *operands)
    if name not in NO_NUMBERS and x is X:
        run(name, x, 2.0)
        run(name, 2, x)
    elif name in NO_NUMBERS:
        with pytest.raises(InvalidTypeError, match=f"xp.{name}: a Python number among the operands"):
            run(name, x, 2.0)
    with pytest.raises(InvalidValueError, match=rf"{name}: the shapes do not fit: got \(3, 4\), \(3,\)"):
        run(name, x, column[:, 0])


def test_the_functions_that_there_are():
    xp = shape_namespace(Meter())
    for name in (*SAME_DTYPE, *TO_BOOL, *REDUCTIONS, *RULES, "broadcast_to", "squeeze", "flip", "moveaxis"):
        assert callable(getattr(xp, name))
    for name in CONSTANTS:
        assert getattr(xp, name) is getattr(np, name)
    for name in DTYPES:
        assert getattr(xp, name) == np.dtype(name)
    assert (xp.finfo, xp.iinfo, xp.isdtype) == (np.finfo, np.iinfo, np.isdtype)
    for name in ("threefry", "workspace", "fuses", "memo"):
        assert not hasattr(xp, name)


def test_a_namespace_like_that_of_a_backend():
    meter = Meter()
    like = types.SimpleNamespace(threefry=1, workspace=5, fuses=True, memo={"a": 1}, finfo="finfo")
    xp = shape_namespace(meter, like)
    assert (xp.workspace, xp.fuses, xp.memo) == (5, True, {})
    assert xp.finfo is np.finfo
    words = [shape_of(np.ones(4, np.int32), meter) for _ in range(4)]
    meter.start()
    one, two = xp.threefry(*words)
    for word in (one, two):
        check(np.ones(4, np.int32), word)
    assert meter.by_name == {"threefry": Cost(1, 16 * 6, 0)}
    assert list(KERNEL_RULES) == ["threefry"]
    meter.dtypes = {np.dtype("float32"): "theirs"}
    like.iinfo, like.isdtype = "iinfo", "isdtype"
    xp = shape_namespace(meter, like)
    assert (xp.float32, xp.finfo, xp.iinfo, xp.isdtype) == ("theirs", "finfo", "iinfo", "isdtype")
    assert xp.float64 == np.dtype("float64")
    assert xp.result_type(words[0], np.int64) == np.int64
    assert xp.result_type(np.dtype("float32"), np.float32) == "theirs"


def test_a_function_without_a_rule_is_remembered():
    meter = Meter()
    xp = shape_namespace(meter)
    with pytest.raises(ShapeRuleError, match="no rule says what this function costs") as caught:
        xp.unique_values(1)
    assert " bpxp/backends/abstract/namespace.py that returns its result's shape" in str(caught.value)
    assert meter.refused is caught.value
    with pytest.raises(ShapeRuleError):
        xp.nonzero(1)
    assert meter.refused is caught.value


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions(name):
    for x in (X, X.astype("float64"), INTEGERS, INTEGERS.astype("int64"), FLAGS):
        if x is FLAGS and name not in ("all", "any", "count_nonzero"):
            continue
        if x.dtype.kind == "i" and name in ("mean", "std", "var"):
            continue
        for axis in (None, 0, 1, -1, (0, 1), (-1,), ()):
            if name.startswith("arg") and isinstance(axis, tuple):
                continue
            for keepdims in (False, True):
                run(name, x, axis=axis, keepdims=keepdims, strides=False)
        run(name, x, strides=False)
    if name in ("sum", "prod"):
        run(name, X, dtype=np.float64)
        run(name, INTEGERS, axis=0, dtype=np.int32)
    with pytest.raises(InvalidValueError, match=r"axis: there is no such axis: got 2, expected one of 2"):
        run(name, X, axis=2)
    with pytest.raises(InvalidValueError, match="no such axis"):
        run(name, X, axis=-3)


def test_products():
    for a, b, mkn in (((3, 4), (4, 5), (3, 4, 5)), ((2, 3, 4), (4, 5), (3, 4, 5)), ((3, 4), (7, 2, 4, 1), (3, 4, 1))):
        meter = Meter()
        xp = shape_namespace(meter)
        x, y = np.ones(a, np.float32), np.ones(b, np.float64)
        bare = [shape_of(x, meter), shape_of(y, meter)]
        meter.start()
        result = xp.matmul(*bare)
        real = x @ y
        check(real, result)
        assert meter.matmuls == [mkn]
        assert meter.by_name == {"matmul": Cost(1, x.nbytes + y.nbytes + real.nbytes, 2 * mkn[1] * real.size)}
    xp = shape_namespace(Meter())
    for dtype in ("float32", "int32"):
        x = shape_of(X.astype(dtype), Meter())
        assert xp.matmul(x, xp.matrix_transpose(x)).kind == np.dtype(dtype)
    x, wide = shape_of(X, Meter()), shape_of(X.astype(np.float64), Meter())
    assert xp.matmul(wide, xp.matrix_transpose(x)).kind == np.float64
    with pytest.raises(InvalidValueError, match=r"xp.matmul: the shapes do not fit: got \(3, 4\) and \(3, 4\)"):
        run("matmul", X, X)


def test_creation():
    for dtype in ("float32", "int64", "bool"):
        for shape in ((2, 3), 5, (), (2, 1)):
            for name in ("ones", "zeros"):
                run(name, shape, dtype=dtype)
            run("full", shape, 3, dtype=dtype, cost=np.ones(shape, dtype).nbytes)
    for name in ("ones_like", "zeros_like", "full_like"):
        fill = (2,) if name == "full_like" else ()
        run(name, X.T, *fill, cost=X.nbytes)
        run(name, X, *fill, dtype=np.int64, cost=2 * X.nbytes)
    meter = Meter()
    xp = shape_namespace(meter)
    check(X, xp.empty((3, 4), dtype=xp.float32))
    check(X, xp.empty_like(shape_of(X, Meter())))
    assert meter.by_name == {}
    for arguments in ((5,), (2, 5), (0, 1, 0.3), (5, 0, -2), (3, 2), (0, 7, 3)):
        run("arange", *arguments, dtype=np.float32)
    run("arange", 5, dtype=np.int32)
    run("linspace", 0.0, 1.0, 7, dtype=np.float32)
    run("eye", 3, dtype=np.float32)
    run("eye", 3, 5, dtype=np.int32)


def test_arrays_of_numbers():
    run("asarray", 1.5, cost=8)
    meter = Meter()
    xp = shape_namespace(meter)
    check(np.asarray([[1, 2]]), xp.asarray([[1, 2]]))
    check(np.asarray([1.0], np.float32), xp.asarray([1.0], dtype=np.float32))
    assert meter.by_name == {"asarray": Cost(2, 16 + 4)}
    x = shape_of(X, meter)
    meter.start()
    assert xp.asarray(x) is x
    assert xp.asarray(x, dtype=xp.float32) is x
    assert xp.asarray(x, copy=False) is x
    assert meter.by_name == {}
    assert xp.asarray(x, copy=True) is not x
    check(X.astype(np.int32), xp.asarray(x, dtype=xp.int32))
    assert meter.by_name == {"astype": Cost(2, 4 * X.nbytes)}


def test_casts():
    for to in ("float64", "float32", "bool", "uint8"):
        run("astype", X, np.dtype(to))
    run("astype", X.T.copy().T, np.float64)
    meter = Meter()
    xp = shape_namespace(meter)
    x = shape_of(X, meter)
    assert xp.astype(x, xp.float32, copy=False) is x
    assert xp.astype(x, xp.float32) is not x
    assert xp.astype(x, xp.float64, copy=False) is not x


def test_choices():
    run("where", FLAGS, X, X.astype(np.float64))
    run("where", FLAGS, ROW, COLUMN)
    run("where", FLAGS.T.copy().T, X.T.copy().T, X.T.copy().T)
    run("where", FLAGS[0], X, 2.0)
    run("where", FLAGS, 2.0, COLUMN, expected=X)
    with pytest.raises(InvalidValueError, match="where: the shapes do not fit"):
        run("where", FLAGS, X[:2], X)


def test_joints_and_tiles():
    three = np.ones((2, 3, 4), np.float32)
    for axis in (0, 1, -1, 2):
        run("concat", [three, three], axis=axis)
        run("stack", [three, three, three], axis=axis)
    run("stack", [X, X], axis=-3)
    run("concat", [X, X[:1], X.astype(np.float64)])
    turned = X.T.copy().T
    run("concat", [X])
    run("stack", [X])
    run("concat", [turned, turned])
    run("stack", [turned, turned])
    part = bare_of(turned, Meter())
    assert shape_namespace(Meter()).stack([part, part], axis=1).strides == (1, 3, 6)  # the new axis keeps its place
    run("stack", [X, X.astype(np.float64)])
    for wrong in ([X, X[:, :2]], [X, ROW]):
        with pytest.raises(InvalidValueError, match=r"xp.concat: the shapes do not fit: got \(3, 4\) and"):
            run("concat", wrong)
    with pytest.raises(InvalidValueError, match=r"xp.concat: the shapes do not fit"):
        run("concat", [three, three[:, :2]], axis=2)
    with pytest.raises(InvalidValueError, match=r"xp.stack: the shapes differ: got \(3, 4\), \(4,\)"):
        run("stack", [X, ROW])
    for repetitions in ((2,), (2, 3), (2, 1, 3), (1, 1)):
        run("tile", X, repetitions)
        run("tile", ROW, repetitions)


def test_gathers():
    three = np.ones((2, 3, 4), np.float32)
    rows = np.zeros(5, np.int64)
    for axis in (0, 1, 2, -1):
        real = np.take(three, rows, axis=axis)
        run("take", three, rows, axis=axis, cost=rows.nbytes + 2 * real.nbytes)
    run("take", ROW, rows, cost=40 + 2 * 20)
    along = np.zeros((3, 2), np.int64)
    run("take_along_axis", X, along, axis=1, cost=along.nbytes + 2 * 24)
    run("take_along_axis", X, along, cost=along.nbytes + 2 * 24)
    with pytest.raises(InvalidValueError, match="no such axis"):
        run("take", X, rows, axis=2)


def test_what_keeps_its_shape():
    for name in ("sort", "roll", "tril", "triu"):
        run(name, X, *((1,) if name == "roll" else ()))
    run("cumulative_sum", X, axis=0)
    run("argsort", X, expected=np.argsort(X))


def test_reshapes():
    for shape in ((4, 3), (12,), (2, -1), (-1,), (3, 2, 2), (1, 3, 1, 4)):
        run("reshape", X, shape, cost=False)
    meter = Meter()
    xp = shape_namespace(meter)
    x = shape_of(X, meter)
    turned = xp.permute_dims(x, (1, 0))
    meter.start()
    copied = xp.reshape(turned, (12,))
    check(X.T.reshape(12), copied)
    assert meter.by_name == {"reshape": Cost(1, 96)}
    assert xp.reshape(x, (4, 3), copy=True).buffer is not x.buffer
    assert xp.reshape(x, (4, 3), copy=False).buffer is x.buffer
    empty = shape_of(np.ones((0, 4), np.float32), meter)
    assert xp.reshape(empty, (0, -1)).shape == (0, 0)
    assert xp.reshape(empty, (2, 0)).shape == (2, 0)
    for wrong in ((5, 2), (13,), (5, -1), (11,), (0, 4), (-1, -1)):
        with pytest.raises(InvalidValueError, match=r"xp.reshape: another size: got \(3, 4\) to"):
            xp.reshape(x, wrong)


VIEWS = {
    "matrix_transpose": [((), {})],
    "permute_dims": [(((2, 0, 1),), {}), (((0, 2, 1),), {})],
    "moveaxis": [((0, 2), {}), ((-1, 0), {}), ((1, -1), {}), ((1, 1), {})],
    "expand_dims": [((), {"axis": 0}), ((), {"axis": 1}), ((), {"axis": -1}), ((), {"axis": 3})],
    "flip": [((), {}), ((), {"axis": 1}), ((), {"axis": (0, -1)})],
    "broadcast_to": [(((5, 2, 3, 4),), {}), (((2, 3, 4),), {}), (((6, 5, 2, 3, 4),), {})],
}


@pytest.mark.parametrize("name", VIEWS)
def test_views(name):
    three = np.ones((2, 3, 4), np.float32)
    for arguments, static in VIEWS[name]:
        meter = Meter()
        xp = shape_namespace(meter)
        x = shape_of(three, meter)
        result = getattr(xp, name)(x, *arguments, **static)
        check(getattr(np, name)(three, *arguments, **static), result)
        assert result.buffer is x.buffer
        assert (meter.by_name, meter.live) == ({}, three.nbytes)


def test_axes_of_one():
    meter = Meter()
    xp = shape_namespace(meter)
    real = np.ones((1, 3, 1, 4), np.float32)
    x = shape_of(real, meter)
    for axis in (0, 2, -2, (0, 2), (-4,)):
        check(np.squeeze(real, axis), xp.squeeze(x, axis))
    assert xp.expand_dims(shape_of(X, meter)).shape == (1, 3, 4)
    assert xp.expand_dims(x).strides == (0, 12, 4, 4, 1)
    check(np.broadcast_to(real, (2, 3, 5, 4)), xp.broadcast_to(x, (2, 3, 5, 4)))
    assert xp.broadcast_to(x, (2, 3, 5, 4)).touched == 48
    assert xp.broadcast_to(x, [2, 3, 5, 4]).shape == (2, 3, 5, 4)
    for wrong in ((3, 4), (2, 2, 5, 4), (3, 1, 1)):
        with pytest.raises(InvalidValueError, match=r"xp.broadcast_to: the shapes do not fit: got \(1, 3, 1, 4\) to"):
            xp.broadcast_to(x, wrong)
    for wrong in (lambda: xp.squeeze(x, 4), lambda: xp.moveaxis(x, 0, 4), lambda: xp.expand_dims(x, axis=5)):
        with pytest.raises(InvalidValueError, match="no such axis"):
            wrong()


# ---------------------------------------------------------------- operators


@pytest.mark.parametrize("name", [*ARITHMETIC, *COMPARISONS, *UNARY])
def test_operators(name):
    short = (ARITHMETIC | COMPARISONS | UNARY)[name]
    integers = name.startswith("bitwise")
    real = INTEGERS if integers else X
    number = 2 if integers else 2.0
    meter = Meter()
    x = shape_of(real, meter)
    meter.start()
    operator = getattr(ShapeArray, f"__{short}__")
    if name in UNARY:
        check(getattr(np.ndarray, f"__{short}__")(real), operator(x))
        assert meter.by_name == {name: Cost(1, 96)}
        return
    expected = getattr(np.ndarray, f"__{short}__")(real, number)
    check(expected, operator(x, number))
    assert meter.by_name == {name: Cost(1, 48 + expected.nbytes)}
    column = shape_of(real[:, :1], meter)
    check(expected, operator(column, x))
    if name in COMPARISONS:
        with pytest.raises(InvalidTypeError, match=f"{name}: mixed kinds of numbers: got "):
            operator(x, 1j)
        return
    meter.start()
    check(expected, getattr(ShapeArray, f"__r{short}__")(x, number))
    assert meter.by_name == {name: Cost(1, 96)}
    meter.start()
    in_place = getattr(ShapeArray, f"__i{short}__")
    assert in_place(x, number) is x
    assert in_place(x, column) is x
    assert meter.by_name == {name: Cost(2, 96 + 96 + 12)}
    assert meter.live == 48 + 12
    other = shape_of(real.astype(np.int64 if integers else np.float64), meter)
    wide = shape_of(np.ones((2, 3, 4), real.dtype), meter)
    for wrong in (other, wide):
        with pytest.raises(InvalidValueError, match=rf"{name}, in place: .* fit: got ShapeArray\(.*\) and ShapeA"):
            in_place(x, wrong)
    with pytest.raises(InvalidValueError, match=f"^{name}: the shapes do not fit"):
        in_place(x, shape_of(np.ones(5, real.dtype), meter))
    with pytest.raises(InvalidTypeError, match=f"^{name}: mixed kinds of numbers"):
        in_place(x, 1j)


class Heard(Meter):
    def __init__(self):
        super().__init__()
        self.notes = []

    def note(self, *arguments):
        self.notes.append(arguments)


def test_a_meter_hears_of_operations_and_views():
    meter = Heard()
    xp = shape_namespace(meter)
    x = shape_of(X, meter)
    y = x + 1.0
    z = 2.0 - x
    part = x[1:]
    part *= 0.5
    flipped = xp.flip(x, axis=1)
    negative = -x
    expected = [
        ("add", (x, 1.0), {}, y, True, False),
        ("subtract", (2.0, x), {}, z, True, False),
        ("getitem", (x, slice(1, None)), {}, part, True, False),
        ("multiply", (part, 0.5), {}, part, True, True),
        ("flip", (x,), {"axis": 1}, flipped, False, False),
        ("negative", (x,), {}, negative, True, False),
    ]
    for note, (name, inputs, static, result, infix, into) in zip(meter.notes, expected, strict=True):
        assert (note[0], note[2], note[4:]) == (name, static, (infix, into))
        assert note[3] is result
        assert all(a is b or not isinstance(a, ShapeArray) for a, b in zip(note[1], inputs, strict=True))


def test_errors_are_remembered_once():
    meter = Meter()
    x = shape_of(X, meter)
    assert meter.refused is None
    with pytest.raises(InvalidTypeError) as first:
        x + 1j
    assert meter.refused is first.value
    with pytest.raises(InvalidTypeError):
        float(x)
    assert meter.refused is first.value
    other = Meter()
    with pytest.raises(InvalidTypeError) as second:
        bool(shape_of(X, other))
    assert other.refused is second.value
    with pytest.raises(InvalidTypeError):
        shape_of(X, other) + 1j
    assert other.refused is second.value
    with pytest.raises(ZeroDivisionError):
        noted(other, "f", lambda: 1 // 0, (), {})
    heard = Heard()
    assert noted(heard, "f", lambda a, b: a + b, (1,), {"b": 2}) == 3
    assert heard.notes == [("f", (1,), {"b": 2}, 3, False, False)]


def test_promotion():
    arrays = {name: shape_of(np.ones(1, name), Meter()) for names in KINDS.values() for name in names}
    arrays["complex64"] = shape_of(np.ones(1, "complex64"), Meter())
    f, d, i, u, b, c = (arrays[n] for n in ("float32", "float64", "int32", "uint8", "bool", "complex64"))
    for operands, expected in (
        ((f, f), "float32"),
        ((f, d), "float64"),
        ((f, 2.0), "float32"),
        ((2, f), "float32"),
        ((i, u), "int32"),
        ((u, 3), "uint8"),
        ((b, True), "bool"),
        ((c, 1j), "complex64"),
        ((c, 1.0), "complex64"),
        ((c, 1), "complex64"),
    ):
        assert promoted("add", operands) == np.dtype(expected)
    for operands, got in (
        ((f, i), "float32, int32"),
        ((i, 0.5), "int32, float"),
        ((b, 1), "bool, int"),
        ((f, True), "float32, bool"),
        ((i, True), "int32, bool"),
        ((f, 1j), "float32, complex"),
        ((f, b), "float32, bool"),
        ((f, None), "float32, NoneType"),
    ):
        with pytest.raises(InvalidTypeError, match=f"add: mixed kinds of numbers: got {got}") as caught:
            promoted("add", operands)
        assert caught.value.fix == "xp.astype(x, dtype)"
    for operands in ((i, i), (u, i), (b, b)):
        with pytest.raises(InvalidTypeError):
            promoted("divide", operands)
    assert promoted("divide", (f, f)) == np.float32


# ---------------------------------------------------------------- indices


INDICES = [
    (0,),
    (-1,),
    (2, -4),
    (slice(None),),
    (slice(1, None), slice(None, 2)),
    (slice(None, None, -1),),
    (slice(None, None, 2), slice(3, 0, -2)),
    (slice(2, 2),),
    (None,),
    (None, 0),
    (0, None),
    (...,),
    (..., 0),
    (..., None),
    (0, ...),
    (1, ..., 2),
    (None, ..., slice(1, 3)),
    (slice(-2, None), ..., None),
    (),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indices(index):
    meter = Meter()
    real = np.zeros((3, 4), np.float32)
    x = shape_of(real, meter)
    part = real[index]
    result = x[index]
    assert (result.shape, result.buffer) == (part.shape, x.buffer)
    for n, own, step in zip(part.shape, result.strides, np.asarray(part).strides, strict=True):
        assert n <= 1 or part.size == 0 or own * 4 == step
    assert indexed(x, index) == (result.shape, result.strides)
    assert meter.by_name == {}
    if len(index) == 1:
        assert x[index[0]].shape == part.shape


def test_a_new_axis_has_no_stride():
    x = shape_of(X, Meter())
    assert x[:, None].strides == (4, 0, 1)


def test_indices_that_are_refused():
    x = shape_of(X, Meter())
    for index in (3, -4, (0, 4), (0, -5), (0, 0, 0), (slice(None), slice(None), slice(None)), (0, 0, ..., 0)):
        with pytest.raises(InvalidValueError, match=r"x\[…\]: out of bounds: got .* of shape \(3, 4\)"):
            x[index]
    for index, got in ((True, "True"), (x, r"ShapeArray\(\(3, 4\), float32\)"), ((0, [1]), r"0, \[1\]"), (1.0, "1.0")):
        with pytest.raises(InvalidTypeError, match=rf"x\[…\]: an array as an index: got {got}") as caught:
            x[index]
        assert (caught.value.expected, caught.value.fix) == ("integers and slices", "xp.take(x, …)")


# ---------------------------------------------------------------- memory


def test_the_strides_of_a_view_in_another_shape():
    x = new(Meter(), (2, 3, 4), "float32")
    assert reshaped(x, (24,)) == (1,)
    assert reshaped(x, (6, 4)) == (4, 1)
    assert reshaped(x, (2, 12)) == (12, 1)
    assert reshaped(x, (2, 2, 6)) == (12, 6, 1)
    assert reshaped(x.view((4, 3, 2), (1, 4, 12)), (24,)) is None
    assert reshaped(x.view((2, 3), (12, 4)), (6,)) == (4,)
    assert reshaped(x.view((2, 3), (12, 4)), (3, 2)) == (8, 4)
    assert reshaped(x.view((3, 2), (4, 12)), (3, 2)) == (4, 12)
    assert reshaped(x.view((3, 2), (4, 12)), (3, 1, 2)) == (4, 0, 12)
    assert reshaped(x.view((3, 2), (4, 12)), (2, 3)) is None
    assert reshaped(x.view((3, 4), (4, 1)), (6, 2)) == (2, 1)
    assert reshaped(x.view((3, 1, 4), (4, 0, 1)), (12,)) == (1,)
    assert reshaped(x.view((3, 2), (0, 1)), (6,)) is None
    assert reshaped(x.view((3, 2), (0, 0)), (6,)) == (0,)
    assert reshaped(x.view((1, 1), (5, 7)), (1,)) == (1,)
    assert reshaped(x.view((2,), (3,)), (1, 2)) == (0, 3)
    assert reshaped(x.view((0, 4), (4, 1)), (4, 0)) == (0, 1)
    assert compact((2, 3, 4)) == (12, 4, 1)
    assert compact(()) == ()


def test_memory_orders():
    meter = Meter()
    x = new(meter, (2, 3, 4), "float32")
    assert memory_order(x, 3) == [0, 1, 2]
    assert memory_order(x, 5) == [0, 1, 2, 3, 4]
    turned = x.view((4, 2, 3), (1, 12, 4))
    assert memory_order(turned, 3) == [1, 2, 0]
    assert memory_order(turned, 4) == [0, 2, 3, 1]
    assert memory_order(x.view((4, 1, 3), (1, 12, 4)), 3) == [2, 1, 0]
    assert memory_order(x.view((4, 5, 3), (1, 0, 4)), 3) == [2, 1, 0]
    assert memory_order(x.view((3, 4), (-4, 1)), 2) == [0, 1]
    made = new(meter, (4, 2, 3), "float64", [x[0, 0], turned])
    assert (made.strides, made.kind) == ((1, 12, 4), np.float64)
    assert new(meter, (2, 0, 3), "float32").strides == (3, 3, 1)
    assert new(meter, (), np.int32).strides == ()


def test_buffers_and_costs():
    meter = Meter()
    one = Buffer(meter, 100)
    two = Buffer(meter, 50)
    assert (one.size, meter.live, meter.peak) == (100, 150, 150)
    del one
    assert (meter.live, meter.peak) == (50, 150)
    Buffer(meter, 60)
    assert (meter.live, meter.peak) == (50, 150)
    meter.start()
    assert meter.peak == 50
    meter.record("a", 5)
    meter.record("a", 7, 9)
    meter.record("b", 1)
    assert meter.by_name == {"a": Cost(2, 12, 9), "b": Cost(1, 1, 0)}
    assert meter.total == Cost(3, 13, 9)
    assert meter.note("f", (), {}, None, False, False) is None
    meter.start()
    assert (meter.by_name, meter.matmuls, meter.total) == ({}, [], Cost(0, 0, 0))
    assert (two.meter, meter.array_type, meter.dtypes) == (meter, None, {})
    assert new(meter, (3, 5), "float64").buffer.size == 120
    assert Cost(1, 2, 3) + Cost(10, 20, 30) == Cost(11, 22, 33)
    assert isinstance(Cost() + Cost(), Cost)


def test_what_a_read_touches():
    x = new(Meter(), (2, 3), "float64")
    assert x.touched == 48
    assert x.view((9, 2, 3), (0, 3, 1)).touched == 48
    assert x.view((0, 3), (0, 1)).touched == 0
    assert x.view((1, 2, 3), (0, 3, 1)).touched == 48
    assert x.number is None


def test_descriptions():
    meter = Meter()
    x = shape_of(X, meter)
    assert described(x) == "ShapeArray((3, 4), float32)"
    assert described("a") == "'a'"
    assert repr(x) == described(x)
    assert "it has no numbers to look at" in str(meter.refused)
    assert "got ShapeArray((3, 4), float32)" in str(meter.refused)
    assert meter.refused.code == "BPX-E027"
    with pytest.raises(InvalidTypeError, match=r"got x.argmax, which is not in the mathematics of bpxp"):
        x.argmax()
    assert x.__class__ is ShapeArray
    assert len({x, x}) == 1
    meter.array_type = np.ndarray
    assert x.__class__ is np.ndarray
    meter.dtypes = {np.dtype("float32"): "theirs"}
    assert x.dtype == "theirs"
    assert shape_of(X.astype(np.int32), meter).dtype == np.int32


def test_names_of_dtypes():
    theirs = type("Theirs", (), {"__str__": lambda self: "torch.float32"})()
    assert as_dtype(theirs) == np.float32
    assert as_dtype("int8") == np.int8
    assert as_dtype(type("Longer", (), {"__str__": lambda self: "library.numpy.int16"})()) == np.int16
    assert dtype_name(types.SimpleNamespace(dtype=theirs)) == "float32"
    assert dtype_name(X) == "float32"
    assert dtype_name(types.SimpleNamespace(dtype=types.SimpleNamespace(name="BOOL"))) == "bool"
    bare = shape_of(types.SimpleNamespace(shape=[2, 3], dtype=theirs), Meter())
    assert (bare.shape, bare.kind) == ((2, 3), np.float32)


def test_result_types():
    xp = shape_namespace(Meter())
    x = shape_of(X, Meter())
    assert xp.result_type(x, np.float64) == np.float64
    assert xp.result_type(x, 2.0) == np.float32
    assert xp.result_type(x, 2) == np.float32
    assert xp.result_type("int8", np.int32) == np.int32
