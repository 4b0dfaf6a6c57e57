"""The constants of a step: what is compared before every call, under which name, and what cannot be compared."""

from __future__ import annotations

import functools
import io
import math
import sys
import types
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.linalg
import pytest

from bpxp import nn, optim
from bpxp.backends import constants
from bpxp.backends.abstract.trace import NotCapturable
from bpxp.backends.constants import Constants

pytestmark = pytest.mark.timeout(30)


@dataclass(frozen=True)
class Step:
    part: Any
    xp: Any = field(default=None, kw_only=True)


def names_of(part):
    """Return the names of the places of a step with this part, and not those of the step itself."""
    plain = {name for name, _, _ in Constants(Step(None)).places}
    return [name for name, _, _ in Constants(Step(part)).places if name not in plain]


def refused(part):
    with pytest.raises(NotCapturable) as caught:
        Constants(Step(part))
    return str(caught.value)


class Bare:
    """A class with nothing but attributes."""

    def __init__(self, **kept):
        self.__dict__.update(kept)


# `__init__` reads `__dict__`: it is looked at only where a step could make one.


class Kept(NamedTuple):
    one: Any
    two: Any


FACTOR = 2.0
TABLE = [1.0]
NESTED = types.SimpleNamespace(a=1)


def reads_nothing(x):
    return x * 2.0


def reads_a_global(x):
    return x * FACTOR


def reads_a_list(x):
    return x * TABLE[0]


def reads_a_module(x):
    return math.sqrt(2.0) * x


def reads_numpy(x):
    return np.linalg.norm(x) + np.pi


def has_a_default(x, scale=3.0, *, shift=1.0):
    return x * scale + shift


def calls_another(x):
    return reads_a_global(x)


def has_a_function_within(x):
    def within(y):
        return y * FACTOR

    return within(x)


def closure_of(value):
    def closed(x):
        return x * value

    return closed


# ---------------------------------------------------------------- what is plain


PLAIN = [
    None,
    True,
    1,
    2.5,
    1j,
    "text",
    b"bytes",
    range(3),
    slice(1),
    ...,
    NotImplemented,
    np.float32(1.5),
    np.dtype("float32"),
    np.add,
    (1, (2.5, "a")),
    frozenset({1}),
    nn.functions.softplus,
    len,
    math.sqrt,
    "x".join,
    (1, 2).count,
    math,
    np,
    np.linalg,
    nn.Dense(3),
    optim.SGD(0.1),
    int.__add__,
    str.join,
    int.from_bytes,
    int,
]


@pytest.mark.parametrize("part", PLAIN, ids=range(len(PLAIN)))
def test_plain_values_never_change(part):
    assert names_of(part) == []


def test_what_a_step_has_to_be():
    for step in (reads_nothing, Bare(xp=1), 3, dataclass(type("No", (), {}))()):
        with pytest.raises(NotCapturable, match="^it does not say in a field xp where it computes$"):
            Constants(step)


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ([1], "part is a list, which may change"),
        ({}, "part is a dict, which may change"),
        ((1, [2]), "part[1] is a list, which may change"),
        ((1, (2, {3})), "part[1][1] is a set, which may change"),
        (np.zeros(2), "part is a ndarray, which may change"),
        (np.random.default_rng(0), "part is a Generator, which may change"),
        (sys, "part is the module sys"),
        (print, "part calls print(), which may have a state"),
        (id, "part calls id(), which may have a state"),
        (sys.getrefcount, "part calls getrefcount(), which may have a state"),
        ([].append, "part is a list, which may change"),
        (iter(()), "part is a tuple_iterator, which may change"),
        (NESTED, "part is a SimpleNamespace, which may change"),
        (functools.partial(reads_nothing, [1]), "part[1][0] is a list, which may change"),
        (functools.partial(reads_nothing, x=[1]), "part[2] is a list, which may change"),
        (functools.partial(reads_a_list), "TABLE, which part[0] reads, is a list, which may change"),
        (reads_a_list, "TABLE, which part reads, is a list, which may change"),
        (closure_of([1]), "value, which part reads, is a list, which may change"),
    ],
    ids=range(18),
)
def test_what_cannot_be_compared(part, reason):
    assert refused(part) == reason


