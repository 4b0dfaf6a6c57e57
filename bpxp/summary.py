"""The table of a network's layers: what goes in, what comes out, how many parameters."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bpxp.nn.sequential import Sequential
from bpxp.tree import named_leaves

if TYPE_CHECKING:
    from bpxp.network import Network


def summarize(net: Network) -> str:
    """Return one line per layer, with the shapes that a sample of zeros has on its way through."""
    rows = [("layer", "output", "activation", "parameters"), ("input", str(net.input_shape), "", "")]
    x = net.xp.zeros((1, *net.input_shape), dtype=getattr(net.xp, net.dtype))
    for layer, own in zip(net.layers, net.params, strict=True):
        x, _ = Sequential((layer,)).forward((own,), x, xp=net.xp)
        activation = getattr(layer, "activation", None)
        count = sum(math.prod(a.shape) for _, a in named_leaves(own))
        name = type(activation).__name__ if activation else ""
        rows.append((type(layer).__name__, str(tuple(x.shape[1:])), name, f"{count:,}"))
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    table = "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
    return f"{table}\n{net.size:,} parameters, {net.dtype}, backend {net.backend.name}"
