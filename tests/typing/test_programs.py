"""The typed user program runs, and the README has a program to check; `nox -s types` checks their types."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def program(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    import check
    import user_program

    yield user_program, check
    for name in ("check", "user_program"):
        del sys.modules[name]


def test_the_user_program_runs(program, tmp_path):
    user_program, _ = program
    assert len(user_program.networks()) == 9
    assert 0.0 < user_program.train(str(tmp_path))["accuracy"] <= 1.0


def test_the_readme_has_one_program(program):
    _, check = program
    text = check.readme_program()
    compile(text, "README.md", "exec")
    assert text.count("import bpxp") == 1
    assert "def forward" not in text