def made(source, name="f", **names):
    """Return a function of some lines, with global names of its own."""
    scope = {"__name__": "elsewhere", **names}
    exec(source, scope)
    return scope[name]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(x):\n global n\n n = 1", "part writes n"),
        ("def f(x):\n global n\n del n", "part writes n"),
        ("def f(x):\n x.n = 1", "part writes n"),
        ("def f(x):\n del x.n", "part writes n"),
        ("def f(x):\n import math", "part imports math"),
        ("def f(x):\n return x.__dict__", "part reads __dict__"),
        ("def f(x):\n return x.__setattr__('n', 1)", "part reads __setattr__"),
        ("def f(x):\n return f.__globals__", "part reads __globals__"),
        ("def f(x):\n print(x)", "part calls print()"),
        ("def f(x):\n return id(x)", "part calls id()"),
        ("def f(x):\n return (lambda: print(x))", "part calls print()"),
        ("def f(x):\n def g():\n  x.n = 1\n return g", "part writes n"),
        ("def outer():\n n = 0\n def f(x):\n  nonlocal n\n  n += 1\n return f\nf = outer()", "part writes n"),
        ("def outer():\n n = 0\n def f(x):\n  nonlocal n\n  del n\n return f\nf = outer()", "part writes n"),
        ("def f(x):\n return x.__code__", "part reads __code__"),
    ],
)
def test_code_that_writes(source, reason):
    assert refused(made(source)) == reason


def test_code_that_writes_what_is_its_own():
    source = "def f(x):\n n = 0\n def g():\n  nonlocal n\n  n += x\n  return n\n return g()"
    assert names_of(made(source)) == ["part.__code__", "part.__defaults__", "part.__kwdefaults__", "part"]


def test_a_name_of_ones_own_may_be_that_of_an_impure_function():
    f = made("def f(x):\n return print(x)", print=reads_nothing)
    assert "print, which part reads," in names_of(f)


def test_what_follows_a_builtin_function_counts():
    f = made("def f(x):\n return len(x) * max(x) * TABLE[0]", TABLE=[1])
    assert refused(f) == "TABLE, which part reads, is a list, which may change"


def test_a_class_within_a_function():
    f = made("def f(x):\n class Inner:\n  y = TABLE\n return Inner", TABLE=[1])
    assert refused(f) == "TABLE, which part reads, is a list, which may change"


def test_a_function_without_builtins():
    assert names_of(types.FunctionType(reads_nothing.__code__, {})) == [*(f"part.{name}" for name in FUNCTION), "part"]


def test_none_is_not_nothing(monkeypatch):
    """What is None and goes has changed, and so has what comes and is None."""
    f = made("def f(x):\n return x * later")
    assert differs(f, lambda: f.__globals__.update(later=None)) == "later, which part reads, changes between steps"
    monkeypatch.setattr(math, "kept", None, raising=False)
    f = made("def f(x):\n return math.kept", math=math)
    change = functools.partial(monkeypatch.delattr, math, "kept")
    assert differs(f, change) == "math.kept, which part reads, changes between steps"
    slotted = Slotted(None)
    assert differs(slotted, lambda: delattr(slotted, "a")) == "part.a changes between steps"
    loss = Loss(None)

    def change():
        del loss.scale
        loss.other = None

    assert differs(loss, change) == "part.scale changes between steps"
    monkeypatch.setattr(Loss, "weight", None)
    assert differs(loss, lambda: delattr(Loss, "weight")) == "Loss.weight changes between steps"
    Loss.weight = 2.0


def test_names_with_some_underscores():
    for name in ("value__", "__value", "_value_"):
        assert refused(type("Named", (), {name: [1]})()) == f"Named.{name} is a list, which may change"
    assert names_of(type("Named", (), {"__table__": [1]})()) != []


