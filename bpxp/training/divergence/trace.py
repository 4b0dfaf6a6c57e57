"""One training step, layer by layer as it is written, with a look at every number on the way.

The step itself looks at nothing, which is why it is fast. This one is run when something has gone wrong: it says what
each quantity of each layer was, and which is the first that is not finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bpxp.core.tree import named_leaves, tree_map
from bpxp.core.typing import Array, Namespace, Params
from bpxp.network.step import training
from bpxp.nn.losses import Loss
from bpxp.nn.sequential import Sequential, activation_of, context_of, has_arrays
from bpxp.optim import Optimizer, OptState

Path = tuple[int, ...]


class Quantity(NamedTuple):
    """What was seen of one array.

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


AFTER = " after the step"  # ends the name of what the step has made of what was there
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
    """Runs one training step and looks at it.

    Parameters
    ----------
    model, loss, optimizer
        Of the step.
    xp : namespace
    to_numpy : callable
        Of the backend.

    Attributes
    ----------
    seen : list of Quantity
        In the order in which a step computes them.
    """

    def __init__(self, model: Sequential, loss: Loss, optimizer: Optimizer, *, xp: Namespace, to_numpy: Any) -> None:
        self.model, self.loss, self.optimizer, self.xp, self.to_numpy = model, loss, optimizer, xp, to_numpy
        self.seen: list[Quantity] = []

    def run(self, params: Params, opt: OptState, stats: Any, key: Any, batch: Batch) -> list[Quantity]:
        """Do the step on what is given away, and return what was seen."""
        with np.errstate(all="ignore"):
            return self._run(params, opt, stats, key, batch)

    def _run(self, params: Params, opt: OptState, stats: Any, key: Any, batch: Batch) -> list[Quantity]:
        xp, model = self.xp, self.model
        context = training(model, stats, key, batch.present)
        self._look((), "x", batch.x)
        logits, caches = self._forward((), model, params, batch.x, context, stats)
        value, delta = self.loss(logits, batch.y, batch.weight, xp=xp)
        self._look((), "loss", value)
        self._look((), "delta", delta)
        first = next((i for i, own in enumerate(params) if has_arrays(own)), len(params))
        if first == len(params):
            return self.seen
        _, grads = self._backward((), model, params, caches, delta, first)
        if "stats" in model.uses:
            self._look_at(f"{{}} of the statistics{AFTER}", model.advance(stats, caches, xp=xp))
        params, opt = self.optimizer.update(params, grads, opt, xp=xp)
        for i, slot in enumerate(opt.slots):
            self._look_at(f"the optimizer's slot {i} of {{}}{AFTER}", slot)
        self._look_at(f"{{}}{AFTER}", params)
        self._look_at(f"average of {{}}{AFTER}", opt.average)
        return self.seen

    def _forward(
        self, path: Path, model: Sequential, params: Params, x: Array, context: dict[str, Any], stats: Any
    ) -> tuple[Array, tuple[Any, ...]]:
        """Go through layers as `Sequential.forward` does."""
        caches = []
        for i, ((layer, activation, uses), own) in enumerate(zip(model._plan, params, strict=True)):
            here, branch = (*path, i), branch_of(layer)
            given = context_of(i, uses, context)
            if branch is None:
                self._look_at("{}", own, here)
                if stats and stats[i]:
                    self._look_at("{} of the statistics", stats[i], here)
            else:  # what its layers do is looked at first, by themselves
                self._forward(here, branch, own, x, given, stats[i] if stats else ())
            x, cache = layer.forward(own, x, xp=self.xp, **given)
            self._look(here, output(layer), x)
            kept = None
            if activation is not None:
                x, kept = activation.forward((), x, xp=self.xp)
                self._look(here, "a", x)
            caches.append((cache, kept))
        return x, tuple(caches)

    def _backward(
        self, path: Path, model: Sequential, params: Params, caches: tuple[Any, ...], dy: Array, end: int
    ) -> tuple[Array, Params]:
        """Go back to layer `end`, as `Sequential.gradients` does, or to the first, as `backward` does within."""
        grads: list[Params] = []
        for i in range(len(params) - 1, end - 1, -1):
            (layer, activation, _), (cache, kept), here = model._plan[i], caches[i], (*path, i)
            if activation is not None:
                dy, _ = activation.backward((), kept, dy, xp=self.xp)
                self._look(here, "delta", dy)
            branch = branch_of(layer)
            if branch is not None:
                self._backward(here, branch, params[i], cache, dy, 0)
            lowest = i == end and not path
            if lowest and hasattr(layer, "gradients"):
                own = layer.gradients(params[i], cache, dy, xp=self.xp)
            else:
                dy, own = layer.backward(params[i], cache, dy, xp=self.xp)
            if branch is None:
                self._look_at("d{}", own, here)
            if not lowest:
                self._look(here, "dx", dy)
            grads.append(own)
        return dy, (*params[:end], *reversed(grads))

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


def branch_of(layer: Any) -> Sequential | None:
    """Return the layers of which a layer is made."""
    branch = getattr(layer, "branch", None)
    return branch if isinstance(branch, Sequential) else None


def output(layer: Any) -> str:
    """Return what a layer's output is called: z where its equations have it so, or something is applied to it."""
    named = "z" in getattr(layer, "symbols", {}) or activation_of(layer) is not None
    return "z" if named else "y"


def layer_at(model: Sequential, path: Path) -> Any:
    """Return the layer of a path."""
    layer: Any = model.layers[path[0]]
    for i in path[1:]:
        branch = branch_of(layer)
        assert branch is not None
        layer = branch.layers[i]
    return layer


def own_copy(tree: Any, xp: Namespace) -> Any:
    """Return a tree on the device that may be given away."""
    return tree_map(lambda a: xp.asarray(a, copy=True), tree)
