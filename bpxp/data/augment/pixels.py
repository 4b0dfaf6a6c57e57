"""Transforms that change the values of pixels, not their places: noise and cutout."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

from bpxp.core.checks import set_counts, set_field, set_numbers
from bpxp.core.threefry import Key, uniform
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.data.augment.shapes import image_shape, validate_shape


@dataclass(frozen=True)
class Noise:
    """Add normal noise to samples of any shape: x + std n. The result may leave the range of x.

    Parameters
    ----------
    std : float
        Standard deviation; pixels are in [0, 1].
    """

    std: float

    def __post_init__(self) -> None:
        set_numbers(self, "std", low=0.0)

    def __call__(self, x: Array, y: Array, key: Key, /, *, xp: Namespace) -> tuple[Array, Array]:
        noise = normal(key, tuple(x.shape), dtype=x.dtype, xp=xp)
        noise *= self.std
        noise += x
        return noise, y


def normal(key: Key, shape: tuple[int, ...], /, *, dtype: Any, xp: Namespace) -> Array:
    """Return standard normal numbers, by the Box-Muller transform of the key's uniform numbers.

    Logarithm, cosine and sine are the array library's own: the last bits may differ between libraries.
    """
    size = math.prod(shape)
    u = uniform(key, (2, -(-size // 2)), dtype=dtype, xp=xp)
    radius = 1.0 - u[0, :]  # in (0, 1]: the logarithm is finite
    radius = xp.log(radius)
    radius *= -2.0
    radius = xp.sqrt(radius)
    angle = u[1, :] * (2.0 * math.pi)
    both = xp.stack((xp.cos(angle), xp.sin(angle)))
    both *= radius
    return xp.reshape(xp.reshape(both, (-1,))[:size], shape)


@dataclass(frozen=True)
class Cutout:
    """Set a square of each image to zero, centred at a random pixel; part of it may lie outside.

    Parameters
    ----------
    size : int
        Side of the square, in pixels.
    shape : tuple of int, optional
        (height, width, channels) of the images, for a network of vectors.

    References
    ----------
    T. DeVries, G. Taylor, *Improved regularization of convolutional neural networks with cutout*, 2017.
    """

    size: int
    _: KW_ONLY
    shape: Shape | None = None

    def __post_init__(self) -> None:
        set_counts(self, "size")
        set_field(self, "shape", validate_shape(self.shape, "Cutout(shape=…)"))

    def __call__(self, x: Array, y: Array, key: Key, /, *, xp: Namespace) -> tuple[Array, Array]:
        batch, (height, width, channels) = x.shape[0], image_shape(self.shape, tuple(x.shape[1:]), "Cutout")
        centre = uniform(key, (batch, 2), dtype=x.dtype, xp=xp)
        rows, columns = (
            xp.astype(self._covered(centre[:, i], length, xp), x.dtype) for i, length in enumerate((height, width))
        )
        keep = 1.0 - xp.expand_dims(rows, axis=2) * xp.expand_dims(columns, axis=1)
        images = xp.reshape(x, (batch, height, width, channels)) * xp.expand_dims(keep, axis=3)
        return xp.reshape(images, x.shape), y

    def _covered(self, u: Array, length: int, xp: Namespace) -> Array:
        """Return whether each row, or column, is covered, (batch, length); u in [0, 1) is the centre."""
        first = xp.floor(u * float(length)) - float(self.size // 2)
        offset = xp.arange(length, dtype=u.dtype) - xp.expand_dims(first, axis=1)
        return (offset >= 0.0) & (offset < float(self.size))
