"""A layer under test and its inputs: parameters, samples and incoming gradients, on any backend and in float64."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.core.random import DIRECTION, HostRandom
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.core.typing import Shape
from bpxp.errors import ShapeRuleError
from bpxp.verify.equations.comparison import Comparison
from bpxp.verify.equations.layers import contexts
from bpxp.verify.parity.error_bounds import bounded_namespace, exact, quiet
from bpxp.verify.parity.rounding import Arithmetic, Rounded, as_rounded, shares


class Case:
    """A layer under test, and its inputs."""

    def __init__(self, layer: Any, in_shape: Shape, backends: list[Backend], x: Any, batch: int, seed: int) -> None:
        self.layer, self.in_shape, self.backends, self.seed = layer, in_shape, backends, seed
        self.rng = HostRandom(seed, (DIRECTION,))
        self.note = ""  # what the current rule could not check
        self.broken: set[str] = set()  # the rules that were found broken so far
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

    def on_host(self, backend: Backend, results: Any) -> list[np.ndarray]:
        """Return results as NumPy arrays; one that is no array of the backend raises."""
        kind = type(backend.xp.zeros((1,), dtype=backend.xp.float32))
        for name, a in zip(self.names, results, strict=True):
            if not isinstance(a, (kind, np.generic)):
                what = f"{type(a).__module__}.{type(a).__name__}"
                raise TypeError(f"{name} is of {what}, no array of the backend: NumPy instead of xp?")
        return [backend.to_numpy(a) for a in results]

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


def beyond(case: Case, x: np.ndarray, got: list[np.ndarray]) -> list[tuple[str, float]]:
    """Return the results that are beyond the error bound of float32, and by what factor.

    Where a function has no rounding rule, a fixed tolerance takes the place of the bound.
    """
    numpy, rules = get_backend("numpy"), Arithmetic("float32")
    params, x, dy, context = case.given(numpy, "float32", x)
    with quiet():
        try:
            bounded = {name: exact(a, numpy, rules) for name, a in context.items()}
            ours, our_x, our_dy = exact((params, x, dy), numpy, rules)
            results = case.results(ours, our_x, our_dy, bounded, bounded_namespace(rules))
            expected = [as_rounded(a, rules) for a in results]
        except (ShapeRuleError, AttributeError, TypeError):
            wide = {name: tree_map(_widened, a) for name, a in context.items()}
            results = case.results(tree_map(_widened, params), _widened(x), _widened(dy), wide, numpy.xp)
            expected = [Rounded(a, 1e-5 * (float(np.max(np.abs(a), initial=0.0)) or 1.0), rules) for a in results]
    largest = [float(np.max(shares(a, b.v, b.bound)[2], initial=0.0)) for a, b in zip(got, expected, strict=True)]
    return [(name, share) for name, share in zip(case.names, largest, strict=True) if not share <= 1.0]


def _widened(a: Any) -> Any:
    return a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a
