"""The equations beside the code: the code computes them, on every backend; the notation reads and prints as said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from bpxp import nn, optim
from bpxp.backends import get_backend
from bpxp.equations import Equations, parse
from bpxp.errors import BpxpError, DerivationError, EquationError, InvalidTypeError
from bpxp.latex import block, to_latex
from bpxp.nn.normalization import RunningStats
from bpxp.random import make_key
from bpxp.threefry import bernoulli
from bpxp.tree import tree_map
from bpxp.verify import check_equations
from bpxp.verify.loops import evaluate

THINGS = {
    **{f"activation {name}": activation for name, activation in nn.ACTIVATIONS.items()},
    "activation gelu, tanh": nn.GELU("tanh"),
    "activation leaky_relu 0.2": nn.LeakyReLU(0.2),
    "activation elu 0.5": nn.ELU(0.5),
    **{f"loss {name}": loss for name, loss in nn.LOSSES.items()},
    "loss softmax, smoothed": nn.SoftmaxCrossEntropy(label_smoothing=0.1),
    "loss binary, weighted and smoothed": nn.BinaryCrossEntropy(pos_weight=2.5, label_smoothing=0.2),
    "loss binary, a weight per label": nn.BinaryCrossEntropy(pos_weight=(0.5, 1.0, 4.0)),
    "loss huber 0.3": nn.Huber(0.3),
    **{f"optimizer {name}": optimizer for name, optimizer in optim.OPTIMIZERS.items()},
    "optimizer adam, no memory of g": optim.Adam(0.01, beta1=0.0),
    "optimizer adamw, strong decay": optim.AdamW(0.01, weight_decay=0.5),
    "optimizer sgd, schedule": optim.SGD(optim.ExponentialDecay(0.5, 0.5), momentum=0.5),
    "layer dense": nn.Dense(2),
}


@pytest.mark.parametrize("name", THINGS)
def test_the_code_computes_its_equations(backend, name):
    report = check_equations(THINGS[name], backend=backend.name)
    assert report.checks
    assert report.worst <= 1e-12


def test_dropout_multiplies_by_its_mask(backend):
    key = make_key(3)
    on_backend = tree_map(lambda a: a if isinstance(a, int) else backend.asarray(a), key)
    mask = bernoulli(key, (3, 4), 0.75, dtype=np.float64, xp=get_backend("numpy").xp)
    assert 0 < np.sum(mask) < mask.size
    given, context = {"m": mask, "p": 0.75}, {"key": on_backend}
    assert check_equations(nn.Dropout(0.25), given=given, context=context, backend=backend.name).worst <= 1e-15


def test_an_embedding_is_a_table(backend):
    assert check_equations(nn.Embedding(4, 2), np.array([3, 0, 3, 1, 3]), backend=backend.name).worst <= 1e-15


@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 2, 2)], ids=["vectors", "images"])
def test_normalisation(backend, shape):
    assert check_equations(nn.LayerNorm(), shape, backend=backend.name).worst <= 1e-12
    stats = RunningStats(
        *(backend.asarray(np.array(a)) for a in ([0.5, -1.0, 2.0][: shape[-1]], [1.0, 2.0, 0.5][: shape[-1]]))
    )
    context = {"training": True, "stats": stats}
    report = check_equations(nn.BatchNorm(0.3, 0.01), shape, context=context, backend=backend.name)
    assert report.worst <= 1e-12
    assert len(report.checks) == 6  # y, three gradients, two statistics


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2D(2, 2, padding=1), (2, 3, 2, 1)),
        (nn.Conv2D(2, (2, 3), stride=(2, 1), padding="same", dilation=(1, 2)), (1, 4, 5, 1)),
        (nn.Conv2D(4, 2, stride=2, groups=2), (1, 5, 4, 2)),
        (nn.MaxPool2D(2), (2, 4, 5, 2)),
        (nn.MaxPool2D((3, 2), stride=(2, 1), padding=1), (1, 4, 4, 1)),
        (nn.AvgPool2D(3, stride=2, padding=1), (1, 4, 5, 1)),
        (nn.GlobalAvgPool2D(), (2, 3, 2, 2)),
    ],
    ids=lambda a: type(a).__name__ if dataclasses.is_dataclass(a) else "x".join(map(str, a)),
)
def test_what_slides_over_images(backend, layer, shape):
    assert check_equations(layer, shape, backend=backend.name).worst <= 1e-12


def test_ties_in_a_window_go_to_the_first(backend):
    x = np.zeros((1, 3, 3, 1))
    assert check_equations(nn.MaxPool2D(2, stride=1), x, backend=backend.name).worst == 0.0


def test_a_convolution_without_bias():
    assert check_equations(nn.Conv2D(2, 2, bias=False), (1, 3, 3, 1), given={"b": 0.0}, backend="numpy").worst <= 1e-12


def test_every_public_layer_loss_and_rule_states_its_equations():
    room = [getattr(nn, name) for name in nn.__all__] + [getattr(optim, name) for name in optim.__all__]
    parts = [thing for thing in room if isinstance(thing, type) and any(
        hasattr(thing, method) for method in ("backward", "__call__", "rule")
    )]  # fmt: skip
    composed = {"Activation", "Layer", "Loss", "Optimizer", "Sequential", "Residual"}
    composed |= {"Flatten", "Reshape"}  # every number stays what it is
    computing = {t.__name__ for t in parts if hasattr(t, "backward") or hasattr(t, "activate") or hasattr(t, "rule")}
    without = {t.__name__ for t in parts if not isinstance(getattr(t, "equations", None), Equations)} & computing
    assert without <= composed


# --- what the comparison finds


@dataclasses.dataclass(frozen=True)
class WrongSigmoid(nn.Sigmoid):
    """Forgets the factor a."""

    def backward(self, params, a, da, /, *, xp):
        return da * (1.0 - a), ()


@dataclasses.dataclass(frozen=True)
class Untold(nn.Dense):
    """Says nothing of its bias's gradient."""

    equations = Equations(
        forward="z[n,j] = sum_i x[n,i]*W[i,j] + b[j]",
        dW="dW[i,j] = sum_n x[n,i]*delta[n,j]",
        dx="dx[n,i] = sum_j delta[n,j]*W[i,j]",
    )


