"""Instrumented layers (forward and backward hooks): an observer records or compares what each part computes.

Containers run as they are; only their layers, activations and the loss are replaced by ones that look the same from
outside.
"""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, named_leaves
from bpxp.core.typing import Array, Namespace, Params, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidTypeError
from bpxp.nn.activations import Activation
from bpxp.nn.layer import Layer
from bpxp.nn.losses import Loss
from bpxp.nn.sequential import Sequential, activation_of


class Part(NamedTuple):
    """A layer, an activation or the loss, and where it stands.

    Attributes
    ----------
    place : str
        ``"0"``; ``"2.1"`` is the second child of the third layer, ``"2.1:3"`` its third call in one pass; ``"loss"``.
    thing : Layer, Activation or Loss
        The children of a container are observed.
    applied : bool
        Whether it is the activation of the layer that stands there.
    """

    place: str
    thing: Any
    applied: bool = False

    @property
    def title(self) -> str:
        """``"layer 0 (Dense)"``, ``"layer 0 (Sigmoid)"``, ``"loss (SoftmaxCrossEntropy)"``."""
        name = f"{self.place} ({type(self.thing).__name__})"
        return f"layer {name}" if self.place[:1].isdigit() else name

    def results(self, method: str, done: Any) -> dict[str, Array]:
        """Return every array that a method returned, by its name in the equations; without the cache."""
        if method == "__call__":
            return dict(zip(("J", "delta"), done, strict=True))
        if method == "advance":
            return _leaves("{}'", done)
        if method == "gradients":
            return _leaves("d{}", done)
        equations = getattr(self.thing, "equations", None)
        if method == "forward":
            return {equations["forward"].target.name if equations and "forward" in equations else "y": done[0]}
        return {**_leaves("d{}", done[1]), "dz" if isinstance(self.thing, Activation) else "dx": done[0]}

    def equation(self, result: str) -> tuple[str, str]:
        """Return label and line of the equation of a result; the result itself if there is none."""
        equations = getattr(self.thing, "equations", None)
        for label, equation in equations.items() if isinstance(equations, Equations) else ():
            if equation.target.name == result:
                return label, equation.text
        return result, ""


def _leaves(name: str, tree: Any) -> dict[str, Array]:
    """Return the leaves of a tree: ``"dW"``, and ``"0/dW"`` of a tree in a tree."""
    places = ((*place.rpartition("/"), a) for place, a in named_leaves(tree))
    return {f"{above}{slash}{name.format(field)}": a for above, slash, field, a in places}


class Observer(Protocol):
    """The hook: it is called in place of every method of every part."""

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call the method of `part.thing`, and return what it should return."""


class ObservedLayer:
    """A layer, an activation or a loss whose methods go through an observer."""

    def __init__(self, part: Part, observer: Observer) -> None:
        self.part, self.observer = part, observer

    def __getattr__(self, name: str) -> Any:
        own = getattr(self.part.thing, name)  # what the layer does not have is missing here, too
        return functools.partial(self._call, name) if name in ("gradients", "advance") else own

    @functools.cached_property
    def activation(self) -> Any:
        """What `Sequential` applies after the layer, observed too."""
        own = activation_of(self.part.thing)
        return None if own is None else ObservedLayer(Part(self.part.place, own, applied=True), self.observer)

    def _call(self, method: str, *args: Any, xp: Namespace = None, **context: Any) -> Any:
        return self.observer.call(self.part, method, args, xp, context)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> Any:
        return self._call("init", rng, in_shape)

    def forward(self, params: Params, x: Array, /, *, xp: Namespace, **context: Any) -> Any:
        return self._call("forward", params, x, xp=xp, **context)

    def backward(self, params: Params, cache: Any, dy: Array, /, *, xp: Namespace) -> Any:
        return self._call("backward", params, cache, dy, xp=xp)

    def __call__(self, logits: Array, y: Array, weight: Any = None, /, *, xp: Namespace) -> Any:
        return self._call("__call__", logits, y, weight, xp=xp)


def observed(model: Sequential, loss: Loss, observer: Observer) -> tuple[Sequential, Any]:
    """Return model and loss with all their parts observed, at every depth."""
    return observed_children(model, observer), ObservedLayer(Part("loss", loss), observer)


def observed_children(layer: Any, observer: Observer, place: str = "") -> Any:
    """Return the layer with its children observed; a layer without children, as it is."""
    inside = [
        ObservedLayer(Part(f"{place}{i}", observed_children(child, observer, f"{place}{i}.")), observer)
        for i, child in enumerate(children(layer, place))
    ]
    return layer.with_children(tuple(inside)) if inside else layer


def children(layer: Any, place: str = "") -> tuple[Layer, ...]:
    """Return the layers of which a layer is made; none if it does not name them, or as None.

    Raises
    ------
    InvalidTypeError
        If `children` is no tuple of layers, or there is no `with_children`.
    """
    if inspect.getattr_static(layer, "children", None) is None:
        return ()
    try:
        inside = layer.children
    except Exception as error:
        raise malformed(layer, place, f"children raises {type(error).__name__}: {error}") from error
    if inside is None or inside == ():
        return ()
    if not isinstance(inside, tuple) or not all(isinstance(child, Layer) for child in inside):
        raise malformed(layer, place, f"children is {inside!r}, not a tuple of layers")
    if not callable(getattr(layer, "with_children", None)):
        raise malformed(layer, place, "children without a method with_children")
    return inside


def malformed(layer: Any, place: str, what: str) -> InvalidTypeError:
    """Return the error of a layer whose `children` are not what `bpxp.nn.Layer` says."""
    where = Part(place.rstrip("."), layer).title if place else type(layer).__name__
    return InvalidTypeError(where, what, code="E085", fix="bpxp.verify.check_layer(layer, in_shape) shows how")


def validate_children(
    model: Sequential, params: Params, x: Array, context: Mapping[str, Any], /, *, xp: Namespace
) -> None:
    """Raise if a child gets parameters that are in the place of another, or is not called: seen in one forward pass."""
    containers = [(place, layer) for place, layer in walk(model) if children(layer, place)]
    if not containers:
        return
    given = GivenParams()
    observed_children(model, given).forward(params, x, xp=xp, **context)
    known = set(map(id, leaves(params)))
    for place, layer in containers:
        own = entry_at(params, place)
        for i in range(len(children(layer, place))):
            name = f"{place}.{i}"
            if name not in given.params:
                raise malformed(layer, place, f"children[{i}] is not called after with_children")
            entry = set(map(id, leaves(own[i]))) if i < len(own) else set()
            if (set(map(id, leaves(given.params[name]))) & known) - entry:
                raise malformed(layer, place, f"children[{i}] does not get entry {i} of the parameters")


def entry_at(tree: Params, place: str) -> Params:
    """Return the entry of a tree of parameters for the layer at ``"2.1"``."""
    for i in map(int, place.split(".")):
        tree = tree[i]
    return tree


class GivenParams:
    """An observer that keeps the parameters that each layer gets."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Any, context: Mapping[str, Any]) -> Any:
        """Call, and keep the parameters."""
        if method == "forward" and not isinstance(part.thing, Activation):
            self.params[part.place] = args[0]
        return getattr(part.thing, method)(*args, xp=xp, **context)


