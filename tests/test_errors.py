"""The codes of errors: every message has one, each is on the page of errors, and the call that stands there raises it."""

from __future__ import annotations

import argparse
import ast
import builtins
import copy
import errno
import functools
import importlib
import os
import pickle
import re
import sys
import types
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from mistakes.networks import cupy_is_not_installed, fake_cupy
from mistakes.runs import a_device_that_others_use, a_small_device
from mistakes.samples import CuPy, Sparse, Tensor

import bpxp
from bpxp import errors
from bpxp.errors import CODES, BpxpError, BpxpWarning

PACKAGE = Path(bpxp.__file__).parent
PAGE = (PACKAGE.parent / "docs" / "errors.md").read_text(encoding="utf-8")
SECTIONS = re.findall(
    r"^\((BPX-(\w+))\)=\n### (BPX-\w+): (.*)\n((?:(?!^\(BPX-|^## )[\s\S])*)", PAGE, flags=re.MULTILINE
)
TYPES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, BpxpError)}


@functools.cache
def trees():
    """Return the name and the syntax tree of every file."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return [(p.relative_to(PACKAGE).as_posix(), ast.parse(p.read_text(encoding="utf-8"))) for p in paths]


def calls(tree, *names):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
            yield node


def constants(node):
    return [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]


# ---------------------------------------------------------------- in the program


def codes_of(call):
    """Return the codes that a call may give: one, or what its condition chooses from."""
    (code,) = [keyword.value for keyword in call.keywords if keyword.arg == "code"] or [None]
    if isinstance(code, ast.IfExp):
        return constants(code.body) + constants(code.orelse)
    return constants(code) if isinstance(code, ast.Constant) else []


def written():
    """Yield the codes of every error and warning, and those within what the system's own errors say."""
    for name, tree in trees():
        if name == "errors.py":
            continue
        for call in calls(tree, *TYPES, "error", "warn"):
            yield f"{name}:{call.lineno}", codes_of(call) or local(tree, call)
        for call in calls(tree, "OSError"):
            if found := re.findall(r"\[BPX-(\w+)\]", " ".join(constants(tree))):
                yield f"{name}:{call.lineno}", found


def local(tree, call):
    """Return the codes that a local name `code` may have."""
    around = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) and call in ast.walk(f)]
    assigned = [n for n in ast.walk(around[-1]) if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "code"]
    return [code for a in assigned for code in constants(a.value.body) + constants(a.value.orelse)]


def test_every_error_has_a_code_and_every_code_an_error():
    found = dict(written())
    assert [where for where, codes in found.items() if not codes] == []
    assert {code for codes in found.values() for code in codes} == set(CODES)


def unparsed(node):
    return "" if node is None else ast.unparse(node)


def test_warnings_have_codes():
    # All go through `warn`; nobody else says BpxpWarning.
    for name, tree in trees():
        if name != "errors.py":
            raised = [c for c in ast.walk(tree) if isinstance(c, ast.Call) and unparsed(c.func) == "warnings.warn"]
            assert raised == [], name


# Errors of Python's own: what a protocol asks for, and what is caught where it is raised and told in bpxp's words.
OWN = {
    "AttributeError": {"__init__.py", "data/__init__.py", "equations/__init__.py", "backends/base.py"},
    "RuntimeError": {f"backends/{name}.py" for name in ("names", "torch/backend", "cupy/backend", "cupy/libcublas")}
    | {"training/run.py"},
    "TypeError": {"saving/header.py", "saving/network.py", "training/resume.py", "verify/rules.py"},
    "MemoryError": {"backends/cupy/libcublas.py"},
    "ValueError": {"saving/header.py", "saving/network.py"},
    "OSError": {"core/atomic.py", "saving/format.py"},
    "AssertionError": {"equations/loops.py"},
    "ArgumentTypeError": {"cli.py"},
    "NotImplementedError": None,  # of abstract methods
    "KeyboardInterrupt": {"training/interrupts.py"},
    "SystemExit": {"training/interrupts.py", "__main__.py"},
}


def test_pythons_own_errors_stay_within():
    found = set()
    for name, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Raise) and node.exc is not None:
                kind = unparsed(getattr(node.exc, "func", node.exc)).rpartition(".")[2]
                builtin = getattr(builtins, kind, None) or vars(argparse).get(kind)
                if isinstance(builtin, type):
                    assert kind in OWN, f"{name}:{node.lineno}"
                    found.add((kind, name))
    assert [(kind, name) for kind, name in found if OWN[kind] is not None and name not in OWN[kind]] == []
    listed = {(kind, name) for kind, names in OWN.items() for name in names or ()}
    assert listed <= found


def test_codes_and_titles():
    assert all(re.fullmatch(r"[EW]\d{3}", code) for code in CODES)
    assert all(title.endswith(".") and title[0].isupper() for title in CODES.values())
    assert len(set(CODES.values())) == len(CODES)


@pytest.mark.parametrize("name", [*TYPES, "BpxpWarning"])
def test_an_error_keeps_its_fields_wherever_it_goes(name):
    fields = {"got": "a", "expected": "b", "first": "First at 1", "fix": "c: d", "after": "Nothing was changed"}
    error = getattr(errors, name)("here: (x: y)", "wrong: so", code="E030", **fields)
    error.file = "found"  # what a type has beside the fields
    text = "here: (x: y): wrong: so: got a, expected b. First at 1. Fix: c: d. Nothing was changed. [BPX-E030]"
    for same in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), error.replaced(where="here: (x: y)")):
        assert (type(same), str(same), same.code, same.file) == (type(error), text, "BPX-E030", "found")
        told = {"where": "here: (x: y)", "what": "wrong: so", **fields}
        assert {field: getattr(same, field) for field in told} == told
    other = error.replaced(where="there", fix="")
    assert str(other) == "there: wrong: so: got a, expected b. First at 1. Nothing was changed. [BPX-E030]"
    assert (error.brief, str(error)) == ("wrong: so: got a, expected b. First at 1. Fix: c: d.", text)


