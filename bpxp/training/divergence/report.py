"""The report on a step that diverged: which quantity, of which samples, the magnitudes before it, what to try."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from bpxp.errors import DivergenceError
from bpxp.network.summary import layer_name
from bpxp.nn.sequential import Sequential
from bpxp.training.divergence.trace import AFTER, Quantity, first_bad, layer_and_field, layer_at

EXPONENT = 80.0  # e to this power is finite in float32
LARGE = 1e3  # numbers of a network in good health are smaller
SHOWN = 5  # samples that a message names


def diagnose(
    model: Sequential,
    *,
    where: str,
    noticed: Sequence[str],
    rate: float,
    losses: Sequence[float],
    after: str,
    seen: Sequence[Quantity] = (),
    samples: np.ndarray | None = None,
) -> DivergenceError:
    """Return the error that says what is known.

    `noticed` names the arrays of the state that were not finite, ``"params/0/W"``, ``"loss"``; `rate` is the learning
    rate, `losses` are those of the epochs before, `after` says what the network is now. `seen` are the quantities of
    the step, in the order in which it computes them, and `samples` its mini-batch, if it could be found.
    """
    bad = first_bad(seen)
    told = [f"the learning rate is {rate:g}"]
    if losses:
        told.append(f"losses of the epochs before: {', '.join(f'{loss:.4g}' for loss in losses[-3:])}")
    rows = np.arange(0) if samples is None else samples
    fix, got = GENTLER, ""
    if bad is None:
        what = f"{_of_the_state(noticed[0])} is not finite"
        if seen:
            top = max(seen, key=lambda q: q.largest)
            what += ", though all of this step is, layer by layer"
            told.insert(0, f"the largest number of it is one of {top.place}, {top.largest:.3g}")
    else:
        name = f" ({layer_name(layer_at(model, bad.layer))})" if bad.layer else ""
        what = f"{bad.place}{name} is not finite"
        got = f"{bad.bad:,} of {bad.size:,} numbers, the first at {list(bad.first)}"
        if bad.rows:
            rows = rows[[i for i in bad.rows if i < len(rows)]]  # others only fill up the mini-batch
            told.insert(0, _of_samples(rows))
        told.insert(0, _before(bad, seen))
        fix = advice(model, bad, seen)
    error = DivergenceError(where, what, code="E052", got=got, first=_sentence(told), fix=fix, after=after)
    error.learning_rate, error.seen = rate, list(seen)
    error.samples, error.bad_samples = (np.arange(0) if samples is None else samples), rows
    if bad is not None:
        error.layer, error.quantity = bad.layer[0] if bad.layer else None, bad.name
    return error


def _of_the_state(name: str) -> str:
    """Return ``"W of layer 0"`` for ``"params/0/W"``."""
    tree, _, place = name.partition("/")
    if tree == "loss":
        return "the sum of the losses"
    if tree == "slots":
        place = place.partition("/")[2]
    layer, field = layer_and_field(place)
    of = {"stats": "the statistics' ", "slots": "the optimizer's slot of ", "average": "the average of "}.get(tree, "")
    return f"{of}{field} of layer {'.'.join(map(str, layer))}"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(part for part in parts if part)
    return text[:1].upper() + text[1:]


def _of_samples(numbers: np.ndarray) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    return f"sample{'s' if len(numbers) > 1 else ''} {shown}{', …' if len(numbers) > SHOWN else ''} of the data"


def _before(bad: Quantity, seen: Sequence[Quantity]) -> str:
    """Write how large what the quantity is made of was: the layer's own arrays, and what came to it."""
    before = seen[: seen.index(bad)]
    own = [q for q in before if q.layer == bad.layer and q.name != "x" and not computed(q.name)][:2]
    made_of = dict.fromkeys([*own, *before[-1:], *[q for q in before if q.name in ("a", "z", "y", "x")][-1:]])
    parts = [f"{q.place} up to {q.largest:.3g} (norm {q.norm:.3g})" for q in made_of]
    return f"before it were {', '.join(parts)}" if parts else ""


# ---------------------------------------------------------------- what to try

GENTLER = "a smaller learning rate, clip_norm=1.0 in the optimizer, or scaled data"


def advice(model: Sequential, bad: Quantity, seen: Sequence[Quantity]) -> str:
    """Return what is worth trying, by what was large when it happened."""
    before = seen[: seen.index(bad)]
    data = next((q.largest for q in seen if q.name == "x" and not q.layer), 0.0)
    weights = max((q.largest for q in before if q.layer and q.name[:1] in "Wb"), default=0.0)
    if bad.name == "x" and not bad.layer:
        return "look at the transforms of augment=: what they return is not finite"
    if bad.layer and not computed(bad.name):
        return "begin with finite parameters: the network had such numbers before the step"
    if not math.isfinite(data) or data > LARGE:
        return f"scale the data, x = (x - mean)/std: its numbers go up to {data:.3g}"
    if weights > LARGE:
        return f"a smaller learning rate, or clip_norm=1.0 in the optimizer: parameters have grown to {weights:.3g}"
    if bad.name == "loss" and all(q.largest < EXPONENT for q in before if q.layer):
        return "scale the targets, y = (y - y.mean())/y.std(): the outputs are no large numbers"
    layer: Any = layer_at(model, bad.layer) if bad.layer else None
    if layer is not None and not _ours(layer):
        which = "backward" if bad.name[:1] == "d" else "forward"
        return f"look at {type(_theirs(layer)).__name__}.{which}; bpxp.verify.check_gradients(net, x, y) tries it"
    return GENTLER


def computed(name: str) -> bool:
    """Return whether a step makes the quantity; else it was there before."""
    return name in ("z", "y", "a") or name[:1] == "d" or name.endswith(AFTER)


def _theirs(layer: Any) -> Any:
    """Return the layer, or its activation, whichever is not bpxp's."""
    activation = getattr(layer, "activation", None)
    own = type(layer).__module__.partition(".")[0] == "bpxp"
    return activation if own and activation is not None else layer


def _ours(layer: Any) -> bool:
    return type(_theirs(layer)).__module__.partition(".")[0] == "bpxp"
