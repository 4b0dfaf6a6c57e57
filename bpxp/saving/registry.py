"""The closed registry of classes that a file may name: layers, activations, initialisers, losses.

A configuration is data: reading it builds these classes and nothing else; it holds no import path, code or file name.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

from bpxp import nn
from bpxp.errors import CheckpointFormatError, InvalidTypeError


@functools.cache
def known_classes() -> dict[str, type]:
    """Return the dataclasses of `bpxp.nn`, by name."""
    candidates = (getattr(nn, name) for name in nn.__all__)
    return {c.__name__: c for c in candidates if isinstance(c, type) and dataclasses.is_dataclass(c)}


def describe(thing: Any, other: Callable[[Any], Any] | None = None) -> Any:
    """Return an object of the registry, or a plain value, as JSON; `other` does so for any other object."""
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, (tuple, list)):
        return [describe(part, other) for part in thing]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: describe(getattr(thing, f.name), other) for f in dataclasses.fields(thing)}
        return {"type": type(thing).__name__, **fields}
    if other is not None:
        return other(thing)
    what = f"{type(thing).__name__} cannot be written to a file"
    raise InvalidTypeError("save", what, code="E065", expected="a dataclass of plain values")


def build(config: Any, custom: Iterable[type] = ()) -> Any:
    """Return the object that `describe` described; lists become tuples. `custom` are the caller's own dataclasses."""
    return _built(config, known_classes() | {c.__name__: c for c in custom})


def _built(config: Any, classes: dict[str, type]) -> Any:
    if isinstance(config, list):
        return tuple(_built(part, classes) for part in config)
    if not isinstance(config, dict):
        return config
    name = config.get("type")
    if name not in classes:
        what, fix = "the file names an unknown type", "Network.load(path, custom=[MyLayer]) for your own layer"
        raise CheckpointFormatError("load", what, code="E066", got=reprlib.repr(name), fix=fix)
    fields = {key: _built(value, classes) for key, value in config.items() if key != "type"}
    try:
        return classes[name](**fields)
    except (TypeError, ValueError) as error:
        what = f"the file describes an impossible {name} ({error})"
        raise CheckpointFormatError("load", what, code="E061") from error
