"""The fully connected layer, z = x W + b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import fits_in_memory, set_counts, set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.activations import Activation, get_activation
from bpxp.nn.initializers import Initializer, get_initializer
from bpxp.nn.leading_axes import as_before, as_rows


class DenseParams(NamedTuple):
    """Parameters of `Dense`, or their gradients: W (n_in, n_out) and b (n_out,)."""

    W: Array
    b: Array


@named_arguments
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
    x is (batch, …, n_in), z and delta = ∂J/∂z are (batch, …, n_out): the layer acts on the last axis, with the same W
    and b everywhere. In the equations below n runs over all leading axes.

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
        set_counts(self, "units")
        if self.activation is not None:
            set_field(self, "activation", get_activation(self.activation))
        if self.initializer is not None:
            set_field(self, "initializer", get_initializer(self.initializer))

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[DenseParams, Shape]:
        if not in_shape:
            what = "in z[n,j] = sum_i x[n,i] W[i,j] a sample has at least one axis, i"
            got = "samples of shape ()"
            fix = "nn.Reshape((1,)) before it"
            raise InvalidValueError("Dense", what, code="E014", got=got, expected="(n_in,) or (…, n_in)", fix=fix)
        initializer = get_initializer("glorot_uniform" if self.initializer is None else self.initializer)
        *positions, n_in = in_shape
        fits_in_memory(n_in * self.units, f"Dense({self.units})")
        W = initializer.draw(rng.at(0), (n_in, self.units), fan_in=n_in, fan_out=self.units)
        b = initializer.bias(rng.at(1), (self.units,))
        return DenseParams(W, b), (*positions, self.units)

    def forward(self, params: DenseParams, x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        z = xp.matmul(as_rows(x, xp=xp), params.W)
        z += params.b
        return as_before(z, x, xp=xp), x

    def backward(self, params: DenseParams, x: Array, delta: Array, /, *, xp: Namespace) -> tuple[Array, DenseParams]:
        dx = xp.matmul(as_rows(delta, xp=xp), xp.matrix_transpose(params.W))
        return as_before(dx, x, xp=xp), self.gradients(params, x, delta, xp=xp)

    def gradients(self, params: DenseParams, x: Array, delta: Array, /, *, xp: Namespace) -> DenseParams:
        x, delta = as_rows(x, xp=xp), as_rows(delta, xp=xp)
        dW = xp.matmul(xp.matrix_transpose(x), delta)
        db = xp.sum(delta, axis=0)
        return DenseParams(dW, db)
