"""A layer under test and its inputs: parameters, samples and incoming gradients, on any backend and in float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.core.typing import Shape
from bpxp.verify.equations.comparison import Comparison
from bpxp.verify.equations.layers import contexts
from bpxp.verify.rules import Subject


class Case(Subject):
    """A layer under test, and its inputs."""

    def __init__(self, layer: Any, in_shape: Shape, backends: list[Backend], x: Any, batch: int, seed: int) -> None:
        super().__init__(layer, backends, seed)
        self.layer, self.in_shape = layer, in_shape
        drawn = self.rng.at(5).normal((max(batch, 2), *in_shape))
        self.x: np.ndarray = drawn if x is None else np.array(x, dtype=np.float64)

    @property
    def uses(self) -> frozenset[str]:
        """What `forward` needs besides x."""
        return getattr(self.layer, "uses", frozenset())

    @functools.cached_property
    def params(self) -> Any:
        """Drawn by the layer, with noise added: an initial 0 or 1 would hide mistakes."""
        drawn, _ = self.layer.init(self.rng.at(1), self.in_shape)
        return tree_map(lambda a: a + 0.5 * self.rng.at(2).normal(np.shape(a)), drawn)

    @functools.cached_property
    def out_shape(self) -> Shape:
        """Shape of one sample of the output."""
        return tuple(self.layer.init(self.rng.at(1), self.in_shape)[1])

    @property
    def names(self) -> list[str]:
        """Of the `results`, in a message."""
        return ["y", "dx", *(f"the gradient of {name}" for name, _ in named_leaves(self.params))]

    def dy(self, n: int) -> np.ndarray:
        """Return an incoming gradient."""
        return self.rng.at(3).normal((n, *self.out_shape))

    def context(self, x: np.ndarray) -> dict[str, Any]:
        """Return the context of a training step, as host arrays."""
        if not self.uses:
            return {}
        return contexts(Comparison(self.layer, {}, "numpy", self.seed, 0.0), x)[0]

    def both_ways(self, params: Any, x: Any, dy: Any, context: dict[str, Any], xp: Any) -> tuple[Any, Any, Any, Any]:
        """Return y, cache, dx and gradients."""
        y, cache = self.layer.forward(params, x, xp=xp, **context)
        dx, grads = self.layer.backward(params, cache, dy, xp=xp)
        return y, cache, dx, grads

    def results(self, params: Any, x: Any, dy: Any, context: dict[str, Any], xp: Any) -> tuple[Any, ...]:
        """Return y, dx and each gradient; `names` has their names."""
        y, _, dx, grads = self.both_ways(params, x, dy, context, xp)
        return y, dx, *leaves(grads)

    def given(self, backend: Backend, dtype: str, x: np.ndarray) -> tuple[Any, Any, Any, Any]:
        """Return parameters, x, dy and context on a backend."""

        def put(a: Any) -> Any:
            if a is None or isinstance(a, (bool, int)):
                return a
            host = np.array(a)
            return backend.asarray(host.astype(dtype) if host.dtype.kind == "f" else host)

        context = {name: tree_map(put, value) for name, value in self.context(x).items()}
        return tree_map(put, self.params), put(x), put(self.dy(len(x))), context

    def on_numpy(self, n: int | None = None) -> tuple[Any, Any, Any, dict[str, Any], Any]:
        """Return parameters, x, dy, context and namespace, in float64."""
        numpy = get_backend("numpy")
        x = self.x if n is None else np.resize(self.x, (n, *self.in_shape))
        return *self.given(numpy, "float64", x), numpy.xp
