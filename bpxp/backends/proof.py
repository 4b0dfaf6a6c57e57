"""Where a plan and the eager step part: the first operation whose result differs."""

from __future__ import annotations

import dataclasses
import types
from typing import Any

from bpxp.backends.base import CREATION, FUNCTIONS
from bpxp.backends.plan import IN_PLACE, INFIX, Plan
from bpxp.backends.program import OUT, filled, several
from bpxp.core.typing import Array

UNTRACED = {"can_cast", "finfo", "iinfo", "isdtype", "result_type"}


def first_difference(step: Any, plan: Plan, state: Any, data: Any, arguments: list[Array]) -> str:
    """Return the first operation whose result in the eager step is not that of the plan, as text.

    Parameters
    ----------
    step : dataclass
    plan : Plan
    state, data : trees
        Before the step. The state is written.
    arguments : list of array
        The arrays of both.
    """
    library = plan.library
    copies = [library.own(a) for a in arguments]
    heard: list[tuple[str, list[Array]]] = []

    def watched(name: str, function: Any) -> Any:
        def call(*inputs: Any, **static: Any) -> Any:
            result = function(*inputs, **static)
            heard.append((name, [library.own(a) for a in several(result)]))
            return result

        return call

    xp = step.xp
    named = {name: function for name, function in vars(xp).items() if name in {*FUNCTIONS, *CREATION} - UNTRACED}
    eager = types.SimpleNamespace(**{**vars(xp), **{name: watched(name, f) for name, f in named.items()}})
    dataclasses.replace(step, xp=eager)(state, data)
    rest, real = iter(heard), dict(enumerate(copies))
    for op, _, call, _ in plan.done:
        inputs, static = filled(op.inputs, real), filled(op.static, real)
        if op.into is not None:
            IN_PLACE[op.name](*inputs)
            continue
        result = (INFIX[op.name] if op.infix else getattr(xp, op.name))(*inputs, **static)
        real.update(zip((v.number for v in op.outputs), several(result), strict=True))
        if call is not None:
            out = library.fresh(library.kind(result))()
            again = real | {OUT.number: out}
            call.function(*filled(call.arguments, again), **filled(call.keywords, again))
            if not library.same(out, result):
                return f"{op.name} computed into a buffer"
        if op.infix or op.name not in named:
            continue
        name, own = next(rest, ("nothing", []))
        if name != op.name:
            return f"xp.{name} where xp.{op.name} was traced"
        for a, b in zip(several(result), own, strict=True):
            if not library.same(a, b):
                return f"the result of xp.{name}, or of the operators before it"
    return "an operator after the last function of xp"
