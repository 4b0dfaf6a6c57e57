"""How many samples evaluation and prediction pass through a network at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bpxp.backends import Backend
from bpxp.core.tree import tree_map
from bpxp.core.typing import Array, Namespace, Params
from bpxp.data.rows import Rows
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


def in_pieces(run: Callable[[Array], Array], x: Array | Rows, size: int, backend: Backend) -> Array:
    """Return what `run` makes of samples, at most `size` of them at a time."""
    n, parts = int(x.shape[0]), []
    for i in range(0, n, size):
        end = min(i + size, n)
        parts.append(run(backend.asarray(x.read(i, end)) if isinstance(x, Rows) else x[i:end, ...]))
    return parts[0] if len(parts) == 1 else backend.xp.concat(parts, axis=0)
