"""The shape ledger: for each layer the shapes of everything that its equations name, and what it costs.

Nothing in it is stated twice: the shapes, the bytes and the FLOPs are read off one real forward and backward pass of
two samples of zeros, on NumPy.
"""

from __future__ import annotations

import textwrap
import types
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bpxp.backends import get_backend
from bpxp.core.text import table
from bpxp.core.tree import named_leaves, tree_map
from bpxp.core.typing import Shape
from bpxp.network.step import training
from bpxp.nn.layer import Layer
from bpxp.nn.sequential import Sequential

if TYPE_CHECKING:
    from bpxp.network.network import Network

SAMPLES = 2  # one sample has no variance, which batch normalisation needs


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
    kept_bytes : int
        What the layer keeps for the backward pass beside what the layers below keep already, per sample.
    """

    name: str
    entries: tuple[Entry, ...]
    parameters: int
    forward_flops: int
    backward_flops: int
    kept_bytes: int


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
        total = (
            f"{self.parameters:,} parameters, {self.dtype}, backend {self.backend}; per sample "
            f"{si(forward)}FLOP forward, {si(backward)}FLOP backward, {si(kept)}B kept for it"
        )
        return "\n".join([*blocks, total])

    def __repr__(self) -> str:
        return str(self)


def make_ledger(net: Network) -> Ledger:
    """Return the ledger of a network; the network is not touched."""
    numpy = get_backend("numpy")
    count = _Counter()
    xp = types.SimpleNamespace(**{**vars(numpy.xp), "matmul": count.matmul})

    def host(tree: Any) -> Any:
        return tree_map(net.backend.to_numpy, tree)

    params, stats, key = host(net.params), host(net.stats), host(net.key)
    x = np.zeros((SAMPLES, *net.input_shape), net.dtype)
    # What is kept is what the whole network keeps: an activation may wait behind the pooling that follows it.
    _, whole = net.model.forward(params, x, xp=xp, **training(net.model, stats, key, None))
    passes, known = [], {id(a) for _, a in named_leaves(params)}
    for i, layer in enumerate(net.layers):
        part = Sequential((layer,))
        context = training(part, stats[i : i + 1], key.at(i) if key else (), None)
        count.flops = 0
        y, caches = part.forward(params[i : i + 1], x, xp=xp, **context)
        passes.append((part, x, y, caches, count.flops, _bytes(whole[i], known)))
        x = y
    layers, dy, first = [], np.zeros_like(x), _first_with_parameters(params)
    for i in range(len(net.layers) - 1, -1, -1):
        part, x, y, caches, forward, kept = passes[i]
        count.flops = 0
        if i > first:
            dy, (grads,) = part.backward(params[i : i + 1], caches, dy, xp=xp)
        elif i == first:
            (grads,) = part.gradients(params[i : i + 1], caches, dy, xp=xp)
        else:
            grads = ()
        entries = tuple(_entries(part.layers[0], x.shape, y.shape, params[i], grads))
        size = sum(a.size for _, a in named_leaves(params[i]))
        costs = (n // SAMPLES for n in (forward, count.flops, kept))
        layers.append(LayerLedger(layer_name(part.layers[0]), entries, size, *costs))
    return Ledger(tuple(reversed(layers)), net.dtype, net.backend.name)


class _Counter:
    """Matrix products, and the floating-point operations that they did."""

    flops = 0

    def matmul(self, a: np.ndarray, b: np.ndarray, /) -> np.ndarray:
        product: np.ndarray = np.matmul(a, b)
        self.flops += 2 * product.size * a.shape[-1]
        return product


def _first_with_parameters(params: tuple[Any, ...]) -> int:
    return next((i for i, own in enumerate(params) if any(True for _ in named_leaves(own))), len(params))


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
    """Return the bytes of the arrays in a cache that are not known yet; then they are."""
    total = 0
    for _, a in named_leaves(caches):
        owner = a if getattr(a, "base", None) is None else a.base
        if isinstance(a, np.ndarray) and id(owner) not in known:
            known.add(id(owner))
            total += owner.nbytes
    return total


def layer_name(layer: Layer) -> str:
    """Return ``"Dense(30), Sigmoid"``: the layer, its width, and what is applied to it."""
    activation = getattr(layer, "activation", None)
    units = getattr(layer, "units", getattr(layer, "filters", ""))
    name = f"{type(layer).__name__}{f'({units})' if units else ''}"
    return f"{name}, {type(activation).__name__}" if activation is not None else name


def _block(i: int, layer: LayerLedger) -> str:
    head = f"{i}  {layer.name}: {layer.parameters:,} parameters, "
    head += f"{si(layer.forward_flops)}FLOP forward, {si(layer.backward_flops)}FLOP backward, "
    head += f"{si(layer.kept_bytes)}B kept, per sample"
    return "\n".join([head, textwrap.indent(table(layer.entries), "   ")])


def si(n: float) -> str:
    """Return ``"23.5 k"``."""
    for prefix in ("", "k", "M", "G", "T"):
        if n < 1000:
            return f"{n:.0f} {prefix}" if n == int(n) and n < 1000 and not prefix else f"{n:.3g} {prefix}"
        n /= 1000
    return f"{n:.3g} P"
