"""Layers in a row: forward threads the activations, backward threads delta the other way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bpxp.nn.activations import Activation, Identity
from bpxp.nn.layer import Array, Layer, Namespace, Params, Shape
from bpxp.random import HostRandom


@dataclass(frozen=True)
class Sequential:
    """A composition of layers, itself a layer.

    Parameters
    ----------
    layers : tuple of Layer
        Applied in order; a layer's ``activation`` is applied after it.

    Notes
    -----
    Parameters and gradients are tuples with one entry per layer: ``params[0].W`` are the weights of the first.
    """

    layers: tuple[Layer, ...]

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[Params, Shape]:
        params, shape = [], in_shape
        for i, layer in enumerate(self.layers):
            own, shape = layer.init(rng.at(i), shape)
            params.append(own)
        return tuple(params), shape

    def forward(self, params: Params, x: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Any, ...]]:
        caches = []
        for layer, own in zip(self.layers, params, strict=True):
            x, cache = layer.forward(own, x, xp=xp)
            activation = activation_of(layer)
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
        first = next((i for i, own in enumerate(params) if own), len(self.layers))
        if first == len(self.layers):
            return params
        dy, grads = self._down_to(first + 1, params, caches, dy, xp)
        layer, own, (cache, kept) = self.layers[first], params[first], caches[first]
        delta = through_activation(layer, kept, dy, xp)
        if hasattr(layer, "gradients"):
            lowest = layer.gradients(own, cache, delta, xp=xp)
        else:
            _, lowest = layer.backward(own, cache, delta, xp=xp)
        return (*params[:first], lowest, *grads)

    def _down_to(
        self, end: int, params: Params, caches: tuple[Any, ...], dy: Array, xp: Namespace
    ) -> tuple[Array, Params]:
        grads: list[Params] = []
        for i in range(len(self.layers) - 1, end - 1, -1):
            layer, (cache, kept) = self.layers[i], caches[i]
            delta = through_activation(layer, kept, dy, xp)
            dy, own = layer.backward(params[i], cache, delta, xp=xp)
            grads.append(own)
        return dy, tuple(reversed(grads))


def activation_of(layer: Layer) -> Activation | None:
    """Return what is applied after the layer, or None: the identity is not worth its copy."""
    activation = getattr(layer, "activation", None)
    return None if isinstance(activation, Identity) else activation


def through_activation(layer: Layer, kept: Any, da: Array, xp: Namespace) -> Array:
    """Return delta = ∂J/∂z of a layer from ∂J/∂a of its activation."""
    activation = activation_of(layer)
    if activation is None:
        return da
    delta, _ = activation.backward((), kept, da, xp=xp)
    return delta
