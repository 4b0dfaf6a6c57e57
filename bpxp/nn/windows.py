"""Sliding windows over images: how many fit, which pixels each one sees, and which windows see a pixel.

Everything is said per axis first. Window o of an axis starts at ``o s - p`` and its tap t sees pixel
``o s + t d - p``, with stride s, dilation d and p pixels of padding before the first. There are

    out = ⌊(n + p + p' - d (k - 1) - 1) / s⌋ + 1

of them, with kernel k and padding p' after the last.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from bpxp.core.checks import positive_int
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.errors import InvalidTypeError, InvalidValueError

Pair = tuple[int, int]
Padding = str | tuple[Pair, Pair]  # "valid", "same", or ((top, bottom), (left, right))

# Patches are made for as many samples at a time as fit into so many bytes, unless the namespace has a `workspace` of
# its own: NumPy has 1 MiB, what a core has near it, and is up to three times as fast with it; PyTorch on the CPU 8 MiB,
# which keeps several threads busy.
WORKSPACE = 64 << 20


class Axis(NamedTuple):
    """The windows along one axis: n pixels, kernel, stride, dilation, padding before and after, number of windows."""

    n: int
    kernel: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int


class Grid(NamedTuple):
    """The windows of an image: an axis of rows and one of columns."""

    rows: Axis
    columns: Axis


def pair(value: Any, where: str) -> Pair:
    """Return (v, v) for an int v >= 1, or the checked pair."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise InvalidValueError(
                where, "not a pair", code="E002", got=repr(value), expected="an int or (height, width)"
            )
        return positive_int(value[0], where), positive_int(value[1], where)
    both = positive_int(value, where)
    return both, both


def padding(value: Any, where: str) -> Padding:
    """Return "valid", "same" or ((top, bottom), (left, right)) of an int, of a pair, or of two pairs."""
    if isinstance(value, str) and value in ("valid", "same"):
        return str(value)
    both = (value, value) if isinstance(value, numbers.Integral) else value
    pair = isinstance(both, (tuple, list)) and len(both) == 2
    ends = [side if isinstance(side, (tuple, list)) else (side, side) for side in both] if pair else []
    integers = pair and all(len(side) == 2 and all(map(_is_int, side)) for side in ends)
    if not integers or min(map(min, ends)) < 0:
        error = InvalidValueError if integers or isinstance(value, str) else InvalidTypeError
        forms = "'valid', 'same', an int >= 0, (height, width) or ((top, bottom), (left, right))"
        raise error(where, "not a padding", code="E004", got=repr(value), expected=forms)
    (top, bottom), (left, right) = ends
    return (int(top), int(bottom)), (int(left), int(right))


def _is_int(n: Any) -> bool:
    return isinstance(n, numbers.Integral) and not isinstance(n, bool)


def grid(shape: Sequence[int], kernel: Pair, stride: Pair, dilation: Pair, padding: Padding) -> Grid:
    """Return the windows over an image of shape (height, width, …); those that do not fit are counted as < 1."""
    rows, columns = (
        _axis(shape[i], kernel[i], stride[i], dilation[i], padding if isinstance(padding, str) else padding[i])
        for i in (0, 1)
    )
    return Grid(rows, columns)


