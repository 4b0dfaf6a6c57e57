"""Convolution as matrix products: z = im2col(x) W + b, dW = im2col(x)ᵀ δ and dx = col2im(δ Wᵀ).

A row of im2col(x) holds what one window sees. col2im is its transpose: each pixel sums what the windows that see it
give back, by gathers through an inverse index table. Both matrices are made for a block of samples at a time, as many
as fit the workspace. Groups are a leading axis, over which matrix products run; without groups there is no such axis.
"""

from __future__ import annotations

from bpxp.core.typing import Array, Namespace
from bpxp.nn import window_tables
from bpxp.nn.window_views import blocks, joined, padded, views
from bpxp.nn.windows import Grid, has_padding, rotated

FEW = 4  # fewer channels than this are too short a row to gather: each tap is copied as an image instead
STREAMED = 4  # such copies are read and written in long runs: worth so many times the memory near the core
WASTE = 1.5  # so many times the numbers of the gathering may be moved for dx as a convolution


def correlate(x: Array, W: Array, b: Array | None, grid: Grid, groups: int, /, *, xp: Namespace) -> Array:
    """Return z = im2col(x) W + b, (batch, out_h, out_w, filters)."""
    height, width, filters = grid.rows.out, grid.columns.out, W.shape[3]
    matrix = kernel_matrix(W, groups, xp=xp)
    # One long row of biases per row of pixels: adding short rows costs NumPy more than the addition.
    biases = None if b is None else xp.tile(b, (width,))
    table = im2col_table(x, grid, groups, xp=xp)
    parts = []
    for block in sample_blocks(x, grid, groups, xp=xp):
        z = xp.matmul(im2col(x[block, ...], grid, groups, table, xp=xp), matrix)
        if groups > 1:
            z = xp.permute_dims(z, (1, 0, 2))
        if biases is not None:
            z = xp.reshape(z, (-1, width * filters))
            z += biases
        parts.append(xp.reshape(z, (-1, height, width, filters)))
    return joined(parts, xp=xp)