def test_a_wrong_derivative_is_found():
    with pytest.raises(DerivationError, match=r"WrongSigmoid, dz: 'dz\[n,j\].*First at \[0, 0\], 12 of 12 entries"):
        check_equations(WrongSigmoid(), backend="numpy")


def test_a_gradient_without_an_equation_is_found():
    with pytest.raises(DerivationError, match="Untold: no equation says what db is"):
        check_equations(Untold(2), backend="numpy")


def test_a_wrong_shape_is_found():
    class Wrong(nn.Tanh):
        equations = Equations(forward="a[n] = tanh(z[n,0])", dz="dz[n,j] = da[n,j]")

    with pytest.raises(EquationError, match="index n: it has two ranges"):
        check_equations(Wrong(), backend="numpy")


def test_nan_is_wrong():
    class Nan(nn.Identity):
        def backward(self, params, cache, da, /, *, xp):
            return da * math.nan, ()

    with pytest.raises(DerivationError, match="Nan, dz"):
        check_equations(Nan(), backend="numpy")


def test_a_thing_without_equations():
    with pytest.raises(InvalidTypeError, match="no equations"):
        check_equations(object())


def test_images_and_sequences_are_rows_to_what_works_on_each_element():
    assert check_equations(nn.Sigmoid(), (2, 3, 2, 2), backend="numpy").worst <= 1e-15


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
        ("r = sum_i x[i]*[not i == 1]", 4),
        ("r = x[0]*[x[1]] + x[1]*[not x[0]]", 1),
        ("r = [k < 0]*log(k - 2)", 0),  # what a false bracket is multiplied by is not looked at
        ("r = k[5]", 2),  # a number with an index is the same for all
        ("r = max(min(5, k), 1) + floor(2.5) + abs(-k) + sign(-k) + sqrt(4)", 7),
        ("r = Phi(0) + sigma(0) + exp(0) + log(1) + tanh(0)", 2),
        ("r = phi(0)*sqrt(2*pi)", 1),
        ("r = p'[1] + 0", 7),
    ],
)
def test_the_notation_means(line, value):
    given = {"x": [1.0, 2.0, 3.0], "p": [2, 0, 1], "k": 2.0, "p'": [6, 7]}
    equations = Equations(ranges="i < 3, j < k + 1", r=line)
    assert evaluate(equations, given)["r"] == pytest.approx(value, rel=1e-15)


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
        ("a = some_name*1e-3", r"a &= \mathrm{some\_name} \, 1 \cdot 10^{-3}"),
    ],
)
def test_the_page_shows(line, latex):
    if line.endswith("1e-3"):
        latex = latex.replace(r"\, 1", r"\cdot 1")
    assert to_latex(parse(line)) == latex


