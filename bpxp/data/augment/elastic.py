"""Elastic distortion: a smooth random displacement field moves the pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bpxp.core.checks import set_numbers
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.data.augment.geometric import Geometric

BYTE_STD = math.sqrt((256**2 - 1) / 12.0)  # of a uniform byte
REACH = 3.0  # times sigma: where the Gaussian is cut off


@dataclass(frozen=True)
class ElasticDistortion(Geometric):
    """Distort images as an uneven hand would.

    Parameters
    ----------
    alpha : float, optional
        Strength. The displacements, in pixels, have the standard deviation alpha/(2 sigma √(3π)) in each direction:
        1.4 for the defaults, which are the authors' values for MNIST.
    sigma : float, optional
        Pixels, >= 1: correlation length. If large, all pixels move together; if small, they move independently.
    shape : tuple of int, optional
        (height, width, channels) of the images, for a network of vectors.

    Notes
    -----
    Noise ε, uniform in [-1, 1], is smoothed by a Gaussian g in y and x, and multiplied by alpha::

        d[y,x] = alpha sum_k sum_l g(y - k) g(x - l) ε[k,l]

    Here ε is drawn on a coarse grid, every s-th pixel, s = ⌊sigma⌋, and multiplied by s: after a Gaussian as wide as
    the step there is no visible difference. The variance of d over the pixels is constant to 1e-4, and the same as with
    s = 1; 16 times fewer numbers are drawn. ε is a byte: 256 levels, of which each displacement averages many. The grid
    extends beyond the image, so that its border moves as much as its middle.

    References
    ----------
    P. Simard, D. Steinkraus, J. Platt, *Best practices for convolutional neural networks applied to visual document
    analysis*, ICDAR 2003.
    """

    alpha: float = 34.0
    sigma: float = 4.0

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "alpha", low=0.0)
        set_numbers(self, "sigma", low=1.0)

    def words(self, batch: int, shape: Shape, /) -> int:
        height, width, _ = shape
        return -(-nodes(height, self.sigma) * nodes(width, self.sigma) * 2 * batch // 4)

    def field(self, words: Array, batch: int, shape: Shape, /, *, dtype: Any, xp: Namespace) -> Array:
        height, width, _ = shape
        smooth_y = smoothing(height, self.sigma, dtype=dtype, xp=xp)
        smooth_x = smoothing(width, self.sigma, dtype=dtype, xp=xp)
        smooth_x *= self.alpha / (math.sqrt(3.0) * BYTE_STD)
        rows, columns = smooth_y.shape[1], smooth_x.shape[1]
        # Axes in an order that makes both sums plain matmuls: (rows, 2 · batch · columns) first.
        size = rows * 2 * batch * columns
        noise = xp.reshape(xp.stack([(words >> shift) & 255 for shift in (0, 8, 16, 24)]), (-1,))[:size]
        noise = xp.astype(xp.reshape(noise, (rows, 2 * batch * columns)), dtype)
        noise -= 127.5
        half = xp.reshape(xp.matmul(smooth_y, noise), (height, 2 * batch, columns))
        half = xp.reshape(xp.permute_dims(half, (1, 0, 2)), (-1, columns))
        return xp.reshape(xp.matmul(half, xp.matrix_transpose(smooth_x)), (2, batch, height * width))


def smoothing(size: int, sigma: float, /, *, dtype: Any, xp: Namespace) -> Array:
    """Return the matrix of a Gaussian that smooths noise on a coarse grid into `size` pixels, (size, grid).

    Its rows have the same sum of squares as those of the Gaussian on the fine grid, 1/(2 √π sigma).
    """
    step = int(sigma)
    node = xp.arange(nodes(size, sigma), dtype=dtype)
    node -= float(_beyond(sigma))
    node *= float(step)
    g = xp.expand_dims(xp.arange(size, dtype=dtype), axis=1) - node
    g *= g
    g *= -0.5 / sigma**2
    g = xp.exp(g)
    g *= math.sqrt(step / (2.0 * math.pi)) / sigma
    return g


def nodes(size: int, sigma: float) -> int:
    """Return how many grid points `size` pixels need: those inside, and those outside within reach."""
    return -(-(size - 1) // int(sigma)) + 1 + 2 * _beyond(sigma)


def _beyond(sigma: float) -> int:
    return math.ceil(REACH * sigma / int(sigma))
