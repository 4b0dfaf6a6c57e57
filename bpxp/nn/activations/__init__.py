"""Activations: functions of each element, each beside its derivative, and found by name.

An activation is a layer without parameters. Its cache is whatever the derivative is cheapest to write in: the output
a where that is enough, otherwise the input z. The derivative's formula stands in each docstring; J is the loss and
da = ∂J/∂a, dz = ∂J/∂z.
"""

from __future__ import annotations

from typing import Any

from bpxp.core.checks import resolve
from bpxp.errors import InvalidValueError
from bpxp.nn.activations.activation import Activation, Identity
from bpxp.nn.activations.gated import GELU, Mish, SiLU
from bpxp.nn.activations.rectifying import ELU, SELU, LeakyReLU, ReLU, Softplus
from bpxp.nn.activations.saturating import HardSigmoid, Sigmoid, Softsign, Tanh

__all__ = [
    "ACTIVATIONS",
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "HardSigmoid",
    "Identity",
    "LeakyReLU",
    "Mish",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "get_activation",
]

ACTIVATIONS: dict[str, Activation] = {
    "identity": Identity(),
    "sigmoid": Sigmoid(),
    "tanh": Tanh(),
    "relu": ReLU(),
    "leaky_relu": LeakyReLU(),
    "elu": ELU(),
    "selu": SELU(),
    "gelu": GELU(),
    "silu": SiLU(),
    "softplus": Softplus(),
    "softsign": Softsign(),
    "hard_sigmoid": HardSigmoid(),
    "mish": Mish(),
}


def get_activation(activation: Any, where: str = "activation") -> Activation:
    """Return an activation by its name, or the given object.

    Raises
    ------
    InvalidValueError
        Unknown name; the message lists the known ones. Also for ``"softmax"``, which belongs to the loss.
    InvalidTypeError
        Neither a name nor an `Activation`.
    """
    if isinstance(activation, str) and activation.lower() in ("softmax", "log_softmax"):
        what = "a softmax layer before the loss would apply softmax twice: losses take logits"
        got = repr(activation)
        fix = "leave it out; predict_proba(x), or nn.softmax(logits, xp=xp), reads the logits out"
        raise InvalidValueError(where, what, code="E013", got=got, expected="none on the last layer", fix=fix)
    return resolve(activation, Activation, ACTIVATIONS, where, fix=f"{where}='relu'")