def kernel_gradient(x: Array, delta: Array, W: Array, grid: Grid, groups: int, /, *, xp: Namespace) -> Array:
    """Return dW = im2col(x)ᵀ δ, in the shape of W, the sum over the blocks of samples."""
    table = im2col_table(x, grid, groups, xp=xp)
    dW = None
    for block in sample_blocks(x, grid, groups, xp=xp):
        rows = delta_rows(delta[block, ...], groups, xp=xp)
        rows = xp.reshape(rows, (*_lead(groups), -1, rows.shape[-1]))
        part = xp.matmul(xp.matrix_transpose(im2col(x[block, ...], grid, groups, table, xp=xp)), rows)
        if dW is None:
            dW = part
        else:
            dW += part
    if groups > 1:
        dW = xp.permute_dims(xp.reshape(dW, (groups, _taps(grid), W.shape[2], W.shape[3] // groups)), (1, 2, 0, 3))
    return xp.reshape(dW, W.shape)


def bias_gradient(delta: Array, /, *, xp: Namespace) -> Array:
    """Return db = Σ δ over samples and windows: along rows of pixels first, since short rows are slow to add."""
    _, _, width, filters = delta.shape
    db = xp.sum(xp.reshape(delta, (-1, width * filters)), axis=0)
    return xp.sum(xp.reshape(db, (width, filters)), axis=0)


def input_gradient(x: Array, delta: Array, W: Array, grid: Grid, groups: int, /, *, xp: Namespace) -> Array:
    """Return dx: as a convolution of δ with the kernel rotated by 180 degrees, or else col2im(δ Wᵀ)."""
    if groups == 1 and rotation_pays(grid, x.shape[3], W.shape[3], xp=xp):
        kernel = xp.permute_dims(xp.flip(W, axis=(0, 1)), (0, 1, 3, 2))
        return correlate(delta, kernel, None, rotated(grid), 1, xp=xp)
    WT = xp.matrix_transpose(kernel_matrix(W, groups, xp=xp))
    tables = [] if pointwise(grid) else window_tables.inverse_windows(grid, xp=xp)
    parts = []
    for block in sample_blocks(x, grid, groups, xp=xp):
        rows = delta_rows(delta[block, ...], groups, xp=xp)
        if tables:
            rows = window_tables.with_zeros(rows, xp=xp)  # in δ, and so in what the windows give back
        given = xp.matmul(xp.reshape(rows, (*_lead(groups), -1, rows.shape[-1])), WT)
        given = xp.reshape(given, (*rows.shape[:-2], rows.shape[-2] * _taps(grid), x.shape[3] // groups))
        parts.append(col2im(given, tables, groups, x.shape, xp=xp))
    return joined(parts, xp=xp)


def rotation_pays(grid: Grid, channels: int, filters: int, /, *, xp: Namespace) -> bool:
    """Return whether dx is computed as a convolution: windows step by one pixel, and not many more numbers are moved.

    Each tap moves the filters of a pixel of δ for each pixel of x, or the channels of a pixel of x for each of δ. A
    compiler that adds what it gathers without storing it needs half the time for the latter.
    """
    if getattr(xp, "fuses", False):
        return False
    pixels, seen = grid.rows.n * grid.columns.n, grid.rows.out * grid.columns.out
    whole = all(a.stride == 1 and max(a.before, a.after) <= a.dilation * (a.kernel - 1) for a in grid)
    return whole and pixels * filters <= WASTE * seen * channels and not pointwise(grid)


def im2col(x: Array, grid: Grid, groups: int, table: Array | None, /, *, xp: Namespace) -> Array:
    """Return what each window sees, ([groups,] batch · windows, taps · channels/groups)."""
    batch, height, width, channels = x.shape
    if by_planes(channels, grid, groups):
        planes = xp.permute_dims(padded(x, grid, 0.0, xp=xp), (3, 0, 1, 2))
        taps = [tap for row in views(planes, 2, grid.rows) for tap in views(row, 3, grid.columns)]
        return xp.matrix_transpose(xp.reshape(xp.stack(taps, axis=0), (len(taps) * channels, -1)))
    pixels = split_groups(xp.reshape(x, (batch, height * width, channels)), groups, xp=xp)
    if table is not None:
        if has_padding(grid):
            pixels = window_tables.with_zeros(pixels, xp=xp)
        pixels = xp.take(pixels, table, axis=-2)
    return xp.reshape(pixels, (*_lead(groups), -1, _taps(grid) * (channels // groups)))


def col2im(given: Array, tables: list[Array], groups: int, shape: tuple[int, ...], /, *, xp: Namespace) -> Array:
    """Return images, the sum for each pixel of what the taps of the windows that see it give back."""
    _, height, width, channels = shape
    dx = window_tables.sum_of_gathers(given, tables, xp=xp) if tables else given
    if groups > 1:
        dx = xp.permute_dims(dx, (1, 2, 0, 3))
    return xp.reshape(dx, (-1, height, width, channels))


def im2col_table(x: Array, grid: Grid, groups: int, /, *, xp: Namespace) -> Array | None:
    """Return the index table of `im2col`; None where it copies whole planes, or all pixels in their order."""
    if by_planes(x.shape[3], grid, groups) or pointwise(grid):
        return None
    return window_tables.pixels_of_windows(grid, xp=xp)


def sample_blocks(x: Array, grid: Grid, groups: int, /, *, xp: Namespace) -> list[slice]:
    """Return the batch in slices whose im2col matrix fits the workspace."""
    numbers = grid.rows.out * grid.columns.out * _taps(grid) * x.shape[3]
    if by_planes(x.shape[3], grid, groups):
        numbers = -(-numbers // STREAMED)
    return blocks(x.shape[0], numbers, x.dtype, xp=xp)


def kernel_matrix(W: Array, groups: int, /, *, xp: Namespace) -> Array:
    """Return W as ([groups,] taps · channels/groups, filters/groups)."""
    kh, kw, seen, filters = W.shape
    if groups == 1:
        return xp.reshape(W, (kh * kw * seen, filters))
    W = xp.reshape(W, (kh * kw * seen, groups, filters // groups))
    return xp.permute_dims(W, (1, 0, 2))


def delta_rows(delta: Array, groups: int, /, *, xp: Namespace) -> Array:
    """Return δ with a row for each window, ([groups,] batch, windows, filters/groups)."""
    _, height, width, filters = delta.shape
    return split_groups(xp.reshape(delta, (-1, height * width, filters)), groups, xp=xp)


def split_groups(rows: Array, groups: int, /, *, xp: Namespace) -> Array:
    """Return (batch, n, c) as ([groups,] batch, n, c/groups)."""
    if groups == 1:
        return rows
    batch, n, c = rows.shape
    return xp.permute_dims(xp.reshape(rows, (batch, n, groups, c // groups)), (2, 0, 1, 3))


def by_planes(channels: int, grid: Grid, groups: int) -> bool:
    """Return whether each tap is copied as an image, channel by channel."""
    return channels < FEW and groups == 1 and not pointwise(grid)


def pointwise(grid: Grid) -> bool:
    """Return whether every window is one pixel, and every pixel a window."""
    return all(a.kernel == 1 and a.stride == 1 for a in grid) and not has_padding(grid)


def _lead(groups: int) -> tuple[int, ...]:
    return () if groups == 1 else (groups,)


def _taps(grid: Grid) -> int:
    return grid.rows.kernel * grid.columns.kernel
