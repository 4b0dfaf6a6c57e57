"""Preprocess a scanned or photographed digit as MNIST was: white on black, scaled into a box, centred by mass.

MNIST scales a digit into 20 of the 28 pixels and puts its centre of mass in the middle. A network trained on it does
not recognise a picture that was not prepared in the same way.
"""

from __future__ import annotations

import math
import struct
import warnings
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np

from bpxp.core.checks import as_path
from bpxp.core.content import LENGTH, what_it_is
from bpxp.data.grey import as_grey
from bpxp.errors import BackendNotInstalledError, DatasetFormatError, InvalidValueError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

# What the readers of the various formats raise for a damaged file.
DAMAGED = (ArithmeticError, EOFError, IndexError, struct.error, SyntaxError, TokenError, TypeError, ValueError)
BOX = 20 / 28  # MNIST's; in smaller pictures, such as the 8 by 8 digits, a digit fills the whole
FAINT = 24  # of 255: less contrast than this is the noise of an empty page


def load_digit(path: str | Path, in_shape: tuple[int, ...], *, prepare: bool = True) -> np.ndarray:
    """Return a picture as a uint8 array of shape `in_shape`.

    Parameters
    ----------
    path : path
        PNG, JPEG, … (needs Pillow), or ``.npy``, taken as it is, with its dtype.
    in_shape : tuple of int
        (height, width, 1), or (n,) with n a square number.
    prepare : bool, optional
        Crop to the digit, make it white on black, scale it into MNIST's box, and centre its mass. False only resizes.

    Raises
    ------
    BackendNotInstalledError
        Pillow is not installed.
    DatasetFormatError
        The file is not a picture, or an empty page, or has more pixels than Pillow's limit, ``Image.MAX_IMAGE_PIXELS``.

    Notes
    -----
    The picture is turned as its camera says, 16 bits per channel become 8, and transparent parts become paper: see
    `bpxp.data.grey`. It takes at most 8 bytes of memory per pixel.
    """
    path = as_path(path, "predict")
    height, width = picture_size(in_shape)
    if path.suffix == ".npy":
        try:  # memory-mapped: its header is compared with the size of the file, and its shape with the network's
            array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
        except DAMAGED as error:
            what = f"not an array of numbers in NumPy's format ({error})"
            raise _not_a_picture(path, what) from error
        if array.size != math.prod(in_shape):
            got, expected = f"shape {array.shape}", f"{math.prod(in_shape)} pixels"
            raise DatasetFormatError(str(path), "another size", code="E075", got=got, expected=expected)
        return np.array(array).reshape(in_shape)
    try:
        from PIL import Image
    except ImportError as error:
        what = "reading pictures needs Pillow"
        raise BackendNotInstalledError("predict", what, code="E021", fix="pip install pillow") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Not by its name: Pillow 13 then maps an uncompressed TIFF with the sides swapped that its orientation has.
            with path.open("rb") as stream, Image.open(stream) as picture:
                grey = as_grey(picture, str(path))
    except DatasetFormatError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetFormatError(str(path), "too many pixels", code="E075", got=str(error)) from error
    except (OSError, *DAMAGED) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no such file, for example
        raise _not_a_picture(path, f"not a picture that Pillow knows, or a damaged one ({error})") from error
    del picture  # its pixels
    if not prepare:
        return np.array(grey.resize((width, height), Image.Resampling.BOX)).reshape(in_shape)
    low, high = grey.getextrema()
    digit = np.array(centred(grey, height, width)) if high - low >= FAINT else np.zeros(1, np.uint8)
    if not digit.any():
        what = "an empty page: nothing stands out from the paper"
        raise DatasetFormatError(str(path), what, code="E075", got=f"greys from {low} to {high} of 255")
    return digit.reshape(in_shape)


def _not_a_picture(path: Path, what: str) -> DatasetFormatError:
    with path.open("rb") as stream:
        name, fix = what_it_is(stream.read(LENGTH))
    if name and not name.endswith(("picture", "NumPy's format")):
        return DatasetFormatError(str(path), f"not a picture, but {name}", code="E075", fix=fix)
    return DatasetFormatError(str(path), what, code="E075")


def picture_size(in_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (height, width) of the pictures that fit this input shape."""
    if len(in_shape) == 3 and in_shape[2] == 1:
        return in_shape[0], in_shape[1]
    side = math.isqrt(in_shape[0])
    if len(in_shape) == 1 and side * side == in_shape[0]:
        return side, side
    what = "the network does not take grey pictures"
    got = f"input shape {in_shape}"
    expected = "(height, width, 1), or a square number of pixels"
    raise InvalidValueError("predict", what, code="E075", got=got, expected=expected, fix="net.predict(x) from Python")


def centred(grey: Image.Image, height: int, width: int) -> Image.Image:
    """Return the digit of a grey picture, white on black, centred by mass in `height` by `width` pixels.

    An empty page, and a few dots far apart that fade to nothing, give an empty one.
    """
    from PIL import Image, ImageOps

    canvas, (low, high) = Image.new("L", (width, height)), grey.getextrema()
    if low == high:
        return canvas
    right, bottom = grey.width - 1, grey.height - 1
    edges = (
        (0, 0, right + 1, 1),
        (0, bottom, right + 1, bottom + 1),
        (0, 0, 1, bottom + 1),
        (right, 0, right + 1, bottom + 1),
    )
    if np.median(np.concatenate([np.asarray(grey.crop(edge)).ravel() for edge in edges])) > 127.5:  # ink on paper
        grey = ImageOps.invert(grey)
    grey = ImageOps.autocontrast(grey)
    digit = grey.crop(grey.point(lambda value: 255 * (value > 64)).getbbox())
    scale = (BOX if min(height, width) >= 20 else 1.0) * min(height, width) / max(digit.size)
    small = digit.resize([max(1, round(n * scale)) for n in digit.size], Image.Resampling.BOX)
    weights = np.asarray(small, dtype=np.float64)
    if not weights.any():
        return canvas
    offset = []
    for whole, part, mass in ((width, small.width, weights.sum(axis=0)), (height, small.height, weights.sum(axis=1))):
        centre = np.average(np.arange(part), weights=mass)
        offset.append(min(max(round((whole - 1) / 2 - centre), 0), whole - part))
    canvas.paste(small, (offset[0], offset[1]))
    return canvas
