"""The pages: their Python runs, the code that they show is there, and the reference leaves nothing out."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

from bpxp import optim
from bpxp.equations import Equations
from bpxp.verify.equations.catalogue import catalogue

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "generated" not in page.parts and "_build" not in page.parts)
TEXTS = {page.relative_to(DOCS).as_posix(): page.read_text(encoding="utf-8") for page in PAGES}


def programs(name: str) -> list[str]:
    """Return the Python of a page, each block on the lines where it stands, so that a failure says where."""
    text, found = TEXTS[name], []
    for block in re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE):
        found.append("\n" * text[: block.start(1)].count("\n") + block[1])
    return found


def directives(name: str) -> list[tuple[str, str, dict[str, str]]]:
    """Return (directive, argument, options) of each fenced directive of a page."""
    found = re.findall(r"^```\{(\w[\w-]*)\} ?(.*)\n((?::.*\n)*)", TEXTS[name], flags=re.MULTILINE)
    return [(kind, argument, dict(re.findall(r":([\w-]+): (.*)", options))) for kind, argument, options in found]


@pytest.mark.parametrize("name", [name for name in TEXTS if programs(name)])
def test_the_python_of_a_page_runs_from_top_to_bottom(name, monkeypatch, capsys):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    names: dict[str, object] = {"__name__": name}
    monkeypatch.setitem(importlib.sys.modules, name, type(importlib)(name))  # where dataclasses look themselves up
    for program in programs(name):
        exec(compile(program, str(DOCS / name), "exec"), names)


def test_the_output_on_the_first_page_is_what_is_printed(monkeypatch, capsys):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    exec("".join(programs("start.md")), {})
    printed = {re.sub(r"\d", "0", line) for line in capsys.readouterr().out.splitlines()}
    shown = "".join(re.findall(r"^```text\n(.*?)^```$", TEXTS["start.md"], flags=re.DOTALL | re.MULTILINE)).splitlines()
    assert len(shown) > 10
    assert {re.sub(r"\d", "0", line) for line in shown if line != "…"} <= printed


@pytest.mark.parametrize("name", [name for name in TEXTS if "{equations}" in TEXTS[name]])
def test_the_equations_that_a_page_prints_are_there(name):
    for kind, path, options in directives(name):
        if kind == "equations":
            module, _, thing = path.rpartition(".")
            equations = getattr(getattr(importlib.import_module(module), thing), options.get("of", "equations"))
            assert isinstance(equations, Equations)
            chosen = options.get("lines", "")
            assert {line.strip() for line in chosen.split(",") if line} <= set(equations), (path, chosen)


@pytest.mark.parametrize("name", [name for name in TEXTS if "{literalinclude}" in TEXTS[name]])
def test_the_code_that_a_page_shows_is_there(name):
    for kind, path, options in directives(name):
        if kind == "literalinclude":
            source = (DOCS / name).parent.joinpath(path).resolve().read_text(encoding="utf-8")
            last = options["pyobject"].rpartition(".")[2]
            assert re.search(rf"^ *(def|class) {last}\b", source, flags=re.MULTILINE), (path, last)


def test_every_derived_thing_is_derived_on_a_page():
    derived = "".join(text for name, text in TEXTS.items() if name.startswith("derivation/"))
    rooms = {type(thing): type(thing).__module__.split(".")[1] for thing in catalogue().values()}
    missing = [kind for kind, room in rooms.items() if f"{{equations}} bpxp.{room}.{kind.__name__}\n" not in derived]
    assert missing == []


def test_every_line_of_what_is_derived_is_printed():
    """A page may spread the lines of a thing over its text."""
    printed: dict[tuple[str, str], set[str]] = {}
    for name in TEXTS:
        for kind, path, options in directives(name) if name.startswith("derivation/") else ():
            if kind == "equations":
                thing, attribute = path.rpartition(".")[2], options.get("of", "equations")
                lines = options.get("lines", "every line").split(",")
                printed.setdefault((thing, attribute), set()).update(line.strip() for line in lines)
    everything = {type(thing) for thing in catalogue().values()} | {optim.Optimizer}
    for kind in everything:
        for attribute in {"equations", "evaluation", "before", "after"} & set(vars(kind)):
            found = printed.get((kind.__name__, attribute), set())
            missing = set() if "every line" in found else set(getattr(kind, attribute)) - found
            # Adam's means are AdamW's; where a window begins is the same for every kind of window.
            allowed = {"AdamW": {"mean", "square", "mean_corrected", "square_corrected"}}
            assert missing <= allowed.get(kind.__name__, {"row", "column"}), kind


@pytest.mark.parametrize("room", ["nn", "optim", "data", "verify", "backends"])
def test_the_reference_lists_every_public_name(room):
    module = importlib.import_module(f"bpxp.{room}")
    listed = set(re.findall(r"^   ([\w.]+)$", TEXTS[f"api/{room}.md"], flags=re.MULTILINE))
    classes_and_functions = {name for name in module.__all__ if callable(getattr(module, name))}
    assert classes_and_functions - listed <= {"Array", "Namespace", "Step"}  # aliases of types
    assert {name for name in listed if "." not in name} <= set(module.__all__)


@pytest.mark.parametrize("name", [name for name in TEXTS if name.startswith("api/")])
def test_what_the_reference_lists_is_there(name):
    for block in TEXTS[name].split(".. currentmodule:: ")[1:]:
        module, _, rest = block.partition("\n")
        for listed in re.findall(r"^   ([\w.]+)$", rest, flags=re.MULTILINE):
            assert pkgutil.resolve_name(f"{module}.{listed}")


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    page = DOCS / name
    targets = [t for t in re.findall(r"\]\(((?!https?:)[^)#\s]+\.md)", TEXTS[name]) if t]
    assert [target for target in targets if not (page.parent / target).exists()] == []
