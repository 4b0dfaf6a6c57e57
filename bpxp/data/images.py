"""Preprocess a scanned or photographed digit as MNIST was: white on black, scaled into a box, centred by mass.

MNIST scales a digit into 20 of the 28 pixels and puts its centre of mass in the middle. A network trained on it does
not recognise a picture that was not prepared in the same way.
"""

from __future__ import annotations

import math
import struct
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np

from bpxp.core.checks import as_path
from bpxp.errors import BackendNotInstalledError, DatasetFormatError, InvalidValueError

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

# What the readers of the various formats raise for a damaged file.
DAMAGED = (ArithmeticError, EOFError, IndexError, struct.error, SyntaxError, TokenError, TypeError, ValueError)
BOX = 20 / 28  # MNIST's; in smaller pictures, such as the 8 by 8 digits, a digit fills the whole


def load_digit(path: str | Path, in_shape: tuple[int, ...], *, prepare: bool = True) -> np.ndarray:
    """Return a picture as a uint8 array of shape `in_shape`.

    Parameters
    ----------
    path : path
        PNG, JPEG, … (needs Pillow), or ``.npy``, taken as it is.
    in_shape : tuple of int
        (height, width, 1), or (n,) with n a square number.
    prepare : bool, optional
        Crop to the digit, make it white on black, scale it into MNIST's box, and centre its mass. False only resizes.

    Raises
    ------
    BackendNotInstalledError
        Pillow is not installed.
    DatasetFormatError
        The file is not a picture.
    """
    path = as_path(path, "predict")
    height, width = picture_size(in_shape)
    if path.suffix == ".npy":
        try:  # memory-mapped: the header is compared with the file's size before memory is allocated
            array: np.ndarray = np.array(np.lib.format.open_memmap(path, mode="r"))
        except DAMAGED as error:
            raise DatasetFormatError(
                str(path), f"not an array of numbers in NumPy's format ({error})", code="E075"
            ) from error
        if array.size != math.prod(in_shape):
            got, expected = f"shape {array.shape}", f"{math.prod(in_shape)} pixels"
            raise DatasetFormatError(str(path), "another size", code="E075", got=got, expected=expected)
        return array.reshape(in_shape)
    try:
        from PIL import Image
    except ImportError as error:
        what = "reading pictures needs Pillow"
        raise BackendNotInstalledError("predict", what, code="E021", fix="pip install pillow") from error
    try:
        with Image.open(path) as picture:
            grey = picture.convert("L")
    except (OSError, *DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # no such file, for example
        what = f"not a picture that Pillow knows, or a damaged one ({error})"
        raise DatasetFormatError(str(path), what, code="E075") from error
    resized = centred(grey, height, width) if prepare else grey.resize((width, height), Image.Resampling.BOX)
    return np.array(resized).reshape(in_shape)


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
    """Return the digit of a grey picture, white on black, centred by mass in `height` by `width` pixels."""
    from PIL import Image, ImageOps

    canvas, pixels = Image.new("L", (width, height)), np.asarray(grey)
    if pixels.min() == pixels.max():
        return canvas
    if np.median(np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])) > 127.5:  # ink on paper
        grey = ImageOps.invert(grey)
    grey = ImageOps.autocontrast(grey)
    digit = grey.crop(grey.point(lambda value: 255 * (value > 64)).getbbox())
    scale = (BOX if min(height, width) >= 20 else 1.0) * min(height, width) / max(digit.size)
    small = digit.resize([max(1, round(n * scale)) for n in digit.size], Image.Resampling.BOX)
    weights = np.asarray(small, dtype=np.float64)
    if not weights.any():  # a few dots, far apart, fade to nothing
        return canvas
    offset = []
    for whole, part, mass in ((width, small.width, weights.sum(axis=0)), (height, small.height, weights.sum(axis=1))):
        centre = np.average(np.arange(part), weights=mass)
        offset.append(min(max(round((whole - 1) / 2 - centre), 0), whole - part))
    canvas.paste(small, (offset[0], offset[1]))
    return canvas