def test_the_class_of_a_method_that_asks_its_base():
    class Asks(Loss):
        def value(self, x):
            return super().value(x)

    assert not any(name.startswith("__class__") for name in names_of(Asks(1.0)))


def test_a_base_is_looked_at_once():
    class One(Loss):
        pass

    class Two(Loss):
        pass

    names = names_of((One(1.0), Two(1.0)))
    assert "One.weight" in names
    assert "Two.weight" not in names


def test_fields_of_bpxps_own():
    layer = nn.Dense(3)
    object.__setattr__(layer, "units", [3])
    assert refused(layer) == "part.units is a list, which may change"


def test_names_that_are_not_there_yet():
    f = made("def f(x):\n return x * later")
    found = Constants(Step(f))
    assert found.same()
    f.__globals__["later"] = 3
    assert not found.same()
    assert found.difference() == "later, which part reads, changes between steps"


def test_builtins_that_are_a_dict_or_a_module():
    for builtins in (__builtins__, vars(__builtins__) if isinstance(__builtins__, types.ModuleType) else __builtins__):
        f = made("def f(x):\n return len(x) + max(x)", __builtins__=builtins)
        assert names_of(f) == ["part.__code__", "part.__defaults__", "part.__kwdefaults__", "part"]
    f = made("def f(x):\n return len(x)", __builtins__=types.ModuleType("nothing"))
    assert "len, which part reads," in names_of(f)


FUNCTION = ["__code__", "__defaults__", "__kwdefaults__"]


@pytest.mark.parametrize(
    ("part", "names"),
    [
        (reads_nothing, []),
        (has_a_default, []),
        (reads_a_global, ["FACTOR, which part reads,"]),
        (has_a_function_within, ["FACTOR, which part reads,"]),
        (closure_of(2.0), ["value, which part reads,"]),
        (reads_a_module, ["math, which part reads,", "math.sqrt, which part reads,"]),
        (
            reads_numpy,
            [
                "np, which part reads,",
                "np.linalg, which part reads,",
                "np.linalg.norm, which part reads,",
                "np, which part reads,",
                "np.pi, which part reads,",
            ],
        ),
    ],
    ids=lambda a: getattr(a, "__name__", ""),
)
def test_the_places_of_a_function(part, names):
    found = [name for name in names_of(part) if "reads,." not in name and "norm, which part reads, " not in name]
    assert found[: 4 + len(names)] == [*(f"part.{name}" for name in FUNCTION), "part", *names]


def test_functions_that_are_called_are_looked_at():
    inner = "reads_a_global, which part reads,"
    assert names_of(calls_another) == [
        *(f"part.{name}" for name in FUNCTION),
        "part",
        inner,
        *(f"{inner}.{name}" for name in FUNCTION),
        inner,
        f"FACTOR, which {inner} reads,",
    ]


def differs(part, change, restore=None):
    """Return what has changed, in words."""
    found = Constants(Step(part))
    assert found.same()
    assert found.difference() == "nothing changes between steps"
    change()
    assert not found.same()
    words = found.difference()
    if restore is not None:
        restore()
        assert found.same()
    return words


def test_functions_that_change(monkeypatch):
    f = made("def f(x, a=1, *, b=2):\n return x * n * (lambda: m)()", n=1, m=2)
    f.__globals__["g"] = f
    assert differs(f, lambda: f.__globals__.update(n=5)) == "n, which part reads, changes between steps"
    assert differs(f, lambda: f.__globals__.update(m=5)) == "m, which part reads, changes between steps"
    assert differs(f, lambda: f.__globals__.pop("n")) == "n, which part reads, changes between steps"
    assert differs(f, lambda: setattr(f, "__defaults__", (7,))) == "part.__defaults__ changes between steps"
    assert differs(f, lambda: setattr(f, "__kwdefaults__", {"b": 7})) == "part.__kwdefaults__ changes between steps"
    assert differs(f, lambda: setattr(f, "__code__", reads_nothing.__code__)) == "part.__code__ changes between steps"
    assert differs(f, lambda: setattr(f, "extra", 1)) == "part changes between steps"
    assert differs(f, lambda: setattr(f, "extra", 2)) == "part.extra changes between steps"
    assert refused(made("def f(x, a=[1]): pass")) == "a default of part[0] is a list, which may change"
    assert refused(made("def f(x, *, a=[1]): pass")) == "a default of part[0] is a list, which may change"
    f = reads_nothing
    monkeypatch.setattr(f, "kept", [1], raising=False)
    assert refused(f) == "part.kept is a list, which may change"


