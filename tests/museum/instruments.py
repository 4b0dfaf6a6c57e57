"""Tests of the suite as instruments: each case of a test becomes a call, and it is known what of bpxp that call reaches.

A patch of one function can only be seen by a call that reaches this function; the others need not be made.
"""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import numpy as np
import pytest

import bpxp

PACKAGE = str(Path(bpxp.__file__).parent)
TESTS = Path(__file__).parents[1]
# A mistake in the exhibit itself, not one that an instrument has found.
OWN_MISTAKES = (AttributeError, ImportError, NameError, TypeError)


def module_of(path: Path) -> Any:
    """Import a file that has no name of its own: pytest knows several called conftest."""
    spec = importlib.util.spec_from_file_location("_".join(path.relative_to(TESTS).with_suffix("").parts), path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SHARED, NN = module_of(TESTS / "conftest.py"), module_of(TESTS / "nn" / "conftest.py")


class Cell(NamedTuple):
    """One call that raises where something is wrong."""

    name: str
    run: Callable[[], Any]


def cases(place: str, **chosen: list[Any]) -> Iterator[Cell]:
    """Yield a test of the suite with each of its parameters.

    Parameters
    ----------
    place : str
        Module and function: ``"nn.test_losses.test_one_hot"``.
    **chosen
        For a parameter the values that are wanted, for a fixture those that it takes.
    """
    module, _, name = place.rpartition(".")
    test = getattr(importlib.import_module(module), name)
    axes, free = [], dict(chosen)
    for mark in getattr(test, "pytestmark", ()):
        if mark.name != "parametrize":
            continue
        names, values = mark.args[:2]
        names = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        rows = [value if len(names) > 1 else (value,) for value in values]
        wanted = {n: free.pop(n) for n in names if n in free}
        parts = [dict(zip(names, row, strict=True)) for row in rows]
        axes.append([part for part in parts if all(part[n] in wanted[n] for n in wanted)])
    axes += [[{n: value} for value in values] for n, values in free.items()]
    for parts in itertools.product(*axes):
        given = {n: value for part in parts for n, value in part.items()}
        yield Cell(f"{place} {list(given.values())}", lambda given=given: call(test, given))


def call(test: Callable[..., None], given: dict[str, Any]) -> None:
    """Call a test with its parameters, and with its fixtures, made as pytest would make them."""
    with ExitStack() as stack:
        made = {"rng": np.random.default_rng(zlib.crc32(test.__name__.encode())), "nightly": False, **given}
        made["backend"] = bpxp.get_backend(given.get("backend", "numpy"))

        def get(name: str) -> Any:
            if name not in made:
                made[name] = make(name)
            return made[name]

        def make(name: str) -> Any:
            if name == "tmp_path":
                return Path(stack.enter_context(tempfile.TemporaryDirectory()))
            if name == "monkeypatch":
                return stack.enter_context(pytest.MonkeyPatch.context())
            for place in (inspect.getmodule(test), NN, SHARED):
                if hasattr(place, name):
                    function = getattr(place, name).__wrapped__
                    return function(**{n: get(n) for n in inspect.signature(function).parameters})
            raise NameError(f"no fixture {name} for {test.__name__}")

        test(**{name: get(name) for name in inspect.signature(test).parameters})


def fault(cell: Cell) -> str:
    """Return what a call has found, in one line; an empty text if it has found nothing."""
    clear()
    try:
        with warnings.catch_warnings(), np.errstate(all="warn", under="ignore"):
            warnings.simplefilter("error")
            cell.run()
    except pytest.skip.Exception:
        return ""
    except OWN_MISTAKES:
        raise
    except (Exception, pytest.fail.Exception) as error:
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    finally:
        clear()
    return ""


def clear() -> None:
    """Forget what the windows of convolutions were found to see: it may be wrong."""
    bpxp.get_backend("numpy").xp.memo.clear()


def reached(cell: Cell) -> frozenset[CodeType]:
    """Return the functions of bpxp that a call reaches.

    Raises
    ------
    AssertionError
        If it finds something wrong in the code as it is.
    """
    found: set[CodeType] = set()

    def note(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            found.add(frame.f_code)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        wrong = fault(cell)
    finally:
        sys.setprofile(before)
    assert not wrong, f"a false alarm of {cell.name}: {wrong}"
    return frozenset(code for code in found if code.co_filename.startswith(PACKAGE))
