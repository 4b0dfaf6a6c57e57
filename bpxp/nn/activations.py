"""Activations: functions of each element, each beside its derivative.

An activation is a layer without parameters. Its cache is whatever the derivative is cheapest to write in: the output
a where that is enough, otherwise the input z. The derivative's formula stands in each docstring; J is the loss and
da = ∂J/∂a, dz = ∂J/∂z.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bpxp.errors import InvalidTypeError, InvalidValueError, message, suggestion
from bpxp.nn.layer import Array, Cache, Namespace, Shape
from bpxp.random import HostRandom


class Activation:
    """Base of the activations: no parameters, the shape stays."""

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        return (), in_shape

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Cache]:
        raise NotImplementedError

    def backward(self, params: tuple[()], cache: Cache, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        raise NotImplementedError


@dataclass(frozen=True)
class Identity(Activation):
    """a = z, dz = da."""

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, None]:
        return xp.asarray(z, copy=True), None

    def backward(self, params: tuple[()], cache: None, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        return xp.asarray(da, copy=True), ()


@dataclass(frozen=True)
class Sigmoid(Activation):
    """a = σ(z) = 1/(1 + e^(-z)), dz = da a (1 - a).

    Notes
    -----
    Computed as (tanh(z/2) + 1)/2: one exact identity, no overflow, no branch. Its absolute error is a rounding; its
    relative error in the tail is not, so what a user reads out as a probability is computed by the loss instead.
    """

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = xp.tanh(z * 0.5)
        a *= 0.5
        a += 0.5
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        dz = 1.0 - a
        dz *= a
        dz *= da
        return dz, ()


@dataclass(frozen=True)
class ReLU(Activation):
    """a = max(z, 0), dz = da [z > 0]; the derivative at 0 is 0, as in PyTorch."""

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        a = z * xp.astype(z > 0.0, z.dtype)
        return a, a

    def backward(self, params: tuple[()], a: Array, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        return da * xp.astype(a > 0.0, a.dtype), ()


ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "relu": ReLU(),
}


def get_activation(activation: Any) -> Activation:
    """Return an activation by its name, or the given object.

    Raises
    ------
    InvalidValueError
        Unknown name; the message lists the known ones.
    InvalidTypeError
        Neither a name nor an `Activation`.
    """
    if isinstance(activation, Activation):
        return activation
    if not isinstance(activation, str):
        raise InvalidTypeError(
            message(
                "activation",
                "neither a name nor an Activation",
                got=f"{type(activation).__name__} {activation!r}",
                fix="activation='relu'",
            )
        )
    if activation not in ACTIVATIONS:
        raise InvalidValueError(
            message(
                "activation",
                "unknown name",
                got=repr(activation),
                expected=f"one of {', '.join(ACTIVATIONS)}",
            )
            + suggestion(activation, ACTIVATIONS)
        )
    return ACTIVATIONS[activation]
