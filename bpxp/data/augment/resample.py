"""Resampling: the value of each pixel of the output is read, bilinearly, at a place of the input.

In gather form: for each pixel of the output it is asked where it comes from, never where one goes.
"""

from __future__ import annotations

from typing import NamedTuple

from bpxp.core.typing import Array, Namespace


class Motion(NamedTuple):
    """Where each sample's pixels come from: an affine map of pixels, measured from the centre of the image.

    The pixel (y, x) of the output shows the point (yy y + yx x + y0, xy y + xx x + x0) of the input; y points down.
    All six are arrays, (batch,).
    """

    yy: Array
    yx: Array
    y0: Array
    xy: Array
    xx: Array
    x0: Array

    def after(self, first: Motion) -> Motion:
        """Return the motion of an image that undergoes `first`, and then this one."""
        return Motion(
            first.yy * self.yy + first.yx * self.xy,
            first.yy * self.yx + first.yx * self.xx,
            first.yy * self.y0 + first.yx * self.x0 + first.y0,
            first.xy * self.yy + first.xx * self.xy,
            first.xy * self.yx + first.xx * self.xx,
            first.xy * self.y0 + first.xx * self.x0 + first.x0,
        )


def places(motion: Motion | None, height: int, width: int, /, *, dtype: object, xp: Namespace) -> Array:
    """Return the places that the pixels come from, (2, batch, height · width): y and x, counted from pixel (0, 0).

    Without a motion a pixel comes from where it is, the same for all: (2, 1, height · width).
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
    """Read images at other places; what lies outside is zero.

    Parameters
    ----------
    images : array, (batch, height, width, channels)
    at : array, (2, batch, height · width)
        The places, y and x, counted from pixel (0, 0). Given away.
    whole : bool, optional
        All places are pixels: one is read, instead of four.

    Notes
    -----
    With p the four pixels around a place, and (v, u) its fraction below and to the right of the first::

        out = (1 - v) ((1 - u) p00 + u p01) + v ((1 - u) p10 + u p11)

    One row of zeros stands below each image and one column to its right. In the flat array these are the row above
    the next image, and the column left of the next row, as well; so a place that is more than one pixel outside is
    moved to this border, and no weight has to be masked.
    """
    batch, height, width, channels = images.shape
    stride, dtype = width + 1, images.dtype
    at = xp.maximum(at, xp.full((1, 1, 1), -1.0, dtype=dtype))
    limit = xp.reshape(xp.arange(2, dtype=dtype) * float(width - height) + float(height), (2, 1, 1))
    at = xp.minimum(at, limit)
    pixel = xp.floor(at)
    at -= pixel
    pixel = xp.astype(pixel, xp.int32)
    # The border that stands before the first image takes stride + 1 places.
    first = xp.arange(batch, dtype=xp.int32) * ((height + 1) * stride) + (stride + 1)
    index = pixel[0, :, :] * stride
    index += pixel[1, :, :]
    index += xp.expand_dims(first, axis=1)
    index = xp.reshape(index, (-1,))
    flat = _bordered(images, xp)
    last = flat.shape[0] - stride - 1
    shape = (batch, height, width, channels)
    if whole:
        return xp.reshape(xp.take(flat, index, axis=0), shape)
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
    return xp.reshape(p00, shape)


def _bordered(images: Array, xp: Namespace) -> Array:
    """Return the pixels of all images in a row, with zeros between rows and images, before and behind."""
    batch, height, width, channels = images.shape
    dtype, stride = images.dtype, width + 1
    rows = xp.concat((images, xp.zeros((batch, height, 1, channels), dtype=dtype)), axis=2)
    rows = xp.reshape(rows, (batch, height * stride, channels))
    rows = xp.concat((rows, xp.zeros((batch, stride, channels), dtype=dtype)), axis=1)
    ends = xp.zeros((stride + 1, channels), dtype=dtype)
    return xp.concat((ends, xp.reshape(rows, (-1, channels)), ends), axis=0)
