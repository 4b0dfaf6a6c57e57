"""What a plan calls: for each operation the function that writes with ``out=``, its arguments, and bits of the eager one."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.captured_steps import HOSTS, Lab, Planned

from bpxp.backends.abstract.trace import Operation, Value
from bpxp.backends.program import OUT, Call, filled, with_arrays

RNG = np.random.default_rng(0)


@pytest.fixture(params=HOSTS, scope="module")
def lab(request):
    pytest.importorskip(request.param)
    return Lab(request.param)


@pytest.fixture(scope="module")
def module(lab):
    return __import__(f"bpxp.backends.{lab.name}.capture", fromlist=["capture"])


def arrays(lab, shape=(4, 6), dtype="float32"):
    """Return two arrays of numbers that are larger than 1, or of integers."""
    return tuple(lab.array((RNG.random(shape) * 6 + 1.25).astype(dtype)) for _ in range(2))


def last(lab, function, *data):
    """Return the last operation of a function of arrays, as it was planned."""
    return Planned(lab, lambda state, data, xp: function(*data, xp), (), data).plan.done[-1]


def function_of(call):
    """Return a function and the object that it is a method of: those of ufuncs are made at each look."""
    function = call.function
    return getattr(function, "__name__", function), getattr(function, "__self__", None)


def poisoned(lab, like):
    out = lab.library.fresh(lab.library.kind(like))()
    lab.library.copy(out, lab.array(np.asarray(77).astype(lab.host(like).dtype)))
    return out


def recomputed(lab, call, real, like):
    """Return what a call writes into a buffer."""
    out = poisoned(lab, like)
    call.function(*filled(call.arguments, real | {OUT.number: out}), **filled(call.keywords, real | {OUT.number: out}))
    return out


ANGLES = "acos asin atanh cos sin tan".split()
UNARY = "abs acosh asinh atan ceil cosh exp expm1 floor log log10 log1p log2 negative reciprocal round sign".split()
UNARY += "signbit sinh sqrt square tanh trunc logical_not".split() + ANGLES
BINARY = (
    "add atan2 copysign divide floor_divide hypot logaddexp maximum minimum multiply nextafter pow remainder".split()
)
BINARY += "subtract equal greater greater_equal less less_equal not_equal logical_and logical_or logical_xor".split()
INTEGERS = "bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor".split()
TORCH = {"bitwise_invert": "bitwise_not", "divide": "div", "equal": "eq", "greater": "gt", "greater_equal": "ge"}
TORCH |= {"less": "lt", "less_equal": "le", "not_equal": "ne"}
NUMPY = {"abs": "absolute", "acos": "arccos", "acosh": "arccosh", "asin": "arcsin", "asinh": "arcsinh"}
NUMPY |= {"atan": "arctan", "atanh": "arctanh", "atan2": "arctan2", "round": None, "pow": "power"}
NUMPY |= dict.fromkeys("bitwise_left_shift left_shift".split(), "left_shift")
NUMPY |= dict.fromkeys("bitwise_right_shift right_shift".split(), "right_shift") | {"bitwise_invert": "invert"}


def check_elementwise(lab, module, name, data, function):
    done = last(lab, function, *data)
    call = done.call
    if lab.name == "numpy":
        expected = getattr(np, NUMPY.get(name, name) or name)
        if not isinstance(expected, np.ufunc):
            assert call is None
            return
    else:
        expected = getattr(module.torch, TORCH.get(name, name))
    assert call.function is expected
    assert call.elementwise
    by_keyword = lab.name == "torch" or name in ("maximum", "minimum")
    assert call.keywords == ({"out": OUT} if by_keyword else {})
    assert call.arguments[-1] == (done.operation.inputs[-1] if by_keyword else OUT)
    result = function(*data, lab.xp)
    out = recomputed(lab, call, dict(enumerate(data)), result)
    np.testing.assert_array_equal(lab.host(out), lab.host(result), strict=True)


@pytest.mark.parametrize("name", UNARY)
def test_a_function_of_one_array(lab, module, name):
    (x, _) = arrays(lab)
    x = x * 0.125 if name in ANGLES else x
    x = x > 4 if name == "logical_not" else x
    check_elementwise(lab, module, name, (x,), lambda x, xp: getattr(xp, name)(x))


@pytest.mark.parametrize("name", BINARY)
def test_a_function_of_two_arrays(lab, module, name):
    x, y = arrays(lab)
    x, y = (x > 4, y > 4) if name.startswith("logical_") else (x, y)
    check_elementwise(lab, module, name, (x, y), lambda x, y, xp: getattr(xp, name)(x, y))


@pytest.mark.parametrize("name", INTEGERS)
def test_a_function_of_integers(lab, module, name):
    check_elementwise(lab, module, name, arrays(lab, dtype="int32"), lambda x, y, xp: getattr(xp, name)(x, y))


OPERATORS = {
    "add": lambda x, y, xp: x + y,
    "subtract": lambda x, y, xp: x - y,
    "multiply": lambda x, y, xp: x * y,
    "divide": lambda x, y, xp: x / y,
    "floor_divide": lambda x, y, xp: x // y,
    "remainder": lambda x, y, xp: x % y,
    "pow": lambda x, y, xp: x**y,
    "greater": lambda x, y, xp: x > y,
    "not_equal": lambda x, y, xp: x != y,
    "negative": lambda x, y, xp: -x,
    "abs": lambda x, y, xp: abs(x),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator(lab, module, name):
    check_elementwise(lab, module, name, arrays(lab), OPERATORS[name])


BESIDE = {  # a number beside an array: whether PyTorch is given it as an array
    "add": (lambda x, xp: x + 0.1, True),
    "subtract": (lambda x, xp: 0.1 - x, True),
    "multiply": (lambda x, xp: x * 3, True),
    "divide": (lambda x, xp: x / 0.1, True),
    "equal": (lambda x, xp: x == 2.5, True),
    "not_equal": (lambda x, xp: x != 2.5, True),
    "less": (lambda x, xp: x < 2.5, True),
    "less_equal": (lambda x, xp: x <= 2.5, True),
    "greater": (lambda x, xp: x > 2.5, True),
    "greater_equal": (lambda x, xp: x >= 2.5, True),
    "floor_divide": (lambda x, xp: x // 0.7, False),
    "remainder": (lambda x, xp: x % 0.7, False),
}


@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_number_takes_the_dtype_of_the_array_beside_it(lab, name, dtype):
    function, in_torch = BESIDE[name]
    (x, _) = arrays(lab, dtype=dtype)
    call = last(lab, function, x).call
    number = next(a for a in call.arguments if not isinstance(a, Value))
    if lab.name == "numpy" or in_torch:
        assert type(number) is lab.library.array_type
        assert (number.ndim, number.dtype) == (0, x.dtype)
    else:
        assert type(number) is float
    result = function(x, lab.xp)
    out = recomputed(lab, call, {0: x}, result)
    np.testing.assert_array_equal(lab.host(out), lab.host(result), strict=True)


def test_numbers_that_do_not_fit_stay_numbers(lab, module):
    x = lab.array(np.array([1, 200], np.uint8))
    for number, fits in ((0, True), (255, True), (256, False), (-1, False), (True, False), (None, False)):
        (kept, made) = module.numbers((Value(0), number), (x, number))
        assert kept == Value(0)
        if fits:
            assert (made.dtype, made.ndim, int(made)) == (x.dtype, 0, number)
        else:
            assert made is number
    both = (x, lab.array(np.ones(2, np.float32)))
    assert module.numbers((Value(0), Value(1), 2), both) == (Value(0), Value(1), 2)
    assert module.numbers((1, 2), (1, 2)) == (1, 2)
    (made,) = module.numbers((300,), (lab.array(np.ones(2, np.float32)),))
    assert (made.dtype, float(made)) == (both[1].dtype, 300.0)
    (small,) = module.numbers((2.5,), (lab.array(np.ones(2, np.float64)),))
    assert (small.dtype, float(small)) == (lab.array(np.ones(1)).dtype, 2.5)


def test_numbers_that_do_not_fit_are_the_eager_bits(lab):
    x = lab.array(np.array([1, 200], np.uint8))
    call, eager = last(lab, lambda x, xp: x < 300, x).call, x < 300
    np.testing.assert_array_equal(lab.host(recomputed(lab, call, {0: x}, eager)), lab.host(eager))


def test_a_power_of_a_number_is_left_to_the_library(lab):
    (x, _) = arrays(lab)
    for function in (lambda x, xp: x**0.5, lambda x, xp: x**2):
        call = last(lab, function, x).call
        assert (call is None) == (lab.name == "numpy")
    call = last(lab, lambda x, xp: 2.0**x, x).call
    assert function_of(call)[0] == ("power" if lab.name == "numpy" else "pow")


def test_a_number_by_an_array_is_a_reciprocal_in_torch(lab, module):
    (x, _) = arrays(lab)
    call = last(lab, lambda x, xp: 0.3 / x, x).call
    assert call.elementwise
    assert call.function is (np.divide if lab.name == "numpy" else module._quotient)
    assert call.keywords == {}
    np.testing.assert_array_equal(lab.host(recomputed(lab, call, {0: x}, x)), lab.host(0.3 / x))


REDUCTIONS = ["max", "min", "sum"]
WAYS = [{}, {"axis": 0}, {"axis": 1}, {"axis": (0, 1)}, {"axis": -1, "keepdims": True}, {"keepdims": True}]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_a_reduction(lab, name, way, dtype):
    (x, _) = arrays(lab, dtype=dtype)
    check_reduction(lab, name, way, x)


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_a_sum_in_another_dtype(lab, dtype):
    (x, _) = arrays(lab, dtype="float32" if dtype == "float64" else "int32")
    check_reduction(lab, "sum", {"axis": 0, "dtype": getattr(lab.xp, dtype)}, x)
    check_reduction(lab, "sum", {"dtype": None}, x)


def check_reduction(lab, name, way, x):
    call = last(lab, lambda x, xp: getattr(xp, name)(x, **way), x).call
    ufunc = {"sum": np.add, "max": np.maximum, "min": np.minimum}[name]
    torch = {"sum": "sum", "max": "amax", "min": "amin"}[name]
    assert function_of(call) == (("reduce", ufunc) if lab.name == "numpy" else (torch, function_of(call)[1]))
    assert not call.elementwise
    result = getattr(lab.xp, name)(x, **way)
    out = recomputed(lab, call, {0: x}, lab.array(np.asarray(lab.host(result))))
    np.testing.assert_array_equal(lab.host(out), lab.host(result))
    assert lab.host(out).dtype == lab.host(result).dtype


CASTS = [
    ("float64", "float32"),
    ("float32", "float64"),
    ("float32", "int32"),
    ("int32", "float32"),
    ("bool", "float32"),
]


@pytest.mark.parametrize(("of", "to"), [*CASTS, ("float32", "bool"), ("uint8", "int64")])
def test_a_cast(lab, module, of, to):
    x = lab.array((RNG.random((3, 5)) * 2 - (of != "uint8")).astype(of))
    call = last(lab, lambda x, xp: xp.astype(x, getattr(xp, to)), x).call
    assert not call.elementwise
    special = "_from_bool" if of == "bool" else "copy_"
    assert function_of(call)[0] == ("copyto" if lab.name == "numpy" else special)
    result = lab.xp.astype(x, getattr(lab.xp, to))
    np.testing.assert_array_equal(lab.host(recomputed(lab, call, {0: x}, result)), lab.host(result), strict=True)


def test_products_and_joints(lab):
    x, y = arrays(lab, (4, 4))
    for function, numpys, torchs in (
        (lambda x, y, xp: xp.matmul(x, y), np.matmul, "matmul"),
        (lambda x, y, xp: xp.concat([x, y]), np.concatenate, "cat"),
        (lambda x, y, xp: xp.concat([x, y], axis=1), np.concatenate, "cat"),
        (lambda x, y, xp: xp.stack([x, y]), np.stack, "stack"),
        (lambda x, y, xp: xp.stack([x, y], axis=1), np.stack, "stack"),
    ):
        call = last(lab, function, x, y).call
        assert not call.elementwise
        assert function_of(call)[0] == (numpys.__name__ if lab.name == "numpy" else torchs)
        result = function(x, y, lab.xp)
        out = recomputed(lab, call, {0: x, 1: y}, result)
        np.testing.assert_array_equal(lab.host(out), lab.host(result), strict=True)


def test_a_choice(lab):
    x, y = arrays(lab)
    assert last(lab, lambda x, y, xp: xp.where(x > y, x, 0.25), x, y).call is None
    call = last(lab, lambda x, y, xp: xp.where(x > y, x, y), x, y).call
    assert (call is None) == (lab.name == "numpy")
    if call is not None:
        assert call.elementwise
        result = lab.xp.where(x > y, x, y)
        out = recomputed(lab, call, {0: x, 1: y, 2: x > y}, result)
        np.testing.assert_array_equal(lab.host(out), lab.host(result), strict=True)


TAKES = [((7,), 0), ((5, 3), 0), ((5, 3), 1), ((2, 5, 3), 0), ((2, 5, 3), 1), ((2, 5, 3), -2), ((2, 5, 3), 2)]


@pytest.mark.parametrize(("shape", "axis"), TAKES)
@pytest.mark.parametrize("large", [False, True])
def test_a_gather(lab, module, monkeypatch, shape, axis, large):
    x = lab.array(RNG.random(shape).astype("float32"))
    rows = lab.array(RNG.integers(0, shape[axis], 4))
    if lab.name == "numpy":
        size = 4 * 4 * int(np.prod(shape)) // shape[axis]  # the bytes of the result
        monkeypatch.setattr(module, "COPIED", size - large)
        expected = "_gather" if large else "take"
    else:
        expected = "_take_rows" if axis in (1, -2) and len(shape) == 3 else "index_select"
    call = last(lab, lambda x, rows, xp: xp.take(x, rows, axis=axis), x, rows).call
    assert function_of(call)[0].endswith(expected)
    assert not call.elementwise
    result = lab.xp.take(x, rows, axis=axis)
    np.testing.assert_array_equal(lab.host(recomputed(lab, call, {0: x, 1: rows}, result)), lab.host(result))


def test_a_gather_of_a_matrix_that_is_turned(lab, module):
    x = lab.array(RNG.random((2, 5, 3)).astype("float32"))
    rows = lab.array(np.array([2, 0]))
    turned = lab.xp.permute_dims(x, (0, 2, 1))
    call = last(lab, lambda x, rows, xp: xp.take(xp.permute_dims(x, (0, 2, 1)), rows, axis=1), x, rows).call
    assert function_of(call)[0] == ("take" if lab.name == "numpy" else "index_select")
    result = lab.xp.take(turned, rows, axis=1)
    out = recomputed(lab, call, {0: x, 1: rows, 2: turned}, result)
    np.testing.assert_array_equal(lab.host(out), lab.host(result))


def test_a_take_without_an_axis(lab):
    x, rows = lab.array(np.arange(7.0)), lab.array(np.array([6, 0]))
    call = last(lab, lambda x, rows, xp: xp.take(x, rows), x, rows).call
    np.testing.assert_array_equal(lab.host(recomputed(lab, call, {0: x, 1: rows}, x[:2])), [6.0, 0.0])


def test_indices_of_a_large_gather_are_looked_through():
    from bpxp.backends.numpy.capture import _gather

    x = np.arange(12.0).reshape(3, 4)
    into = np.full((2, 4), -1.0)
    _gather(x, np.array([0, 2]), 0, into)
    np.testing.assert_array_equal(into, x[[0, 2]])
    _gather(x, np.array([-3, -1]), 0, into)  # Python's, from the end
    np.testing.assert_array_equal(into, x[[0, 2]])
    _gather(x, np.array([-1, 1]), 0, into)
    np.testing.assert_array_equal(into, x[[2, 1]])
    for rows in ([0, 3], [-4, 0]):
        with pytest.raises(IndexError):
            _gather(x, np.array(rows), 0, into)
    columns = np.empty((3, 2))
    _gather(x, np.array([3, 0]), 1, columns)
    np.testing.assert_array_equal(columns, x[:, [3, 0]])
    flat = np.empty(2)
    _gather(x, np.array([11, 4]), None, flat)
    np.testing.assert_array_equal(flat, [11.0, 4.0])
    with pytest.raises(IndexError):
        _gather(x, np.array([12, 4]), None, flat)


def test_numpy_copies_once_where_the_indices_are_in_range():
    from bpxp.backends.numpy.capture import _gather

    class Heard(np.ndarray):
        def take(self, rows, axis, into, *mode):
            modes.append(mode)

    modes = []
    x = np.arange(12.0).reshape(3, 4).view(Heard)
    for rows, axis in (([0, 2], 0), ([2, 2], 0), ([0, 3], 0), ([-1, 0], 0), ([1, 3], 1), ([11], None), ([12], None)):
        _gather(x, np.array(rows), axis, None)
    assert modes == [("clip",), ("clip",), (), (), ("clip",), ("clip",), ()]


def test_a_function_of_the_backend_is_not_replaced_by_numpys(lab):
    if lab.name == "numpy":
        op = Operation("exp", (Value(0),), {}, (Value(1),))
        assert lab.library.call(op, lambda x: x, (np.ones(2),), np.ones(2)) is None


def test_an_entry_of_an_array(lab):
    x = lab.array(np.arange(3.0))
    planned = Planned(lab, lambda state, data, xp: (state[0] + data[1],), (lab.array(np.zeros(2)),), x)
    assert [one.view for one in planned.plan.done] == [lab.name == "torch", False]
    assert planned.plan.done[0].call is None
    state = lab.array(np.zeros(2))
    planned.plan.play(2, state, x)
    np.testing.assert_array_equal(lab.host(state), 2.0)


def test_what_has_no_function_that_writes_is_called_again(lab):
    x, _ = arrays(lab)
    for function in (lambda x, xp: xp.sort(x), lambda x, xp: xp.argmax(x, axis=0), lambda x, xp: xp.roll(x, 1)):
        assert last(lab, function, x).call is None
    op = Operation("mean", (Value(0),), {}, (Value(1),))
    assert lab.library.call(op, lab.xp.mean, (x,), x) is None


IN_PLACE = {
    "add": ("+=", "add"),
    "subtract": ("-=", "sub"),
    "multiply": ("*=", "mul"),
    "divide": ("/=", "div"),
    "floor_divide": ("//=", None),
    "remainder": ("%=", None),
    "pow": ("**=", None),
    "bitwise_and": ("&=", "bitwise_and"),
    "bitwise_or": ("|=", "bitwise_or"),
    "bitwise_xor": ("^=", "bitwise_xor"),
    "bitwise_left_shift": ("<<=", "bitwise_left_shift"),
    "bitwise_right_shift": (">>=", "bitwise_right_shift"),
}


@pytest.mark.parametrize("name", IN_PLACE)
@pytest.mark.parametrize("with_number", [False, True])
def test_an_operator_in_place(lab, name, with_number):
    sign, short = IN_PLACE[name]
    integers = name.startswith("bitwise")
    x, y = arrays(lab, dtype="int32" if integers else "float32")
    other = 2 if with_number else y
    op = Operation(name, (Value(0), 2 if with_number else Value(1)), {}, (Value(0),), True, Value(0))
    call = lab.library.call_in_place(op, (x, other))
    scope = {"x": lab.array(lab.host(x).copy()), "y": other}
    exec(f"x {sign} y", scope)
    out = lab.array(lab.host(x).copy())
    call.function(*filled(call.arguments, {0: out, 1: y}))
    np.testing.assert_array_equal(lab.host(out), lab.host(scope["x"]), strict=True)
    number = call.arguments[1]
    if lab.name == "numpy":
        assert call.arguments[2:] == (() if name == "pow" else (Value(0),))
        as_array = with_number and name != "pow"
        assert call.function is getattr(np, name) if name != "pow" else function_of(call)[0] == "ipow"
    else:
        as_array = with_number and name in ("add", "subtract", "multiply", "divide")
        in_torch = f"i{sign[:-1]}" if short is None else f"{short}_"
        words = {"i//": "ifloordiv", "i%": "imod", "i**": "ipow"}
        long = {"sub_": "subtract_", "mul_": "multiply_", "div_": "divide_"}
        assert function_of(call)[0] in (words.get(in_torch, in_torch), long.get(in_torch))
    assert call.elementwise is False
    if with_number:
        assert (type(number) is lab.library.array_type) == as_array
        if as_array:
            assert number.dtype == x.dtype


# ---------------------------------------------------------------- layouts and memory


def test_a_call_has_no_keywords_and_is_not_elementwise_by_default():
    assert Call(abs, ()) == (abs, (), {}, False)


def test_kinds_and_copies(lab):
    library = lab.library
    x = lab.array(RNG.random((3, 4)).astype("float32"))
    turned = lab.xp.permute_dims(x, (1, 0))
    item = 4 if lab.name == "numpy" else 1
    assert library.kind(x) == ((3, 4), x.dtype, (4 * item, item))
    assert library.kind(turned) == ((4, 3), x.dtype, (item, 4 * item))
    for a in (x, turned):
        own = library.own(a)
        assert library.kind(own) == library.kind(a)
        assert not library.shares(own, a)
        np.testing.assert_array_equal(lab.host(own), lab.host(a))
        fresh = library.fresh(library.kind(a))()
        assert library.kind(fresh) == library.kind(a)
        assert not library.shares(fresh, a)


def test_bounds_are_addresses(lab):
    library = lab.library
    x = lab.array(np.zeros((4, 6), np.float32))
    begin, end = library.bounds(x)
    assert end - begin == 96
    for view, low, high in (
        (x[1:, :], 24, 96),
        (x[:, 1:3], 4, 84),
        (x[1:3, 2:], 32, 72),
        (lab.xp.permute_dims(x, (1, 0)), 0, 96),
        (x[:1, :1], 0, 4),
        (x[:1, :], 0, 24),
    ):
        assert library.bounds(view) == (begin + low, begin + high)
        assert library.shares(view, x)
        assert library.shares(x, view)
    assert not library.shares(x[:2, :], x[2:, :])
    assert not library.shares(x[2:, :], x[:2, :])
    assert library.shares(x[:3, :], x[2:, :])
    empty = x[:0, :]
    assert library.bounds(empty)[0] == library.bounds(empty)[1]
    if lab.name == "numpy":
        assert library.bounds(x[::-1, ::-1]) == (begin, end)


@pytest.mark.parametrize("shape", [(4, 6), (3,), (), (1, 1, 5), (2, 1, 3)])
def test_the_extent_of_a_layout(lab, shape):
    library = lab.library
    x = lab.array(np.zeros(shape, np.float64))
    assert library.extent(library.kind(x)) == x[...].nbytes
    if x.ndim == 2:
        assert library.extent(library.kind(x[::2, 1:4])) == 8 * (12 + 2 + 1)
        assert library.extent(library.kind(x[1:1, :])) == 0
        assert library.extent(library.kind(lab.xp.broadcast_to(x[:1, :], (9, 6)))) == 48
    if lab.name == "numpy":
        assert library.extent(library.kind(np.zeros((4, 6))[::-1, ::2])) == 8 * (18 + 4 + 1)


def test_arrays_in_planned_memory(lab):
    library = lab.library
    memory = library.memory(256)
    x = lab.array(RNG.random((3, 4)).astype("float32"))
    turned = lab.xp.permute_dims(x, (1, 0))
    first, second = library.placed(memory, 0, library.kind(x)), library.placed(memory, 64, library.kind(turned))
    assert library.bounds(first)[0] % 64 == 0
    assert library.bounds(second)[0] - library.bounds(first)[0] == 64
    assert (library.kind(first), library.kind(second)) == (library.kind(x), library.kind(turned))
    library.copy(first, x)
    library.copy(second, turned)
    np.testing.assert_array_equal(lab.host(first), lab.host(x))
    np.testing.assert_array_equal(lab.host(second), lab.host(turned))
    assert library.placed(memory, 256, library.kind(x[:0, :])).shape == (0, 4)
    last = library.placed(memory, 192, library.kind(lab.array(np.zeros(16, np.float32))))
    begin, end = library.bounds(memory)
    assert begin <= library.bounds(last)[0] <= library.bounds(last)[1] <= end
    if lab.name == "torch":
        assert len(memory) == 256


def test_numpys_memory_leaves_room_for_the_alignment(monkeypatch):
    from bpxp.backends.numpy.capture import NumpyLibrary

    library = NumpyLibrary()
    kind = ((64,), np.dtype("uint8"), (1,))
    for shift in (0, 1, 16, 63):
        memory = np.empty(64 + 64 + 63, np.uint8)
        memory = memory[(shift - memory.ctypes.data) % 64 :][: 64 + 64]
        assert library.bounds(library.placed(memory, 0, kind))[0] == memory.ctypes.data + (-shift) % 64
    assert library.memory(100).nbytes == 164
    assert library.memory(100).dtype == np.uint8


def test_whether_arrays_are_the_same(lab):
    library = lab.library
    x = lab.array(np.array([[0.0, 1.0], [np.nan, 2.0]]))
    other = lab.array(lab.host(x).copy())
    assert library.same(x, other) is True
    assert library.same(x, lab.xp.permute_dims(lab.array(lab.host(x).T.copy()), (1, 0)))
    minus = lab.array(np.array([[-0.0, 1.0], [np.nan, 2.0]]))
    assert library.same(x, minus) is False
    assert not library.same(x, lab.xp.reshape(x, (4,)))
    assert not library.same(x, lab.xp.zeros((2, 2), dtype=lab.xp.float32))
    zeros = lab.xp.zeros((2,), dtype=lab.xp.int64)
    assert not library.same(zeros, lab.xp.zeros((2,), dtype=lab.xp.float64))
    assert not library.same(zeros, lab.xp.zeros((4,), dtype=lab.xp.int32))
    assert library.same(zeros, lab.xp.zeros((2,), dtype=lab.xp.int64))


def test_whether_an_array_has_the_shape_and_dtype_of_a_trace(lab):
    library, kind = lab.library, np.dtype("float32")
    x = lab.array(np.zeros((2, 3), np.float32))
    assert library.agrees(x, (2, 3), kind) is True
    assert not library.agrees(x, (3, 2), kind)
    assert not library.agrees(x, (2, 3), np.dtype("float64"))
    assert not library.agrees(subclassed(x, lab), (2, 3), kind)
    if lab.name == "numpy":
        assert library.agrees(np.float32(1.0), (), kind)  # what NumPy returns without dimensions
        assert not library.agrees(np.float64(1.0), (), kind)
        assert not library.agrees(x.view(np.ma.MaskedArray), (2, 3), kind)


def subclassed(x, lab):
    if lab.name == "numpy":
        return x.view(np.matrix)
    return x.as_subclass(type("Other", (lab.library.array_type,), {}))


def test_what_may_be_written(lab):
    x = lab.array(np.zeros(3))
    assert lab.library.writable(x) is True
    if lab.name == "numpy":
        x.flags.writeable = False
    else:
        x.requires_grad_(True)
    assert lab.library.writable(x) is False


def test_with_arrays_makes_each_number_once():
    made = []

    def make(a, dtype):
        made.append((a, dtype))
        return np.array(a, dtype)

    one, two, value = with_arrays((1.5, 2, Value(0)), (np.ones(2, np.float32),), make, np.iinfo)
    assert made == [(1.5, np.float32), (2, np.float32)]
    assert (one, two, value) == (1.5, 2.0, Value(0))
