"""Pooling: each window of an image becomes one pixel, its largest value or its mean, channel by channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn import window_tables, window_views, windows
from bpxp.nn.windows import Axis, Grid, Pair


@dataclass(frozen=True)
class _Pool2D:
    """What the two have in common: windows, one per output pixel."""

    pool: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pair | windows.Padding = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        pool = windows.pair(self.pool, f"{name}(pool=…)")
        stride = pool if self.stride is None else windows.pair(self.stride, f"{name}(stride=…)")
        padding = windows.padding(self.padding, f"{name}(padding=…)")
        set_field(self, "pool", pool)
        set_field(self, "stride", stride)
        set_field(self, "padding", padding)
        if not isinstance(padding, str):
            for k, ends in ((pool[0], padding[0]), (pool[1], padding[1])):
                if 2 * max(ends) > k:
                    what = "a window would see padding and no pixel"
                    got = f"2 p = {2 * max(ends)} > k = {k}"
                    raise InvalidValueError(
                        f"{name}(padding=…)", what, code="E005", got=got, expected="2 p <= k", fix=f"padding={k // 2}"
                    )

    def grid(self, shape: Sequence[int]) -> Grid:
        """Return the windows over an image of shape (height, width, …)."""
        pool, stride, padding = cast(Pair, self.pool), cast(Pair, self.stride), cast(windows.Padding, self.padding)
        return windows.grid(shape, pool, stride, (1, 1), padding)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        where = f"{type(self).__name__}({self.pool})"
        _, _, channels = windows.image_shape(in_shape, where)
        grid = windows.validate(self.grid(in_shape), where)
        return (), (grid.rows.out, grid.columns.out, channels)


class MaxPoolCache(NamedTuple):
    """What `MaxPool2D` keeps: the winners, a byte for each tap of each window, and none of the values.

    Attributes
    ----------
    first : array, bool, (batch, kh · kw, out_h · out_w, channels)
        Whether what a window sees through a tap is the first of its largest.
    like : array, (0, height, width, channels)
        The shape of a sample.
    """

    first: Array
    like: Array


@named_arguments
@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """The largest value of each window, y = max x; dx is dy where the window's first maximum is, else 0.

    The first row by row, as in PyTorch; where windows overlap, a pixel adds up dy of each window whose maximum it is.

    Parameters
    ----------
    pool : int or pair of int, optional
        Height and width of the window, k.
    stride : int or pair of int, optional
        Pixels from a window to the next, s; None is `pool`, windows side by side. Where it is less, they overlap.
    padding : {"valid", "same"}, int, pair of int or pair of pairs, optional
        As for `Conv2D`; at most half a window, so that every window sees a pixel.

    Notes
    -----
    The padding never wins: it is -∞.
    """

    equations = Equations(
        ranges="i < pool[0], j < pool[1]",
        row="row[p,i] = stride[0]*p + i - before[0]",
        column="col[q,j] = stride[1]*q + j - before[1]",
        winner="m[n,p,q,c] = argmax_{i,j} x[n, row[p,i], col[q,j], c]",
        forward="y[n,p,q,c] = max_{i,j} x[n, row[p,i], col[q,j], c]",
        dx="dx[n,h,w,c] = sum_{p,q,i,j} dy[n,p,q,c]*[row[p,i] == h and col[q,j] == w and m[n,p,q,c] == pool[1]*i + j]",
    )

    takes_largest = True  # so a function that never decreases may as well be applied after it, to fewer numbers

    def forward(self, params: tuple[()], x: Array, /, *, xp: Namespace) -> tuple[Array, MaxPoolCache]:
        y, first = _window_maxima(x, self.grid(x.shape[1:]), xp)
        return y, MaxPoolCache(first, _shape_of(x, xp))

    def backward(
        self, params: tuple[()], cache: MaxPoolCache, dy: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[()]]:
        dx = _to_winners(dy, cache.first, self.grid(cache.like.shape[1:]), xp)
        return xp.reshape(dx, (dy.shape[0], *cache.like.shape[1:])), ()


@named_arguments
@dataclass(frozen=True)
class AvgPool2D(_Pool2D):
    """The mean of each window, y = Σ x/(kh kw); dx is the sum of dy/(kh kw) over the windows that see it.

    Parameters
    ----------
    pool : int or pair of int, optional
        Height and width of the window, k.
    stride : int or pair of int, optional
        Pixels from a window to the next, s; None is `pool`, windows side by side. Where it is less, they overlap.
    padding : {"valid", "same"}, int, pair of int or pair of pairs, optional
        As for `Conv2D`; at most half a window, so that every window sees a pixel.

    Notes
    -----
    The padding counts as zeros: a window that reaches over the edge is divided by kh kw too, as with PyTorch's default
    ``count_include_pad=True``.
    """

    analytic = True

    equations = Equations(
        ranges="i < pool[0], j < pool[1]",
        row="row[p,i] = stride[0]*p + i - before[0]",
        column="col[q,j] = stride[1]*q + j - before[1]",
        forward="y[n,p,q,c] = mean_{i,j} x[n, row[p,i], col[q,j], c]",
        dx="dx[n,h,w,c] = sum_{p,q,i,j} dy[n,p,q,c]*[row[p,i] == h and col[q,j] == w]/(pool[0]*pool[1])",
    )

    def forward(self, params: tuple[()], x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        rows, columns = self.grid(x.shape[1:])
        narrow = _total(_taps(x, 2, columns, 0.0, xp))
        y = _total(_taps(narrow, 1, rows, 0.0, xp)) * (1.0 / (rows.kernel * columns.kernel))
        return y, _shape_of(x, xp)

    def backward(self, params: tuple[()], like: Array, dy: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        _, height, width, channels = like.shape
        grid = self.grid((height, width))
        each = dy * (1.0 / (grid.rows.kernel * grid.columns.kernel))
        each = xp.reshape(each, (dy.shape[0], -1, channels))
        if not windows.tiling(grid):
            each = window_tables.with_zeros(each, xp=xp)
        dx = window_tables.sum_of_gathers(each, window_tables.windows_of_pixels(grid, xp=xp), xp=xp)
        return xp.reshape(dx, (-1, height, width, channels)), ()


@dataclass(frozen=True)
class GlobalAvgPool2D:
    """The mean of each channel over the whole image, (height, width, channels) to (channels,); dx = dy/(height width).

    References
    ----------
    M. Lin, Q. Chen, S. Yan, *Network in network*, ICLR 2014, section 3.2.
    """

    analytic = True

    equations = Equations(
        forward="y[n,c] = mean_{h,w} x[n,h,w,c]",
        dx="dx[n,h,w,c] = dy[n,c]/(count_h*count_w)",
    )

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        return (), windows.image_shape(in_shape, "GlobalAvgPool2D()")[2:]

    def forward(self, params: tuple[()], x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        batch, height, width, channels = x.shape
        y = xp.sum(xp.reshape(x, (batch, height * width, channels)), axis=1) * (1.0 / (height * width))
        return y, _shape_of(x, xp)

    def backward(self, params: tuple[()], like: Array, dy: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        _, height, width, channels = like.shape
        each = xp.reshape(dy * (1.0 / (height * width)), (-1, 1, 1, channels))
        return xp.tile(each, (1, height, width, 1)), ()


def _window_maxima(x: Array, grid: Grid, xp: Namespace) -> tuple[Array, Array]:
    """Return the maximum of each window, and which tap is the first to have it, (batch, taps, windows, channels), bool.

    Along the rows first, then down the columns: k + k comparisons in place of k², and the first winner among the
    winners of the rows is the first of all, row by row.
    """
    rows, columns = grid
    narrow, across = _largest(_taps(x, 2, columns, -xp.inf, xp), xp)
    y, down = _largest(_taps(narrow, 1, rows, -xp.inf, xp), xp)
    in_row = [_taps(first, 1, rows, False, xp) for first in _firsts(across, narrow, xp)]
    first = [xp.logical_and(a, taps[i]) for i, a in enumerate(_firsts(down, y, xp)) for taps in in_row]
    batch, height, width, channels = y.shape
    return y, xp.reshape(xp.stack(first, axis=1), (batch, len(first), height * width, channels))


def _to_winners(dy: Array, first: Array, grid: Grid, xp: Namespace) -> Array:
    """Return for each pixel the sum of dy over the windows whose first maximum it is, (batch, pixels, channels)."""
    batch, _, count, channels = first.shape
    dy = xp.reshape(dy, (batch, 1, count, channels))
    if not windows.tiling(grid):
        dy, first = (window_tables.with_zeros(a, xp=xp) for a in (dy, first))
    tables, parts = window_tables.inverse_windows_by_tap(grid, xp=xp), []
    blocks = [slice(None)]
    if len(tables) > 1:  # where windows overlap, they give back more numbers than dx has
        blocks = window_views.blocks(batch, math.prod(first.shape[1:]), dy.dtype, xp=xp)
    for block in blocks:
        given = xp.astype(first[block, ...], dy.dtype)
        given *= dy[block, ...]
        given = xp.reshape(given, (given.shape[0], -1, channels))
        parts.append(window_tables.sum_of_gathers(given, tables, xp=xp))
    return window_views.joined(parts, xp=xp)


def _taps(x: Array, axis: int, along: Axis, value: float, xp: Namespace) -> list[Array]:
    """Return what the windows along an axis see through each tap, with `value` in the padding."""
    return window_views.views(window_views.padded_along(x, axis, along, value, xp=xp), axis, along)


def _largest(taps: list[Array], xp: Namespace) -> tuple[Array, tuple[Array, ...]]:
    """Return the largest of the taps, and for each but the first whether it is larger than all before it."""
    y, beats = taps[0] if len(taps) > 1 else xp.astype(taps[0], taps[0].dtype, copy=True), []
    for tap in taps[1:]:
        beats.append(tap > y)
        y = xp.maximum(y, tap)
    return y, tuple(beats)


def _firsts(beats: tuple[Array, ...], like: Array, xp: Namespace) -> list[Array]:
    """Return for each tap whether it is the first of the largest: the last that beat those before it."""
    if not beats:
        return [xp.ones(like.shape, dtype=xp.bool)]
    firsts, later = [beats[-1]], beats[-1]
    for beat in reversed(beats[:-1]):
        firsts.append(xp.logical_and(beat, xp.logical_not(later)))
        later = xp.logical_or(later, beat)
    return [xp.logical_not(later), *reversed(firsts)]


def _total(seen: list[Array]) -> Array:
    y = seen[0]
    for tap in seen[1:]:
        y = y + tap
    return y


def _shape_of(x: Array, xp: Namespace) -> Array:
    """Return an empty array with the shape of a sample of x: it goes through a compiler, and holds no memory."""
    return xp.zeros((0, *x.shape[1:]), dtype=x.dtype)
