"""The three rules that let one source run everywhere, read off the source; and what importing bpxp costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bpxp
from bpxp.backends.names import LIBRARIES
from bpxp.verify.layer.source import broken_rules

PACKAGE = Path(bpxp.__file__).parent
MATHEMATICS = sorted(
    [
        *PACKAGE.glob("nn/**/*.py"),
        *PACKAGE.glob("optim/**/*.py"),
        *PACKAGE.glob("metrics/*.py"),
        PACKAGE / "network" / "step.py",
        *(PACKAGE / "core" / name for name in ("random.py", "threefry.py", "tree.py")),
    ]
)
# What works on the host, beside the `init` of a layer: draws, and the shares that metrics make of their counts.
NUMPY_ALLOWED = {"nn/initializers.py", "core/random.py"} | {
    f"metrics/{name}.py" for name in ("classes", "labels", "metric")
}


@pytest.mark.parametrize("path", MATHEMATICS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_mathematics_keeps_the_rules(path):
    assert broken_rules(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("path", MATHEMATICS, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_the_mathematics_names_no_library(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.partition(".")[0])
    libraries = {library.module for library in LIBRARIES.values()} | {"array_api_compat", "array_api_extra", "scipy"}
    draws = any(isinstance(node, ast.FunctionDef) and node.name == "init" for node in ast.walk(tree))
    if draws or path.relative_to(PACKAGE).as_posix() in NUMPY_ALLOWED:
        libraries.remove("numpy")
    assert imported & libraries == set()
    strings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    assert strings & {*LIBRARIES, "cuda"} == set()


@pytest.mark.parametrize(
    "line",
    [
        "x @ x",
        "x @= x",
        "x.T",
        "x.mT",
        "xp.clip(x, x, x)",
        "xp.sign(x)",
        "xp.einsum('ij->i', x)",
        "xp.nonzero(x)",
        "np.exp(x)",
        "float(x)",
        "bool(xp.any(x))",
        "int(x[0])",
        "x.item()",
        "x[x > 0.0]",
        "xp.add(x, x, out=x)",
        "xp.maximum(x, 0.0)",
        "xp.minimum(-1, x)",
        "xp.where(x > 0.0, 1.0, -1.0)",
        "xp.zeros((1,))",
        "xp.ones((1,), dtype=x.dtype, device=x.device)",
    ],
)
def test_each_rule_can_be_broken(line):
    # Of the rules themselves: one that finds nothing here would find nothing anywhere.
    for source in (f"def f(x, *, xp):\n    {line}", f"def f(self, x):\n    xp = self.xp\n    {line}"):
        assert len(broken_rules(ast.parse(source))) == 1
    assert broken_rules(ast.parse(f"def on_the_host(x):\n    {line}")) == []


@pytest.mark.parametrize(
    "line",
    [
        "float(x.shape[0])",
        "float(xp.finfo(x.dtype).max)",
        "xp.where(x > 0.0, x, 0.0)",
        "xp.maximum(x, xp.zeros((), dtype=x.dtype))",
        "xp.asarray(x, copy=True)",
        "1.0 - x * 2.0",
    ],
)
def test_what_the_rules_allow(line):
    assert broken_rules(ast.parse(f"def f(x, *, xp):\n    {line}")) == []


def test_importing_bpxp_imports_no_heavy_library():
    # With every public name used: what is behind a name may come late, and must not be heavy.
    heavy = ["cupy", "torch", "jax", "array_api_compat", "array_api_strict", "scipy", "sklearn", "matplotlib", "PIL"]
    heavy += ["rich", "pooch", "requests", "platformdirs", "safetensors", "argparse", "pandas"]
    program = f"""
import numpy, sys
before = set(sys.modules)
import bpxp
for name in bpxp.__all__:
    getattr(bpxp, name)
net = bpxp.Network([2, 3, 2], backend="numpy", seed=0)
net.gradient_descent(([[1.0, 2.0]], [1]), 0.1)
print(*sorted(set({heavy}) & (set(sys.modules) - before)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split() == []


def imported(path, modules):
    """Yield the modules of bpxp that a file imports, wherever in it, also for the type checker alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in modules else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_no_two_files_import_each_other():
    names = {p: ".".join(["bpxp", *p.relative_to(PACKAGE).with_suffix("").parts]) for p in PACKAGE.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for path, name in names.items()}
    # A face such as bpxp/nn/__init__.py imports the files of its room, and they may name it: Python allows it.
    graph = {
        name: {other for other in imported(path, modules) if other in modules and not name.startswith(f"{other}.")}
        for name, path in modules.items()
    }
    assert len(graph) > 150
    assert sum(map(len, graph.values())) > 500
    done: set[str] = set()
    for name in graph:
        walk(name, graph, done, [])


def walk(name, graph, done, way):
    assert name not in way, f"a circle of imports: {' > '.join([*way[way.index(name) :], name])}"
    if name not in done:
        for other in sorted(graph[name] - {name}):
            walk(other, graph, done, [*way, name])
        done.add(name)


def test_no_file_is_longer_than_can_be_read_alone():
    lengths = {p.relative_to(PACKAGE).as_posix(): len(p.read_text("utf-8").splitlines()) for p in PACKAGE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_every_file_opens_by_saying_which_idea_it_holds():
    for path in PACKAGE.rglob("*.py"):
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert docstring, f"{path.relative_to(PACKAGE)} does not say what it is for"


def test_nothing_is_unpickled_or_evaluated():
    # A file from elsewhere is data, never a program.
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        imported |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert imported & {"pickle", "marshal", "shelve", "dill", "joblib"} == set(), path
        called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
        # A captured step is a program of the package's own making, defined in one place.
        allowed = {"exec"} if path.name == "program.py" else set()
        assert called & {"eval", "exec", "__import__"} == allowed, path
