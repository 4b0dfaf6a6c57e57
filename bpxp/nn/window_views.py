"""What windows see of an array, as views without copies; padding; and blocks of samples that fit the workspace."""

from __future__ import annotations

from typing import Any

from bpxp.core.typing import Array, Namespace
from bpxp.nn.windows import Axis, Grid

# What the windows see is copied for as many samples at a time as fit into so many bytes, unless the namespace has a
# `workspace` of its own: NumPy 1 MiB, the size of a core's cache, with which it is up to three times as fast; PyTorch
# on the CPU 8 MiB, which keeps several threads busy.
WORKSPACE = 64 << 20


def views(x: Array, axis: int, along: Axis) -> list[Array]:
    """Return for each tap of the kernel what the windows see through it along an axis of the padded x: no copies."""
    before: tuple[Any, ...] = (slice(None),) * axis
    length = along.stride * (along.out - 1) + 1
    starts = [t * along.dilation for t in range(along.kernel)]
    return [x[(*before, slice(start, start + length, along.stride), ...)] for start in starts]


def padded(x: Array, grid: Grid, value: float, /, *, xp: Namespace) -> Array:
    """Return images (batch, height, width, channels) with `value` around them; x itself where there is no padding."""
    return padded_along(padded_along(x, 1, grid.rows, value, xp=xp), 2, grid.columns, value, xp=xp)


def padded_along(x: Array, axis: int, along: Axis, value: float, /, *, xp: Namespace) -> Array:
    """Return x with `value` before and after it along one axis; x itself where there is no padding."""
    if not (along.before or along.after):
        return x
    ends = [(*x.shape[:axis], n, *x.shape[axis + 1 :]) for n in (along.before, along.after)]
    before, after = (xp.full(shape, value, dtype=x.dtype) for shape in ends)
    return xp.concat([before, x, after], axis=axis)


def blocks(batch: int, numbers: int, dtype: Any, /, *, xp: Namespace) -> list[slice]:
    """Return the batch in slices of at least one sample, as many as fit the workspace with `numbers` each."""
    workspace: int = getattr(xp, "workspace", WORKSPACE)
    size = max(1, workspace // (numbers * xp.finfo(dtype).bits // 8))
    return [slice(i, min(i + size, batch)) for i in range(0, batch, size)]


def joined(parts: list[Array], /, *, xp: Namespace) -> Array:
    """Return the blocks of a batch as one array."""
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
