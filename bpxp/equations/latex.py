"""Equations as LaTeX: the same lines that the tests run, typeset."""

from __future__ import annotations

import re

from bpxp.equations.equations import Equations
from bpxp.equations.notation import (
    Binary,
    Bracket,
    Call,
    Comparison,
    Count,
    Equation,
    Negative,
    Node,
    Not,
    Number,
    Reduction,
    Reference,
)

# Symbols of the words in the code; Greek letters are found by their names.
SYMBOLS = {
    "learning_rate": r"\eta",
    "momentum": r"\mu",
    "average": r"\beta",
    "floor": r"\eta_{\min}",
    "present": "p",
    "weight_decay": r"\lambda",
    "label_smoothing": r"\varepsilon",
    "epsilon": r"\epsilon",
    "threshold": r"\tau",
    "slope": "s",
    "scale": r"\lambda",
    "pos_weight": "p",
    "stride": "s",
    "dilation": "d",
    "kernel": "k",
    "kernel_size": "k",
    "before": "P",
    "pool": "k",
    "variance": "v",
    "Phi": r"\Phi",
    "phi": r"\varphi",
    "pi": r"\pi",
}
GREEK = {"alpha", "beta", "gamma", "delta", "eps", "eta", "lambda", "mu", "sigma", "tau", "theta"}
# ∂J/∂ of these; any other name with a d in front is a name.
DERIVATIVE = re.compile(r"d([xyzab]|W\w*|[xz]hat|gamma|beta)$")
SUM, PRODUCT, POWER, ATOM = range(4)  # binding strength
COMMA, UNDERSCORE = r",\,", r"\_"
COMPARISON = {"<=": r"\le", ">=": r"\ge", "==": "=", "!=": r"\ne", "<": "<", ">": ">"}


def to_latex(equation: Equation, /) -> str:
    r"""Return an equation as LaTeX.

    Parameters
    ----------
    equation : Equation

    Returns
    -------
    str
        For mathematics mode, with ``&`` before the equals sign, as the environment ``aligned`` wants it.

    Examples
    --------
    >>> from bpxp.equations import parse
    >>> print(to_latex(parse("dW[i,j] = sum_n x[n,i]*delta[n,j]")))
    \frac{\partial J}{\partial W_{ij}} &= \sum_{n} x_{ni} \, \delta_{nj}
    """
    return f"{_render(equation.target, SUM)} &= {_render(equation.value, SUM)}"


def block(equations: Equations, /) -> str:
    """Return all equations of a thing under each other, and after them the ranges of indices that need one."""
    lines = [to_latex(equation) for equation in equations.values()]
    if equations.ranges:
        each = [rf"0 \le {index} < {_render(size, SUM)}" for index, size in equations.ranges.items()]
        lines.append("&" + r",\quad ".join(each))
    return "\\begin{aligned}\n" + " \\\\[4pt]\n".join(lines) + "\n\\end{aligned}"


def _render(node: Node, level: int) -> str:
    """Return a node, in parentheses if it binds less tightly than its place requires."""
    text, own = _node(node)
    return text if own >= level else rf"\left({text}\right)"


def _node(node: Node) -> tuple[str, int]:
    match node:
        case Number(text):
            mantissa, _, exponent = text.partition("e")
            return (rf"{mantissa} \cdot 10^{{{int(exponent)}}}", PRODUCT) if exponent else (mantissa, ATOM)
        case Reference(name, indices):
            return _reference(name, indices), ATOM
        case Negative(of):
            return "-" + _sum_or(of, PRODUCT), SUM
        case Binary():
            return _binary(node)
        case Call(function, arguments):
            return _call(function, arguments)
        case Reduction(kind, indices, body):
            sign = {"sum": r"\sum", "max": r"\max", "min": r"\min"}.get(kind, rf"\operatorname*{{{kind}}}")
            # A sum includes what follows it.
            return rf"{sign}_{{{','.join(indices)}}} {_render(body, PRODUCT)}", SUM
        case Count(index):
            return index.upper(), ATOM
        case Bracket(conditions):
            inner = r",\; ".join(_render(condition, SUM) for condition in conditions)
            return rf"\left[{inner}\right]", ATOM
        case Not(of):
            return r"\text{not } " + _render(of, ATOM), ATOM
        case Comparison(operators, operands):
            first, *rest = (_render(operand, SUM) for operand in operands)
            pairs = zip(operators, rest, strict=True)
            return first + "".join(f" {COMPARISON[operator]} {operand}" for operator, operand in pairs), SUM


