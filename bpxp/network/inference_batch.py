"""How many samples evaluation and prediction pass through a network at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bpxp.core.tree import tree_map
from bpxp.network.step import evaluation
from bpxp.nn.windows import WORKSPACE

if TYPE_CHECKING:
    from bpxp.network.network import Network

CHUNK = 1000  # at most
ROOMS = 32  # and no more images than need so many times the workspace on their way


def samples_at_a_time(net: Network, /) -> int:
    """Return how many samples there is room for, found by one that goes forward without its numbers."""
    if len(net.input_shape) == 1:  # no layer makes many more numbers of a vector than it has parameters
        return CHUNK
    # Not imported by those who have vectors.
    from bpxp.backends.abstract.array import Meter
    from bpxp.backends.abstract.namespace import shape_namespace, shape_of

    meter = Meter()
    xp = shape_namespace(meter, net.xp)
    params, stats = tree_map(lambda a: shape_of(a, meter), (net.params, net.stats))
    kept = meter.live
    x = xp.empty((1, *net.input_shape), dtype=getattr(xp, net.dtype))
    try:
        net.model.forward(params, x, xp=xp, **evaluation(net.model, stats))
    except Exception:  # a layer of the user's own may ask for numbers
        return CHUNK
    room: int = getattr(net.xp, "workspace", WORKSPACE)
    return max(1, min(CHUNK, ROOMS * room // (meter.peak - kept)))
