"""Steps written for the purpose, on the backends whose steps are captured on the host; and plans of them, as text."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import bpxp
from bpxp.backends import program
from bpxp.backends.abstract.trace import trace
from bpxp.backends.base import eager
from bpxp.backends.captured import CapturedStep
from bpxp.backends.numpy.capture import NumpyLibrary
from bpxp.backends.plan import Plan
from bpxp.core.tree import leaves

HOSTS = ["numpy", "torch"]


class State(NamedTuple):
    w: Any
    total: Any


@dataclass(frozen=True)
class Written:
    """A step that is a function of the state, the data and the namespace."""

    function: Callable[..., Any]
    xp: Any = field(kw_only=True, compare=False, repr=False)

    def __call__(self, state, data, /):
        return self.function(state, data, self.xp)


class Lab:
    """A backend on which steps are tried, captured and eagerly."""

    def __init__(self, name):
        self.name, backend = name, bpxp.get_backend(name)
        self.xp, self.array, self.host = backend.xp, backend.asarray, backend.to_numpy
        self.library = library_of(name)
        self.quarters = self.array(np.full(4, 0.25))

    def start(self):
        return State(self.array(np.arange(4.0)), self.array(np.zeros(1)))

    def compile(self, function):
        return CapturedStep(Written(function, xp=self.xp), self.library)

    def agree(self, function, data=None, counts=(9, 1, 1, 3, 20), start=None):
        """Run a step both ways, and return the captured one."""
        data = self.quarters if data is None else data
        run, plain = self.compile(function), eager(Written(function, xp=self.xp))
        a, b = (start or self.start)(), (start or self.start)()
        for count in counts:
            a, b = run(a, data, count=count), plain(b, data, count=count)
            for own, other in zip(leaves(a), leaves(b), strict=True):
                assert type(own) is type(leaves(data)[0])
                np.testing.assert_array_equal(self.host(own), self.host(other), strict=True)
        return run


def library_of(name):
    if name == "numpy":
        return NumpyLibrary()
    from bpxp.backends.torch.capture import TorchLibrary

    return TorchLibrary()


class Planned:
    """A plan of a function of ``(state, data, xp)``, and its program in words."""

    def __init__(self, lab, function, state, data):
        self.lab, self.text = lab, ""
        step = Written(function, xp=lab.xp)
        arrays = [a for a in leaves((state, data)) if type(a) is lab.library.array_type]
        self.trace = trace(step, state, data, arrays[0])
        own = len([a for a in leaves(state) if type(a) is lab.library.array_type])
        copies = [lab.library.own(a) for a in arrays]
        define = program.define

        def written(name, lines, objects):
            seen = {}

            def show(match):
                return in_words(objects[match[0]], lab.library, seen)

            self.text = "\n".join(re.sub(r"\bc\d+\b", show, line) for line in lines)
            return define(name, lines, objects)

        program.define = written
        try:
            self.plan = Plan(self.trace, lab.library, lab.xp, copies, own, own > 0)
        finally:
            program.define = define

    @property
    def before(self):
        """The lines that run once in a call."""
        return [line.strip() for line in self.text.split(" for _ in range")[0].splitlines()[1:]]

    @property
    def during(self):
        """The lines of each step."""
        lines = self.text.split("for _ in range(count):\n")[1].splitlines()
        return [line.strip() for line in lines[:-1] if line.strip() != "pass"]

    @property
    def returned(self):
        return self.text.splitlines()[-1].strip()


def in_words(a, library, seen):
    """Return a constant of a program as text: a function's name, a number, or a letter for memory and a shape."""
    if type(a) is library.array_type and a.ndim == 0:
        begin = library.bounds(a)[0]
        return repr(a.item()) if begin not in seen else f"{seen[begin]}()"
    if type(a) is library.array_type:
        begin = library.bounds(a)[0]
        letter = seen.setdefault(begin, "ABCDEFGHIJKLMNOP"[len(seen)])
        return f"{letter}{tuple(a.shape)}".replace(" ", "").replace(",)", ")")
    return "new" if hasattr(a, "func") else getattr(a, "__name__", repr(a))
