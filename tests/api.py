"""The public names and what they take, a line for each: ``python tests/api.py`` writes tests/api.txt anew.

What other people's programs rely on changes only on purpose, and the change is there to be read in the file.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bpxp.errors import BpxpError

FILE = Path(__file__).with_name("api.txt")
ROOMS = ["bpxp", "bpxp.backends", "bpxp.callbacks", "bpxp.data", "bpxp.metrics", "bpxp.nn", "bpxp.optim", "bpxp.verify"]
MODULES = ["bpxp.errors"]  # public, without a list of names of their own
SIMPLE = (bool, int, float, str, type(None))


def snapshot() -> str:
    """Return the lines, sorted."""
    return "\n".join(sorted({line for room in [*ROOMS, *MODULES] for line in of_room(room)})) + "\n"


def of_room(room: str) -> Iterator[str]:
    """Yield the lines of a module's public names."""
    module = importlib.import_module(room)
    for name in getattr(module, "__all__", None) or own_names(module):
        yield from of_thing(f"{room}.{name}", getattr(module, name))


def own_names(module: types.ModuleType) -> list[str]:
    """Return the names that a module defines itself."""
    mine = {name for name, a in vars(module).items() if getattr(a, "__module__", "") == module.__name__}
    return sorted(name for name in mine if not name.startswith("_"))


def of_thing(path: str, thing: Any) -> Iterator[str]:
    """Yield a line for a function; for a class one for its constructor, and for each method and property."""
    if inspect.ismodule(thing):
        yield f"{path}: module"
    elif thing is Any:
        yield f"{path}: Any"
    elif inspect.isclass(thing) and issubclass(thing, BpxpError) and thing is not BpxpError:
        yield f"{path}: {thing.__base__.__name__}"  # takes and has what its base does
    elif inspect.isclass(thing):
        yield f"{path}{constructor(thing)}"
        for name, member in members(thing).items():
            if isinstance(member, (property, functools.cached_property)):
                yield f"{path}.{name}: property"
            elif isinstance(member, (staticmethod, classmethod)) or inspect.isfunction(member):
                yield f"{path}.{name}{signature(getattr(thing, name))}"
    elif callable(thing) and hasattr(thing, "__name__"):
        yield f"{path}{signature(thing)}"
    elif isinstance(thing, dict):
        yield f"{path}: {', '.join(map(str, thing))}"
    else:
        yield f"{path}: {type(thing).__name__}"


def members(kind: type) -> dict[str, Any]:
    """Return the public attributes of a class that bpxp has written, by name."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("bpxp"):
            found |= {name: a for name, a in vars(base).items() if not name.startswith("_")}
    return dict(sorted(found.items()))


def constructor(kind: type) -> str:
    """Return what a class takes; where it has no constructor of its own, what it is: Python's differ by version."""
    return ": protocol" if getattr(kind, "_is_protocol", False) else signature(kind)


def signature(thing: Any) -> str:
    """Return names, kinds and defaults of the parameters; annotations are for the type checker to compare."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return ""
    parameters = [
        p.replace(annotation=p.empty, default=p.default if p.default is p.empty else Default(p.default))
        for p in found.parameters.values()
    ]
    return str(found.replace(parameters=parameters, return_annotation=found.empty))


class Default:
    """A default value as it is written; of an object that says nothing of itself its type."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        plain = isinstance(self.value, SIMPLE) or (
            isinstance(self.value, tuple) and all(isinstance(a, (*SIMPLE, tuple)) for a in self.value)
        )
        factory = "FACTORY" in type(self.value).__name__  # of a dataclass
        return repr(self.value) if plain else "<made>" if factory else f"<{type(self.value).__name__}>"


if __name__ == "__main__":
    FILE.write_text(snapshot(), encoding="utf-8")
    print(f"{FILE}: {len(FILE.read_text(encoding='utf-8').splitlines())} lines")