def test_closures_that_change():
    def outer():
        value = 1.0

        def closed(x):
            return x * value

        def change(to):
            nonlocal value
            value = to

        return closed, change

    closed, change = outer()
    assert differs(closed, lambda: change(2.0)) == "value, which part reads, changes between steps"

    def empty():
        def closed():
            return later

        yield closed
        later = 1
        yield later

    run = empty()
    closed = next(run)
    assert differs(closed, lambda: next(run)) == "later, which part reads, changes between steps"


def test_modules_that_change(monkeypatch):
    def change():
        monkeypatch.setattr(math, "sqrt", math.cbrt if hasattr(math, "cbrt") else math.sin)

    assert differs(reads_a_module, change, monkeypatch.undo) == "math.sqrt, which part reads, changes between steps"
    f = made("def f(x):\n return math.nothing", math=math)
    assert differs(f, lambda: monkeypatch.setattr(math, "nothing", 1, raising=False)) == (
        "math.nothing, which part reads, changes between steps"
    )


def test_modules_that_are_not_trusted():
    other = types.ModuleType("other")
    other.plain, other.inner = 1, types.ModuleType("inner")
    f = made("def f(x):\n return other.plain", other=other)
    assert "other.plain, which part reads," in names_of(f)
    f = made("def f(x):\n return other.inner.deep", other=other)
    assert refused(f) == "other.inner, which part reads, is the module inner"
    f = made("def f(x):\n return other", other=other)
    assert refused(f) == "other, which part reads, is the module other"
    f = made("def f(x):\n return x.tables.other", other=other, x=1)
    assert names_of(f) == [*(f"part.{name}" for name in FUNCTION), "part"]


def test_wrapped_functions():
    cached = functools.lru_cache(reads_a_global)
    assert "FACTOR, which part reads," in names_of(cached)
    partial = functools.partial(reads_a_global, 1, k=2)
    assert "FACTOR, which part[0] reads," in names_of(partial)
    assert "FACTOR, which part reads," in names_of(staticmethod(reads_a_global))
    assert "FACTOR, which part reads," in names_of(classmethod(reads_a_global))
    assert "FACTOR, which part reads," in names_of(property(reads_a_global))
    assert "FACTOR, which part reads," in names_of(functools.cached_property(reads_a_global))
    assert names_of(property()) == []


# ---------------------------------------------------------------- objects


class Loss:
    weight = 2.0

    def __init__(self, scale):
        self.scale = scale

    def value(self, x):
        return x * self.scale * self.weight


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a):
        self.a = a

    def method(self):
        return self.a


class Derived(Loss):
    other = 1


def test_attributes_that_change():
    loss = Loss(1.0)
    assert differs(loss, lambda: setattr(loss, "scale", 2.0)) == "part.scale changes between steps"
    assert differs(loss, lambda: setattr(loss, "more", 2.0)) == "part changes between steps"
    assert differs(loss, lambda: delattr(loss, "more")) == "part.more changes between steps"
    slotted = Slotted(1)
    assert {"part.a", "part.b"} <= set(names_of(slotted))
    assert differs(slotted, lambda: setattr(slotted, "a", 2)) == "part.a changes between steps"
    assert differs(slotted, lambda: setattr(slotted, "b", 2)) == "part.b changes between steps"
    assert differs(slotted, lambda: delattr(slotted, "b")) == "part.b changes between steps"
    assert refused(Loss([1])) == "part.scale is a list, which may change"
    assert refused(Slotted([1])) == "part.a is a list, which may change"


