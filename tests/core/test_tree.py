"""Trees: structure and types are kept, leaves have names."""

from __future__ import annotations

import gc
import weakref
from typing import Any, NamedTuple

import pytest

from bpxp.core.tree import leaves, named_leaves, tree_map, unflatten


class Pair(NamedTuple):
    W: Any
    b: Any


TREE = (Pair(1, 2), (), (Pair(3, (4, 5)), 6))


def test_map_keeps_structure_and_types():
    doubled = tree_map(lambda a, b: a + b, TREE, TREE)
    assert doubled == (Pair(2, 4), (), (Pair(6, (8, 10)), 12))
    assert isinstance(doubled[0], Pair)
    assert tree_map(str, 7) == "7"


def test_map_refuses_trees_of_another_shape():
    with pytest.raises(ValueError, match="zip"):
        tree_map(lambda a, b: a, (1, 2), (1, 2, 3))


def test_leaves_and_their_names():
    assert leaves(TREE) == [1, 2, 3, 4, 5, 6]
    assert leaves(()) == []
    assert leaves(3) == [3]
    names = ["0/W", "0/b", "2/0/W", "2/0/b/0", "2/0/b/1", "2/1"]
    assert list(named_leaves(TREE)) == list(zip(names, leaves(TREE), strict=True))
    assert next(named_leaves(TREE, "params"))[0] == "params/0/W"


def test_unflatten_is_the_way_back():
    assert unflatten(TREE, leaves(TREE)) == TREE
    assert isinstance(unflatten(TREE, "abcdef")[2][0], Pair)
    assert unflatten(1, [2]) == 2


def test_nothing_keeps_the_leaves_alive():
    class Leaf:
        pass

    tree = (Leaf(), (Leaf(),))
    seen = [weakref.ref(leaf) for leaf in leaves(tree)]
    gc.disable()
    try:
        other = unflatten(tree_map(lambda a: 0, tree), leaves(tree))
        del tree, other
        assert [leaf() for leaf in seen] == [None, None]
    finally:
        gc.enable()
