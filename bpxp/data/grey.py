"""A picture of any mode as 8-bit grey: transparency on paper, 16 bits and floats scaled, turned as its camera says.

It is converted in bands, so that the memory for it is that of the picture, and two bytes per pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bpxp.errors import DatasetFormatError

if TYPE_CHECKING:
    from PIL import Image

BAND = 1 << 18  # pixels converted at a time
ORIENTATION = 0x0112  # the number of EXIF's tag
DEEP = ("I", "F")  # and I;16, I;16B, …: more than 8 bits per pixel


def as_grey(picture: Image.Image, where: str) -> Image.Image:
    """Return an opened picture in mode L; only its first frame, if it has several.

    Raises
    ------
    DatasetFormatError
        For numbers that are no shades of grey: negative, infinite, or in no known scale.
    """
    from PIL import Image

    picture.load()
    turned = picture.getexif().get(ORIENTATION)
    full = _white(picture, where) if picture.mode.startswith(DEEP) else 0.0
    clear = not full and picture.has_transparency_data
    grey, alpha = Image.new("L", picture.size), Image.new("L", picture.size) if clear else None
    rows = max(1, BAND // max(1, picture.width))
    for top in range(0, picture.height, rows):
        band = picture.crop((0, top, picture.width, min(top + rows, picture.height)))
        if full:
            values = np.asarray(band).astype(np.float64) * (255.0 / full)
            band = Image.fromarray(np.floor(values + 0.5).astype(np.uint8))
        elif alpha is not None:
            band = band.convert("RGBA")
            alpha.paste(band.getchannel("A"), (0, top))
        grey.paste(band.convert("L"), (0, top))
    if alpha is not None:
        grey.paste(_paper(grey, alpha), (0, 0), alpha.point(lambda a: 255 - a))
    return grey if turned not in range(2, 9) else grey.transpose(_turns()[turned])


def _white(picture: Image.Image, where: str) -> float:
    """Return the number that is white in a picture of more than 8 bits per pixel."""
    low, high = (float(value) for value in picture.getextrema())
    finite = picture.mode != "F" or _is_finite(picture)
    scales = {"F": (1.0, 255.0, 65535.0), "I": (255.0, 65535.0)}.get(picture.mode, (65535.0,))
    white = next((scale for scale in scales if finite and low >= 0.0 and high <= scale), 0.0)
    if not white:
        got, expected = f"{low:g} … {high:g}" if finite else "NaN or inf", " or ".join(f"0 … {s:g}" for s in scales)
        raise DatasetFormatError(where, "no shades of grey", code="E075", got=got, expected=expected)
    return white


def _is_finite(picture: Image.Image) -> bool:
    rows = max(1, BAND // max(1, picture.width))
    bands = range(0, picture.height, rows)
    return all(
        np.isfinite(np.asarray(picture.crop((0, top, picture.width, min(top + rows, picture.height))))).all()
        for top in bands
    )


def _paper(grey: Image.Image, alpha: Image.Image) -> int:
    """Return the grey that shows through: that of the opaque parts, or what ink stands out from where most is clear."""
    shown = grey.histogram(alpha.point(lambda a: 255 * (a > 127)))
    count = sum(shown)
    if 2 * count > grey.width * grey.height:
        return int(np.searchsorted(np.cumsum(shown), count / 2))
    mean = sum(value * n for value, n in enumerate(shown)) / count if count else 0.0
    return 255 if mean <= 127.5 else 0


def _turns() -> dict[int, Image.Transpose]:
    """Return how a picture of each orientation is turned upright."""
    from PIL import Image

    turn = Image.Transpose
    upright = (turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE)
    return dict(enumerate((*upright, turn.ROTATE_270, turn.TRANSVERSE, turn.ROTATE_90), 2))