# ---------------------------------------------------------------- on the page


def test_the_page_has_every_code_and_no_other(promise):
    assert [code for _, code, _, _, _ in SECTIONS] == list(CODES)
    for anchor, code, name, title, _ in SECTIONS:
        assert anchor == name == f"BPX-{code}"
        assert f"{title}." == CODES[code]
    promise("Error and warning codes documented with a call that causes them", str(len(CODES)))


@dataclass
class Prepared:
    """What a call on the page needs beside the names that the page begins with."""

    patch: pytest.MonkeyPatch
    folder: Path
    backend: object
    net: bpxp.Network

    def fit(self, **options) -> None:
        """A row of the mistakes ends with a fit; here the page does it."""


def failing_disk(patch, first, last):
    """Let the disk be full when a file is forced to it, from one time to another."""
    real, count = os.fsync, []

    def fsync(descriptor):
        count.append(descriptor)
        if first <= len(count) <= last:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    patch.setattr(os, "fsync", fsync)


def a_data_set_and_no_place_for_it(c):
    room = importlib.import_module("bpxp.data.sources.mnist")
    small = {file.name: np.zeros((3, 4, 4)[: 1 + 2 * ("images" in file.name)], np.uint8) for file in room.MNIST.files}
    c.patch.delenv("BPXP_DATA_DIR", raising=False)
    c.patch.setattr(room, "MNIST", room.MNIST._replace(system=()))
    (c.folder / "file").write_text("a file where the folder should be")
    c.patch.setattr("platformdirs.user_cache_path", lambda *args, **options: c.folder / "file")
    c.patch.setattr(room, "fetch", lambda file, *args, **options: (room_fetched(small[file.name]), []))


def room_fetched(array):
    from bpxp.data.sources.fetch import Fetched

    return Fetched(b"", array)


def made_without_gpu(c):
    def check_device(device):
        raise OSError("cudaErrorNoDevice: no CUDA-capable device is detected")

    fake_cupy(c, check_device)


def pickled_on_cupy(c):
    only_prepared(c, cupy_is_not_installed)
    c.patch.setattr("bpxp.network.pickled.label", lambda backend: "cupy")


def a_gpu_without_headers(c):
    def check_device(device):
        raise RuntimeError("cannot open source file vector_types.h")

    fake_cupy(c, check_device)


def a_capture_that_differs_later(c):
    from bpxp.backends import captured

    c.patch.setattr(captured, "PROOFS", (3, 3))
    proofs = iter([True])  # the first one
    c.patch.setattr(captured.CapturedStep, "_agrees", lambda *arguments: next(proofs, False))


PREPARED = {
    "E021": lambda c: only_prepared(c, cupy_is_not_installed),
    "E022": made_without_gpu,
    "E053": a_small_device,
    "E067": lambda c: failing_disk(c.patch, 3, 9),
    "W006": lambda c: failing_disk(c.patch, 3, 4),
    "W007": a_data_set_and_no_place_for_it,
    "W008": a_device_that_others_use,
    "W009": a_capture_that_differs_later,
    "W012": pickled_on_cupy,
    "W018": a_gpu_without_headers,
}


def only_prepared(c, row):
    with pytest.raises(BpxpError):
        row(c)


@pytest.mark.parametrize(("code", "text"), [(code, text) for _, code, _, _, text in SECTIONS], ids=list(CODES))
def test_the_call_on_the_page_has_its_code(code, text, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    names = {"__name__": "errors"}
    monkeypatch.setitem(sys.modules, "errors", types.ModuleType("errors"))  # where dataclasses look themselves up
    (begin,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)
    exec("from collections.abc import Callable\nfrom dataclasses import dataclass\nfrom pathlib import Path", names)
    exec("import bpxp.data.images\nimport bpxp.equations\n" + begin, names)
    names["cupy"] = types.SimpleNamespace(asarray=lambda x: CuPy((2, 0)))
    names["torch"] = types.SimpleNamespace(tensor=lambda x, requires_grad: Tensor((1, 0), requires_grad))
    names["sparse"] = types.SimpleNamespace(csr_array=lambda x: Sparse())
    if code in PREPARED:
        PREPARED[code](Prepared(monkeypatch, tmp_path, names["net"].backend, names["net"]))
    (call,) = re.findall(r"^```py\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    found = caused(compile(call, f"docs/errors.md, {code}", "exec"), names)
    assert [str(f).count("\n") < 6 for f in found] == [True] * len(found)
    codes = {getattr(f, "code", "") or "".join(re.findall(r"\[(BPX-\w+)\]", str(f))) for f in found}
    assert f"BPX-{code}" in codes
    if code.startswith("E"):
        assert codes == {f"BPX-{code}"}


def caused(program, names):
    """Return the error that a program ends with, or the warnings that it gives."""
    with warnings.catch_warnings(record=True) as caught, np.errstate(all="ignore"):
        warnings.simplefilter("always")
        try:
            exec(program, names)
        except (BpxpError, OSError) as error:
            if not caught:
                return [error]
    found = [w.message for w in caught]
    assert all(isinstance(w, BpxpWarning) for w in found)
    assert {w.filename for w in caught} <= {program.co_filename}  # the line that called, wherever it was noticed
    return found
