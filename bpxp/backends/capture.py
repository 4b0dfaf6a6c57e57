"""The switch of capture and replay, and why a compiled step runs eagerly instead."""

from __future__ import annotations

import copy
import functools
import os
from typing import Any

from bpxp.backends.base import Backend, State, Step, StepFunction
from bpxp.errors import InvalidValueError

NO_STATE = "it has no state"  # a plain function, called for its value

ENVIRONMENT = "BPXP_CAPTURE"
OFF = "capture is switched off"


def initial_reason() -> str:
    """Return why a step runs eagerly from the beginning: the environment says so, or ""."""
    return OFF if os.environ.get(ENVIRONMENT) == "0" else ""


def switch_off(run: Step) -> Step:
    """Let a compiled step run eagerly for good."""
    captured = _captured(run)
    if captured is not None:
        captured.reason = OFF
    return run


def prove_within(run: Step, steps: int) -> None:
    """Ask for a proof of a captured step at a random one of its next steps."""
    prove = getattr(_captured(run), "prove_within", None)
    if prove is not None:
        prove(steps)


def without_capture(backend: Backend, name: str, where: str) -> Backend:
    """Return a copy of a backend, of another name, whose steps run eagerly. Arrays of both are the same arrays."""
    if _captured(backend.compile(_unchanged)) is None:
        what, fix = f"{backend.name} captures no steps", f"backend={backend.name!r}"
        raise InvalidValueError(where, what, code="E023", got=repr(name), fix=fix)
    own = copy.copy(backend)
    own.name = name
    own.compile = functools.partial(_compiled_off, backend)  # type: ignore[method-assign]
    return own


def _captured(run: Step) -> Any:
    """Return the captured step within a compiled one, if there is one."""
    run = getattr(run, "run", run)
    return run if hasattr(run, "reason") else None


def _unchanged(state: State, data: Any) -> State:
    return state


def _compiled_off(backend: Backend, step: StepFunction, /) -> Step:
    return switch_off(backend.compile(step))
