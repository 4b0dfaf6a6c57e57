"""Transforms that keep straight lines straight: rotation, scale, shear, shift and flip."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bpxp.core.checks import set_numbers
from bpxp.core.threefry import unit
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.data.augment.geometric import Geometric
from bpxp.data.augment.resample import Motion
from bpxp.errors import InvalidTypeError, InvalidValueError


@dataclass(frozen=True)
class Affine(Geometric):
    """Shear, rotate, scale and shift each image about its centre, by random amounts per image.

    Parameters
    ----------
    degrees : float, optional
        Rotation by an angle in [-degrees, degrees].
    scale : float, optional
        A fraction in [0, 1): the image becomes 1 + s times as large, s in [-scale, scale].
    shear : float, optional
        The row y pixels above the centre moves k y pixels to the right, k in [-shear, shear].
    shift : float, optional
        Pixels, in each direction, in [-shift, shift].
    shape : tuple of int, optional
        (height, width, channels) of the images, for a network of vectors.

    Notes
    -----
    All are uniform. With θ the angle (counter-clockwise on the screen), r = 1/(1 + s) and (sy, sx) the shift, pixel
    (y, x) of the result is read at the point (v, u) of the image, y and v pointing down::

        v = r (cos θ (y - sy) + sin θ (x - sx))
        u = r (cos θ (x - sx) - sin θ (y - sy)) + k v
    """

    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "degrees", low=0.0, high=180.0)
        set_numbers(self, "scale", low=0.0, high=1.0, high_open=True)
        set_numbers(self, "shear", "shift", low=0.0)

    def words(self, batch: int, shape: Shape, /) -> int:
        return 5 * batch

    def motion(self, words: Array, batch: int, /, *, dtype: Any, xp: Namespace) -> Motion:
        u = unit(words, (batch, 5), dtype=dtype, xp=xp)
        u *= 2.0
        u -= 1.0
        angle, stretch, slope, down, right = (u[:, i] for i in range(5))
        return affine(
            angle * math.radians(self.degrees),
            1.0 + stretch * self.scale,
            slope * self.shear,
            down * self.shift,
            right * self.shift,
            xp=xp,
        )


def affine(angle: Array, scale: Array, shear: Array, down: Array, right: Array, /, *, xp: Namespace) -> Motion:
    """Return the affine map of these values, (batch,) each; see `Affine` for their meaning."""
    cos, sin = xp.cos(angle) / scale, xp.sin(angle) / scale
    xy, xx = shear * cos - sin, shear * sin + cos
    return Motion(cos, sin, -(cos * down + sin * right), xy, xx, -(xy * down + xx * right))


@dataclass(frozen=True)
class Rotate(Geometric):
    """Rotate each image about its centre.

    Parameters
    ----------
    degrees : float
        The angle is uniform in [-degrees, degrees].
    shape : tuple of int, optional
        See `Affine`.
    """

    degrees: float

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "degrees", low=0.0, high=180.0)

    words = Affine.words

    def motion(self, words: Array, batch: int, /, *, dtype: Any, xp: Namespace) -> Motion:
        return Affine(degrees=self.degrees).motion(words, batch, dtype=dtype, xp=xp)


@dataclass(frozen=True)
class Scale(Geometric):
    """Enlarge or shrink each image about its centre.

    Parameters
    ----------
    fraction : float
        In [0, 1): the factor is uniform in [1 - fraction, 1 + fraction].
    shape : tuple of int, optional
        See `Affine`.
    """

    fraction: float

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "fraction", low=0.0, high=1.0, high_open=True)

    words = Affine.words

    def motion(self, words: Array, batch: int, /, *, dtype: Any, xp: Namespace) -> Motion:
        return Affine(scale=self.fraction).motion(words, batch, dtype=dtype, xp=xp)


@dataclass(frozen=True)
class Shift(Geometric):
    """Shift each image vertically and horizontally; zeros fill the border.

    Parameters
    ----------
    pixels : float
        At most, in each direction.
    subpixel : bool, optional
        False draws one of the 2 pixels + 1 whole numbers. True draws any number in [-pixels, pixels], and interpolates.
    shape : tuple of int, optional
        See `Affine`.
    """

    pixels: float
    subpixel: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "pixels", low=0.0)
        if not self.subpixel and not self.pixels.is_integer():
            what, fix = "not a whole number of pixels", f"Shift({self.pixels:g}, subpixel=True)"
            raise InvalidValueError("Shift(pixels=…)", what, code="E005", got=repr(self.pixels), fix=fix)

    @property
    def whole(self) -> bool:
        return not self.subpixel

    def words(self, batch: int, shape: Shape, /) -> int:
        return 2 * batch

    def motion(self, words: Array, batch: int, /, *, dtype: Any, xp: Namespace) -> Motion:
        u = unit(words, (batch, 2), dtype=dtype, xp=xp)
        if self.subpixel:
            u *= 2.0 * self.pixels
        else:
            u *= 2.0 * self.pixels + 1.0
            u = xp.floor(u)
        u -= self.pixels
        one, zero = xp.ones((batch,), dtype=dtype), xp.zeros((batch,), dtype=dtype)
        return Motion(one, zero, -u[:, 0], zero, one, -u[:, 1])


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirror some of the images.

    Parameters
    ----------
    horizontal : bool, optional
        True swaps left and right, False top and bottom.
    probability : float, optional
        Of each image; a multiple of 2⁻²⁴.
    shape : tuple of int, optional
        See `Affine`.
    """

    horizontal: bool = True
    probability: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.horizontal, bool):
            got, fix = repr(self.horizontal), "Flip(probability=0.5)"
            raise InvalidTypeError("Flip(horizontal=…)", "not a bool", code="E001", got=got, fix=fix)
        set_numbers(self, "probability", low=0.0, high=1.0)

    @property
    def whole(self) -> bool:
        return True

    def words(self, batch: int, shape: Shape, /) -> int:
        return batch

    def motion(self, words: Array, batch: int, /, *, dtype: Any, xp: Namespace) -> Motion:
        one, zero = xp.ones((batch,), dtype=dtype), xp.zeros((batch,), dtype=dtype)
        threshold = round(self.probability * 2**24) * 2.0**-24
        side = 1.0 - 2.0 * xp.astype(unit(words, (batch,), dtype=dtype, xp=xp) < threshold, dtype)
        yy, xx = (one, side) if self.horizontal else (side, one)
        return Motion(yy, zero, zero, zero, xx, zero)
