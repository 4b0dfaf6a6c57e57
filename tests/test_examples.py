"""The programs in examples/: each says what it shows and what it printed, and the quick ones run."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))


def header(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{path.name} has no docstring"
    return text


def test_there_are_examples():
    assert {"textbook.py", "mnist.py", "multi_label.py", "two_backends.py"} <= {path.name for path in PROGRAMS}


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_an_example_says_what_it_shows_how_to_run_it_and_what_it_printed(path):
    source = path.read_text(encoding="utf-8")
    compile(source, str(path), "exec")
    text = header(path)
    assert f"python examples/{path.name}" in text
    head, _, printed = text.partition("Printed: (")
    assert len(head) > 100
    lines = printed.splitlines()
    assert "CPU cores" in lines[0]
    assert "NumPy" in lines[0]
    assert len(lines) > 2, "what it printed stands below that line"
    assert len(source.splitlines()) <= 80


def run(name: str, *arguments: str) -> str:
    """Run an example as a user would, and return what it printed; one thread, as small products want it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=240,
        env=os.environ | {"BPXP_BACKEND": "numpy", "PYTHONIOENCODING": "utf-8", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def number_after(words: str, text: str) -> float:
    found = re.search(rf"{words} (\d[\d.e+-]*)", text)
    assert found, f"{words!r} is not in:\n{text}"
    return float(found.group(1))


def test_multi_label_is_as_good_as_it_says():
    printed, claimed = run("multi_label.py"), header(EXAMPLES / "multi_label.py")
    for words in ("F1 micro", "F1 macro", "exact match"):
        assert number_after(words, printed) == pytest.approx(number_after(words, claimed), abs=0.03)


def test_two_backends_stay_as_close_as_it_says():
    printed, claimed = run("two_backends.py", "numpy", "strict"), header(EXAMPLES / "two_backends.py")
    words = "parameters differ by"
    assert number_after(f"before training: {words}", printed) == number_after(f"before training: {words}", claimed) == 0
    for text in (printed, claimed):
        assert number_after(f"after training: {words}", text) < 1e-4
    assert number_after("numpy: test accuracy", printed) == pytest.approx(
        number_after("numpy: test accuracy", claimed), abs=0.01
    )


def test_a_streamed_fit_ends_as_a_resident_one():
    printed = run("streamed.py", "4000")
    assert "the same loss, to the last bit" in printed
    assert number_after("memory of a fit: streamed", printed) > 1
