"""Plans: their programs line by line, whose memory a result takes, what is computed once, and what is refused."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import pytest
from helpers.captured_steps import HOSTS, Lab, Planned, State
from hypothesis import given, settings
from hypothesis import strategies as st

from bpxp.backends.abstract.trace import NotCapturable, Operation, Value
from bpxp.backends.program import ALIGNED, Code, Offsets, filled, rounded, several, values


@pytest.fixture(params=HOSTS, scope="module")
def lab(request):
    pytest.importorskip(request.param)
    return Lab(request.param)


@pytest.fixture(scope="module")
def numpy():
    return Lab("numpy")


# ---------------------------------------------------------------- places in memory


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=40))
def test_places_that_are_taken_never_overlap(moves):
    offsets, taken, lines = Offsets(), {}, 0
    for give, number in moves:
        busy = [False] * (offsets.size // ALIGNED)
        for begin, size in taken.items():
            for line in range(begin // ALIGNED, (begin + rounded(size)) // ALIGNED):
                assert not busy[line]
                busy[line] = True
        gaps = [(sum(1 for _ in run), free) for free, run in itertools.groupby(not b for b in busy)]
        assert sorted(room for _, room in offsets.free) == sorted(n * ALIGNED for n, free in gaps if free)
        if give and taken:
            begin = list(taken)[number % len(taken)]
            offsets.give(begin, taken.pop(begin))
            continue
        before = offsets.size
        fits = [n * ALIGNED for n, free in gaps if free and n * ALIGNED >= number]
        begin = offsets.take(number)
        assert begin % ALIGNED == 0
        assert begin not in taken
        if fits:
            assert offsets.size == before
            whole = 0 if begin in busy else begin // ALIGNED
            assert sum(1 for _ in itertools.takewhile(lambda b: not b, busy[whole:])) * ALIGNED == min(fits)
        else:
            assert (begin, offsets.size) == (before, before + rounded(number))
        taken[begin] = number
        lines += 1
    for begin, size in taken.items():
        offsets.give(begin, size)
    assert offsets.free == ([(0, offsets.size)] if offsets.size else [])


def test_bytes_are_whole_lines():
    assert [rounded(n) for n in (0, 1, 63, 64, 65, 128, 129)] == [64, 64, 64, 64, 128, 128, 192]


def test_the_smallest_gap_is_taken_and_its_rest_is_kept():
    offsets = Offsets()
    assert [offsets.take(size) for size in (256, 64, 128, 64, 192, 64)] == [0, 256, 320, 448, 512, 704]
    for begin, size in ((0, 256), (320, 128), (512, 192)):
        offsets.give(begin, size)
    assert offsets.take(100) == 320
    assert offsets.take(100) == 512
    assert sorted(offsets.free) == [(0, 256), (640, 64)]
    assert offsets.take(64) == 640
    offsets.give(320, 128)
    offsets.give(256, 64)
    assert offsets.free == [(0, 448)]
    assert offsets.take(449) == 768
    assert offsets.size == 1280


# ---------------------------------------------------------------- arguments


def test_the_values_in_arguments():
    tree = (Value(3), [Value(1), (2, Value(5))], {"axis": Value(7), "k": 1}, "text", None)
    assert list(values(tree)) == [3, 1, 5, 7]
    real = {3: "c", 1: "a", 5: "e", 7: "g"}
    assert filled(tree, real) == ("c", ("a", (2, "e")), {"axis": "g", "k": 1}, "text", None)


def test_several_results():
    assert several((1, 2)) == (1, 2)
    assert several([1]) == [1]
    assert several(3) == (3,)


def test_a_program_names_each_object_once_and_writes_small_plain_values():
    def copy(into, a):
        into[:] = a

    def function(*inputs, **keywords):
        return inputs, keywords

    code = Code(copy)
    into, other = [0], [5]
    real, local = {0: into, 1: other}, {2: "a0"}
    line = code.call(
        function, (Value(0), Value(2), None, True, 3, 2.5, (1, 2), [Value(1), 4]), {"k": Value(1)}, real, local
    )
    assert line == "c4(c0, a0, None, True, 3, c1, c2, (c3, 4,), k=c3)"
    assert code.objects == {"c0": into, "c1": 2.5, "c2": (1, 2), "c3": other, "c4": function}
    code.copy(real, local, 0, Value(1))
    assert code.during == ["c5(c0, c3)"]
    code.again(function, Operation("f", (Value(2),), {"axis": 1}, (Value(0),)), real, local)
    code.again(function, Operation("f", (Value(2),), {}, (Value(0), Value(1))), real, local)
    assert code.during[1:] == ["c5(c0, c4(a0, axis=1))", "t = c4(a0)", "c5(c0, t[0])", "c5(c3, t[1])"]
    code.before.append("a1 = a0")
    play = code.program(1, "a1, count")
    assert play.__code__.co_filename == "<a captured step>"
    assert play(0, "x") == ("x", 0)
    assert play.__name__ == "play"


def test_an_empty_program_does_nothing():
    assert Code(None).program(2, "a1, a0")(3, "x", "y") == ("y", "x")


# ---------------------------------------------------------------- programs


def lines(lab, numpys, torchs=None):
    """Return the lines that are expected of a library: PyTorch's buffers are named."""
    if lab.name == "numpy":
        return numpys
    return torchs


