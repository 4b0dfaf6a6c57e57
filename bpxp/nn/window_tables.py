"""Index tables of windows: which pixels a window sees, and inversely which windows see a pixel.

With the inverse table the sum that a scatter would add becomes a sum of a few gathers: deterministic, without atomics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from bpxp.core.typing import Array, Namespace
from bpxp.nn.windows import Axis, Grid, has_padding, tiling


class Table(Protocol):
    """A function of windows alone."""

    def __call__(self, grid: Grid, /, *, xp: Namespace) -> Any: ...


def cached_table(make: Callable[[Grid, Namespace], Any]) -> Table:
    """Return `make` as a function that computes a table once, where the namespace has a `memo`.

    A namespace that traces names in `tables` the one to compute with.
    """

    def table(grid: Grid, /, *, xp: Namespace) -> Any:
        memo: dict[Any, Any] | None = getattr(xp, "memo", None)
        if memo is None:
            return make(grid, xp)
        key = make, grid
        if key not in memo:
            memo[key] = make(grid, getattr(xp, "tables", xp))
        return memo[key]

    table.__doc__ = make.__doc__
    return table


# ---------------------------------------------------------------- which pixels a window sees


def _pixels_of_windows(grid: Grid, xp: Namespace) -> Array:
    """Return which pixel each tap of each window sees, (windows · kh · kw,), int32.

    Pixels and windows are numbered row by row; a tap in the padding has the number height · width, a row of zeros.
    """
    (h, inside_h), (w, inside_w) = (pixels_along(axis, xp=xp) for axis in grid)
    rows, columns = (grid.rows.out, 1, grid.rows.kernel, 1), (1, grid.columns.out, 1, grid.columns.kernel)
    pixel = xp.reshape(h, rows) * grid.columns.n + xp.reshape(w, columns)
    if has_padding(grid):
        inside = xp.logical_and(xp.reshape(inside_h, rows), xp.reshape(inside_w, columns))
        pixel = xp.where(inside, pixel, grid.rows.n * grid.columns.n)
    return xp.reshape(pixel, (-1,))


def pixels_along(axis: Axis, /, *, xp: Namespace) -> tuple[Array, Array]:
    """Return the pixel o s + t d - p of window o and tap t, and whether it exists, both (out, kernel)."""
    start = xp.reshape(xp.arange(axis.out, dtype=xp.int32), (-1, 1)) * axis.stride
    offset = xp.reshape(xp.arange(axis.kernel, dtype=xp.int32), (1, -1)) * axis.dilation - axis.before
    pixel = start + offset
    return pixel, xp.logical_and(pixel >= 0, pixel < axis.n)


pixels_of_windows = cached_table(_pixels_of_windows)


# ---------------------------------------------------------------- which windows see a pixel


def _inverse_windows(grid: Grid, xp: Namespace) -> list[Array]:
    """Return the inverse of `pixels_of_windows`: tables of the window · kh · kw + tap that sees each pixel, int32.

    What does not exist has the window number out_h · out_w. A pixel is seen in at most ⌈k/s⌉ ways along an axis (in k
    ways where the kernel is dilated), and each way is a table: one where windows lie side by side.
    """
    window, tap, exists, _, taps = _ways(grid, xp)
    return _tables(window * taps + tap, exists, grid.rows.out * grid.columns.out * taps, xp)


def _inverse_windows_by_tap(grid: Grid, xp: Namespace) -> list[Array]:
    """Return the same with all windows of a tap in a row, tap · (out_h · out_w + 1) + window.

    In a `tiling` without the 1: every window exists.
    """
    window, tap, exists, count, _ = _ways(grid, xp)
    return _tables(tap * (count if tiling(grid) else count + 1) + window, exists, count, xp)


def _windows_of_pixels(grid: Grid, xp: Namespace) -> list[Array]:
    """Return the same without the taps: which window sees each pixel."""
    window, _, exists, count, _ = _ways(grid, xp)
    return _tables(window, exists, count, xp)


def _ways(grid: Grid, xp: Namespace) -> tuple[Array, Array, Array, int, int]:
    """Return window, tap and whether that window exists, all (ways, ways, h, w); the number of windows, and of taps."""
    rows, columns = grid
    window_h, tap_h, inside_h = (xp.reshape(a, (-1, 1, rows.n, 1)) for a in inverse_along(rows, xp=xp))
    window_w, tap_w, inside_w = (xp.reshape(a, (1, -1, 1, columns.n)) for a in inverse_along(columns, xp=xp))
    window, tap = window_h * columns.out + window_w, tap_h * columns.kernel + tap_w
    return window, tap, xp.logical_and(inside_h, inside_w), rows.out * columns.out, rows.kernel * columns.kernel


def _tables(index: Array, exists: Array, absent: int, xp: Namespace) -> list[Array]:
    *_, h, w = index.shape
    index = xp.reshape(xp.where(exists, index, absent), (-1, h * w))
    return [index[way, :] for way in range(index.shape[0])]


def inverse_along(axis: Axis, /, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return (o, t, whether window o exists) of all solutions of o s + t d - p = pixel, each (ways, n)."""
    place = xp.reshape(xp.arange(axis.n, dtype=xp.int32), (1, -1)) + axis.before
    ways = axis.kernel if axis.dilation > 1 else -(-axis.kernel // axis.stride)
    way = xp.reshape(xp.arange(ways, dtype=xp.int32), (-1, 1))
    if axis.dilation > 1:
        tap = way + place * 0
        start = place - tap * axis.dilation
        window = start // axis.stride
        inside = start == window * axis.stride
    else:  # the taps that are congruent to the place, modulo the stride
        newest = place // axis.stride
        window = newest - way
        tap = place - window * axis.stride
        inside = tap < axis.kernel
    inside = xp.logical_and(inside, xp.logical_and(window >= 0, window < axis.out))
    return window, tap, inside


inverse_windows = cached_table(_inverse_windows)
inverse_windows_by_tap = cached_table(_inverse_windows_by_tap)
windows_of_pixels = cached_table(_windows_of_pixels)


def sum_of_gathers(rows: Array, tables: list[Array], /, *, xp: Namespace) -> Array:
    """Return for each pixel the sum of the rows that an inverse table names: (…, n, c) to (…, pixels, c)."""
    dx = xp.take(rows, tables[0], axis=-2)
    for table in tables[1:]:
        dx += xp.take(rows, table, axis=-2)
    return dx


def with_zeros(rows: Array, /, *, xp: Namespace) -> Array:
    """Return (…, n, c) with a row of zeros behind the last, which the index n gathers."""
    return xp.concat([rows, xp.zeros((*rows.shape[:-2], 1, rows.shape[-1]), dtype=rows.dtype)], axis=-2)
