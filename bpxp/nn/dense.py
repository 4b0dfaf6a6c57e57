"""The fully connected layer, z = x W + b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from bpxp.core.checks import fits_in_memory, positive_int
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations.notation import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.activations import Activation, get_activation
from bpxp.nn.initializers import Initializer, get_initializer


class DenseParams(NamedTuple):
    """Parameters of `Dense`, or their gradients: W (n_in, n_out) and b (n_out,)."""

    W: Array
    b: Array


@dataclass(frozen=True)
class Dense:
    """Fully connected layer: every output sees every input.

    Parameters
    ----------
    units : int
        Number of outputs, n_out.
    activation : str, Activation or None, optional
        What the network applies to z. None leaves it to the network: `hidden` for a hidden layer, `output` for the
        last. `forward` and `backward` of this layer are the affine part, without it.
    initializer : str, Initializer or None, optional
        How W is drawn; None leaves it to the network, and is ``"glorot_uniform"`` without one. b starts at zero,
        except with ``"normal"`` and ``"scaled_normal"``, where it is drawn too, as in the textbook.

    Notes
    -----
    x is (batch, n_in), z and delta = ∂J/∂z are (batch, n_out); the equations stand below, in index notation.

    References
    ----------
    M. Nielsen, *Neural Networks and Deep Learning*, chapter 2, equations BP2-BP4, there with W transposed.
    """

    units: int
    activation: str | Activation | None = None
    initializer: str | Initializer | None = None

    analytic = True
    symbols: ClassVar[dict[str, str]] = {
        "x": "(batch, n_in)",
        "W": "(n_in, n_out)",
        "b": "(n_out,)",
        "z": "(batch, n_out)",
    }

    equations = Equations(
        forward="z[n,j] = sum_i x[n,i]*W[i,j] + b[j]",
        dW="dW[i,j] = sum_n x[n,i]*delta[n,j]",
        db="db[j] = sum_n delta[n,j]",
        dx="dx[n,i] = sum_j delta[n,j]*W[i,j]",
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "units", positive_int(self.units, "Dense(units=…)"))
        if self.activation is not None:
            object.__setattr__(self, "activation", get_activation(self.activation))
        if self.initializer is not None:
            object.__setattr__(self, "initializer", get_initializer(self.initializer))

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[DenseParams, Shape]:
        if len(in_shape) != 1:
            raise InvalidValueError(
                "Dense",
                "in z[n,j] = Σ_i x[n,i] W[i,j] a sample is a vector, with the one axis i",
                code="E014",
                got=f"samples of shape {in_shape}",
                expected="(n_in,)",
                fix="put nn.Flatten() before it",
            )
        initializer = get_initializer("glorot_uniform" if self.initializer is None else self.initializer)
        (n_in,) = in_shape
        fits_in_memory(n_in * self.units, f"Dense({self.units})")
        W = initializer.draw(rng.at(0), (n_in, self.units), fan_in=n_in, fan_out=self.units)
        b = initializer.bias(rng.at(1), (self.units,))
        return DenseParams(W, b), (self.units,)

    def forward(self, params: DenseParams, x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        z = xp.matmul(x, params.W)
        z += params.b
        return z, x

    def backward(self, params: DenseParams, x: Array, delta: Array, /, *, xp: Namespace) -> tuple[Array, DenseParams]:
        dx = xp.matmul(delta, xp.matrix_transpose(params.W))
        return dx, self.gradients(params, x, delta, xp=xp)

    def gradients(self, params: DenseParams, x: Array, delta: Array, /, *, xp: Namespace) -> DenseParams:
        dW = xp.matmul(xp.matrix_transpose(x), delta)
        db = xp.sum(delta, axis=0)
        return DenseParams(dW, db)