def chain(state, data, xp):
    a = xp.exp(data * 2.0)
    b = xp.tanh(a)
    return State(state.w + b, state.total)


def test_a_chain_of_elementwise_operations_has_one_buffer(lab):
    planned = Planned(lab, chain, lab.start(), lab.quarters)
    numpys = ["multiply(a2, 2.0, A(4))", "exp(A(4), A(4))", "tanh(A(4), A(4))", "add(a0, A(4), A(4))"]
    torchs = ["multiply(a2, 2.0, out=A(4))", "exp(A(4), out=A(4))", "tanh(A(4), out=A(4))", "add(a0, A(4), out=A(4))"]
    assert planned.during == [*lines(lab, numpys, torchs), lines(lab, "copyto(a0, A(4))", "copy_(a0, A(4))")]
    assert planned.before == []
    assert planned.returned == "return ()"
    assert planned.plan.bytes == 64


def buffers(planned):
    """Return the letters of the memory that each line writes."""
    written = []
    for line in planned.during:
        words = line.replace("out=", "").rstrip(")").split("(", 1)[1]
        letters = [c for c in line if c.isupper()]
        written.append(letters[-1] if letters and not words.startswith("a0") else "-")
    return "".join(written)


def test_an_operand_that_lives_on_keeps_its_memory(lab):
    def step(state, data, xp):
        a = xp.exp(data)
        b = xp.tanh(a)  # a lives on
        return State(state.w + (a + b), state.total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert planned.plan.bytes == 128
    assert buffers(planned)[:3] in ("ABA", "ABB")


def turned(a, xp):
    return xp.matrix_transpose(a)


# Of arrays of 4 x 4 numbers of 8 bytes, 128 bytes each; a smaller one takes 64, as the sum does that ends each step.
KNOWN = {
    "one": (lambda a, xp: xp.exp(a), 192),
    "a chain": (lambda a, xp: xp.tanh(xp.exp(a)) * 2.0, 192),
    "the operand lives on": (lambda a, xp: xp.tanh(b := xp.exp(a)) + b, 256),
    "the operand is a view": (lambda a, xp: turned(xp.exp(a), xp) * turned(a, xp), 256),
    "a view of the whole in the same layout": (lambda a, xp: xp.tanh(xp.exp(a)[:, :]), 192),
    "a part of it is shown": (lambda a, xp: xp.exp(xp.exp(a)[:2, :]), 192),
    "both are read": (lambda a, xp: (b := xp.exp(a)) + turned(b, xp), 256),
    "not elementwise": (lambda a, xp: xp.matmul(xp.exp(a), a), 256),
    "two in turn": (lambda a, xp: xp.matmul(xp.matmul(xp.matmul(a, a), a), a), 256),
    "broadcast": (lambda a, xp: xp.exp(a) + xp.sum(a, axis=0), 192),
    "broadcast, the small one first": (lambda a, xp: xp.sum(a, axis=0) + xp.exp(a), 192),
    "another dtype": (lambda a, xp: xp.astype(xp.astype(xp.exp(a), xp.int64) + 1, xp.float64), 256),
    "a comparison": (lambda a, xp: xp.astype(xp.exp(a) > 1.0, xp.float64), 192),
    "both operands die": (lambda a, xp: xp.exp(a) + xp.sin(a), 256),
    "a gap is used again": (lambda a, xp: xp.cos(xp.exp(a) + xp.sin(a)) * xp.cos(a), 256),
    "in place": (lambda a, xp: written(xp.exp(a)), 192),
    "the same operand twice": (lambda a, xp: (b := xp.exp(a)) * b, 192),
    "called again": (lambda a, xp: xp.sort(xp.exp(a)), 256),
}


def written(a):
    a += 1.0
    a *= 2.0
    return a


@pytest.mark.parametrize("what", KNOWN)
def test_the_bytes_of_known_steps(lab, what):
    function, size = KNOWN[what]
    x = lab.array(np.arange(16.0).reshape(4, 4) / 8)

    def step(state, data, xp):
        return (state[0] + xp.sum(function(data, xp), keepdims=True),)

    planned = Planned(lab, step, (lab.array(np.zeros((1, 1))),), x)
    state, other = ((lab.array(np.zeros((1, 1))),) for _ in range(2))
    for _ in range(3):
        planned.plan.play(1, *state, x)
        other = step(other, x, lab.xp)
        assert lab.host(state[0]) == lab.host(other[0])
    assert planned.plan.bytes == size


def test_a_view_keeps_the_memory_that_it_shows(lab):
    def step(state, data, xp):
        a = xp.exp(data)
        view = a[1:3]
        b = xp.tanh(data)  # must not take the memory of a
        return State(state.w + b, state.total + xp.sum(view) + xp.sum(b))

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert planned.plan.bytes >= 128
    check(planned, step, lab)


def check(planned, step, lab, steps=3):
    """Compare a plan with the eager step, on states of its own."""
    state, data = lab.start(), lab.quarters
    other = lab.start()
    for _ in range(steps):
        planned.plan.play(1, *state, data)
        other = step(other, data, lab.xp)
        for a, b in zip(state, other, strict=True):
            np.testing.assert_array_equal(lab.host(a), lab.host(b), strict=True)


def test_dead_operations_are_dropped(lab):
    def step(state, data, xp):
        unused = xp.exp(data)
        also = xp.tanh(unused) * 2.0
        also += 1.0
        view = also[:2]
        view *= 3.0
        xp.sort(view)
        xp.reshape(state.w[:2], (2, 1))
        return State(state.w + data, state.total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert len(planned.during) == 2
    assert planned.before == []
    assert planned.plan.bytes == 64
    check(planned, step, lab)


def test_a_write_through_a_view_of_the_state_is_kept(lab):
    def step(state, data, xp):
        part = state.w[1:3]
        part += data[:2]
        flat = xp.reshape(xp.reshape(state.w, (2, 2)), (4,))
        flat *= 0.5
        return state

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert len(planned.during) == 2
    assert len(planned.before) == 4
    assert planned.plan.bytes == 0
    check(planned, step, lab)


def test_a_write_through_a_view_of_what_is_needed_is_kept(lab):
    def step(state, data, xp):
        a = data * 2.0
        part = a[1:3]
        part += 1.0
        return State(state.w + a, state.total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert len(planned.during) == 4
    assert planned.before == []
    check(planned, step, lab)


def test_constants_are_computed_once(lab):
    def step(state, data, xp):
        ramp = xp.arange(4, dtype=xp.float64) * 3.0 + 1.0
        rows = xp.reshape(ramp, (2, 2))
        ones = xp.ones_like(data)
        return State(state.w * ramp + xp.reshape(rows * 2.0, (4,)), state.total + xp.sum(ones))

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert len(planned.during) == 5
    assert planned.plan.bytes == 128
    assert not any(name in planned.text for name in ("arange", "ones", "reshape"))
    assert len(planned.plan.constant) == 6
    check(planned, step, lab)


def test_a_constant_that_is_written_begins_anew_in_every_step(lab):
    def step(state, data, xp):
        total = xp.zeros_like(data)
        fixed = xp.full((4,), 2.0, dtype=xp.float64)
        seen = total + fixed
        total += data
        part = xp.ones((4,), dtype=xp.float64)
        view = part[:2]
        view -= 0.5
        return State(state.w + total * seen * part, state.total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    copy = lines(lab, "copyto(", "copy_(")
    assert [line for line in planned.during if line.startswith(copy)][:-1] != []
    assert planned.during[0].startswith(copy)
    assert len(planned.plan.constant) == 1
    check(planned, step, lab)


def test_a_constant_that_a_function_writes_begins_anew_in_every_call(lab):
    def function(state, data, xp):
        total = xp.zeros((4,), dtype=xp.float64)
        total += data
        return xp.sum(total, keepdims=True), 1.0 * total[:1]

    planned = Planned(lab, function, (), lab.quarters)
    assert planned.plan.constant == set()
    for _ in range(3):
        found, first = planned.plan.play(1, lab.quarters)
        assert (lab.host(found)[0], lab.host(first)[0]) == (1.0, 0.25)


def test_zeros_like_reads_only_a_shape(lab):
    def step(state, data, xp):
        shape = xp.exp(data)  # nothing else is made of it
        zeros = xp.zeros_like(shape)
        return State(state.w + zeros + xp.full_like(shape, 2.0), state.total + xp.sum(xp.ones_like(shape)))

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert "exp" not in planned.text
    assert len(planned.during) == 5
    check(planned, step, lab)


def test_a_state_that_is_constant_is_written_every_time(lab):
    def step(state, data, xp):
        return State(xp.zeros((4,), dtype=xp.float64), state.total + 1.0)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert len(planned.during) == 3
    check(planned, step, lab)


def test_what_a_function_returns_is_made_in_every_call(lab):
    def function(state, data, xp):
        a = xp.exp(data * 2.0)
        ones = xp.ones((2,), dtype=xp.float64)
        return a, xp.reshape(a, (2, 2)), ones, data[1:], data, None, 3, (xp.sum(a, keepdims=True), "text")

    planned = Planned(lab, function, (), lab.quarters)
    assert [line.split(" = ")[1].split("(")[0] for line in planned.before] == ["new"] * 3 + ["reshape", "getitem"][
        : len(planned.before) - 3
    ] or planned.before
    assert planned.plan.bytes == 64
    one, two = planned.plan.play(1, lab.quarters), planned.plan.play(1, lab.quarters)
    assert len(one) == 9
    for a, b in zip(one, two, strict=True):
        if type(a) is lab.library.array_type:
            np.testing.assert_array_equal(lab.host(a), lab.host(b))
    assert not lab.library.shares(one[0], two[0])
    assert not lab.library.shares(one[2], two[2])
    assert lab.library.shares(one[0], one[1])
    assert one[4] is lab.quarters
    assert lab.library.shares(one[3], lab.quarters)
    assert one[5:7] == (None, 3)
    assert one[8] == "text"
    np.testing.assert_array_equal(lab.host(one[2]), [1.0, 1.0])
    np.testing.assert_array_equal(lab.host(one[0]), np.full(4, np.exp(0.5)))
    assert planned.plan.outputs[5:7] == [None, 3]


def test_operations_with_several_results_are_called_again(lab):
    def step(state, data, xp):
        sorted_once = xp.sort(state.w + data)
        return State(sorted_once, state.total + xp.sum(xp.cumulative_sum(sorted_once, axis=0)))

    planned = Planned(lab, step, lab.start(), lab.quarters)
    copies = [line for line in planned.during if line.startswith(lines(lab, "copyto(", "copy_("))]
    assert len(copies) == 4
    check(planned, step, lab)


def test_a_kernel_with_two_results(numpy):
    """Threefry's are a tuple: both are copied into buffers."""
    xp = numpy.xp

    def step(state, data, xp):
        one, two = xp.threefry(*data)
        return (state[0] + one + two,)

    word = np.arange(4, dtype=np.int32)
    data = (word[0:1].copy(), word[1:2].copy(), word.copy(), word.copy())
    planned = Planned(numpy, step, (np.zeros(4, np.int32),), data)
    assert [line.split("(")[0].split(" ")[0] for line in planned.during] == [
        "t",
        "copyto",
        "copyto",
        "add",
        "add",
        "copyto",
    ]
    state = np.ones(4, np.int32)
    planned.plan.play(2, state, *data)
    one, two = xp.threefry(*data)
    np.testing.assert_array_equal(state, 1 + 2 * (one + two))


def test_one_of_two_results_is_returned_or_unread(numpy):
    words = tuple(np.arange(4, dtype=np.int32) for _ in range(4))
    one, two = numpy.xp.threefry(*words)

    def first(state, data, xp):
        one, two = xp.threefry(*data)
        return one, two + 1

    found = Planned(numpy, first, (), words).plan.play(1, *words)
    np.testing.assert_array_equal(found, [one, two + 1])

    def second(state, data, xp):
        _, two = xp.threefry(*data)
        return (state[0] + xp.sort(two + data[0]),)  # the sorted ones take the place of what was not read

    planned = Planned(numpy, second, (np.zeros(4, np.int32),), words)
    assert planned.plan.bytes == 128
    state = np.zeros(4, np.int32)
    planned.plan.play(1, state, *words)
    np.testing.assert_array_equal(state, np.sort(two + words[0]))


def test_an_array_may_be_a_keyword(numpy):
    def step(state, data, xp):
        shift = xp.astype(xp.exp(data[:1]), xp.int64)
        return State(state.w + xp.roll(xp.tanh(data), shift=shift), state.total)

    planned = Planned(numpy, step, numpy.start(), numpy.quarters)
    assert sum("shift=" in line for line in planned.during) == 1
    state, data = numpy.start(), np.arange(4.0)
    for _ in range(2):
        planned.plan.play(1, *state, data)
    np.testing.assert_array_equal(state.w, np.arange(4) + 2 * np.roll(np.tanh(data), 1))


def test_a_constant_array_may_be_a_keyword(numpy):
    def step(state, data, xp):
        shift = xp.full((1,), 3, dtype=xp.int64)
        ramp = xp.arange(4, dtype=xp.float64)
        return State(state.w + xp.roll(ramp, shift=shift) + xp.roll(data, shift=shift), state.total)

    planned = Planned(numpy, step, numpy.start(), numpy.quarters)
    assert sum("shift=" in line for line in planned.during) == 1
    check(planned, step, numpy)


def test_a_cast_to_the_same_dtype_without_a_copy_is_its_operand(lab):
    def step(state, data, xp):
        same = xp.astype(data, xp.float64, copy=False)
        return State(state.w + same, state.total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert planned.before == []
    assert len(planned.during) == 2
    check(planned, step, lab)


def test_views_are_taken_before_the_first_step(lab):
    def step(state, data, xp):
        folded = xp.reshape(data, (2, 2))
        turned = xp.matrix_transpose(folded)
        return State(state.w + xp.reshape(turned * 1.0, (4,)), state.total + turned[0, 1])

    planned = Planned(lab, step, lab.start(), lab.quarters)
    assert [line.split(" = ")[0] for line in planned.before[:2]] == ["a3", "a4"]
    check(planned, step, lab)


def test_a_plan_runs_as_many_steps_as_it_is_told(lab):
    def step(state, data, xp):
        w, total = state
        w += data
        total += 1.0
        return State(w, total)

    planned = Planned(lab, step, lab.start(), lab.quarters)
    state = lab.start()
    assert planned.plan.play(5, *state, lab.quarters) == ()
    assert lab.host(state.total) == 5.0
    np.testing.assert_array_equal(lab.host(state.w), np.arange(4) + 1.25)
    assert (planned.plan.state, planned.plan.given, planned.plan.stateful) == (2, 3, True)


def test_a_state_may_hold_plain_values(lab):
    def step(state, data, xp):
        return state[0], state[1] + data, 3

    state = ("text", lab.start().w, 3)
    planned = Planned(lab, step, state, lab.quarters)
    assert planned.plan.outputs == [Value(2)]
    planned.plan.play(2, state[1], lab.quarters)
    np.testing.assert_array_equal(lab.host(state[1]), np.arange(4) + 0.5)


# ---------------------------------------------------------------- what is refused


REFUSED = {
    "another shape": (lambda s, d, xp: State(s.total * 1.0, s.w * 1.0), "its state changes its structure"),
    "another dtype": (lambda s, d, xp: State(xp.astype(s.w, xp.float32), s.total), "its state changes its structure"),
    "the data": (lambda s, d, xp: State(d, s.total), "its state trades places"),
    "part of it": (lambda s, d, xp: State(s.w[:2], s.total), "its state trades places"),
    "turned": (lambda s, d, xp: State(xp.flip(s.w)[:], s.total), "its state trades places"),
    "two of one": (lambda s, d, xp: State((a := s.w * 2.0), a[:1]), "two parts of its state are one array"),
    "the data are written": (lambda s, d, xp: State(s.w + raised(d), s.total), "it writes into what is not its own"),
    "a view is written": (lambda s, d, xp: State(s.w + raised(d[:]), s.total), "it writes into what is not its own"),
    "a number": (
        lambda s, d, xp: State(s.w + raised(xp.sum(d)), s.total),
        "it writes into a number, not into an array",
    ),
}


def raised(a):
    a += 1.0
    return a


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_repeated(numpy, what):
    step, reason = REFUSED[what]
    with pytest.raises(NotCapturable, match=f"^{reason}$"):
        Planned(numpy, step, numpy.start(), numpy.quarters)


class Odd:
    """A namespace of which one function does something else."""

    def __init__(self, lab, **functions):
        self.__dict__.update(vars(lab.xp))
        self.__dict__.update(functions)


def odd(lab, step, **functions):
    other = Lab(lab.name)
    from bpxp.backends.plan import Plan

    planned = Planned(lab, step, lab.start(), lab.quarters)
    copies = [lab.library.own(a) for a in (*lab.start(), lab.quarters)]
    return Plan(planned.trace, other.library, Odd(lab, **functions), copies, 2, True)


def test_what_differs_from_its_trace(lab):
    xp = lab.xp

    def step(state, data, xp):
        return State(state.w + xp.astype(xp.exp(data), xp.float64, copy=False), state.total)

    name, shape = ("torch.float64" if lab.name == "torch" else "float64"), r"\(4,\)"
    for function, reason in (
        (lambda a: xp.astype(a, xp.float32), rf"exp returned \S*float32 {shape}, and float64 {shape} was traced"),
        (lambda a: xp.exp(a)[:3], rf"exp returned {name} \(3,\), and float64 {shape} was traced"),
    ):
        with pytest.raises(NotCapturable, match=f"^{reason}$"):
            odd(lab, step, exp=function)
    with pytest.raises(NotCapturable, match="^astype returned a copy, and its operand was traced$"):
        odd(lab, step, astype=lambda a, dtype, copy: a * 1.0)
    with pytest.raises(NotCapturable, match="^astype returned a copy, and its operand was traced$"):
        odd(lab, step, astype=lambda a, dtype, copy: xp.flip(xp.flip(a)[:]) if lab.name == "torch" else a[::-1])


def test_a_function_that_returns_a_view_and_a_new_array(numpy):
    xp = numpy.xp

    def step(state, data, xp):
        one, two = xp.threefry(*data[:3], data[3] + 1)
        return (state[0] + one + two,)

    words = tuple(np.arange(4, dtype=np.int32) for _ in range(4))
    planned = Planned(numpy, step, (np.zeros(4, np.int32),), words)
    from bpxp.backends.plan import Plan

    mixed = Odd(numpy, threefry=lambda a, b, c, d: (a[:], b + 1))
    with pytest.raises(NotCapturable, match="^threefry returns both views and new arrays$"):
        Plan(planned.trace, numpy.library, mixed, [np.zeros(4, np.int32), *words], 1, True)
    three = Odd(numpy, threefry=lambda a, b, c, d: (a + 1, b + 1, c + 1))
    with pytest.raises(ValueError, match="longer"):
        Plan(planned.trace, numpy.library, three, [np.zeros(4, np.int32), *words], 1, True)
    views = Odd(numpy, threefry=lambda a, b, c, d: (a[:], b[:]))
    plan = Plan(planned.trace, numpy.library, views, [np.zeros(4, np.int32), *words], 1, True)
    state = np.zeros(4, np.int32)
    plan.play(1, state, *words)
    np.testing.assert_array_equal(state, 2 * words[0])
    assert xp.threefry is not views.threefry


def test_a_view_that_a_buffer_does_not_have(numpy):
    calls = []

    def reshape(a, shape):
        calls.append(a)
        return a.reshape(shape) if len(calls) < 2 else np.ascontiguousarray(a.reshape(shape)[:, ::-1])[:, ::-1]

    def step(state, data, xp):
        return State(
            state.w + xp.reshape(xp.matmul(xp.reshape(xp.exp(data), (2, 2)), xp.ones((2, 2))), (4,)), state.total
        )

    def two(state, data, xp):
        return State(state.w, state.total + xp.sum(xp.reshape(xp.exp(data), (2, 2))))

    assert step is not two
    with pytest.raises(NotCapturable, match="^reshape has another layout in a buffer$"):
        odd(numpy, two, reshape=reshape)


# ---------------------------------------------------------------- how calls are chosen


class Watched:
    """A library whose calls are replaced by others."""

    def __init__(self, library, call):
        self._library, self._call = library, call

    def __getattr__(self, name):
        return getattr(self._library, name)

    def call(self, op, function, arguments, result):
        return self._call(self._library, op, function, arguments, result)


def watched(lab, step, call):
    from bpxp.backends.plan import Plan

    planned = Planned(lab, step, lab.start(), lab.quarters)
    copies = [lab.library.own(a) for a in (*lab.start(), lab.quarters)]
    return Plan(planned.trace, Watched(lab.library, call), lab.xp, copies, 2, True)


def test_a_call_that_is_not_the_eager_function_to_the_bit_is_not_used(lab):
    def wrong(library, op, function, arguments, result):
        call = library.call(op, function, arguments, result)
        if op.name == "exp":
            return call._replace(function=lambda *a, **k: None)  # leaves what was there
        return call

    def refuses(library, op, function, arguments, result):
        def fails(*a, **k):
            raise TypeError

        call = library.call(op, function, arguments, result)
        return call._replace(function=fails) if op.name == "exp" else call

    for how in (wrong, refuses):
        plan = watched(lab, chain, how)
        assert [one.call is None for one in plan.done] == [False, True, False, False]
        state, other = lab.start(), lab.start()
        plan.play(1, *state, lab.quarters)
        other = chain(other, lab.quarters, lab.xp)
        np.testing.assert_array_equal(lab.host(state.w), lab.host(other.w))


def test_what_was_interpreted_is_let_go_after_its_last_use(lab):
    alive = []

    def step(state, data, xp):
        a = data
        for _ in range(8):
            a = xp.exp(a) * 0.1
        return State(state.w + a, state.total + xp.sum(a))

    def call(library, op, function, arguments, result):
        if type(result) is lab.library.array_type:
            alive.append(weakref.ref(result))
        assert sum(ref() is not None for ref in alive) <= 3
        return library.call(op, function, arguments, result)

    watched(lab, step, call)
    assert len(alive) >= 17


def test_what_is_noted_of_each_operation(lab):
    def step(state, data, xp):
        part = data[1:]
        total = state.total
        total += xp.sum(part)
        return State(state.w + data, total)

    done = Planned(lab, step, lab.start(), lab.quarters).plan.done
    assert [one.operation.name for one in done] == ["getitem", "sum", "add", "add"]
    assert [one.view for one in done] == [True, False, False, False]
    assert [one.call is None for one in done] == [True, False, False, False]
    assert [one.function.__name__ for one in done] == ["getitem", "_sum", "iadd", "add"]
