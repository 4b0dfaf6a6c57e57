"""Pooling: each window of an image becomes one pixel, its largest value or its mean, channel by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from bpxp.equations import Equations
from bpxp.errors import InvalidValueError, message
from bpxp.nn import windows
from bpxp.nn.layer import Array, Namespace, Shape
from bpxp.nn.windows import Grid, Pair
from bpxp.random import HostRandom


@dataclass(frozen=True)
class _Pool2D:
    """What the two have in common: windows, one per output pixel."""

    pool: int | Pair = 2
    stride: int | Pair | None = None
    padding: int | Pair | windows.Padding = 0

    def __post_init__(self) -> None:
        name = type(self).__name__
        object.__setattr__(self, "pool", windows.pair(self.pool, f"{name}(pool=…)"))
        stride = self.pool if self.stride is None else windows.pair(self.stride, f"{name}(stride=…)")
        object.__setattr__(self, "stride", stride)
        object.__setattr__(self, "padding", windows.padding(self.padding, f"{name}(padding=…)"))
        if isinstance(self.padding, tuple):
            sides = cast(tuple[Pair, Pair], self.padding)
            for k, ends in zip(cast(Pair, self.pool), sides, strict=True):
                if 2 * max(ends) > k:
                    raise InvalidValueError(
                        message(
                            f"{name}(padding=…)",
                            "a window would see padding and no pixel",
                            got=f"2 p = {2 * max(ends)} > k = {k}",
                            expected="2 p <= k",
                            fix=f"padding={k // 2}",
                        )
                    )

    def grid(self, shape: Sequence[int]) -> Grid:
        """Return the windows over an image of shape (height, width, …)."""
        pool, stride, padding = cast(Pair, self.pool), cast(Pair, self.stride), cast(windows.Padding, self.padding)
        return windows.grid(shape, pool, stride, (1, 1), padding)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[tuple[()], Shape]:
        where = f"{type(self).__name__}({self.pool})"
        _, _, channels = windows.image_shape(in_shape, where)
        grid = windows.checked(self.grid(in_shape), where)
        return (), (grid.rows.out, grid.columns.out, channels)


@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """The largest value of each window, y = max x; dx is dy where the window's first maximum is, else 0.

    The first is meant row by row, as in PyTorch; where windows overlap, a pixel gets from each that it wins.

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

    def forward(self, params: tuple[()], x: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Array, Array]]:
        rows, columns = grid = self.grid(x.shape[1:])
        # First along the rows, then down the columns: k + k comparisons in place of k².
        narrow = _largest(windows.views(windows.padded(x, grid, -xp.inf, xp=xp), 2, columns), xp)
        y = _largest(windows.views(narrow, 1, rows), xp)
        return y, (x, y)

    def backward(
        self, params: tuple[()], cache: tuple[Array, Array], dy: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[()]]:
        x, y = cache
        grid = self.grid(x.shape[1:])
        seen = windows.views(windows.padded(x, grid, -xp.inf, xp=xp), 1, grid.rows)
        taps = [tap for row in seen for tap in windows.views(row, 2, grid.columns)]
        # Bytes, not floats, until there is one for each tap: NumPy waits for the memory here.
        wins, free = [], None
        for tap in taps[:-1]:
            equal = tap == y
            wins.append(equal if free is None else xp.logical_and(equal, free))
            others = xp.logical_not(equal)
            free = others if free is None else xp.logical_and(free, others)
        wins.append(xp.ones(y.shape, dtype=xp.bool) if free is None else free)
        batch, height, width, channels = x.shape
        count = grid.rows.out * grid.columns.out
        given = xp.astype(xp.stack(wins, axis=1), dy.dtype)
        given *= xp.expand_dims(dy, axis=1)
        given = xp.reshape(given, (batch, len(taps) * count, channels))
        seers = windows.seers(grid, xp=xp)
        index = seers.tap * count + seers.window
        dx = _gathered(given, index, seers.inside, len(taps) * count, grid, xp)
        return xp.reshape(dx, (batch, height, width, channels)), ()


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
        rows, columns = grid = self.grid(x.shape[1:])
        narrow = _total(windows.views(windows.padded(x, grid, 0.0, xp=xp), 2, columns))
        y = _total(windows.views(narrow, 1, rows)) * (1.0 / (rows.kernel * columns.kernel))
        return y, _shape_of(x, xp)

    def backward(self, params: tuple[()], like: Array, dy: Array, /, *, xp: Namespace) -> tuple[Array, tuple[()]]:
        _, height, width, channels = like.shape
        grid = self.grid(like.shape[1:])
        count = grid.rows.out * grid.columns.out
        given = xp.reshape(dy * (1.0 / (grid.rows.kernel * grid.columns.kernel)), (-1, count, channels))
        seers = windows.seers(grid, xp=xp)
        dx = _gathered(given, seers.window, seers.inside, count, grid, xp)
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


def _largest(seen: list[Array], xp: Namespace) -> Array:
    y = seen[0] if len(seen) > 1 else xp.astype(seen[0], seen[0].dtype, copy=True)
    for tap in seen[1:]:
        y = xp.maximum(y, tap)
    return y


def _total(seen: list[Array]) -> Array:
    y = seen[0]
    for tap in seen[1:]:
        y = y + tap
    return y


def _gathered(given: Array, index: Array, inside: Array, none: int, grid: Grid, xp: Namespace) -> Array:
    """Return for each pixel the sum of the rows of `given` that come back to it, (batch, height · width, channels)."""
    if not windows.each_once(grid):
        given = windows.with_zeros(given, xp=xp)
        index = xp.where(inside, index, none)
    dx = xp.take(given, index[0, :], axis=1)
    for way in range(1, index.shape[0]):
        dx += xp.take(given, index[way, :], axis=1)
    return dx


def _shape_of(x: Array, xp: Namespace) -> Array:
    """Return an empty array with the shape of a sample of x: it goes through a compiler, and holds no memory."""
    return xp.zeros((0, *x.shape[1:]), dtype=x.dtype)
