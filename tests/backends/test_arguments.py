"""Arguments of a plan: what makes them of the same kind, and whether the state may be written."""

from __future__ import annotations

import gc
import weakref
from typing import NamedTuple

import numpy as np
import pytest
from helpers.captured_steps import HOSTS, Lab, State

from bpxp.backends.abstract.trace import NotCapturable
from bpxp.backends.arguments import Apart, arrays_of, kinds, matcher


@pytest.fixture(params=HOSTS, scope="module")
def lab(request):
    pytest.importorskip(request.param)
    return Lab(request.param)


class Pair(NamedTuple):
    one: object
    two: object


def test_the_kinds_of_a_tree(lab):
    a = lab.array(np.zeros((2, 3), np.float32))
    found = list(kinds((Pair(a, 1), (), None, (2.5, "text", True), [1]), lab.library))
    assert found == [
        (tuple, 5),
        (Pair, 2),
        lab.library.kind(a),
        (int, 1),
        (tuple, 0),
        (type(None), None),
        (tuple, 3),
        (float, 2.5),
        (str, "text"),
        (bool, True),
        (list, None),
    ]


def test_the_arrays_of_a_tree(lab):
    a, b = lab.array(np.zeros(2)), lab.array(np.zeros(3))
    assert all(x is y for x, y in zip(arrays_of(Pair((a, 1), (None, b)), type(a)), [a, b], strict=True))
    assert len(arrays_of(Pair((a, 1), (None, b)), type(a))) == 2
    assert arrays_of((1, [a]), type(a)) == []


def trees(lab):
    xp = lab.xp
    w, x = lab.array(np.zeros((2, 3), np.float32)), lab.array(np.ones(3))
    return State(w, (x, 7)), (x, (), "text", None, True, 2.5), xp


def test_the_same_kinds_match(lab):
    state, data, xp = trees(lab)
    match = matcher(state, data, lab.library)
    for a, b in ((state, data), (State(xp.ones_like(state.w), (data[0] + 1.0, 7)), data)):
        found = match(a, b)
        assert type(found) is tuple
        assert all(x is y for x, y in zip(found, (a.w, a.total[0], b[0]), strict=True))


def test_any_difference_of_the_kinds_does_not_match(lab):
    state, data, xp = trees(lab)
    match = matcher(state, data, lab.library)
    x = data[0]
    others = [
        (tuple(state), data),
        (Pair(*state), data),
        ([*state], data),
        (state._replace(w=xp.zeros((3, 2), dtype=xp.float32)), data),
        (state._replace(w=xp.zeros((2, 4), dtype=xp.float32)), data),
        (state._replace(w=xp.zeros((2, 3), dtype=xp.int32)), data),
        (state._replace(w=xp.zeros((2, 3, 1), dtype=xp.float32)), data),
        (state._replace(w=xp.matrix_transpose(xp.zeros((3, 2), dtype=xp.float32))), data),
        (state._replace(w=xp.zeros((2, 6), dtype=xp.float32)[:, ::2]), data),
        (state._replace(w=0.0), data),
        (state._replace(w=None), data),
        (state._replace(total=(x, 8)), data),
        (state._replace(total=(x, 7.0)), data),
        (state._replace(total=(x, True)), data),
        (state._replace(total=(x,)), data),
        (state._replace(total=(x, 7, 7)), data),
        (state._replace(total=x), data),
        (state, data[:-1]),
        (state, (*data, None)),
        (state, (x, (1,), "text", None, True, 2.5)),
        (state, (x, (), "texts", None, True, 2.5)),
        (state, (x, (), "text", 0, True, 2.5)),
        (state, (x, (), "text", None, False, 2.5)),
        (state, (x, (), "text", None, 1, 2.5)),
        (state, (x, (), "text", None, True, 2.25)),
        (state, (x[:2], (), "text", None, True, 2.5)),
        (None, data),
        (state, None),
    ]
    for a, b in others:
        assert match(a, b) is None


def test_a_subclass_of_an_array_does_not_match():
    library = Lab("numpy").library
    assert matcher((), np.zeros((1, 1)), library)((), np.zeros((1, 1)).view(np.matrix)) is None


def test_arguments_without_arrays_match_as_nothing(lab):
    match = matcher((), (1, None), lab.library)
    assert match((), (1, None)) == ()
    assert match((), (2, None)) is None


