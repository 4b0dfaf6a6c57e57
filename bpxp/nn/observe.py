"""Layers under observation: a network whose parts call somebody who writes down, or compares, what they compute.

The loops of `Sequential` stay what they are; only its layers, activations and loss are replaced by ones that look the
same from outside.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from bpxp.core.typing import Array, Namespace, Params
from bpxp.equations.notation import Equations
from bpxp.nn import Activation, Loss, Residual, Sequential
from bpxp.nn.layer import Layer
from bpxp.nn.sequential import activation_of


class Part(NamedTuple):
    """A layer, an activation or the loss, and where it stands.

    Attributes
    ----------
    place : str
        ``"0"``; ``"2.1"`` is the second layer of the branch of the third; ``"loss"``.
    thing : Layer, Activation or Loss
    """

    place: str
    thing: Any

    @property
    def title(self) -> str:
        """``"layer 0 (Dense)"``, ``"layer 0 (Sigmoid)"``, ``"loss (SoftmaxCrossEntropy)"``."""
        kind = type(self.thing).__name__
        return f"{self.place} ({kind})" if not self.place[:1].isdigit() else f"layer {self.place} ({kind})"

    def results(self, method: str, found: Any) -> dict[str, Array]:
        """Return what a method has computed, by the names that it has in the equations; without the cache."""
        if method == "__call__":
            return dict(zip(("J", "delta"), found, strict=True))
        if method == "advance":
            return {f"{field}'": a for field, a in zip(_fields(found), found, strict=True)}
        name = "z" if isinstance(self.thing, Activation) else "x"
        equations = getattr(self.thing, "equations", None)
        if method == "forward":
            out = equations["forward"].target.name if equations and "forward" in equations else "y"
            return {out: found[0]}
        own = {} if method == "gradients" else {f"d{name}": found[0]}
        grads = found if method == "gradients" else found[1]
        return {**{f"d{field}": g for field, g in zip(_fields(grads), grads, strict=True)}, **own}

    def equation(self, result: str) -> tuple[str, str]:
        """Return label and line of the equation that says what a result is; the result itself where none does."""
        equations = getattr(self.thing, "equations", None)
        for label, equation in equations.items() if isinstance(equations, Equations) else ():
            if equation.target.name == result:
                return label, equation.text
        return result, ""


def _fields(tree: tuple[Any, ...]) -> list[str]:
    return list(getattr(tree, "_fields", map(str, range(len(tree)))))


class Observer(Protocol):
    """Who is asked to call the parts of a network."""

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call a method of the part, and return what it should return."""


class Watched:
    """A layer, an activation or a loss that has its work done by an observer, and everything else by itself."""

    def __init__(self, part: Part, observer: Observer) -> None:
        self.part, self.observer = part, observer

    def __getattr__(self, name: str) -> Any:
        own = getattr(self.part.thing, name)  # what the layer does not have, it has not, either
        return functools.partial(self._call, name) if name in ("gradients", "advance") else own

    @property
    def activation(self) -> Any:
        """What `Sequential` applies after the layer, under observation too."""
        own = activation_of(self.part.thing)
        return None if own is None else Watched(Part(self.part.place, own), self.observer)

    def _call(self, method: str, *args: Any, xp: Namespace, **context: Any) -> Any:
        return self.observer.call(self.part, method, args, xp, context)

    def forward(self, params: Params, x: Array, /, *, xp: Namespace, **context: Any) -> tuple[Array, Any]:
        """Do what the layer does."""
        done: tuple[Array, Any] = self._call("forward", params, x, xp=xp, **context)
        return done

    def backward(self, params: Params, cache: Any, dy: Array, /, *, xp: Namespace) -> tuple[Array, Params]:
        """Do what the layer does."""
        done: tuple[Array, Params] = self._call("backward", params, cache, dy, xp=xp)
        return done

    def __call__(self, logits: Array, y: Array, weight: Any = None, /, *, xp: Namespace) -> tuple[Array, Array]:
        """Do what the loss does."""
        done: tuple[Array, Array] = self._call("__call__", logits, y, weight, xp=xp)
        return done


def watched(model: Sequential, loss: Loss, observer: Observer) -> tuple[Sequential, Any]:
    """Return model and loss with all their parts under observation, those within residual blocks too."""
    return _layers(model, observer, ""), Watched(Part("loss", loss), observer)


def _layers(model: Sequential, observer: Observer, place: str) -> Sequential:
    layers: list[Any] = []
    for i, layer in enumerate(model.layers):
        layers.append(_layer(layer, observer, f"{place}{i}"))
    return Sequential(tuple(layers))


def _layer(layer: Layer, observer: Observer, place: str) -> Any:
    if isinstance(layer, Sequential):
        return _layers(layer, observer, f"{place}.")
    if isinstance(layer, Residual):
        return dataclasses.replace(layer, branch=_layers(layer.branch, observer, f"{place}."))
    return Watched(Part(place, layer), observer)


class Tape:
    """An observer that writes everything down.

    Attributes
    ----------
    found : dict of str to array
        ``"0/z"``, ``"0/a"``, …, ``"loss/J"``, ``"loss/delta"``, ``"1/delta"``, ``"1/dW"``, …, in the order in which
        they are computed; ``"0/delta"`` is ∂J/∂z of the layer.
    """

    def __init__(self) -> None:
        self.found: dict[str, Array] = {}

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call, and keep the results."""
        done = getattr(part.thing, method)(*args, xp=xp, **context)
        if method in ("backward", "gradients") and not isinstance(part.thing, Activation):
            self.found.setdefault(f"{part.place}/delta", args[2])
        self.found |= named(part, method, done)
        return done


def named(part: Part, method: str, done: Any) -> dict[str, Array]:
    """Return results by place and name; what an activation gives back is the delta of its layer."""
    own = isinstance(part.thing, Activation)
    return {f"{part.place}/{'delta' if own and n == 'dz' else n}": a for n, a in part.results(method, done).items()}
