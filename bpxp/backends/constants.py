"""What a step reads beside its arguments, and whether it is still the same: the constants of a captured step.

Frozen dataclasses of bpxp with plain values never change. The code of other objects is walked: its attributes,
defaults, closures and the global names that it reads have to be plain values, functions and classes too, and each is
compared before every call. A step that reads anything else, such as a list, an array or a random generator, or that
writes an attribute, runs eagerly.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from bpxp.backends.abstract.trace import NotCapturable

PLAIN = {type(None), bool, int, float, complex, str, bytes, range, slice, type(...), type(NotImplemented)}
MODULES = {
    "math",
    "numpy",
    "numpy.linalg",
    "operator",
    "functools",
    "itertools",
    "dataclasses",
    "typing",
    "enum",
    "abc",
}
IMPURE = {"print", "input", "open", "exec", "eval", "globals", "locals", "vars", "setattr", "delattr", "id", "hash"}
IMPURE |= {"__import__", "breakpoint", "memoryview"}
WRITES = {"STORE_GLOBAL", "DELETE_GLOBAL", "STORE_ATTR", "DELETE_ATTR", "IMPORT_NAME"}
# Attributes by which code writes, or reads what is not walked.
AROUND = {
    "__dict__",
    "__setattr__",
    "__delattr__",
    "__globals__",
    "__closure__",
    "__code__",
    "__builtins__",
    "f_locals",
}
# Methods that no step calls, unless code that it reaches names them.
ASIDE = {"init", "init_stats", "result", "activate", "__init_subclass__", "__set_name__", "__repr__", "__hash__"}
ASIDE |= {"__setattr__", "__delattr__", "__class_getitem__", "__reduce__", "__reduce_ex__", "__getstate__"}
ASIDE |= {"__setstate__", "__deepcopy__", "__copy__", "__replace__", "__del__"}
MAKING = {"__new__", "__init__", "__post_init__"}  # and those that only a class which code can call, calls
MADE_BY = {"replace", "_replace", "type", "__class__"}
IMMUTABLE = {object, int, float, complex, str, bytes, tuple, frozenset}
DESCRIPTORS = (
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
DESCRIPTIVE = {"equations", "symbols", "_fields", "_field_defaults", "_make", "_replace", "_asdict"}
MISSING = object()

Place = tuple[str, Callable[[], Any], Any]  # its name, how its value is read, and the value


class Constants:
    """The values that a step was captured with.

    Parameters
    ----------
    step : dataclass

    Attributes
    ----------
    places : list of (name, function, value)
        Where those stand that could change: what the function returns is the value, or something has changed.

    Raises
    ------
    NotCapturable
        If the step reads what cannot be compared; it names the attribute.
    """

    def __init__(self, step: Any) -> None:
        self.places: list[Place] = []
        self._seen: dict[int, Any] = {}
        self._words: set[Any] = set()  # names in code, and the ids of classes that it can call
        self._aside: list[tuple[set[Any], str, Callable[[], Any]]] = []
        if not dataclasses.is_dataclass(step) or not hasattr(step, "xp"):
            raise NotCapturable("it does not say in a field xp where it computes")
        for field in dataclasses.fields(step):
            if field.name != "xp":
                self._walk(getattr(step, field.name), field.name)
        self._class(type(step), type(step).__name__)
        while named := [one for one in self._aside if one[0] & self._words]:
            self._aside = [one for one in self._aside if not one[0] & self._words]
            for _, name, read in named:
                self._place(name, read)
        del self._seen, self._words, self._aside

    def same(self) -> bool:
        """Return whether all of them have the values that they had."""
        return all([read() is value for _, read, value in self.places])

    def difference(self) -> str:
        """Return what has changed, in words."""
        changed = (name for name, read, value in self.places if read() is not value)
        return f"{next(changed, 'nothing')} changes between steps"

    # ---------------------------------------------------------------- the walk

    def _walk(self, a: Any, name: str) -> None:
        """Look at a value, and at what its code reads."""
        if type(a) in PLAIN or isinstance(a, (np.generic, np.dtype, np.ufunc, *DESCRIPTORS)) or id(a) in self._seen:
            return
        self._seen[id(a)] = a
        kind = type(a)
        if isinstance(a, (tuple, frozenset)):
            for i, part in enumerate(a):
                self._walk(part, f"{name}[{i}]")
        if kind in (tuple, frozenset) or kind.__name__ in ("_tuplegetter", "_ArrayFunctionDispatcher"):
            return
        if isinstance(a, types.FunctionType):
            if not _own(a):
                self._function(a, name)
        elif isinstance(a, (types.MethodType, classmethod, staticmethod)):
            self._walk(getattr(a, "__self__", None), name)
            self._walk(a.__func__, name)
        elif isinstance(a, functools.partial):
            self._walk((a.func, a.args, *a.keywords.values()), name)
        elif isinstance(a, property):
            self._walk(a.fget, name)
        elif isinstance(a, functools.cached_property):
            self._walk(a.func, name)
        elif isinstance(a, type):
            self._words.update(map(id, a.__mro__))
            self._class(a, name)
        elif isinstance(a, types.ModuleType):
            if not _trusted(a):
                raise NotCapturable(f"{name} is the module {a.__name__}")
        elif isinstance(a, types.BuiltinFunctionType):
            self._builtin(a, name)
        elif isinstance(a, functools._lru_cache_wrapper):
            self._walk(a.__wrapped__, name)
        elif all(_written_in_python(base) or base in IMMUTABLE for base in kind.__mro__):
            self._class(kind, kind.__name__)
            self._instance(a, name)
        else:
            raise NotCapturable(f"{name} is a {kind.__name__}, which may change")

    def _builtin(self, a: Any, name: str) -> None:
        """Look at a function that is not written in Python: at the object whose method it is, or at its module."""
        whose = a.__self__
        if whose is not None and not isinstance(whose, (type, types.ModuleType)):
            self._walk(whose, name)
        elif a.__name__ in IMPURE or not (_trusted(a) or isinstance(whose, type)):
            raise NotCapturable(f"{name} calls {a.__name__}(), which may have a state")

    def _instance(self, a: Any, name: str) -> None:
        kind = type(a)
        frozen = dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
        if frozen and _own(kind):
            for key, method in vars(kind).items():
                if isinstance(method, types.FunctionType) and not _own(method) and key not in ASIDE:  # it was replaced
                    self._place(f"{kind.__name__}.{key}", functools.partial(vars(kind).get, key))
            for field in dataclasses.fields(a):
                self._walk(getattr(a, field.name), f"{name}.{field.name}")
            return
        slots = {key for k in kind.__mro__ for key, d in vars(k).items() if isinstance(d, types.MemberDescriptorType)}
        for key in sorted(slots):
            self._place(f"{name}.{key}", functools.partial(getattr, a, key, MISSING))
        kept = getattr(a, "__dict__", {})
        cached = [key for key in kept if isinstance(getattr(kind, key, None), functools.cached_property)]
        self._mapping(kept, name, cached)

    def _mapping(self, kept: Mapping[str, Any], name: str, aside: Any = ()) -> None:
        """Look at attributes, and see to it that there are no others later."""
        for key in [key for key in kept if key not in aside]:
            self._place(f"{name}.{key}", functools.partial(kept.get, key, MISSING))
        self.places.append((name, functools.partial(len, kept), len(kept)))

    def _place(self, name: str, read: Callable[[], Any]) -> None:
        value = read()
        self.places.append((name, read, value))
        self._walk(value, name)

    def _class(self, kind: type, name: str) -> None:
        """Look at the attributes and methods of a class that is not bpxp's, and of its bases and its metaclass."""
        for base in (*inspect.getmro(kind), *inspect.getmro(type(kind))):
            if _trusted(base) or (base is not kind and id(base) in self._seen):
                continue
            self._seen[id(base)] = base
            kept = {key: a for key, a in vars(base).items() if not _dunder(key) or isinstance(a, types.FunctionType)}
            for key in sorted(kept.keys() - DESCRIPTIVE):
                if key == "__eq__" and kept[key].__code__.co_filename == "<string>":
                    continue  # a dataclass's own
                read = functools.partial(vars(base).get, key, MISSING)
                if key in MAKING:
                    self._aside.append(({key, id(base), *MADE_BY}, f"{name}.{key}", read))
                elif key in ASIDE:
                    self._aside.append(({key}, f"{name}.{key}", read))
                else:
                    self._place(f"{name}.{key}", read)
            if "__getattr__" in kept or "__getattribute__" in kept:
                raise NotCapturable(f"{name} looks its attributes up itself")

    def _function(self, function: Any, name: str) -> None:
        """Look at the code of a function, and at what it reads."""
        for attribute in ("__code__", "__defaults__", "__kwdefaults__"):
            read = functools.partial(getattr, function, attribute)
            self.places.append((f"{name}.{attribute}", read, read()))
        self._mapping(vars(function), name)
        self._walk(function.__defaults__, f"a default of {name}")
        self._walk(tuple((function.__kwdefaults__ or {}).values()), f"a default of {name}")
        for cell, free in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            if free != "__class__":
                self._place(f"{free}, which {name} reads,", functools.partial(_content, cell))
        for code in _codes(function.__code__):
            self._code(code, function, name)

    def _code(self, code: types.CodeType, function: Any, name: str) -> None:
        self._words.update(code.co_names)
        names = function.__globals__
        builtins = names.get("__builtins__", {})
        builtins = builtins if isinstance(builtins, dict) else vars(builtins)
        free = set(function.__code__.co_freevars)
        instructions = list(dis.get_instructions(code))
        for i, one in enumerate(instructions):
            if one.opname in WRITES or (one.opname in ("STORE_DEREF", "DELETE_DEREF") and one.argval in free):
                what = "imports" if one.opname == "IMPORT_NAME" else "writes"
                raise NotCapturable(f"{name} {what} {one.argval}")
            if one.opname in ("LOAD_ATTR", "LOAD_METHOD") and one.argval in AROUND:
                raise NotCapturable(f"{name} reads {one.argval}")
            if one.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):
                continue
            word = one.argval
            if word not in names:
                if word in IMPURE:
                    raise NotCapturable(f"{name} calls {word}()")
                if word in builtins:
                    continue
            read = functools.partial(names.get, word, MISSING)
            value = read()
            self.places.append((f"{word}, which {name} reads,", read, value))
            for after in instructions[i + 1 :]:  # np.linalg.norm: the attribute counts, not the module
                if not isinstance(value, types.ModuleType) or after.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
                    break
                read = functools.partial(getattr, value, after.argval, MISSING)
                word, value = f"{word}.{after.argval}", read()
                self.places.append((f"{word}, which {name} reads,", read, value))
                if isinstance(value, types.ModuleType) and not _trusted(value):
                    break
            self._walk(value, f"{word}, which {name} reads,")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Yield the code of a function, and of the functions within it."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _codes(inner)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING


def _own(a: Any) -> bool:
    return str(a.__module__).partition(".")[0] == "bpxp"


def _trusted(a: Any) -> bool:
    """Return whether a class or a module is one whose functions are known to have no state."""
    name = a.__name__ if isinstance(a, types.ModuleType) else str(a.__module__)
    return name.partition(".")[0] in ("bpxp", "builtins") or name in MODULES


def _dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _written_in_python(kind: type) -> bool:
    """Return whether a class statement made a class: the methods of others are no functions."""
    written_in_c = (types.MethodDescriptorType, types.WrapperDescriptorType)
    return bool(kind.__flags__ & (1 << 9)) and not any(isinstance(a, written_in_c) for a in vars(kind).values())
