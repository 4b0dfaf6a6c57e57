"""The shape ledger: the shapes of everything that a layer's equations name, and the layer's costs.

Nothing in it is stated twice: shapes, bytes and FLOPs are those of one forward and backward pass of two samples, on
abstract arrays.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bpxp.backends import Backend
from bpxp.backends.abstract.array import Cost, Meter, ShapeArray
from bpxp.backends.abstract.namespace import shape_namespace, shape_of
from bpxp.backends.precision import label
from bpxp.core.random import HostRandom
from bpxp.core.text import table
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.core.typing import Params, Shape
from bpxp.errors import BpxpError, printable
from bpxp.network.step import training
from bpxp.nn.layer import Layer
from bpxp.nn.sequential import Sequential, has_arrays
from bpxp.nn.spec import Spec

SAMPLES = 2  # batch normalisation needs a variance


class Entry(NamedTuple):
    """One quantity of a layer: its name, its shape in symbols (if the layer says so) and in numbers."""

    name: str
    symbols: str
    shape: str


class LayerLedger(NamedTuple):
    """What one layer needs.

    Attributes
    ----------
    name : str
        The layer, with its hyper-parameters, and its activation.
    entries : tuple of Entry
        x, the parameters, z and a; then delta = ∂J/∂z and the gradients.
    parameters : int
    forward_flops, backward_flops : int
        Floating-point operations of the matrix products, 2 for each multiply-add, per sample. The backward pass of the
        first layer with parameters does not compute dx.
    forward_bytes, backward_bytes : int
        What all other operations read and write, per sample: the cost of a normalisation, a pooling or an activation.
    kept_bytes : int
        What the layer keeps for the backward pass beside what the layers below keep already, per sample.
    not_counted : str
        Why FLOPs and bytes are not known: a layer of your own that looks at numbers has none of them counted.
    """

    name: str
    entries: tuple[Entry, ...]
    parameters: int
    forward_flops: int
    backward_flops: int
    forward_bytes: int
    backward_bytes: int
    kept_bytes: int
    not_counted: str = ""


class Ledger(NamedTuple):
    """The layers of a network, and their sum; as text it is a table."""

    layers: tuple[LayerLedger, ...]
    dtype: str
    backend: str

    @property
    def parameters(self) -> int:
        """Number of parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    def __str__(self) -> str:
        blocks = [_block(i, layer) for i, layer in enumerate(self.layers)]
        forward, backward, kept = (
            sum(getattr(layer, name) for layer in self.layers)
            for name in ("forward_flops", "backward_flops", "kept_bytes")
        )
        moved = sum(layer.forward_bytes + layer.backward_bytes for layer in self.layers)
        total = (
            f"{self.parameters:,} parameters, {self.dtype}, backend {self.backend}; per sample "
            f"{si(forward)}FLOP forward, {si(backward)}FLOP backward, "
            f"{si(moved)}B moved outside of matrix products, {si(kept)}B kept for it"
        )
        if missing := sum(bool(layer.not_counted) for layer in self.layers):
            total += f", without {missing} layer{'s' * (missing > 1)} that {'are' if missing > 1 else 'is'} not counted"
        return "\n".join([*blocks, total])

    def __repr__(self) -> str:
        return str(self)


