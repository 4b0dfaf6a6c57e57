"""One training step, run as it is written, with an observer that looks at every number.

A training step never inspects values, which is why it is fast. This one runs after a divergence: it says how large each
quantity of each layer was, and which is the first that is not finite.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bpxp.core.tree import named_leaves, tree_map
from bpxp.core.typing import Array, Namespace, Params
from bpxp.network.step import loss_and_gradients, mass_and_share, training
from bpxp.nn.losses import Loss
from bpxp.nn.observe import Part, children, observed
from bpxp.nn.sequential import Sequential, activation_of, has_arrays
from bpxp.optim import Optimizer, OptState

Path = tuple[int, ...]


class Quantity(NamedTuple):
    """What is known of one array.

    Attributes
    ----------
    layer : tuple of int
        ``(1,)`` is the second layer, ``(1, 0)`` the first of its branch; () belongs to none: the input, the loss.
    name : str
        x, W, z, a, loss, delta, dW, dx, …, as in the equations.
    largest, norm : float
        Largest magnitude and Euclidean norm of the finite numbers.
    bad, size : int
        How many numbers are NaN or infinite, and how many there are.
    first : tuple of int
        The index of the first of them; () where there is none.
    rows : tuple of int
        Where the first axis is the mini-batch: the samples that have one.
    """

    layer: Path
    name: str
    largest: float
    norm: float
    bad: int
    size: int
    first: tuple[int, ...]
    rows: tuple[int, ...]

    @property
    def place(self) -> str:
        """``"z of layer 1"``, ``"loss"``."""
        name, after, _ = self.name.partition(AFTER)
        if self.layer:
            return f"{name} of layer {'.'.join(map(str, self.layer))}{after}"
        return "delta of the loss" if name == "delta" else name


class Batch(NamedTuple):
    """A mini-batch as the first layer and the loss take it: gathered, scaled and augmented."""

    x: Array
    y: Array
    weight: Array | None
    present: Array | None


AFTER = " after the step"  # ends the name of a value that the step has updated
OF_SAMPLES = ("x", "y", "z", "a", "delta", "dx")  # quantities whose first axis is the mini-batch


def quantity(layer: Path, name: str, a: np.ndarray) -> Quantity:
    """Look at an array of the host."""
    wide = np.asarray(a, np.float64)
    finite = np.isfinite(wide)
    bad = int(finite.size - np.count_nonzero(finite))
    plain = np.where(finite, wide, 0.0)
    largest = float(np.max(np.abs(plain), initial=0.0))
    # The squares of numbers of float64 may be too large for it.
    norm = largest * float(np.linalg.norm((plain / largest).reshape(-1))) if largest else 0.0
    first: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()
    if bad:
        first = tuple(int(i) for i in np.argwhere(~finite)[0])
        if name in OF_SAMPLES:
            rows = tuple(int(i) for i in np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1)))
    return Quantity(layer, name, largest, norm, bad, int(wide.size), first, rows)


def first_bad(seen: Sequence[Quantity]) -> Quantity | None:
    """Return the first quantity that is not finite, in the order in which a step computes them."""
    return next((q for q in seen if q.bad), None)


class Tracer:
    """An observer of one training step: `seen` are its quantities, in the order in which it computes them."""

    def __init__(self, model: Sequential, loss: Loss, optimizer: Optimizer, *, xp: Namespace, to_numpy: Any) -> None:
        self.model, self.loss, self.optimizer, self.xp, self.to_numpy = model, loss, optimizer, xp, to_numpy
        self.seen: list[Quantity] = []

    def run(self, params: Params, opt: OptState, stats: Any, key: Any, batch: Batch) -> list[Quantity]:
        """Do the step, and return what was seen; parameters, optimizer state and statistics are donated."""
        with np.errstate(all="ignore"):
            return self._run(params, opt, stats, key, batch)

    def _run(self, params: Params, opt: OptState, stats: Any, key: Any, batch: Batch) -> list[Quantity]:
        xp, (model, loss) = self.xp, observed(self.model, self.loss, self)
        context = training(model, stats, key, batch.present)
        first = next((i for i, own in enumerate(params) if has_arrays(own)), len(params))
        self._lowest = (first,)
        self._look((), "x", batch.x)
        x, y, weight, present = batch
        _, share = mass_and_share(x, weight, present, xp=xp)
        _, grads, caches = loss_and_gradients(model, loss, params, x, y, weight, context, share, xp=xp)
        if first == len(params):
            return self.seen
        if "stats" in model.uses:
            self._look_at(f"{{}} of the statistics{AFTER}", model.advance(stats, caches, xp=xp))
        params, opt = self.optimizer.update(params, grads, opt, xp=xp)
        for i, slot in enumerate(opt.slots):
            self._look_at(f"the optimizer's slot {i} of {{}}{AFTER}", slot)
        self._look_at(f"{{}}{AFTER}", params)
        self._look_at(f"average of {{}}{AFTER}", opt.average)
        return self.seen

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call, and look at what the part has and returns."""
        thing = part.thing
        here = () if method == "__call__" else tuple(map(int, part.place.split(".")))
        own = not children(thing)  # else parameters and gradients are those of the children
        if method == "forward" and own:
            self._look_at("{}", args[0], here)
            self._look_at("{} of the statistics", context.get("stats") or (), here)
        done = getattr(thing, method)(*args, xp=xp, **context)
        if method == "__call__":
            self._look((), "loss", done[0])
            self._look((), "delta", done[1])
        elif method == "forward":
            self._look(here, "a" if part.applied else output(thing), done[0])
        elif method in ("backward", "gradients"):
            if own:
                self._look_at("d{}", done if method == "gradients" else done[1], here)
            if part.applied:
                self._look(here, "delta", done[0])
            elif method == "backward" and here != self._lowest:  # a step has no use for the dx of the lowest layer
                self._look(here, "dx", done[0])
        return done

    def _look(self, layer: Path, name: str, a: Array) -> None:
        self.seen.append(quantity(layer, name, self.to_numpy(a)))

    def _look_at(self, name: str, tree: Any, layer: Path = ()) -> None:
        """Look at the leaves of a tree whose positions are those of layers, and then of fields."""
        for place, a in named_leaves(tree):
            below, field = layer_and_field(place)
            self._look((*layer, *below), name.format(field), a)


def layer_and_field(place: str) -> tuple[Path, str]:
    """Return ``((1, 0), "W")`` for ``"1/0/W"``; a leaf without a name is called by its number."""
    parts = place.split("/")
    count = next((i for i, part in enumerate(parts[:-1]) if not part.isdigit()), len(parts) - 1)
    return tuple(map(int, parts[:count])), "/".join(parts[count:])


def output(layer: Any) -> str:
    """Return what a layer's output is called: z where its equations have it so, or something is applied to it."""
    named = "z" in getattr(layer, "symbols", {}) or activation_of(layer) is not None
    return "z" if named else "y"


def layer_at(model: Sequential, path: Path) -> Any:
    """Return the layer of a path, as far as containers name their children."""
    layer: Any = model
    for i in path:
        inside = children(layer)
        layer = inside[i] if i < len(inside) else layer
    return layer


def own_copy(tree: Any, xp: Namespace) -> Any:
    """Return a copy of a tree on the device, to be donated."""
    return tree_map(lambda a: xp.asarray(a, copy=True), tree)
