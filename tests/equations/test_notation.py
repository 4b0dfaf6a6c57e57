"""The notation of the equations: what a line means, what is no line, and how a line is printed."""

from __future__ import annotations

import numpy as np
import pytest

from bpxp.equations import Equations
from bpxp.equations.latex import block, to_latex
from bpxp.equations.loops import evaluate
from bpxp.equations.notation import parse
from bpxp.errors import BpxpError, EquationError
from bpxp.verify.equations.catalogue import catalogue

THINGS = catalogue()

# --- the notation, evaluated


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("r = 7 - 2 - 1", 4),
        ("r = 2/4*8", 4),
        ("r = -2^2", -4),
        ("r = 2^3^2", 512),
        ("r = 2^-1", 0.5),
        ("r = 1.5e-3*2", 0.003),
        ("r = 2*-3", -6),
        ("r = sum_i x[i]*2 + 1", 13),  # the sum ends where the product ends
        ("r = sum_i (x[i] + 1)", 9),
        ("r = (sum_i x[i])*x[0]", 6),
        ("r = sum_i sum_j x[i]*x[j]", 36),
        ("r = sum_{i,j} x[i]*x[j]", 36),
        ("r = mean_i x[i]", 2),
        ("r = max_i -x[i]", -1),
        ("r = min_i x[i]^2", 1),
        ("r = argmax_i x[i]*[x[i] < 3]", 1),
        ("r = argmax_i [x[i] > 1]", 1),  # the first of equals
        ("r = argmax_{i,j} (x[i] - 2*x[j])", 6),  # row by row: i = 2, j = 0
        ("r = count_i + count_j", 6),
        ("r = sum_i x[i-1]", 3),  # nothing outside
        ("r = max_i -x[i+1]", -2),  # and outside never wins
        ("r = sum_i x[2*i]", 4),
        ("r = sum_i x[p[i]]", 6),
        ("r = sum_i x[i]*[0 < i < 2]", 2),
        ("r = sum_i x[i]*[i > 0 and i != 2]", 2),
        ("r = sum_i [i > 0]*(x[i]/i)", 3.5),  # nor in a sum
        ("r = sum_{i,j} x[i]*[i == j and j > 1]*[i < 3]", 3),
        ("r = sum_{i,j} x[j]*[sum_i x[i] == 6]*[i == 0]", 6),  # the inner i is another
        ("r = mean_i x[i]*[i > 0]", 5 / 3),  # a mean counts all
        ("r = sum_i x[i]*[not i == 1]", 4),
        ("r = x[0]*[x[1]] + x[1]*[not x[0]]", 1),
        ("r = [k < 0]*log(k - 2)", 0),  # what a false bracket is multiplied by is not looked at
        ("r = k[5]", 2),  # a number with an index is the same for all
        ("r = max(min(5, k), 1) + floor(2.5) + abs(-k) + sign(-k) + sqrt(4)", 7),
        ("r = cos(0) + cos(pi)", 0),
        ("r = Phi(0) + sigma(0) + exp(0) + log(1) + tanh(0)", 2),
        ("r = phi(0)*sqrt(2*pi)", 1),
        ("r = p'[1] + 0", 7),
    ],
)
def test_the_notation_means(line, value):
    given = {"x": [1.0, 2.0, 3.0], "p": [2, 0, 1], "k": 2.0, "p'": [6, 7]}
    equations = Equations(ranges="i < 3, j < k + 1", r=line)
    assert evaluate(equations, given)["r"] == pytest.approx(value, rel=1e-15, abs=1e-15)


def test_later_lines_use_earlier_ones_and_sums_may_reuse_a_letter():
    lines = Equations(a="a[i] = x[i]^2", b="b[i,j] = a[i]/(sum_i a[i]) + y[j]")
    b = evaluate(lines, {"x": [1.0, 2.0], "y": [0.0, 1.0, 2.0]})["b"]
    np.testing.assert_allclose(b, [[0.2, 1.2, 2.2], [0.8, 1.8, 2.8]], rtol=1e-15)


def test_a_convolution_in_one_line():
    line = Equations(z="z[p] = sum_i x[2*p + i - 1]*w[i]")
    z = evaluate(line, {"x": [1.0, 2.0, 3.0, 4.0], "w": [1.0, 10.0, 100.0]}, shapes={"z": (2,)})["z"]
    np.testing.assert_array_equal(z, [210.0, 432.0])


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("z[n,j = 3", r"got '=' after 'z\[n,j', expected '\]'"),
        ("z = 3 +", "got the end after 'z = 3 \\+', expected a number"),
        ("z = 3 4", "got '4' after 'z = 3', expected an operator or the end"),
        ("= 3", "got '=' at the start, expected the name of what is computed"),
        ("z[n+1] = 2", "the indices of z, which is computed, must be single letters"),
        ("z = sum_{i x[i]", "got 'x' after 'z = sum_{i', expected '}'"),
        ("z = sum_{ab} x[a]", "an index is a single letter, not 'ab'"),
        ("z = foo(3)", r"unknown function 'foo': .*expected one of exp, log"),
        ("z = max(3)", r"max takes 2 argument\(s\), not 1"),
        ("z = a $ b", r"unknown character '\$'"),
        ("z = a @ b", "unknown character '@'"),
        ("z = __import__('os')", "unknown character"),
        ("z = a if b else c", "got 'if' after 'z = a'"),
        ("z = a.b", r"unknown character '\.'"),
        ("z = [a < b", "expected ']'"),
    ],
)
def test_what_is_not_in_the_notation(line, says):
    with pytest.raises(EquationError, match=says):
        parse(line)