def _binary(node: Binary) -> tuple[str, int]:
    left, right = node.left, node.right
    match node.operator:
        case "+" | "-":
            # Σ on the left ends with its own product; on the right of a minus a sum needs parentheses.
            first = _sum_or(left, SUM)
            second = _sum_or(right, PRODUCT if node.operator == "-" or isinstance(right, Negative) else SUM)
            return f"{first} {node.operator} {second}", SUM
        case "*":
            second = _sum_or(right, PRODUCT)
            apart = second[0].isdigit() or second[0] == "-" or second.startswith(r"\mathrm")
            joined = r" \cdot " if apart else r" \, "
            return _closed(left) + joined + second, PRODUCT
        case "/":
            return rf"\frac{{{_render(left, SUM)}}}{{{_render(right, SUM)}}}", PRODUCT
        case _:
            return f"{_render(left, ATOM)}^{{{_render(right, SUM)}}}", POWER


def _sum_or(node: Node, level: int) -> str:
    """Return a node where a Σ needs no parentheses, since nothing follows that it would include."""
    return _node(node)[0] if isinstance(node, Reduction) else _render(node, level)


def _closed(left: Node) -> str:
    """Return the left side of a product, with a Σ at its end in parentheses: what follows is not under it."""
    if isinstance(left, Binary) and left.operator == "*" and isinstance(left.right, Reduction):
        return rf"{_closed(left.left)} \, {_render(left.right, ATOM)}"
    return _render(left, PRODUCT)


def _call(function: str, arguments: tuple[Node, ...]) -> tuple[str, int]:
    inner = ", ".join(_render(argument, SUM) for argument in arguments)
    match function:
        case "exp":
            # A tall or long exponent is not raised.
            tall = any(sign in inner for sign in (r"\frac", r"\sum", r"\max", r"\left"))
            return (rf"\exp\left({inner}\right)", ATOM) if tall else (f"e^{{{inner}}}", POWER)
        case "sqrt":
            return rf"\sqrt{{{inner}}}", ATOM
        case "abs":
            return rf"\left|{inner}\right|", ATOM
        case "floor":
            return rf"\left\lfloor {inner} \right\rfloor", ATOM
    name = {"sigma": r"\sigma", "sign": r"\operatorname{sign}"}.get(function) or SYMBOLS.get(function, rf"\{function}")
    if function == "log" and isinstance(arguments[0], Reference):
        return rf"\log {inner}", PRODUCT
    return rf"{name}\left({inner}\right)", ATOM


def _reference(name: str, indices: tuple[Node, ...]) -> str:
    prime = "'" if name.endswith("'") else ""
    derived = DERIVATIVE.match(name)
    if derived:
        return rf"\frac{{\partial J}}{{\partial {_reference(derived[1], indices)}}}"
    symbol = _symbol(name.rstrip("'")) + prime
    if not indices:
        return symbol
    if "_{" in symbol:
        symbol = f"{{{symbol}}}"  # a second subscript belongs to the whole
    parts = [_render(index, SUM) for index in indices]
    short = all(isinstance(i, Reference) and len(i.name) == 1 and not i.indices for i in indices)
    return f"{symbol}_{{{''.join(parts) if short else COMMA.join(parts)}}}"


def _symbol(name: str) -> str:
    if name in SYMBOLS:
        return SYMBOLS[name]
    if len(name) > 3 and name[-3:] in ("hat", "bar"):
        return rf"\{name[-3:]}{{{_symbol(name[:-3])}}}"
    stem, digits = re.fullmatch(r"(.*?)(\d*)", name).groups()  # type: ignore[union-attr]
    word = rf"\mathrm{{{stem}}}".replace("_", UNDERSCORE)
    letter = rf"\{stem}" if stem in GREEK else stem if len(stem) == 1 else word
    return f"{letter}_{{{digits}}}" if digits else letter