def walk(layer: Any, place: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield place and layer of everything inside a container, each before its children."""
    for i, child in enumerate(children(layer, place)):
        yield f"{place}{i}", child
        yield from walk(child, f"{place}{i}.")


def locate(model: Sequential, name: str) -> tuple[Part, str]:
    """Return the layer of a parameter, and the parameter's name there: ``"0/1/W"`` is W of layer 0.1.

    A parameter of which no child is in its place is the container's own.
    """
    layer: Any = model
    path: list[str] = []
    rest = name.split("/")
    while rest[0].isdigit() and int(rest[0]) < len(inside := children(layer, ".".join(path))):
        layer = inside[int(rest[0])]
        path.append(rest.pop(0))
    return Part(".".join(path), layer), "/".join(rest)


def opaque(model: Sequential, params: Params) -> tuple[str, ...]:
    """Return the titles of the layers with nested parameters and no `children`: no observer can look into them."""

    def own(place: str) -> Params:
        return functools.reduce(lambda tree, i: tree[int(i)], place.split("."), params)

    inside = [(place, layer) for place, layer in walk(model) if not children(layer, place)]
    return tuple(Part(*part).title for part in inside if any(isinstance(tree, tuple) for tree in own(part[0])))


class Calls:
    """Counts the calls of each part in one pass: ``calls(part, method)`` adds the number, from the second call on."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, type, str]] = Counter()

    def __call__(self, part: Part, method: str) -> Part:
        key = part.place, type(part.thing), "backward" if method == "gradients" else method
        self._counts[key] += 1
        count = self._counts[key]
        return part._replace(place=f"{part.place}:{count}") if count > 1 else part


class Recorder:
    """An observer that records every result.

    Attributes
    ----------
    found : dict of str to array
        ``"0/z"``, ``"0/a"``, …, ``"loss/J"``, ``"loss/delta"``, ``"1/delta"``, ``"1/dW"``, …, in the order in which
        they are computed; ``"0/delta"`` is ∂J/∂z of the layer.
    passed_on : dict of str to str
        What a container returns as it is: ``"0/0/dW"``, the same array as ``"0.0/dW"``, which has the row.
    """

    def __init__(self) -> None:
        self.found: dict[str, Array] = {}
        self.passed_on: dict[str, str] = {}
        self._calls = Calls()

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call, and keep the results."""
        part = self._calls(part, method)
        done = getattr(part.thing, method)(*args, xp=xp, **context)
        if method in ("backward", "gradients") and not isinstance(part.thing, Activation):
            self.found.setdefault(f"{part.place}/delta", args[2])
        passed_on = passed_on_by(part.thing, results := named(part, method, done), self.found)
        self.passed_on |= passed_on
        self.found |= {name: a for name, a in results.items() if name not in passed_on}
        return done


def passed_on_by(layer: Any, results: Mapping[str, Array], found: Mapping[str, Array]) -> dict[str, str]:
    """Return the names of results of a container that are arrays of `found`, with the name that these have there."""
    if not children(layer):
        return {}
    known = {id(a): name for name, a in reversed(list(found.items()))}
    return {name: known[id(a)] for name, a in results.items() if id(a) in known}


def named(part: Part, method: str, done: Any) -> dict[str, Array]:
    """Return results by place and name; what an activation's backward returns is the delta of its layer."""
    own = isinstance(part.thing, Activation)
    return {f"{part.place}/{'delta' if own and n == 'dz' else n}": a for n, a in part.results(method, done).items()}
