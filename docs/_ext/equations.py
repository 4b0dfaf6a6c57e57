"""Puts the equations that stand beside the code into the pages, as mathematics.

``{equations} bpxp.nn.Dense`` prints all lines of `Dense.equations`; the option ``:lines: forward, dW`` chooses some,
and ``:of: evaluation`` takes another attribute of the class. The page of each class in the reference gets them by
itself.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx import addnodes
from sphinx.transforms import SphinxTransform

import bpxp
from bpxp.equations import Equations
from bpxp.equations.latex import block

# Attributes that hold equations, and what their lines are on the page of a class.
ATTRIBUTES = {
    "equations": "",
    "evaluation": "In evaluation:",
    "before": "Before the rule:",
    "after": "After the rule:",
}


def find(path: str) -> Any:
    """Return the object of a dotted path."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def place(thing: Any, attribute: str) -> str:
    """Return the file and the line where a class states its equations."""
    root = Path(bpxp.__file__).parents[1]
    owner = next((cls for cls in thing.__mro__ if attribute in vars(cls)), thing)
    lines, first = inspect.getsourcelines(owner)
    found = [i for i, line in enumerate(lines) if line.startswith(f"    {attribute} = ")]
    return f"{Path(inspect.getfile(owner)).relative_to(root).as_posix()}, line {first + (found[0] if found else 0)}"


def chosen(equations: Equations, lines: str) -> Equations:
    """Return some lines of a thing's equations, by their names."""
    names = [name.strip() for name in lines.split(",")]
    return Equations(**{name: equations.lines[name] for name in names})


class EquationsDirective(Directive):
    """The equations of one class."""

    required_arguments = 1
    option_spec: ClassVar = {"lines": directives.unchanged, "of": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0]
        try:
            attribute = self.options.get("of", "equations")
            equations = getattr(find(path), attribute)
            if "lines" in self.options:
                equations = chosen(equations, self.options["lines"])
            text = block(equations)
        except (ImportError, AttributeError, KeyError, ValueError) as error:
            raise self.error(f"no equations of {path}: {error!r}") from None
        # A page is old when the file of its equations has changed.
        self.state.document.settings.env.note_dependency(inspect.getfile(find(path)))
        formula = nodes.math_block(text, text, number=None, label=None, nowrap=False)
        formula["no-wrap"] = False
        self.add_name(formula)
        source = nodes.paragraph("", "", classes=["equations-source"])
        link = addnodes.pending_xref(
            "",
            nodes.literal(path, path),
            refdomain="py",
            reftype="class",
            reftarget=path,
            refexplicit=True,
            refwarn=False,
        )
        source += [nodes.Text("as the tests run them, from "), link, nodes.Text(f" ({place(find(path), attribute)})")]
        return [nodes.container("", formula, source, classes=["equations"])]


def into_docstring(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Put the equations of a class after the first paragraph of its docstring."""
    if what != "class":
        return
    path, found = f"{thing.__module__}.{thing.__qualname__}", []
    for attribute, title in ATTRIBUTES.items():
        if isinstance(vars(thing).get(attribute), Equations):
            found += ["", title, "", f".. equations:: {path}", f"   :of: {attribute}", ""]
    begin = next(i for i, line in enumerate(lines) if line)
    place = lines.index("", begin) if "" in lines[begin:] else len(lines)
    lines[place:place] = found


class AbsoluteValues(SphinxTransform):
    """Leave ``|z|`` in a docstring what it is: an absolute value, where no substitution has that name."""

    default_priority = 210  # before docutils' own, which would not find it

    def apply(self, **_: Any) -> None:
        for reference in list(self.document.findall(nodes.substitution_reference)):
            if reference["refname"] not in self.document.substitution_defs:
                reference.replace_self(nodes.Text(f"|{reference.astext()}|"))


def setup(app: Any) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_transform(AbsoluteValues)
    app.add_directive("equations", EquationsDirective)
    # After numpydoc (500) has taken the docstring apart and put it together again.
    app.connect("autodoc-process-docstring", into_docstring, priority=900)
    return {"parallel_read_safe": True}