def test_classes_that_change(monkeypatch):
    loss = Derived(1.0)
    names = names_of(loss)
    assert {"Derived.other", "Derived.value", "Derived.weight", "part.scale", "part"} <= set(names)
    assert "Derived.__init__" not in names
    for kind, key, value, name in (
        (Loss, "weight", 3.0, "Derived.weight"),
        (Derived, "other", 3.0, "Derived.other"),
        (Loss, "value", lambda self, x: x, "Derived.value"),
    ):
        change = functools.partial(monkeypatch.setattr, kind, key, value)
        assert differs(loss, change, monkeypatch.undo) == f"{name} changes between steps"
    monkeypatch.setattr(Loss, "weight", [1])
    assert refused(loss) == "Derived.weight is a list, which may change"
    assert refused(loss.value) == "Derived.weight is a list, which may change"


def test_methods_and_their_objects():
    loss = Loss(1.0)
    assert {"part.scale", "Loss.weight", "Loss.value.__code__"} <= set(names_of(loss.value))
    assert differs(loss.value, lambda: setattr(loss, "scale", 2.0)) == "part.scale changes between steps"
    assert {"part.weight", "part.value"} <= set(names_of(type("Free", (), {"weight": 2.0, "value": reads_nothing})))
    assert refused(type("Looks", (), {"__getattr__": lambda self, name: 1})()) == "Looks looks its attributes up itself"
    assert (
        refused(type("Looks", (), {"__getattribute__": lambda self, name: 1})) == "part looks its attributes up itself"
    )


def test_what_is_looked_at_only_where_code_names_it():
    """`init`, `__init__` and others run only where code that a step reaches calls them."""

    def writes(self, *inputs):
        self.n = 1

    for name in sorted(constants.ASIDE - {"__init_subclass__", "__set_name__", "__class_getitem__", "__hash__"}):
        kind = type("Aside", (), {name: writes})
        assert names_of(kind()) != []
        if name.strip("_") == name:
            caller = made(f"def f(x):\n return x.{name}(1)")
            assert refused((kind(), caller)) == f"Aside.{name} writes n"
    for name in ("__init__", "__post_init__"):
        kind = type("Made", (), {name: writes})
        assert names_of(object.__new__(kind)) != []
        assert refused(kind) == f"part.{name} writes n"  # a class that can be called
        for word in ("replace", "_replace", "type"):
            caller = made(f"def f(x):\n return {word}(x)" if word == "type" else f"def f(x):\n return x.{word}(x)")
            assert refused((object.__new__(kind), caller)) == f"Made.{name} writes n"
    kind = type("Plain", (), {"forward": writes})
    assert refused(kind()) == "Plain.forward writes n"
    kind = type("Called", (), {"__call__": writes})
    assert refused(kind()) == "Called.__call__ writes n"


def test_what_is_named_leads_to_more():
    def writes(self):
        self.n = 1

    def result(self):
        return self.init()

    kind = type("Chain", (), {"init": writes, "result": result})
    assert names_of(kind()) != []
    assert refused((kind(), made("def f(x):\n return x.result()"))) == "Chain.init writes n"


@dataclass(frozen=True)
class Frozen:
    a: Any
    b: int = 2

    def forward(self, x):
        return x * self.a


def test_dataclasses():
    assert refused(Frozen([1])) == "part.a is a list, which may change"
    assert {"Frozen.forward", "part.a", "part.b", "Frozen.b"} <= set(names_of(Frozen(1)))
    assert "Frozen.__eq__" not in names_of(Frozen(1))
    assert "Frozen.__hash__" not in names_of(Frozen(1))
    assert names_of(nn.Dense(3)) == []

    class Other(Frozen):
        def __eq__(self, other):
            return TABLE

    assert refused(Other(1)).startswith("TABLE, which Other.__eq__ reads,")