def test_one_array_is_a_tuple_of_one(lab):
    a = lab.array(np.zeros(2))
    assert matcher((), a, lab.library)((), a)[0] is a
    assert matcher((a,), 1, lab.library)((a,), 1)[0] is a


def test_other_arguments_are_refused(lab):
    with pytest.raises(NotCapturable, match="^an argument is a list$"):
        matcher((), [1], lab.library)
    with pytest.raises(NotCapturable, match="^an argument is a dict$"):
        matcher({}, 1, lab.library)


# ---------------------------------------------------------------- may it be written?


def split(lab, *sizes):
    """Return arrays one after another in the same memory."""
    whole = lab.array(np.zeros(sum(sizes)))
    ends = np.cumsum(sizes)
    return [whole[end - size : end] for end, size in zip(ends, sizes, strict=True)], whole


def test_a_state_that_lies_apart(lab):
    (a, b, c), whole = split(lab, 2, 3, 4)
    for own in range(4):
        assert Apart(lab.library)((a, b, c), own)
        assert Apart(lab.library)((c, b, a), own)
    assert not Apart(lab.library)((a, b, whole), 1)
    assert not Apart(lab.library)((whole, b, c), 1)
    assert not Apart(lab.library)((a, whole[1:3], c), 1)
    assert not Apart(lab.library)((a, b, whole[4:6]), 2)
    assert Apart(lab.library)((a, b, whole[4:6]), 1)
    assert not Apart(lab.library)((b, a, whole[4:6]), 1)
    assert Apart(lab.library)((a, b, b), 1)  # data that share memory with data
    assert not Apart(lab.library)((a, b, b), 2)
    assert not Apart(lab.library)((a, a), 2)
    assert Apart(lab.library)((a, a), 0)


def test_a_state_that_may_not_be_written(lab):
    a, b = lab.array(np.zeros(2)), lab.array(np.zeros(3))
    if lab.name == "numpy":
        b.flags.writeable = False
    else:
        b.requires_grad_(True)
    assert not Apart(lab.library)((a, b), 2)
    assert Apart(lab.library)((a, b), 1)


class Counted:
    """A library that counts how often it was asked for bounds."""

    def __init__(self, library):
        self.library, self.asked = library, 0

    def bounds(self, a):
        self.asked += 1
        return self.library.bounds(a)

    def writable(self, a):
        return self.library.writable(a)


def test_only_other_arrays_are_looked_at(lab):
    (a, b, c, d), whole = split(lab, 2, 3, 4, 5)
    library = Counted(lab.library)
    apart = Apart(library)
    for arrays, own, answer, asked in (
        ((a, b, c), 1, True, 3),
        ((a, b, c), 1, True, 3),
        ((a, b, d), 1, True, 4),  # other data
        ((a, c, d), 1, True, 5),
        ((b, c, d), 1, True, 6),  # another state
        ((b, c, d), 1, True, 6),
        ((b, c, whole), 1, False, 7),
        ((b, c, whole), 1, False, 10),  # nothing is known after a refusal
        ((b, c, d), 1, True, 13),
        ((whole, c, d), 1, False, 14),
        ((b, c), 1, True, 16),
        ((b, c, d, a), 2, True, 20),
        ((b, c, d, b[1:]), 2, False, 21),
    ):
        assert apart(arrays, own) is answer
        assert library.asked == asked


def test_what_is_gone_is_looked_at_again(lab):
    library = Counted(lab.library)
    apart = Apart(library)
    a, b = lab.array(np.zeros(2)), lab.array(np.zeros(3))
    assert apart((a, b), 1)
    gone = weakref.ref(b)
    del b
    gc.collect()
    assert gone() is None
    b = lab.array(np.zeros(3))
    assert apart((a, b), 1)
    assert library.asked == 3
    assert not apart((a, a[:1]), 1)


def test_a_state_that_moves_into_the_place_of_data(lab):
    """The bounds of arrays that are not new count, too."""
    (a, b), whole = split(lab, 2, 3)
    apart = Apart(lab.library)
    assert apart((a, b), 1)
    assert not apart((whole[1:3], b), 1)
    apart = Apart(lab.library)
    assert apart((a, b), 1)
    assert not apart((a, whole[1:]), 1)
