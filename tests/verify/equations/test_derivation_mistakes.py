"""A mistake in the code or in its equations is found, and named."""

from __future__ import annotations

import dataclasses
import math

import pytest

import bpxp
from bpxp import nn, optim
from bpxp.equations import Equations
from bpxp.errors import DerivationError, EquationError, InvalidTypeError
from bpxp.verify import check_equations


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


class Greedy(nn.BatchNorm):
    """Lets absent samples take part."""

    def backward(self, params, cache, dy, /, *, xp):
        mean, var, _, count = cache.batch or (None,) * 4
        return super().backward(params, cache._replace(batch=cache.batch and (mean, var, None, count)), dy, xp=xp)


class Impatient(optim.Plateau):
    """An epoch too early."""

    def observe(self, state, metric, /, *, xp):
        best, wait, rate = state
        return super().observe((best, wait + 1, rate), metric, xp=xp)


class Clipper(optim.SGD):
    """Decays before it clips."""

    def update(self, params, grads, state, /, *, xp):
        params = self._decay(params, state.learning_rate)
        return dataclasses.replace(self, weight_decay=0.0).plain(params, grads, state, xp=xp)

    def plain(self, params, grads, state, /, *, xp):
        return super().update(params, grads, state, xp=xp)


class Unlabelled(nn.BinaryCrossEntropy):
    """Takes a missing label for a negative one."""

    def __call__(self, logits, y, weight=None, /, *, xp):
        return super().__call__(logits, xp.where(y == y, y, 0.0), weight, xp=xp)


class Sideways(nn.Flatten):
    """Column by column."""

    def forward(self, params, x, /, *, xp):
        _, like = super().forward(params, x, xp=xp)
        return super().forward(params, xp.permute_dims(x, (0, 2, 1, 3)), xp=xp)[0], like


@pytest.mark.parametrize(
    ("thing", "says"),
    [
        (Greedy(), "Greedy, dx"),
        (Impatient(0.1, patience=3), r"Impatient, wait"),
        (Clipper(0.1, momentum=0.5, weight_decay=0.5, l2=3.0), "Clipper, velocity"),
        (Unlabelled(), "Unlabelled, J"),
        (Sideways(), "Sideways, forward"),
        (dataclasses.make_dataclass("Late", [], bases=(optim.StepDecay,), frozen=True, namespace={
            "at": lambda self, t, state, /, *, xp: super(type(self), self).at(t + 1.0, state, xp=xp)
        })(0.1, 5), "Late, rate"),
    ],
    ids=lambda a: type(a).__name__ if dataclasses.is_dataclass(a) else "",
)  # fmt: skip
def test_mistakes_in_the_small_print_are_found(thing, says):
    with pytest.raises(DerivationError, match=says):
        check_equations(thing, backend="numpy")


def test_a_slot_without_an_equation_is_found():
    class Mute(optim.RMSprop):
        equations = Equations(step="p' = p - learning_rate*g")

    with pytest.raises(DerivationError, match="no equation says what each of 1 slots is"):
        check_equations(Mute(), backend="numpy")


def test_a_wrong_layer_deep_in_a_network_is_found():
    layers = [4, nn.Residual(nn.Dense(4, WrongSigmoid())), 3]
    with pytest.raises(DerivationError, match="WrongSigmoid, dz"):
        check_equations(bpxp.Network(layers, backend="numpy"))