def make_ledger(spec: Spec, backend: Backend, params: Params, stats: Any, key: Any) -> Ledger:
    """Return the ledger of a network; no array is made, and no parameter is read."""
    meter = Meter()
    xp = shape_namespace(meter, backend.xp)
    params, stats, key = tree_map(lambda a: shape_of(a, meter), (params, stats, key))
    x = xp.empty((SAMPLES, *spec.input_shape), dtype=getattr(xp, spec.dtype))

    def run(function: Callable[..., Any], *args: Any, **context: Any) -> tuple[Any, Cost, str]:
        """Return what the function returns, its costs, and why it does not run on abstract arrays."""
        meter.start()
        try:
            done = function(*args, xp=xp, **context)
            products = meter.by_name.get("matmul", Cost())
            return done, Cost(0, meter.total.bytes - products.bytes, products.flops), ""
        except Exception as error:  # a layer of the user's own may look at numbers, in any way
            return None, Cost(), error.what if isinstance(error, BpxpError) else f"{type(error).__name__}: {error}"

    # What is kept is what the whole network keeps: an activation may be applied after the pooling that follows it.
    whole, _, _ = run(spec.model.forward, params, x, **training(spec.model, stats, key, None))
    passes, known = [], {id(a.buffer) for a in leaves(params)}
    for i, layer in enumerate(spec.model.layers):
        part = Sequential((layer,))
        context = training(part, stats[i : i + 1], key.at(i) if key else (), None)
        done, flops, reason = run(part.forward, params[i : i + 1], x, **context)
        # The shape behind a layer that does not run on abstract arrays is the one that it states.
        y, caches = done or (xp.empty((SAMPLES, *layer.init(HostRandom(0, ()), x.shape[1:])[1]), dtype=x.dtype), ())
        passes.append((part, x, y, caches, flops, _bytes(whole[1][i] if whole else caches, known), reason))
        x = y
    layers, dy, first = [], x, next((i for i, own in enumerate(params) if has_arrays(own)), len(params))
    for i in range(len(params) - 1, -1, -1):
        part, x, y, caches, forward, kept, reason = passes[i]
        done, backward = None, Cost()
        if i >= first and not reason:
            function = part.backward if i > first else part.gradients
            done, backward, reason = run(function, params[i : i + 1], caches, dy)
        if i > first and done:
            dy, (grads,) = done
        else:
            dy, (grads,) = x, done or params[i : i + 1]
        entries = tuple(_entries(part.layers[0], x.shape, y.shape, params[i], grads))
        size = sum(a.size for _, a in named_leaves(params[i]))
        layers.append(
            LayerLedger(
                layer_name(part.layers[0]),
                entries,
                size,
                forward.flops // SAMPLES,
                backward.flops // SAMPLES,
                forward.bytes // SAMPLES,
                backward.bytes // SAMPLES,
                kept // SAMPLES,
                reason,
            )
        )
    return Ledger(tuple(reversed(layers)), spec.dtype, label(backend))


def _entries(layer: Layer, x: Shape, y: Shape, params: Any, grads: Any) -> Iterator[Entry]:
    symbols: dict[str, str] = getattr(layer, "symbols", {})
    activated = getattr(layer, "activation", None) is not None
    yield Entry("x", symbols.get("x", ""), _shape(x, True))
    for name, a in named_leaves(params):
        yield Entry(name, symbols.get(name, ""), _shape(a.shape))
    for name in ("z", "a") if activated else ("z" if "z" in symbols else "y",):
        yield Entry(name, symbols.get("z", ""), _shape(y, True))
    yield Entry("delta", symbols.get("z", ""), _shape(y, True))
    for name, a in named_leaves(grads):
        yield Entry(f"d{name}", symbols.get(name, ""), _shape(a.shape))


def _shape(shape: Shape, batch: bool = False) -> str:
    parts = ["batch" if batch and i == 0 else str(n) for i, n in enumerate(shape)]
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"


def _bytes(caches: Any, known: set[int]) -> int:
    """Return the bytes of the buffers of a cache that are not known yet, and add them to those that are."""
    new = {id(a.buffer): a.buffer.size for a in leaves(caches) if isinstance(a, ShapeArray)}
    total = sum(size for buffer, size in new.items() if buffer not in known)
    known.update(new)
    return total


def layer_name(layer: Layer) -> str:
    """Return ``"Dense(30), Sigmoid"``: the layer, its width, and what is applied to it."""
    activation = getattr(layer, "activation", None)
    units = getattr(layer, "units", getattr(layer, "filters", ""))
    name = f"{type(layer).__name__}{f'({printable(str(units))})' if units else ''}"
    return f"{name}, {type(activation).__name__}" if activation is not None else name


def _block(i: int, layer: LayerLedger) -> str:
    head = f"{i}  {layer.name}: {layer.parameters:,} parameters, "
    if layer.not_counted:
        head += f"costs not counted ({printable(layer.not_counted)})"
    else:
        head += f"{_cost(layer.forward_flops, layer.forward_bytes)} forward, "
        head += f"{_cost(layer.backward_flops, layer.backward_bytes)} backward, "
        head += f"{si(layer.kept_bytes)}B kept, per sample"
    return "\n".join([head, textwrap.indent(table(layer.entries), "   ")])


def _cost(flops: int, moved: int) -> str:
    """Return the FLOPs of matrix products; what is moved, where there are none."""
    return f"{si(flops)}FLOP" if flops or not moved else f"{si(moved)}B moved"


def si(n: float) -> str:
    """Return ``"23.5 k"``."""
    for prefix in ("", "k", "M", "G", "T"):
        if n < 1000:
            return f"{n:.0f} {prefix}" if n == int(n) and n < 1000 and not prefix else f"{n:.3g} {prefix}"
        n /= 1000
    return f"{n:.3g} P"