@pytest.mark.parametrize(
    ("lines", "given", "says"),
    [
        ({"r": "r = y"}, {}, r"y: no value"),
        ({"r": "r[n] = 1"}, {}, "index n: nothing says how far it runs"),
        ({"r": "r = sum_i x[i]*y[i]"}, {"x": [1, 2], "y": [1, 2, 3]}, "it has two ranges: got 3 by axis 0 of y, expected 2 by"),
        ({"r": "r = x[0]"}, {"x": [[1.0]]}, "another number of axes"),
        ({"r": "r = x[0.5]"}, {"x": [1.0]}, "not an integer: got 0.5"),
        ({"r": "r = log(x)"}, {"x": -1.0}, r"r: 'r = log\(x\)': it has no value here"),
        ({"r": "r = 1/x"}, {"x": 0.0}, "it has no value here"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated(lines, given, says):
    with pytest.raises(EquationError, match=says):
        evaluate(Equations(**lines), given)


@pytest.mark.parametrize("ranges", ["i", "ij < 3", "i < 3 4"])
def test_ranges_are_checked(ranges):
    with pytest.raises(EquationError):
        Equations(ranges=ranges).ranges  # noqa: B018


def test_an_error_names_the_class_and_the_line():
    class Mine:
        equations = Equations(forward="y[n] = = x[n]")

    with pytest.raises(BpxpError, match=r"Mine\.equations, forward: 'y\[n\] = = x\[n\]'"):
        Mine.equations["forward"]


def test_equations_are_a_mapping_in_order():
    lines = Equations(b="b = 1", a="a  =  b + 1")
    assert list(lines) == ["b", "a"]
    assert lines["a"].text == "a = b + 1"
    assert repr(lines) == "Equations(b='b = 1', a='a = b + 1')"
    assert str(lines) == "b = 1\na = b + 1"


# --- printed


@pytest.mark.parametrize(
    ("line", "latex"),
    [
        ("z[n,j] = sum_i x[n,i]*W[i,j] + b[j]", r"z_{nj} &= \sum_{i} x_{ni} \, W_{ij} + b_{j}"),
        (
            "dW[i,j] = sum_n x[n,i]*delta[n,j]",
            r"\frac{\partial J}{\partial W_{ij}} &= \sum_{n} x_{ni} \, \delta_{nj}",
        ),
        ("a[n] = 1/(1 + exp(-z[n]))", r"a_{n} &= \frac{1}{1 + e^{-z_{n}}}"),
        ("m' = beta1*m + (1 - beta1)*g", r"m' &= \beta_{1} \, m + \left(1 - \beta_{1}\right) \, g"),
        (
            "p' = p - learning_rate*mhat/(sqrt(vhat) + epsilon)",
            r"p' &= p - \frac{\eta \, \hat{m}}{\sqrt{\hat{v}} + \epsilon}",
        ),
        ("a = b - (c - d)", r"a &= b - \left(c - d\right)"),
        ("a = (b + c)^2*d", r"a &= \left(b + c\right)^{2} \, d"),
        ("a = b*(sum_i x[i])*c", r"a &= b \, \left(\sum_{i} x_{i}\right) \, c"),
        ("a = b*sum_i x[i]*c", r"a &= b \, \sum_{i} x_{i} \, c"),
        ("a = -sum_i x[i]", r"a &= -\sum_{i} x_{i}"),
        ("a = exp(b)^2", r"a &= \left(e^{b}\right)^{2}"),
        ("a = exp(b/c)", r"a &= \exp\left(\frac{b}{c}\right)"),
        ("a = 2*3", r"a &= 2 \cdot 3"),
        ("a = log(b + 1) + log(c)", r"a &= \log\left(b + 1\right) + \log c"),
        ("a = x[s*p + i - 1, c]", r"a &= x_{s \, p + i - 1,\,c}"),
        ("a = b*[0 < c <= 1 and d]", r"a &= b \, \left[0 < c \le 1,\; d\right]"),
        ("a[k] = 1/count_k", r"a_{k} &= \frac{1}{K}"),
        ("a = mean_i x[i]", r"a &= \operatorname*{mean}_{i} x_{i}"),
        ("p1[i] = pbar'[i] + cos(pi*t)", r"{p_{1}}_{i} &= \bar{p}'_{i} + \cos\left(\pi \, t\right)"),
        ("a = rise*steps - b*c", r"a &= \mathrm{rise} \cdot \mathrm{steps} - b \, c"),
        ("a = some_name*1e-3", r"a &= \mathrm{some\_name} \, 1 \cdot 10^{-3}"),
    ],
)
def test_the_page_shows(line, latex):
    if line.endswith("1e-3"):
        latex = latex.replace(r"\, 1", r"\cdot 1")
    assert to_latex(parse(line)) == latex


@pytest.mark.parametrize("name", THINGS)
def test_everything_can_be_printed(name):
    for attribute in ("equations", "evaluation", "before", "after"):
        equations = getattr(THINGS[name], attribute, Equations())
        text = block(equations)
        assert text.count(r"\left") == text.count(r"\right")
        assert text.count("{") == text.count("}")
        assert text.count("&=") == len(equations)


def test_declared_ranges_are_printed():
    assert block(Equations(ranges="i < kernel[0], j < 3", y="y = sum_{i,j} x[i,j]")).splitlines()[-2] == (
        r"&0 \le i < k_{0},\quad 0 \le j < 3"
    )
