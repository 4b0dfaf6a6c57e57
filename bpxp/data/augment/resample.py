"""Bilinear resampling in gather form: each output pixel reads the input at a point (backward warping, no scatter)."""

from __future__ import annotations

from typing import NamedTuple

from bpxp.core.typing import Array, Namespace


class Motion(NamedTuple):
    """An affine map per sample, from output pixels to input points, measured from the centre of the image.

    Pixel (y, x) of the output reads the point (yy y + yx x + y0, xy y + xx x + x0) of the input; y points down.
    All six are arrays, (batch,).
    """

    yy: Array
    yx: Array
    y0: Array
    xy: Array
    xx: Array
    x0: Array

    def after(self, first: Motion) -> Motion:
        """Return the composition: `first`, and then this one."""
        return Motion(
            first.yy * self.yy + first.yx * self.xy,
            first.yy * self.yx + first.yx * self.xx,
            first.yy * self.y0 + first.yx * self.x0 + first.y0,
            first.xy * self.yy + first.xx * self.xy,
            first.xy * self.yx + first.xx * self.xx,
            first.xy * self.y0 + first.xx * self.x0 + first.x0,
        )


def places(motion: Motion | None, height: int, width: int, /, *, dtype: object, xp: Namespace) -> Array:
    """Return the points that the pixels read, (2, batch, height · width): y and x, counted from pixel (0, 0).

    Without a motion the identity, the same for all samples: (2, 1, height · width).
    """
    down, right = (height - 1) / 2.0, (width - 1) / 2.0
    y, x = xp.arange(height, dtype=dtype), xp.arange(width, dtype=dtype)
    if motion is None:
        unit = xp.eye(2, dtype=dtype)
        by_y, by_x = (xp.reshape(unit[i, :], (2, 1, 1)) for i in (0, 1))
        return xp.reshape(xp.expand_dims(by_y * y, axis=3) + xp.expand_dims(by_x * x, axis=2), (2, 1, -1))
    y -= down
    x -= right
    pairs = (motion.yy, motion.xy), (motion.yx, motion.xx), (motion.y0 + down, motion.x0 + right)
    by_y, by_x, start = (xp.expand_dims(xp.stack(pair), axis=2) for pair in pairs)
    along = by_x * x
    along += start
    return xp.reshape(xp.expand_dims(by_y * y, axis=3) + xp.expand_dims(along, axis=2), (2, -1, height * width))


def resample(images: Array, at: Array, /, *, whole: bool = False, xp: Namespace) -> Array:
    """Read images at other points, with zeros outside.

    Parameters
    ----------
    images : array, (batch, height, width, channels)
    at : array, (2, batch, height · width)
        The points, y and x, counted from pixel (0, 0). Donated: it may be overwritten.
    whole : bool, optional
        All points are pixels: one is read instead of four.

    Notes
    -----
    With p the four pixels around a point, and (v, u) its fraction below and to the right of the first::

        out = (1 - v) ((1 - u) p00 + u p01) + v ((1 - u) p10 + u p11)

    Each image is padded with one row of zeros below and one column to its right. In the flat array these are also the
    row above the next image, and the column left of the next row. Points more than one pixel outside are clamped to
    this border, so no weight has to be masked.
    """
    batch, height, width, _ = images.shape
    stride, dtype = width + 1, images.dtype
    at = xp.maximum(at, xp.full((1, 1, 1), -1.0, dtype=dtype))
    limit = xp.reshape(xp.arange(2, dtype=dtype) * float(width - height) + float(height), (2, 1, 1))
    at = xp.minimum(at, limit)
    corner = xp.floor(at)
    at -= corner
    pixel = xp.astype(corner, xp.int32)
    # The border before the first image takes stride + 1 places.
    first = xp.arange(batch, dtype=xp.int32) * ((height + 1) * stride) + (stride + 1)
    index = pixel[0, :, :] * stride
    index += pixel[1, :, :]
    index += xp.expand_dims(first, axis=1)
    index = xp.reshape(index, (-1,))
    flat = _bordered(images, xp)
    last = flat.shape[0] - stride - 1
    if whole:
        return xp.reshape(xp.take(flat, index, axis=0), images.shape)
    # A shifted view and the same index read the neighbours.
    p00, p01, p10, p11 = (xp.take(flat[k : k + last, :], index, axis=0) for k in (0, 1, stride, stride + 1))
    v, u = (xp.reshape(at[i, :, :], (-1, 1)) for i in (0, 1))
    p01 -= p00
    p01 *= u
    p00 += p01
    p11 -= p10
    p11 *= u
    p10 += p11
    p10 -= p00
    p10 *= v
    p00 += p10
    return xp.reshape(p00, images.shape)


def _bordered(images: Array, xp: Namespace) -> Array:
    """Return the pixels of all images, flat, with zeros between rows and images, before and behind."""
    batch, height, width, channels = images.shape
    dtype, stride = images.dtype, width + 1
    rows = xp.concat((images, xp.zeros((batch, height, 1, channels), dtype=dtype)), axis=2)
    rows = xp.reshape(rows, (batch, height * stride, channels))
    rows = xp.concat((rows, xp.zeros((batch, stride, channels), dtype=dtype)), axis=1)
    ends = xp.zeros((stride + 1, channels), dtype=dtype)
    return xp.concat((ends, xp.reshape(rows, (-1, channels)), ends), axis=0)
