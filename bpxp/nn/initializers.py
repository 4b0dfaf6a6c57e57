"""Initialisers: how weights are drawn before the first step.

They draw on the host, in float64, from (seed, place) alone, so that a network starts from the same bits on every
backend. Uniform weights are exact arithmetic and so the same on every machine too; a normal one may differ in its last
bit where the C library's logarithm or cosine does.

`fan_in` and `fan_out` are the number of inputs that one output sees, and of outputs that one input reaches: n_in and
n_out of a dense layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.core.checks import resolve, set_numbers
from bpxp.core.random import HostRandom
from bpxp.core.typing import Shape


class Initializer:
    """Base of the initialisers."""

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        """Return float64 weights of the given shape for units with `fan_in` inputs and `fan_out` outputs."""
        raise NotImplementedError

    def bias(self, rng: HostRandom, shape: Shape, /) -> np.ndarray:
        """Return float64 biases: zeros, unless the initialiser says otherwise."""
        return rng.zeros(shape)


@dataclass(frozen=True)
class Zeros(Initializer):
    """Weights and biases are 0. Fit for a single layer; in two, all hidden units would stay equal for ever."""

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return rng.zeros(shape)


@dataclass(frozen=True)
class Normal(Initializer):
    """Weights and biases from N(0, std²); std = 1 is how the textbook starts, and why it starts slowly.

    With n_in inputs of size 1, z has the variance n_in: sigmoids saturate, and their derivative is nearly 0.

    Parameters
    ----------
    std : float, optional
        Standard deviation, > 0.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning*, chapter 1.
    """

    std: float = 1.0

    def __post_init__(self) -> None:
        set_numbers(self, "std", low=0.0, low_open=True)

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return self.std * rng.normal(shape)

    def bias(self, rng: HostRandom, shape: Shape, /) -> np.ndarray:
        return self.std * rng.normal(shape)


@dataclass(frozen=True)
class ScaledNormal(Initializer):
    """Weights from N(0, 1/fan_in), biases from N(0, 1): the textbook's remedy against saturation.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning*, chapter 3, "Weight initialization".
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return rng.normal(shape) / math.sqrt(fan_in)

    def bias(self, rng: HostRandom, shape: Shape, /) -> np.ndarray:
        return rng.normal(shape)


@dataclass(frozen=True)
class GlorotUniform(Initializer):
    """Uniform in ±√(6/(fan_in + fan_out)), "Xavier": variances of a and of delta stay about equal through layers.

    References
    ----------
    X. Glorot, Y. Bengio, *Understanding the difficulty of training deep feedforward neural networks*, AISTATS 2010,
    equation 16.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return _uniform(rng, shape, 2.0 / (fan_in + fan_out))


@dataclass(frozen=True)
class GlorotNormal(Initializer):
    """N(0, 2/(fan_in + fan_out)): `GlorotUniform`'s variance; not truncated, as in PyTorch and unlike Keras.

    References
    ----------
    X. Glorot, Y. Bengio, AISTATS 2010, equation 12.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return rng.normal(shape) * math.sqrt(2.0 / (fan_in + fan_out))


@dataclass(frozen=True)
class LecunUniform(Initializer):
    """Uniform in ±√(3/fan_in): z has the variance of x.

    References
    ----------
    Y. LeCun et al., *Efficient BackProp*, 1998, section 4.6.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return _uniform(rng, shape, 1.0 / fan_in)


@dataclass(frozen=True)
class LecunNormal(Initializer):
    """N(0, 1/fan_in): z has the variance of x. What `SELU` needs.

    References
    ----------
    Y. LeCun et al., *Efficient BackProp*, 1998, section 4.6.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return rng.normal(shape) / math.sqrt(fan_in)


@dataclass(frozen=True)
class HeUniform(Initializer):
    """Uniform in ±√(6/fan_in): `HeNormal`'s variance.

    References
    ----------
    K. He et al., *Delving deep into rectifiers*, ICCV 2015, equation 10.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return _uniform(rng, shape, 2.0 / fan_in)


@dataclass(frozen=True)
class HeNormal(Initializer):
    """N(0, 2/fan_in), "Kaiming": a ReLU halves the mean square of z, the factor 2 restores it.

    Not truncated, as in PyTorch and unlike Keras.

    References
    ----------
    K. He et al., *Delving deep into rectifiers*, ICCV 2015, equation 10.
    """

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        return rng.normal(shape) * math.sqrt(2.0 / fan_in)


@dataclass(frozen=True)
class Orthogonal(Initializer):
    """Orthonormal columns (or rows, if there are more columns), times a gain: W keeps the length of x, or of delta.

    Weights of more than two dimensions, (…, n_out), are drawn as a matrix with n_out columns.

    Parameters
    ----------
    gain : float, optional
        Length of the columns, > 0; √2 goes with ReLU.

    Notes
    -----
    Q of the QR decomposition of a normal matrix, its columns signed so that the diagonal of R is positive: without that
    Q would not be uniformly distributed, and its signs would be LAPACK's. LAPACK rounds as it likes, so these weights
    agree between machines to rounding only.

    References
    ----------
    A. Saxe, J. McClelland, S. Ganguli, *Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks*, ICLR 2014. F. Mezzadri, *How to generate random matrices from the classical compact groups*, 2007.
    """

    gain: float = 1.0

    def __post_init__(self) -> None:
        set_numbers(self, "gain", low=0.0, low_open=True)

    def draw(self, rng: HostRandom, shape: Shape, /, *, fan_in: int, fan_out: int) -> np.ndarray:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = rng.normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(normal)
        q = q * np.where(np.diagonal(r) < 0.0, -1.0, 1.0)
        return self.gain * np.ascontiguousarray(q if rows >= columns else np.matrix_transpose(q)).reshape(shape)


def _uniform(rng: HostRandom, shape: Shape, variance: float) -> np.ndarray:
    """Draw uniformly in ±√(3 variance), which has that variance."""
    limit = math.sqrt(3.0 * variance)
    return rng.uniform(shape, -limit, limit)


# The short names mean what PyTorch's users expect of them: Xavier uniform, Kaiming normal.
INITIALIZERS: dict[str, Initializer] = {
    "normal": Normal(),
    "scaled_normal": ScaledNormal(),
    "glorot": GlorotUniform(),
    "xavier": GlorotUniform(),
    "glorot_uniform": GlorotUniform(),
    "glorot_normal": GlorotNormal(),
    "he": HeNormal(),
    "he_uniform": HeUniform(),
    "he_normal": HeNormal(),
    "lecun": LecunNormal(),
    "lecun_uniform": LecunUniform(),
    "lecun_normal": LecunNormal(),
    "orthogonal": Orthogonal(),
    "zeros": Zeros(),
}


def get_initializer(initializer: Any) -> Initializer:
    """Return an initialiser by its name, or the given object; errors as in `get_activation`."""
    return resolve(initializer, Initializer, INITIALIZERS, "init", fix="init='he'")
