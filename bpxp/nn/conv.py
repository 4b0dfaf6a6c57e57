"""The convolution of images: each window of pixels times the same kernel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import fits_in_memory, set_counts, set_field
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn import im2col, windows
from bpxp.nn.activations import Activation, get_activation
from bpxp.nn.initializers import Initializer, get_initializer
from bpxp.nn.windows import Grid, Pair


class ConvParams(NamedTuple):
    """Parameters of `Conv2D`, or their gradients: W (kh, kw, channels/groups, filters) and b (filters,)."""

    W: Array
    b: Array


class ConvWeights(NamedTuple):
    """Parameters of a `Conv2D` without biases, or their gradients: W (kh, kw, channels/groups, filters)."""

    W: Array


@named_arguments
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
    neural networks it is a cross-correlation: the kernel is not rotated.

    It is computed by im2col: z = im2col(x) W + b, where a row of the matrix holds what one window sees, and
    dW = im2col(x)ᵀ delta. With stride 1 and about as many filters as channels, or fewer, dx is itself a convolution, of
    delta with the kernel rotated by 180 degrees. Elsewhere that would move more numbers, and dx = col2im(delta Wᵀ), a
    gather by an inverse index table; nothing is scattered. The cache is x alone: im2col matrices are made again, for as
    many samples at a time as fit the workspace (1 MiB for NumPy, 8 MiB for PyTorch on the CPU, 64 MiB elsewhere; four
    times as much where x has fewer than four channels; at least one sample), so the memory beyond x, z and their
    gradients is two such blocks. See `bpxp.nn.im2col`.

    References
    ----------
    V. Dumoulin, F. Visin, *A guide to convolution arithmetic for deep learning*, 2016. K. Chellapilla, S. Puri,
    P. Simard, *High performance convolutional neural networks for document processing*, 2006 (im2col).
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
        taps, seen = grid.rows.kernel * grid.columns.kernel, channels // self.groups
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
        b = params.b if self.bias else None
        return im2col.correlate(x, params.W, b, self.grid(x.shape[1:]), self.groups, xp=xp), x

    def backward(
        self, params: ConvParams, x: Array, delta: Array, /, *, xp: Namespace
    ) -> tuple[Array, ConvParams | ConvWeights]:
        dx = im2col.input_gradient(x, delta, params.W, self.grid(x.shape[1:]), self.groups, xp=xp)
        return dx, self.gradients(params, x, delta, xp=xp)

    def gradients(self, params: ConvParams, x: Array, delta: Array, /, *, xp: Namespace) -> ConvParams | ConvWeights:
        dW = im2col.kernel_gradient(x, delta, params.W, self.grid(x.shape[1:]), self.groups, xp=xp)
        return ConvParams(dW, im2col.bias_gradient(delta, xp=xp)) if self.bias else ConvWeights(dW)
