"""A picture of a digit, as a scanner or a camera gives it, becomes what a network was trained on.

MNIST's makers put the digit, white on black, into a box of 20 of the 28 pixels, its centre of mass in the middle. A
picture that is not prepared alike is not recognised, however good the network.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from tokenize import TokenError

import numpy as np

from bpxp.errors import BackendNotInstalledError, DatasetFormatError, InvalidValueError

# What readers of files raise, each in its own way, for one that is damaged.
DAMAGED = (ArithmeticError, EOFError, IndexError, struct.error, SyntaxError, TokenError, TypeError, ValueError)
BOX = 20 / 28  # MNIST's; smaller pictures, as the 8 by 8 digits, are filled


def load_digit(path: str | Path, in_shape: tuple[int, ...], *, prepare: bool = True) -> np.ndarray:
    """Return a picture as uint8 array of shape `in_shape`.

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
    path = Path(path)
    height, width = picture_size(in_shape)
    if path.suffix == ".npy":
        try:  # mapped: what the header says is compared with the file's size before memory is taken
            array: np.ndarray = np.array(np.lib.format.open_memmap(path, mode="r"))
        except DAMAGED as error:
            raise DatasetFormatError(
                str(path), f"not an array of numbers in NumPy's format ({error})", code="E075"
            ) from error
        if array.size != math.prod(in_shape):
            raise DatasetFormatError(
                str(path),
                "another size",
                code="E075",
                got=f"shape {array.shape}",
                expected=f"{math.prod(in_shape)} pixels",
            )
        return array.reshape(in_shape)
    try:
        from PIL import Image
    except ImportError as error:
        raise BackendNotInstalledError(
            "predict", "reading pictures needs Pillow", code="E021", fix="pip install 'bpxp[images]'"
        ) from error
    try:
        with Image.open(path) as picture:
            grey = np.asarray(picture.convert("L"), dtype=np.float64)
    except (OSError, *DAMAGED, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # there is no such file, say
        what = f"not a picture that Pillow knows, or a damaged one ({error})"
        raise DatasetFormatError(str(path), what, code="E075") from error
    resized = centred(grey, height, width) if prepare else resize(grey, height, width)
    pixels: np.ndarray = np.rint(resized).clip(0, 255).astype(np.uint8)
    return pixels.reshape(in_shape)


def picture_size(in_shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (height, width) of the pictures that a network of this input takes."""
    if len(in_shape) == 3 and in_shape[2] == 1:
        return in_shape[0], in_shape[1]
    side = math.isqrt(in_shape[0])
    if len(in_shape) == 1 and side * side == in_shape[0]:
        return side, side
    raise InvalidValueError(
        "predict",
        "the network does not take grey pictures",
        code="E075",
        got=f"input shape {in_shape}",
        expected="(height, width, 1), or a square number of pixels",
        fix="net.predict(x) from Python",
    )


def centred(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the digit of a grey picture, white on black, in the middle of `height` by `width` pixels."""
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    if np.median(border) > 127.5:  # ink on paper
        grey = 255.0 - grey
    grey = grey - grey.min()
    if grey.max() > 0:
        grey = grey * (255.0 / grey.max())
    ink = np.argwhere(grey > 64.0)
    if not len(ink):
        return np.zeros((height, width))
    (top, left), (bottom, right) = ink.min(axis=0), ink.max(axis=0) + 1
    digit = grey[top:bottom, left:right]
    box = BOX if min(height, width) >= 20 else 1.0
    scale = box * min(height, width) / max(digit.shape)
    small = resize(digit, max(1, round(digit.shape[0] * scale)), max(1, round(digit.shape[1] * scale)))
    rows, columns = np.indices(small.shape)
    mass = small.sum()
    offset = []
    for coordinates, whole, part in ((rows, height, small.shape[0]), (columns, width, small.shape[1])):
        centre = (coordinates * small).sum() / mass
        offset.append(int(min(max(round((whole - 1) / 2 - centre), 0), whole - part)))
    canvas = np.zeros((height, width))
    canvas[offset[0] : offset[0] + small.shape[0], offset[1] : offset[1] + small.shape[1]] = small
    return canvas


def resize(grey: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resample a grey picture with Pillow's antialiasing filter."""
    from PIL import Image

    picture = Image.fromarray(grey.astype(np.float32))
    return np.asarray(picture.resize((width, height), Image.Resampling.BOX), dtype=np.float64)