def _axis(n: int, kernel: int, stride: int, dilation: int, padding: str | Pair) -> Axis:
    reach = dilation * (kernel - 1) + 1
    if padding == "same":  # out = ⌈n/s⌉, and an odd pixel goes to the end: as TensorFlow, JAX and PyTorch have it
        total = max((-(-n // stride) - 1) * stride + reach - n, 0)
        before, after = total // 2, total - total // 2
    else:
        before, after = (0, 0) if isinstance(padding, str) else padding
    return Axis(n, kernel, stride, dilation, before, after, (n + before + after - reach) // stride + 1)


def validate(grid: Grid, where: str) -> Grid:
    """Return the grid.

    Raises
    ------
    InvalidValueError
        If no window fits: the equation that fails, with its numbers.
    """
    for name, axis in (("height", grid.rows), ("width", grid.columns)):
        if axis.out < 1:
            n, k, s, d, before, after, out = axis
            lacking = d * (k - 1) + 1 - n - before - after
            raise InvalidValueError(
                where,
                f"the kernel is larger than the padded input: {name} out = ⌊(n + p + p' - d (k - 1) - 1)/s⌋ + 1"
                f" = ⌊({n} + {before} + {after} - {d}·({k} - 1) - 1)/{s}⌋ + 1 = {out}",
                code="E014",
                expected="out >= 1",
                fix=f"padding='same', or {lacking} more pixels of padding, or a smaller kernel or dilation",
            )
    return grid


def image_shape(in_shape: Shape, where: str) -> tuple[int, int, int]:
    """Return (height, width, channels).

    Raises
    ------
    InvalidValueError
        If a sample is no image.
    """
    if len(in_shape) != 3:
        raise InvalidValueError(
            where,
            "a sample is an image",
            code="E014",
            got=f"shape {in_shape}",
            expected="(height, width, channels)",
            fix="nn.Reshape((height, width, channels)) before it, or input_shape=(28, 28, 1)",
        )
    height, width, channels = in_shape
    return height, width, channels


# ---------------------------------------------------------------- which pixels a window sees


def kept(make: Callable[..., Any], windows: Grid | Axis, xp: Namespace) -> Any:
    """Return what `make` makes of the windows alone: once, where the namespace has a `memo`.

    A namespace that traces says with which other one, its `tables`.
    """
    memo: dict[Any, Any] | None = getattr(xp, "memo", None)
    if memo is None:
        return make(windows, xp)
    key = make, windows
    if key not in memo:
        memo[key] = make(windows, getattr(xp, "tables", xp))
    return memo[key]


def views(x: Array, axis: int, along: Axis) -> list[Array]:
    """Return for each tap what the windows see through it along an axis of the padded x: no copies."""
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


def has_padding(grid: Grid) -> bool:
    """Return whether a window may reach over an edge."""
    return any(axis.before or axis.after for axis in grid)


def seen(grid: Grid, /, *, xp: Namespace) -> Array:
    """Return which pixel each tap of each window sees, (windows · kh · kw,), int32.

    Pixels and windows are numbered row by row; a tap in the padding sees pixel number height · width, a row of zeros.
    """
    return kept(_seen, grid, xp)


def _seen(grid: Grid, xp: Namespace) -> Array:
    (h, inside_h), (w, inside_w) = (_pixels(axis, xp) for axis in grid)
    rows, columns = (grid.rows.out, 1, grid.rows.kernel, 1), (1, grid.columns.out, 1, grid.columns.kernel)
    pixel = xp.reshape(h, rows) * grid.columns.n + xp.reshape(w, columns)
    if has_padding(grid):
        inside = xp.logical_and(xp.reshape(inside_h, rows), xp.reshape(inside_w, columns))
        pixel = xp.where(inside, pixel, grid.rows.n * grid.columns.n)
    return xp.reshape(pixel, (-1,))


def _pixels(axis: Axis, xp: Namespace) -> tuple[Array, Array]:
    """Return o s + t d - p, and whether it is a pixel, both (out, kernel)."""
    start = xp.reshape(xp.arange(axis.out, dtype=xp.int32), (-1, 1)) * axis.stride
    offset = xp.reshape(xp.arange(axis.kernel, dtype=xp.int32), (1, -1)) * axis.dilation - axis.before
    pixel = start + offset
    return pixel, xp.logical_and(pixel >= 0, pixel < axis.n)


# ---------------------------------------------------------------- which windows see a pixel


def turned_round(grid: Grid) -> Grid:
    """Return the windows, over what windows of stride 1 gave, that see what saw a pixel: one for each pixel."""
    return Grid(*map(_turned_round, grid))


def _turned_round(axis: Axis) -> Axis:
    reach = axis.dilation * (axis.kernel - 1)
    return Axis(axis.out, axis.kernel, 1, axis.dilation, reach - axis.before, reach - axis.after, axis.n)


def seers(grid: Grid, /, *, xp: Namespace) -> list[Array]:
    """Return the inverse of `seen`: for each way to be seen, the window · kh · kw + tap that sees each pixel, int32.

    What does not exist is window number out_h · out_w. A pixel is seen in at most ⌈k/s⌉ ways along an axis (in k ways
    where the kernel is dilated): once where windows lie side by side. So the sum over what a scatter would add becomes
    a sum of a few gathers.
    """
    ways: list[Array] = kept(_seers, grid, xp)
    return ways


def seers_by_tap(grid: Grid, /, *, xp: Namespace) -> list[Array]:
    """Return the same with all windows of a tap in a row, tap · (out_h · out_w + 1) + window.

    In a `tiling` without the 1: there is no window that does not exist.
    """
    ways: list[Array] = kept(_seers_by_tap, grid, xp)
    return ways


def windows_of(grid: Grid, /, *, xp: Namespace) -> list[Array]:
    """Return the same without the taps: which window sees each pixel."""
    ways: list[Array] = kept(_windows_of, grid, xp)
    return ways


def tiling(grid: Grid) -> bool:
    """Return whether each pixel is seen by one window."""
    return all(a.kernel == a.stride and a.dilation == 1 and not a.before and a.out * a.kernel == a.n for a in grid)


def _seers(grid: Grid, xp: Namespace) -> list[Array]:
    window, tap, exists, _, taps = _ways(grid, xp)
    return _tables(window * taps + tap, exists, grid.rows.out * grid.columns.out * taps, xp)


def _seers_by_tap(grid: Grid, xp: Namespace) -> list[Array]:
    window, tap, exists, count, _ = _ways(grid, xp)
    return _tables(tap * (count if tiling(grid) else count + 1) + window, exists, count, xp)


def _windows_of(grid: Grid, xp: Namespace) -> list[Array]:
    window, _, exists, count, _ = _ways(grid, xp)
    return _tables(window, exists, count, xp)


def _ways(grid: Grid, xp: Namespace) -> tuple[Array, Array, Array, int, int]:
    """Return window, tap and whether there is such a window, all (ways, ways, h, w); how many windows, and taps."""
    rows, columns = grid
    window_h, tap_h, inside_h = (xp.reshape(a, (-1, 1, rows.n, 1)) for a in seers_along(rows, xp=xp))
    window_w, tap_w, inside_w = (xp.reshape(a, (1, -1, 1, columns.n)) for a in seers_along(columns, xp=xp))
    window, tap = window_h * columns.out + window_w, tap_h * columns.kernel + tap_w
    return window, tap, xp.logical_and(inside_h, inside_w), rows.out * columns.out, rows.kernel * columns.kernel


def _tables(index: Array, exists: Array, nobody: int, xp: Namespace) -> list[Array]:
    *_, h, w = index.shape
    index = xp.reshape(xp.where(exists, index, nobody), (-1, h * w))
    return [index[way, :] for way in range(index.shape[0])]


def seers_along(axis: Axis, /, *, xp: Namespace) -> tuple[Array, Array, Array]:
    """Return (o, t, whether there is such a window) with o s + t d - p = pixel, each (ways, n)."""
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


def gathered(rows: Array, ways: list[Array], /, *, xp: Namespace) -> Array:
    """Return for each pixel the sum of its rows, (…, pixels, c), of what the windows give back, (…, n, c)."""
    dx = xp.take(rows, ways[0], axis=-2)
    for way in ways[1:]:
        dx += xp.take(rows, way, axis=-2)
    return dx


def with_zeros(rows: Array, /, *, xp: Namespace) -> Array:
    """Return (…, n, c) with a row of zeros behind the last: what an index of n gathers."""
    return xp.concat([rows, xp.zeros((*rows.shape[:-2], 1, rows.shape[-1]), dtype=rows.dtype)], axis=-2)


# ---------------------------------------------------------------- memory


def blocks(batch: int, numbers: int, dtype: Any, /, *, xp: Namespace) -> list[slice]:
    """Return the batch in slices of at least one sample, of which the patches, `numbers` each, fit the workspace."""
    room: int = getattr(xp, "workspace", WORKSPACE)
    size = max(1, room // (numbers * xp.finfo(dtype).bits // 8))
    return [slice(i, min(i + size, batch)) for i in range(0, batch, size)]


def joined(parts: list[Array], /, *, xp: Namespace) -> Array:
    """Return the blocks of a batch as one array."""
    return parts[0] if len(parts) == 1 else xp.concat(parts, axis=0)
