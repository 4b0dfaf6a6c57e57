"""The convolution of images: each window of pixels times the same kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from bpxp.core.checks import fits_in_memory, set_counts, set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations.notation import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn import windows
from bpxp.nn.activations import Activation, get_activation
from bpxp.nn.initializers import Initializer, get_initializer
from bpxp.nn.windows import Grid, Pair

FEW = 4  # fewer channels than this are too short a row to gather: each tap is copied as an image instead
STREAMED = 4  # such copies are read and written in long runs: worth so many times the memory near the core
WASTE = 1.5  # so many times the numbers of the gathering may be moved for dx as a convolution


class ConvParams(NamedTuple):
    """Parameters of `Conv2D`, or their gradients: W (kh, kw, channels/groups, filters) and b (filters,)."""

    W: Array
    b: Array


class ConvWeights(NamedTuple):
    """Parameters of a `Conv2D` without biases, or their gradients: W (kh, kw, channels/groups, filters)."""

    W: Array


@dataclass(frozen=True)
class Conv2D:
    """Convolutional layer: every output pixel sees a window of the input, all through the same kernel.

    Parameters
    ----------
    filters : int
        Number of output channels.
    kernel : int or pair of int
        Height and width of the window, kh and kw.
    stride : int or pair of int, optional
        Pixels from a window to the next, s.
    padding : {"valid", "same"}, int, pair of int or pair of pairs, optional
        Pixels of zeros around the image, p: none; as many as give ⌈n/s⌉ windows along an axis, an odd one at the end
        (as TensorFlow, JAX, and PyTorch for stride 1); so many on each side; (height, width);
        ((top, bottom), (left, right)).
    dilation : int or pair of int, optional
        Pixels from a tap of the kernel to the next, d.
    groups : int, optional
        Channels and filters are cut into so many groups, and a group of filters sees only its group of channels.
        ``groups=channels`` is a depthwise convolution.
    activation, initializer : optional
        As for `Dense`. fan_in is kh kw channels/groups, fan_out is kh kw filters/groups.
    bias : bool, optional
        Whether there is a b; a normalisation right after the layer would only subtract it again.

    Notes
    -----
    x is (batch, height, width, channels), and z and delta = ∂J/∂z are (batch, out_h, out_w, filters). In the equations
    p and q are the place of a window, i and j a tap of the kernel, and x is 0 in the padding. As in every library of
    neural networks it is a cross-correlation: the kernel is not turned round.

    It is computed as a matrix product: a row of the matrix of patches holds what one window sees. Backwards, with
    stride 1 and about as many filters as channels, or fewer, dx is itself a convolution, of delta with the kernel
    turned round. Elsewhere that would move more numbers: delta W^T says what each window gives back to each of its
    taps, and each pixel gathers from the windows that see it; nothing is scattered. Only x is kept for the way back.
    Patches are made again there, for as many samples at a time as fit the workspace (1 MiB for NumPy, 8 MiB for PyTorch
    on the CPU, 64 MiB elsewhere; four times as much where x has fewer than four channels; at least one sample), so the
    memory beyond x, z and their gradients is two such blocks.

    References
    ----------
    V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, 2016. K. Chellapilla, S. Puri,
    P. Simard, *High performance convolutional neural networks for document processing*, 2006 (the matrix of patches).
    """

    filters: int
    kernel: int | Pair
    stride: int | Pair = 1
    padding: int | Pair | windows.Padding = "valid"
    dilation: int | Pair = 1
    groups: int = 1
    activation: str | Activation | None = None
    initializer: str | Initializer | None = None
    bias: bool = True

    analytic = True

    equations = Equations(
        row="row[p,i] = stride[0]*p + dilation[0]*i - before[0]",
        column="col[q,j] = stride[1]*q + dilation[1]*j - before[1]",
        group="g[f] = count_c*floor(f*groups/filters)",
        forward="z[n,p,q,f] = sum_{i,j,c} x[n, row[p,i], col[q,j], g[f] + c]*W[i,j,c,f] + b[f]",
        dW="dW[i,j,c,f] = sum_{n,p,q} x[n, row[p,i], col[q,j], g[f] + c]*delta[n,p,q,f]",
        db="db[f] = sum_{n,p,q} delta[n,p,q,f]",
        dx="dx[n,h,w,k] = sum_{p,q,i,j,c,f} delta[n,p,q,f]*W[i,j,c,f]"
        "*[row[p,i] == h and col[q,j] == w and g[f] + c == k]",
    )

    def __post_init__(self) -> None:
        set_counts(self, "filters", "groups")
        for name in ("kernel", "stride", "dilation"):
            set_field(self, name, windows.pair(getattr(self, name), f"Conv2D({name}=…)"))
        set_field(self, "padding", windows.padding(self.padding, "Conv2D(padding=…)"))
        if self.activation is not None:
            set_field(self, "activation", get_activation(self.activation))
        if self.initializer is not None:
            set_field(self, "initializer", get_initializer(self.initializer))
        if self.filters % self.groups:
            fix = f"filters={-(-self.filters // self.groups) * self.groups}"
            raise self._indivisible("filters", self.filters, fix)

    def _indivisible(self, what: str, number: int, fix: str) -> InvalidValueError:
        return InvalidValueError(
            f"Conv2D(groups={self.groups})",
            f"each group has as many {what}: {what} mod groups = {number} mod {self.groups} = {number % self.groups}",
            code="E005",
            expected="0",
            fix=f"{fix}, or groups={math.gcd(number, self.groups)}",
        )

    def grid(self, shape: Sequence[int]) -> Grid:
        """Return the windows over an image of shape (height, width, …)."""
        kernel, stride, dilation = (cast(Pair, p) for p in (self.kernel, self.stride, self.dilation))
        return windows.grid(shape, kernel, stride, dilation, cast(windows.Padding, self.padding))

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[ConvParams | ConvWeights, Shape]:
        where = f"Conv2D({self.filters}, {self.kernel})"
        _, _, channels = windows.image_shape(in_shape, where)
        if channels % self.groups:
            raise self._indivisible("channels", channels, "groups=1")
        grid = windows.validate(self.grid(in_shape), where)
        taps, seen = _taps(grid), channels // self.groups
        fits_in_memory(taps * seen * self.filters, where)
        initializer = get_initializer("glorot_uniform" if self.initializer is None else self.initializer)
        shape = (grid.rows.kernel, grid.columns.kernel, seen, self.filters)
        fans = {"fan_in": taps * seen, "fan_out": taps * self.filters // self.groups}
        W = initializer.draw(rng.at(0), shape, **fans)
        out = (grid.rows.out, grid.columns.out, self.filters)
        if not self.bias:
            return ConvWeights(W), out
        return ConvParams(W, initializer.bias(rng.at(1), (self.filters,))), out

    def forward(self, params: ConvParams, x: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        return self._correlate(x, params.W, params.b if self.bias else None, self.grid(x.shape[1:]), xp), x

    def backward(self, params: ConvParams, x: Array, delta: Array, /, *, xp: Namespace) -> tuple[Array, ConvParams]:
        grid = self.grid(x.shape[1:])
        if self.groups == 1 and _turns_round(grid, x.shape[3], self.filters, xp):
            # A pixel sees the windows that saw it, through the kernel turned round: dx is a convolution of delta.
            turned = xp.permute_dims(xp.flip(params.W, axis=(0, 1)), (0, 1, 3, 2))
            dx = self._correlate(delta, turned, None, windows.turned_round(grid), xp)
        else:
            dx = self._gathered(params.W, x, delta, grid, xp)
        return dx, self.gradients(params, x, delta, xp=xp)

    def _correlate(self, x: Array, W: Array, b: Array | None, grid: Grid, xp: Namespace) -> Array:
        """Return what the windows see times W, plus b: (batch, out_h, out_w, filters)."""
        height, width, filters = grid.rows.out, grid.columns.out, W.shape[3]
        matrix = self._matrix(W, xp)
        # One long row of biases per row of pixels: adding short rows costs NumPy more than the addition.
        biases = None if b is None else xp.tile(b, (width,))
        index = self._index(x, grid, xp)
        parts = []
        for block in self._blocks(x, grid, xp):
            z = xp.matmul(self._patches(x[block, ...], grid, index, xp), matrix)
            if self.groups > 1:
                z = xp.permute_dims(z, (1, 0, 2))
            if biases is not None:
                z = xp.reshape(z, (-1, width * filters))
                z += biases
            parts.append(xp.reshape(z, (-1, height, width, filters)))
        return windows.joined(parts, xp=xp)

    def _gathered(self, W: Array, x: Array, delta: Array, grid: Grid, xp: Namespace) -> Array:
        """Return dx: what each window gives back to each of its taps, gathered by the pixels."""
        _, height, width, channels = x.shape
        taps, count = _taps(grid), grid.rows.out * grid.columns.out
        WT = xp.matrix_transpose(self._matrix(W, xp))
        ways = [] if _pointwise(grid) else windows.seers(grid, xp=xp)
        parts = []
        for block in self._blocks(x, grid, xp):
            rows = self._grouped(xp.reshape(delta[block, ...], (-1, count, self.filters)), xp)
            if ways:
                rows = windows.with_zeros(rows, xp=xp)  # of delta, so of what it gives back
            given = xp.matmul(xp.reshape(rows, (*self._lead(), -1, rows.shape[-1])), WT)
            given = xp.reshape(given, (*rows.shape[:-2], rows.shape[-2] * taps, channels // self.groups))
            dx = windows.gathered(given, ways, xp=xp) if ways else given
            if self.groups > 1:
                dx = xp.permute_dims(dx, (1, 2, 0, 3))
            parts.append(xp.reshape(dx, (-1, height, width, channels)))
        return windows.joined(parts, xp=xp)

    def gradients(self, params: ConvParams, x: Array, delta: Array, /, *, xp: Namespace) -> ConvParams:
        grid = self.grid(x.shape[1:])
        count, width = grid.rows.out * grid.columns.out, grid.columns.out
        index = self._index(x, grid, xp)
        dW = None
        for block in self._blocks(x, grid, xp):
            rows = self._grouped(xp.reshape(delta[block, ...], (-1, count, self.filters)), xp)
            rows = xp.reshape(rows, (*self._lead(), -1, rows.shape[-1]))
            part = xp.matmul(xp.matrix_transpose(self._patches(x[block, ...], grid, index, xp)), rows)
            if dW is None:
                dW = part
            else:
                dW += part
        if self.groups > 1:
            kernels = (self.groups, _taps(grid), *params.W.shape[2:3], self.filters // self.groups)
            dW = xp.permute_dims(xp.reshape(dW, kernels), (1, 2, 0, 3))
        dW = xp.reshape(dW, params.W.shape)
        if not self.bias:
            return cast(ConvParams, ConvWeights(dW))
        db = xp.sum(xp.reshape(delta, (-1, width * self.filters)), axis=0)  # long rows, as for b
        return ConvParams(dW, xp.sum(xp.reshape(db, (width, self.filters)), axis=0))

    def _blocks(self, x: Array, grid: Grid, xp: Namespace) -> list[slice]:
        numbers = grid.rows.out * grid.columns.out * _taps(grid) * x.shape[3]
        if self._by_planes(x, grid):
            numbers = -(-numbers // STREAMED)
        return windows.blocks(x.shape[0], numbers, x.dtype, xp=xp)

    def _patches(self, x: Array, grid: Grid, index: Array | None, xp: Namespace) -> Array:
        """Return what each window sees, ([groups,] batch · windows, taps · channels/groups)."""
        batch, height, width, channels = x.shape
        if self._by_planes(x, grid):
            planes = xp.permute_dims(windows.padded(x, grid, 0.0, xp=xp), (3, 0, 1, 2))
            rows = windows.views(planes, 2, grid.rows)
            taps = [tap for row in rows for tap in windows.views(row, 3, grid.columns)]
            return xp.matrix_transpose(xp.reshape(xp.stack(taps, axis=0), (len(taps) * channels, -1)))
        pixels = self._grouped(xp.reshape(x, (batch, height * width, channels)), xp)
        if index is not None:
            if windows.has_padding(grid):
                pixels = windows.with_zeros(pixels, xp=xp)
            pixels = xp.take(pixels, index, axis=-2)
        return xp.reshape(pixels, (*self._lead(), -1, _taps(grid) * (channels // self.groups)))

    def _index(self, x: Array, grid: Grid, xp: Namespace) -> Array | None:
        """Return which pixels the windows see, where pixels are gathered."""
        return None if self._by_planes(x, grid) or _pointwise(grid) else windows.seen(grid, xp=xp)

    def _by_planes(self, x: Array, grid: Grid) -> bool:
        return x.shape[3] < FEW and self.groups == 1 and not _pointwise(grid)

    # A group is an entry of a leading axis, which matrix products run over; without groups there is no such axis.

    def _lead(self) -> tuple[int, ...]:
        return () if self.groups == 1 else (self.groups,)

    def _matrix(self, W: Array, xp: Namespace) -> Array:
        """Return W as ([groups,] taps · channels/groups, filters/groups)."""
        kh, kw, seen, filters = W.shape
        if self.groups == 1:
            return xp.reshape(W, (kh * kw * seen, filters))
        W = xp.reshape(W, (kh * kw * seen, self.groups, filters // self.groups))
        return xp.permute_dims(W, (1, 0, 2))

    def _grouped(self, rows: Array, xp: Namespace) -> Array:
        """Return (batch, n, c) as ([groups,] batch, n, c/groups)."""
        if self.groups == 1:
            return rows
        batch, n, c = rows.shape
        return xp.permute_dims(xp.reshape(rows, (batch, n, self.groups, c // self.groups)), (2, 0, 1, 3))


def _taps(grid: Grid) -> int:
    return grid.rows.kernel * grid.columns.kernel


def _turns_round(grid: Grid, channels: int, filters: int, xp: Namespace) -> bool:
    """Return whether dx is computed as a convolution: windows step by one pixel, and not many more numbers are moved.

    Each tap moves the filters of a pixel of delta for each pixel of x, or the channels of a pixel of x for each of
    delta. A compiler that adds what it gathers without storing it needs half the time for the latter.
    """
    if getattr(xp, "fuses", False):
        return False
    pixels, seen = grid.rows.n * grid.columns.n, grid.rows.out * grid.columns.out
    whole = all(a.stride == 1 and max(a.before, a.after) <= a.dilation * (a.kernel - 1) for a in grid)
    return whole and pixels * filters <= WASTE * seen * channels and not _pointwise(grid)


def _pointwise(grid: Grid) -> bool:
    """Return whether every window is one pixel, and every pixel a window."""
    return all(a.kernel == 1 and a.stride == 1 for a in grid) and not windows.has_padding(grid)
