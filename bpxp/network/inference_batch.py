"""How many samples evaluation and prediction pass through a network at once."""

from __future__ import annotations

from typing import Any

from bpxp.core.tree import tree_map
from bpxp.core.typing import Namespace, Params
from bpxp.network.step import evaluation
from bpxp.nn.spec import Spec
from bpxp.nn.window_views import WORKSPACE

CHUNK = 1000  # at most
WORKSPACES = 32  # and no more images than need so many times the workspace


def samples_at_a_time(spec: Spec, params: Params, stats: Any, xp: Namespace, /) -> int:
    """Return how many samples fit, measured by the forward pass of an abstract one."""
    if len(spec.input_shape) == 1:  # no layer makes many more numbers of a vector than it has parameters
        return CHUNK
    # Imported only for images.
    from bpxp.backends.abstract.array import Meter
    from bpxp.backends.abstract.namespace import shape_namespace, shape_of

    meter = Meter()
    workspace: int = getattr(xp, "workspace", WORKSPACE)
    xp = shape_namespace(meter, xp)
    params, stats = tree_map(lambda a: shape_of(a, meter), (params, stats))
    kept = meter.live
    x = xp.empty((1, *spec.input_shape), dtype=getattr(xp, spec.dtype))
    try:
        spec.model.forward(params, x, xp=xp, **evaluation(spec.model, stats))
    except Exception:  # a custom layer may ask for numbers
        return CHUNK
    return max(1, min(CHUNK, WORKSPACES * workspace // (meter.peak - kept)))