def test_methods_of_bpxps_own_that_were_replaced(monkeypatch):
    layer = nn.Dense(3)

    def forward(self, params, x, /, *, xp):
        return x * FACTOR, None

    monkeypatch.setattr(nn.Dense, "forward", forward)
    found = Constants(Step(layer))
    names = [name for name, _, _ in found.places]
    assert "Dense.forward" in names
    assert "FACTOR, which Dense.forward reads," in names
    assert found.same()
    monkeypatch.undo()
    assert found.difference() == "Dense.forward changes between steps"
    monkeypatch.setattr(nn.Dense, "init", forward)
    assert "Dense.init" not in names_of(layer)
    monkeypatch.undo()


def test_a_step_of_bpxps_own():
    import dataclasses

    from bpxp.network.step import TrainingStep

    assert dataclasses.is_dataclass(TrainingStep)
    kind = dataclasses.make_dataclass("Mine", [("a", Any), ("xp", Any)], namespace={"__module__": "bpxp.mine"})
    kind.__module__ = "bpxp.mine"
    found = Constants(kind(2.0, None))
    assert found.places == []
    kind = dataclasses.make_dataclass("Mine", [("a", Any), ("xp", Any)], namespace={"table": [1]})
    with pytest.raises(NotCapturable, match=r"^Mine.table is a list, which may change$"):
        Constants(kind(2.0, None))
    kind.__module__ = "bpxp.mine"
    assert Constants(kind(2.0, [1])).places == []


def test_classes_that_python_did_not_write():
    class Array(np.ndarray):
        pass

    assert refused(np.zeros(2).view(Array)) == "part is a Array, which may change"

    assert refused(io.BytesIO(b"x").getbuffer().obj) == "part is a _BytesIOBuffer, which may change"

    class Words(list):
        pass

    assert refused(Words()) == "part is a Words, which may change"

    class Number(float):
        def half(self):
            return self * FACTOR

    assert "FACTOR, which Number.half reads," in names_of(Number(1.0))
    assert {"part.one", "part.two"}.isdisjoint(names_of(Kept(1, 2)))
    assert refused(Kept(1, [2])) == "part[1] is a list, which may change"


def test_two_steps_have_places_of_their_own():
    one, two = Constants(Step(reads_a_global)), Constants(Step(reads_a_global))
    assert one.places is not two.places
    assert not hasattr(one, "_seen")
    assert len(one.places) == len(two.places)


def test_metaclasses_and_bases(monkeypatch):
    class Meta(type):
        factor = 2.0

        def made(cls):
            return cls.factor

    class Mine(metaclass=Meta):
        def forward(self):
            return self

    assert {"Mine.factor", "Mine.made", "Mine.forward"} <= set(names_of(Mine()))
    change = functools.partial(monkeypatch.setattr, Meta, "factor", 3.0)
    assert differs(Mine(), change, monkeypatch.undo) == "Mine.factor changes between steps"
    Meta.kept = [1]
    assert refused(Mine()) == "Mine.kept is a list, which may change"


def test_what_is_made_for_a_moment_keeps_its_id():
    many = tuple(functools.partial(reads_nothing, i) for i in range(9))
    assert refused((*many, functools.partial(reads_nothing, [1]))) == "part[9][1][0] is a list, which may change"


def test_what_is_seen_twice_is_looked_at_once():
    names = names_of((reads_a_global, reads_a_global, (reads_a_global,)))
    assert names.count("FACTOR, which part[0] reads,") == 1
    assert len(names) == 5
    loss = Loss(1.0)
    assert names_of((loss, loss)).count("part[0].scale") == 1
    circle = Loss(None)
    circle.scale = circle
    assert "part.scale" in names_of(circle)


def test_attributes_that_a_class_caches():
    class Cached:
        @functools.cached_property
        def table(self):
            return 3.0

        def __init__(self):
            self.a = 1

    part = Cached()
    before = names_of(part)
    found = Constants(Step(part))
    part.table  # noqa: B018
    assert "part.table" not in names_of(part)
    assert "part.a" in before
    assert not found.same()
