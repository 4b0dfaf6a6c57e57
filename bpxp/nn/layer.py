"""What a layer is: hyper-parameters that are hashable, and three functions that are pure.

A layer holds no arrays. Parameters, caches and gradients travel as arguments and results, so that one network can
live on any backend, be traced by a compiler, and be checked piece by piece.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape

Cache = Any  # what forward keeps for backward; never written


@runtime_checkable
class Layer(Protocol):
    """The protocol of a layer; a frozen dataclass of hyper-parameters satisfies it.

    Optional members, looked for by `Sequential`:

    ``activation``
        An `Activation` (or None) that is applied to what `forward` returns.
    ``gradients(params, cache, dy, /, *, xp) -> Params``
        The second half of what `backward` returns, without the cost of dx: used for the first layer.
    ``uses``
        A frozenset of the further arguments of `forward`; a layer without it gets x alone:

        ``"training"``
            bool: whether this is a training step.
        ``"key"``
            `bpxp.core.threefry.Key` or None: the place of the layer's random numbers; None where nothing is random.
        ``"stats"``
            The layer's running statistics, a (named) tuple of arrays.
        ``"present"``
            Array (batch,) of 0 and 1, or None: 0 marks padding, which fills up the last mini-batch.
    ``children``
        A tuple of the layers of which it is made. The parameters of the i-th, and its running statistics, are the i-th
        entries of its own. Gradient checks, certificates and reports look into a layer by its children; a layer that
        does not name them is looked at as a whole.
    ``with_children(children, /) -> Layer``
        The same layer of other children, in the same places: it calls their methods in place of the old ones'.
    ``init_stats(params, /) -> Stats``
        The statistics before the first step, host arrays, of a layer that uses ``"stats"``.
    ``advance(stats, cache, /, *, xp) -> Stats``
        The statistics after a training step, from the cache of that step. `stats` is donated: it may be written
        in place.
    """

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[Any, Shape]:
        """Draw the parameters on the host, a (named) tuple of float64 NumPy arrays, and return the output's shape.

        Raises
        ------
        InvalidValueError
            If no input of `in_shape` can pass through the layer.
        """

    # Parameters and caches are Any: each layer has a tuple type of its own for them.

    def forward(self, params: Any, x: Array, /, *, xp: Namespace) -> tuple[Array, Any]:
        r"""Map x, (batch, \*in_shape), to (output, cache); the cache is what backward needs, and is only read."""

    def backward(self, params: Any, cache: Any, dy: Array, /, *, xp: Namespace) -> tuple[Array, Any]:
        """Map ∂J/∂output to (∂J/∂x, ∂J/∂params). Inputs are only read; the results are new arrays."""
