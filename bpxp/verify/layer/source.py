"""The rules that let one source run everywhere, read off the source itself: nothing is run."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any

from bpxp.backends.base import CONSTANTS, CREATION, DTYPES, FUNCTIONS

STANDARD = {*CREATION, *FUNCTIONS, *CONSTANTS, *DTYPES}
# In the standard, but not for a step: they synchronise with the device, or their shape depends on the data.
FORBIDDEN = {"clip", "sign", "nonzero", "unique_all", "unique_counts", "unique_inverse", "unique_values", "from_dlpack"}
TWO_ARRAYS = {"maximum", "minimum", "logaddexp", "atan2", "hypot"}
HOST = {"float", "int", "bool", "complex"}
WAITING = {"item", "tolist", "numpy", "cpu", "get", "to_device"}


def names(node: ast.AST) -> set[str]:
    """Return every name and attribute in an expression."""
    found = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found | {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}


def is_number(node: ast.AST) -> bool:
    """Return whether an expression is a literal number."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, (int, float))


def device_functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Yield the functions that compute with arrays: those with an argument or a variable `xp`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            given = {a.arg for a in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]}
            stored = {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
            if "xp" in given | stored:
                yield node


def broken_rules(tree: ast.AST) -> list[str]:
    """Return what breaks a rule, with its line."""
    nodes = [node for function in device_functions(tree) for node in ast.walk(function)]
    return [f"line {getattr(node, 'lineno', 0)}: {what}" for node in nodes for what in judge(node)]


def judge(node: ast.AST) -> Iterator[str]:
    """Yield what an expression breaks."""
    if isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.MatMult):
        yield "the operator @: use xp.matmul, which a backend can amend"
    if isinstance(node, ast.Attribute):
        if node.attr in ("T", "mT"):
            yield f".{node.attr}: use xp.matrix_transpose or xp.permute_dims"
        if isinstance(node.value, ast.Name) and node.value.id == "xp":
            if node.attr not in STANDARD:
                yield f"xp.{node.attr} is not in the standard"
            if node.attr in FORBIDDEN:
                yield f"xp.{node.attr} waits for the device, or its shape depends on the data"
        if isinstance(node.value, ast.Name) and node.value.id == "np":
            yield f"np.{node.attr} among the device's functions"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, (ast.Compare, ast.BoolOp)):
        yield "a mask as an index: the shape would depend on the data; multiply by xp.astype(mask, dtype)"
    if isinstance(node, ast.Call):
        yield from judge_call(node)


def judge_call(call: ast.Call) -> Iterator[str]:
    """Yield what a call breaks."""
    keywords = {keyword.arg for keyword in call.keywords}
    if "out" in keywords:
        yield "out=: not in the standard"
    # The size of an array and the limits of a dtype are known without the array's values.
    static = names(call) & {"shape", "ndim", "finfo", "iinfo"}
    if isinstance(call.func, ast.Name) and call.func.id in HOST and not static:
        yield f"{call.func.id}(): the host would wait for the device"
    if not isinstance(call.func, ast.Attribute):
        return
    if call.func.attr in WAITING and not call.args:
        yield f".{call.func.attr}(): the host would wait for the device"
    if not (isinstance(call.func.value, ast.Name) and call.func.value.id == "xp"):
        return
    function = call.func.attr
    if function in TWO_ARRAYS and any(is_number(a) for a in call.args):
        yield f"a number in xp.{function}: use an array"
    if function == "where" and len(call.args) == 3 and is_number(call.args[1]) and is_number(call.args[2]):
        yield "two numbers in xp.where: the dtype is not said"
    if function in CREATION:
        if "device" in keywords:
            yield f"device= in xp.{function}: the backend's functions know theirs"
        if "dtype" not in keywords and "copy" not in keywords:
            yield f"xp.{function} without dtype="


def broken_by(layer: Any) -> list[str] | None:
    """Return what the methods of a layer's class break, each with its file and line; None where there is no source."""
    found: list[str] = []
    seen = False
    for _, function in inspect.getmembers(type(layer), inspect.isfunction):
        try:
            lines, first = inspect.getsourcelines(function)
        except (OSError, TypeError):
            continue
        try:
            tree = ast.parse(textwrap.dedent("".join(lines)))
        except SyntaxError:  # a lambda, or a piece of a longer statement
            continue
        seen = True
        ast.increment_lineno(tree, first - 1)
        found += [f"{function.__qualname__}, {what}" for what in broken_rules(tree)]
    return found if seen else None
