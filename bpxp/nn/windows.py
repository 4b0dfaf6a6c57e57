"""Sliding windows over images: their sizes, strides and padding, and how many fit.

Everything is computed per axis. Window o of an axis starts at ``o s - p`` and its tap t sees pixel
``o s + t d - p``, with stride s, dilation d and p pixels of padding before the first. There are

    out = ⌊(n + p + p' - d (k - 1) - 1) / s⌋ + 1

of them, with kernel k and padding p' after the last.
"""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any, NamedTuple

from bpxp.core.checks import positive_int
from bpxp.core.typing import Shape
from bpxp.errors import InvalidTypeError, InvalidValueError

Pair = tuple[int, int]
Padding = str | tuple[Pair, Pair]  # "valid", "same", or ((top, bottom), (left, right))


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
                f"the kernel is larger than the padded input: {name} out = floor((n + p + p' - d (k - 1) - 1)/s) + 1"
                f" = floor(({n} + {before} + {after} - {d}·({k} - 1) - 1)/{s}) + 1 = {out}",
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
        what = "a sample is an image"
        got = f"shape {in_shape}"
        fix = "nn.Reshape((height, width, channels)) before it, or input_shape=(28, 28, 1)"
        raise InvalidValueError(where, what, code="E014", got=got, expected="(height, width, channels)", fix=fix)
    height, width, channels = in_shape
    return height, width, channels


def has_padding(grid: Grid) -> bool:
    """Return whether a window may reach over an edge."""
    return any(axis.before or axis.after for axis in grid)


def tiling(grid: Grid) -> bool:
    """Return whether each pixel belongs to exactly one window."""
    return all(a.kernel == a.stride and a.dilation == 1 and not a.before and a.out * a.kernel == a.n for a in grid)


def rotated(grid: Grid) -> Grid:
    """Return the windows over delta through which dx is a correlation with the kernel rotated by 180 degrees.

    There is one for each pixel of x; the windows of `grid` have stride 1.
    """
    return Grid(*map(_rotated, grid))


def _rotated(axis: Axis) -> Axis:
    reach = axis.dilation * (axis.kernel - 1)
    return Axis(axis.out, axis.kernel, 1, axis.dilation, reach - axis.before, reach - axis.after, axis.n)
