"""What an activation is: a layer without parameters that keeps the shape, a function of each element."""

from __future__ import annotations

from dataclasses import dataclass

from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.nn.layer import Cache


class Activation:
    """Base of the activations: no parameters, the shape stays.

    Attributes
    ----------
    analytic : bool
        Whether all its operations are analytic functions, so that the gradient check may take the complex step. A
        layer or a loss without this attribute counts as one that is not.
    """

    analytic = False

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        return (), in_shape

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, Cache]:
        raise NotImplementedError

    def backward(self, params: tuple[()], cache: Cache, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        raise NotImplementedError


@dataclass(frozen=True)
class Identity(Activation):
    """a = z, dz = da. `Sequential` leaves it out: it is the copy that costs."""

    analytic = True

    equations = Equations(
        forward="a[n,j] = z[n,j]",
        dz="dz[n,j] = da[n,j]",
    )

    def forward(self, params: tuple[()], z: Array, /, *, xp: Namespace) -> tuple[Array, None]:
        return xp.astype(z, z.dtype, copy=True), None

    def backward(self, params: tuple[()], cache: None, da: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        return xp.astype(da, da.dtype, copy=True), ()
