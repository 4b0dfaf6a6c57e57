"""Layers in a row: forward threads the activations, backward threads delta the other way."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Params, Shape
from bpxp.nn.activations import Activation, Identity
from bpxp.nn.layer import Layer


@dataclass(frozen=True)
class Sequential:
    """A composition of layers, itself a layer.

    Parameters
    ----------
    layers : tuple of Layer
        Applied in order; a layer's ``activation`` is applied after it.

    Notes
    -----
    Parameters and gradients are tuples with one entry per layer: ``params[0].W`` are the weights of the first. So are
    running statistics, with () for a layer that has none. Each layer is given what it uses, and no more: the key of
    its own place, its own statistics.

    A composition has no equation of its own in index notation: the output of a layer is the x of the next, and
    backward the dx of a layer is the dy, or delta, of the one before. `bpxp.verify.check_equations` runs the equations
    of its layers; a test of its own checks the composition.
    """

    layers: tuple[Layer, ...]

    @property
    def children(self) -> tuple[Layer, ...]:
        """The layers."""
        return self.layers

    def with_children(self, children: tuple[Layer, ...], /) -> Sequential:
        """Return a composition of other layers."""
        return Sequential(children)

    @functools.cached_property
    def uses(self) -> frozenset[str]:
        """What any of the layers needs besides x."""
        return frozenset[str]().union(*(uses for _, _, uses in self._plan))

    @functools.cached_property
    def analytic(self) -> bool:
        """Whether all operations of all layers and activations are analytic."""
        parts = [*self.layers, *(activation for _, activation, _ in self._plan if activation is not None)]
        return all(getattr(part, "analytic", False) for part in parts)

    @functools.cached_property
    def _plan(self) -> tuple[tuple[Layer, Activation | None, frozenset[str]], ...]:
        """Each layer, what is applied after it and what it uses: looked up once, not in every step.

        A function that never decreases, max_k f(z_k) = f(max_k z_k), is applied behind the max pooling that follows
        it: to a quarter of the numbers with 2 by 2 windows, and to the same bits, forwards and backwards.
        """
        applied = [activation_of(layer) for layer in self.layers]
        for i, (activation, follows) in enumerate(zip(applied, self.layers[1:], strict=False)):
            swap = getattr(activation, "commutes_with_max", False) and getattr(follows, "takes_largest", False)
            if swap and applied[i + 1] is None:
                applied[i : i + 2] = None, activation
        uses = [getattr(layer, "uses", NOTHING) for layer in self.layers]
        return tuple(zip(self.layers, applied, uses, strict=True))

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[Params, Shape]:
        params, shape = [], in_shape
        for i, layer in enumerate(self.layers):
            own, shape = layer.init(rng.at(i), shape)
            params.append(own)
        return tuple(params), shape

    def init_stats(self, params: Params, /) -> tuple[Any, ...]:
        """Return the statistics of every layer before the first step."""
        return tuple(
            layer.init_stats(own) if "stats" in uses else ()  # type: ignore[attr-defined]
            for (layer, _, uses), own in zip(self._plan, params, strict=True)
        )

    def forward(
        self, params: Params, x: Array, /, *, xp: Namespace, **context: Any
    ) -> tuple[Array, tuple[tuple[Any, Any], ...]]:
        """Go through the layers.

        Parameters
        ----------
        params : tuple
        x : array
        xp : namespace
        **context
            ``training``, ``key``, ``stats``, ``present``, where a layer uses them; what is not given is as in
            evaluation: False, None, None, None.
        """
        caches = []
        for i, ((layer, activation, uses), own) in enumerate(zip(self._plan, params, strict=True)):
            if uses:
                x, cache = layer.forward(own, x, xp=xp, **context_of(i, uses, context))
            else:
                x, cache = layer.forward(own, x, xp=xp)
            if activation is None:
                caches.append((cache, None))
            else:
                x, kept = activation.forward((), x, xp=xp)
                caches.append((cache, kept))
        return x, tuple(caches)

    def backward(self, params: Params, caches: tuple[Any, ...], dy: Array, /, *, xp: Namespace) -> tuple[Array, Params]:
        dx, grads = self._down_to(0, params, caches, dy, xp)
        return dx, grads

    def gradients(self, params: Params, caches: tuple[Any, ...], dy: Array, /, *, xp: Namespace) -> Params:
        """Return the gradients of the parameters alone: nothing below the first of them is computed."""
        first = next((i for i, own in enumerate(params) if has_arrays(own)), len(self.layers))
        if first == len(self.layers):
            return params
        dy, grads = self._down_to(first + 1, params, caches, dy, xp)
        (layer, activation, _), own, (cache, kept) = self._plan[first], params[first], caches[first]
        delta = dy if activation is None else activation.backward((), kept, dy, xp=xp)[0]
        if hasattr(layer, "gradients"):
            lowest = layer.gradients(own, cache, delta, xp=xp)
        else:
            _, lowest = layer.backward(own, cache, delta, xp=xp)
        return (*params[:first], lowest, *grads)

    def advance(self, stats: tuple[Any, ...], caches: tuple[Any, ...], /, *, xp: Namespace) -> tuple[Any, ...]:
        """Return the statistics after a training step; `stats` is donated."""
        return tuple(
            layer.advance(own, cache, xp=xp) if "stats" in uses else ()  # type: ignore[attr-defined]
            for (layer, _, uses), own, (cache, _) in zip(self._plan, stats, caches, strict=True)
        )

    def _down_to(
        self, end: int, params: Params, caches: tuple[Any, ...], dy: Array, xp: Namespace
    ) -> tuple[Array, Params]:
        grads: list[Params] = []
        for i in range(len(self.layers) - 1, end - 1, -1):
            (layer, activation, _), (cache, kept) = self._plan[i], caches[i]
            delta = dy if activation is None else activation.backward((), kept, dy, xp=xp)[0]
            dy, own = layer.backward(params[i], cache, delta, xp=xp)
            grads.append(own)
        return dy, tuple(reversed(grads))


NOTHING: frozenset[str] = frozenset()


def context_of(i: int, uses: frozenset[str], context: dict[str, Any]) -> dict[str, Any]:
    """Return what the i-th layer uses of what the whole was given."""
    own: dict[str, Any] = {}
    for name in uses:
        value = context.get(name)
        if name == "training":
            own[name] = bool(value)
        elif value is None or name == "present":
            own[name] = value
        else:
            own[name] = value.at(i) if name == "key" else value[i]
    return own


def has_arrays(tree: Params) -> bool:
    """Return whether there is any array in a tree of parameters: ((), ()) has none."""
    return any(not isinstance(child, tuple) or has_arrays(child) for child in tree)


def activation_of(layer: Layer) -> Activation | None:
    """Return what is applied after the layer, or None: the identity is not worth its copy."""
    activation = getattr(layer, "activation", None)
    return None if isinstance(activation, Identity) else activation
