"""Initialisers: how weights are drawn before the first step.

They draw on the host, in float64, from (seed, place) alone, so that a network starts from the same bits on every
backend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.errors import InvalidTypeError, InvalidValueError, message, suggestion
from bpxp.nn.layer import Shape
from bpxp.random import HostRandom


class Initializer:
    """Base of the initialisers."""

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        """Return float64 weights of the given shape for units with `fan_in` inputs and `fan_out` outputs."""
        raise NotImplementedError

    def bias(self, rng: HostRandom, shape: Shape, /) -> np.ndarray:
        """Return float64 biases: zeros, unless the initialiser says otherwise."""
        return np.zeros(shape)


@dataclass(frozen=True)
class Normal(Initializer):
    """Weights and biases from N(0, std²); std = 1 is how the textbook starts, and why it starts slowly.

    With n_in inputs of size 1, z has the variance n_in: sigmoids saturate, and their derivative is nearly 0.
    """

    std: float = 1.0

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return self.std * rng.normal(shape)

    def bias(self, rng: HostRandom, shape: Shape, /) -> np.ndarray:
        return self.std * rng.normal(shape)


@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """Uniform in ±√(6/(fan_in + fan_out)), "Xavier": variances of a and of delta stay about equal through layers.

    References
    ----------
    X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010,
    equation 16.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        limit = math.sqrt(6.0 / (fan_in + fan_out))
        return rng.uniform(shape, -limit, limit)


INITIALIZERS: dict[str, Initializer] = {
    "normal": Normal(),
    "glorot_uniform": GlorotUniform(),
}


def get_initializer(initializer: Any) -> Initializer:
    """Return an initialiser by its name, or the given object; errors as in `get_activation`."""
    if isinstance(initializer, Initializer):
        return initializer
    if not isinstance(initializer, str):
        raise InvalidTypeError(
            message(
                "init",
                "neither a name nor an Initializer",
                got=f"{type(initializer).__name__} {initializer!r}",
                fix="init='he'",
            )
        )
    if initializer not in INITIALIZERS:
        raise InvalidValueError(
            message(
                "init",
                "unknown name",
                got=repr(initializer),
                expected=f"one of {', '.join(INITIALIZERS)}",
            )
            + suggestion(initializer, INITIALIZERS)
        )
    return INITIALIZERS[initializer]
