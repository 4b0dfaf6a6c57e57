"""The README: its Python runs, its commands are commands, its files are there."""

from __future__ import annotations

import inspect
import re
import shlex
import textwrap
import tomllib
from pathlib import Path

import pytest

import bpxp.nn
from bpxp.cli import make_parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language, without the indentation of a list that they may stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", README, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(text) for _, text in found]


def test_the_python_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    names: dict[str, object] = {}
    programs = [text for text in blocks("python") if not text.startswith("def forward")]
    assert len(programs) >= 4
    for text in programs:
        exec(compile(text, "README.md", "exec"), names)
    assert names["net"].evaluate(names["test"])["accuracy"] >= 0.0
    assert (tmp_path / "digits.bpxp").exists()
    assert "2,260 parameters" in capsys.readouterr().out


def test_the_layer_that_is_shown_is_the_layer_that_runs():
    shown = [text for text in blocks("python") if text.startswith("def forward")]
    assert shown
    source = textwrap.dedent(inspect.getsource(bpxp.nn.Dense).split("\n\n", 1)[1])
    for text in shown:
        for function in text.strip().split("\n\n"):
            assert function in source


def test_the_first_commands_are_these():
    assert blocks("console")[0].splitlines() == [
        "python -m pip install . && python -m bpxp train",
        "python -m pip install nox && python -m nox -s tests",
    ]


def test_the_output_that_is_shown_is_good_enough():
    accuracy = re.search(r"^test accuracy: (0\.\d+)$", blocks("text")[0], flags=re.MULTILINE)
    assert accuracy
    assert float(accuracy.group(1)) >= 0.97


@pytest.mark.parametrize(
    "line", [line for line in "\n".join(blocks("console")).splitlines() if line.startswith("bpxp ")]
)
def test_the_commands_are_understood(line):
    options = make_parser().parse_args(shlex.split(line, comments=True)[1:])
    assert callable(options.run)


def test_the_links_lead_somewhere():
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


def test_the_extras_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert {"cuda12", "cuda13", "torch", "jax", "strict"} <= named <= set(project["optional-dependencies"])