@pytest.mark.parametrize("name", THINGS)
def test_everything_can_be_printed(name):
    text = block(THINGS[name].equations)
    assert text.count(r"\left") == text.count(r"\right")
    assert text.count("{") == text.count("}")
    assert text.count("&=") == len(THINGS[name].equations)


def test_declared_ranges_are_printed():
    assert block(Equations(ranges="i < kernel[0], j < 3", y="y = sum_{i,j} x[i,j]")).splitlines()[-2] == (
        r"&0 \le i < k_{0},\quad 0 \le j < 3"
    )


# --- the proofs of the output layer, in numbers


def loss_of(activate, cost, z, y):
    return cost(activate(z), y)


def differences(function, z, h=1e-5):
    """Return the derivative of a function by each entry of z, by central differences of fourth order."""
    found = []
    for i in range(z.size):
        d = np.zeros_like(z)
        d.flat[i] = h
        f1, f2 = function(z + d) - function(z - d), function(z + 2 * d) - function(z - 2 * d)
        found.append((8 * f1 - f2) / (12 * h))
    return np.stack(found, axis=-1)


Z, Y = np.array([0.3, -1.2, 2.0]), np.array([0.2, 0.5, 0.3])


def softmax(z):
    return nn.softmax(z, xp=np)


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def test_the_softmax_jacobian():
    jacobian = nn.softmax_jacobian(softmax(Z), xp=np)
    np.testing.assert_allclose(jacobian, differences(softmax, Z), rtol=1e-9, atol=1e-12)
    loops = Equations(j="D[j,k] = a[k]*([j == k] - a[j])")
    np.testing.assert_allclose(jacobian, evaluate(loops, {"a": softmax(Z)})["D"], rtol=1e-14)


def test_softmax_and_cross_entropy_cancel_to_a_minus_y():
    a = softmax(Z)
    by_chain_rule = np.sum((-Y / a)[:, None] * nn.softmax_jacobian(a, xp=np), axis=0)
    np.testing.assert_allclose(by_chain_rule, a - Y, rtol=1e-14)
    np.testing.assert_allclose(differences(lambda z: -np.sum(Y * np.log(softmax(z))), Z), a - Y, rtol=1e-9)


def test_sigmoid_and_binary_cross_entropy_cancel_to_a_minus_y():
    def cost(z):
        return -np.sum(Y * np.log(sigmoid(z)) + (1 - Y) * np.log(1 - sigmoid(z)))

    np.testing.assert_allclose(differences(cost, Z), sigmoid(Z) - Y, rtol=1e-9)


def test_the_factor_of_sigma_prime_belongs_to_the_squared_error():
    a = sigmoid(Z)
    copied = (a - Y) * a * (1 - a)
    np.testing.assert_allclose(differences(lambda z: 0.5 * np.sum((sigmoid(z) - Y) ** 2), Z), copied, rtol=1e-9)
    assert np.all(np.abs(copied) < 0.26 * np.abs(a - Y))  # what it costs the cross-entropy
