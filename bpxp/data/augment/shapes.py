"""The image shape of a sample: transforms work on (batch, height, width, channels)."""

from __future__ import annotations

import math
from typing import Any

from bpxp.core.checks import positive_int
from bpxp.core.typing import Shape
from bpxp.errors import InvalidTypeError, InvalidValueError


def validate_shape(shape: Any, where: str) -> Shape | None:
    """Return a given (height, width, channels) as a tuple of three; None stays None."""
    if shape is None:
        return None
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        what, expected = "not the shape of an image", "(28, 28, 1), for example"
        raise InvalidTypeError(where, what, code="E001", got=repr(shape), expected=expected)
    return tuple(positive_int(n, where) for n in shape)


def image_shape(shape: Shape | None, in_shape: Shape, name: str) -> Shape:
    """Return (height, width, channels) of samples of `in_shape` for the transform `name`, which was given `shape`."""
    if shape is None and len(in_shape) == 3:
        return in_shape
    if shape is not None and math.prod(shape) == math.prod(in_shape):
        return shape
    where = f"{name}(shape={'…' if shape is None else shape})"
    if shape is None:
        what = "the samples are not images"
        got = f"samples of shape {in_shape}"
        fix = f"{name}(…, shape=(28, 28, 1)) says how a vector of 784 is an image"
        raise InvalidValueError(where, what, code="E056", got=got, expected="(height, width, channels)", fix=fix)
    what = f"an image of {' × '.join(map(str, shape))} has {math.prod(shape)} numbers"
    raise InvalidValueError(where, what, code="E056", got=f"samples of shape {in_shape}, {math.prod(in_shape)} numbers")
