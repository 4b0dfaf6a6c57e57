"""The names that other people's code relies on: they exist, say what they are, and change only on purpose."""

from __future__ import annotations

import importlib
import inspect
import tomllib
from pathlib import Path

import pytest
from api import FILE, snapshot

import bpxp

ROOT = Path(__file__).parent.parent
ROOMS = ["bpxp", "bpxp.backends", "bpxp.callbacks", "bpxp.data", "bpxp.nn", "bpxp.optim", "bpxp.verify"]

# What a program may write after `bpxp.`; a name that leaves this list breaks somebody's program.
PROMISED = {
    "BpxpError",
    "BpxpWarning",
    "History",
    "Network",
    "Trainer",
    "available_backends",
    "callbacks",
    "data",
    "errors",
    "get_backend",
    "metrics",
    "nn",
    "optim",
    "preflight",
    "replay",
    "verify",
}
# And the arguments and methods of the objects that users hold.
ARGUMENTS = {
    "Network": ["layers", "input_shape", "hidden", "output", "loss", "init", "dtype", "backend", "seed"],
    "Trainer": ["net", "optimizer", "callbacks", "metrics", "progress"],
    "Trainer.fit": ["self", "data", "epochs", "batch_size", "validation", "weight", "class_weight", "resume"],
    "callbacks.Checkpoint": ["path", "steps", "keep", "monitor", "mode"],
    "Network.gradient_descent": ["self", "batch", "learning_rate"],
    "Network.loss_and_gradients": ["self", "x", "y"],
    "Network.evaluate": ["self", "x", "y"],
    "Network.load": ["path", "backend"],
    "get_backend": ["name"],
    "data.digits": [],
    "data.mnist": [],
    "data.fashion_mnist": [],
    "verify.check_gradients": ["net", "x", "y"],
}
METHODS = {"summary", "predict", "predict_proba", "evaluate", "save", "load", "gradient_descent", "loss_and_gradients"}


@pytest.mark.parametrize("room", ROOMS)
def test_all_lists_names_that_exist(room):
    module = importlib.import_module(room)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_thing_says_what_it_is(room):
    module = importlib.import_module(room)
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isclass(thing) or inspect.isroutine(thing) or inspect.ismodule(thing):
            assert inspect.getdoc(thing), f"{room}.{name} has no docstring"


def test_the_promised_names():
    assert set(bpxp.__all__) - {"__version__"} == PROMISED
    assert set(dir(bpxp)) == {*bpxp.__all__}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_promised_arguments_come_first_and_in_order(name):
    thing = bpxp
    for part in name.split("."):
        thing = getattr(thing, part)
    found = list(inspect.signature(thing).parameters)
    assert [argument for argument in found if argument in ARGUMENTS[name]] == ARGUMENTS[name]


def test_the_promised_methods():
    assert set(dir(bpxp.Network)) >= METHODS


def test_nothing_public_has_changed_unless_the_snapshot_says_so():
    """Every public name with its arguments stands in tests/api.txt; ``python tests/api.py`` writes it anew.

    A line that goes, or loses an argument, breaks somebody's program: it belongs into the changelog.
    """
    before, now = FILE.read_text(encoding="utf-8").splitlines(), snapshot().splitlines()
    gone, new = sorted(set(before) - set(now)), sorted(set(now) - set(before))
    assert (gone, new) == ([], []), "the public names have changed: if on purpose, python tests/api.py"


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="'bpxp' has no attribute 'netwrok'"):
        bpxp.netwrok  # noqa: B018


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == bpxp.__version__
    assert f"\nversion: {bpxp.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_type_checkers_are_told_that_there_are_types():
    assert (Path(bpxp.__file__).parent / "py.typed").is_file()
