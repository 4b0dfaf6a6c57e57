"""The residual block, y = x + branch(x): a way around the branch, for activations and for gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Params, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.nn.layer import Layer
from bpxp.nn.sequential import Sequential


@dataclass(frozen=True)
class Residual:
    """Add the output of a branch of layers to its input.

    Parameters
    ----------
    branch : Layer or sequence of Layer
        Its output must have the shape of its input. A layer of the branch that leaves its activation open has none,
        and its own default initialiser: the network's choices are for the layers of its own list.

    Notes
    -----
    In the equations F is the output of the branch, and D[m,k,n,i] = ∂F[m,k]/∂x[n,i]; where samples are independent,
    only m = n remains. The first term of dx is why depth does no harm: delta reaches the layers below
    undiminished. Parameters, gradients and statistics are those of the branch, a tuple with one entry per layer.

    References
    ----------
    He et al., *Deep residual learning for image recognition*, CVPR 2016.

    Examples
    --------
    >>> from bpxp import nn
    >>> block = nn.Residual([nn.Dense(8, "relu"), nn.Dense(8)])
    """

    branch: Any

    equations = Equations(
        forward="y[n,i] = x[n,i] + F[n,i]",
        dx="dx[n,i] = dy[n,i] + sum_{m,k} dy[m,k]*D[m,k,n,i]",
    )

    def __post_init__(self) -> None:
        if isinstance(self.branch, Sequential):
            return
        layers = tuple(self.branch) if isinstance(self.branch, Sequence) else (self.branch,)
        wrong = [layer for layer in layers if isinstance(layer, type) or not isinstance(layer, Layer)]
        if wrong or not layers:
            got = repr(wrong[0]) if wrong else "[]"
            expected = "a layer, or a list of layers"
            fix = "Residual([nn.Dense(8, 'relu'), nn.Dense(8)])"
            raise InvalidTypeError("Residual(branch=…)", "not layers", code="E004", got=got, expected=expected, fix=fix)
        object.__setattr__(self, "branch", Sequential(layers))

    @property
    def children(self) -> tuple[Layer, ...]:
        """The layers of the branch."""
        layers: tuple[Layer, ...] = self.branch.layers
        return layers

    def with_children(self, children: tuple[Layer, ...], /) -> Residual:
        """Return a block around other layers."""
        return Residual(Sequential(children))

    @property
    def uses(self) -> frozenset[str]:
        """What any layer of the branch uses."""
        uses: frozenset[str] = self.branch.uses
        return uses

    @property
    def analytic(self) -> bool:
        """Whether the whole branch is."""
        return bool(self.branch.analytic)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[Params, Shape]:
        params, out_shape = self.branch.init(rng, in_shape)
        if out_shape != in_shape:
            raise _does_not_add_up(in_shape, out_shape)
        return params, out_shape

    def init_stats(self, params: Params, /) -> tuple[Any, ...]:
        stats: tuple[Any, ...] = self.branch.init_stats(params)
        return stats

    def forward(self, params: Params, x: Array, /, *, xp: Namespace, **context: Any) -> tuple[Array, tuple[Any, ...]]:
        y, caches = self.branch.forward(params, x, xp=xp, **context)
        return x + y, caches

    def backward(self, params: Params, caches: tuple[Any, ...], dy: Array, /, *, xp: Namespace) -> tuple[Array, Params]:
        dx, grads = self.branch.backward(params, caches, dy, xp=xp)
        return dy + dx, grads

    def gradients(self, params: Params, caches: tuple[Any, ...], dy: Array, /, *, xp: Namespace) -> Params:
        grads: Params = self.branch.gradients(params, caches, dy, xp=xp)
        return grads

    def advance(self, stats: tuple[Any, ...], caches: tuple[Any, ...], /, *, xp: Namespace) -> tuple[Any, ...]:
        moved: tuple[Any, ...] = self.branch.advance(stats, caches, xp=xp)
        return moved


def _does_not_add_up(in_shape: Shape, out_shape: Shape) -> InvalidValueError:
    """Write the equation that fails, with the first two axes that differ."""
    if len(in_shape) != len(out_shape):
        where, fix = f"{len(in_shape)} axes and {len(out_shape)} axes", ""
    else:
        axis = next(i for i, n in enumerate(in_shape) if n != out_shape[i])
        where = f"axis {axis} of x is {in_shape[axis]}, axis {axis} of the branch's output is {out_shape[axis]}"
        last = axis == len(in_shape) - 1
        fix = (
            f"{in_shape[-1]} outputs in the branch's last layer"
            if last
            else "padding='same' and stride 1 in the branch"
        )
    what = "y = x + branch(x) does not add up"
    got = f"x {in_shape} and branch(x) {out_shape}"
    return InvalidValueError("Residual", what, code="E014", got=got, expected="equal shapes", first=where, fix=fix)
