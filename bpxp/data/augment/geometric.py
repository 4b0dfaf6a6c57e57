"""Geometric transforms: each maps output pixels to input coordinates; consecutive ones share one resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from bpxp.core.checks import set_field
from bpxp.core.threefry import Key, random_bits
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.data.augment.resample import Motion, places, resample
from bpxp.data.augment.shapes import image_shape, validate_shape


@dataclass(frozen=True)
class Geometric:
    """A transform that moves pixels, by an affine map, a displacement field, or not at all.

    Parameters
    ----------
    shape : tuple of int, optional
        (height, width, channels) of the images, for a network of vectors.
    """

    _: KW_ONLY
    shape: Shape | None = None

    def __post_init__(self) -> None:
        set_field(self, "shape", validate_shape(self.shape, f"{type(self).__name__}(shape=…)"))

    @property
    def whole(self) -> bool:
        """Whether pixels map to pixels, so that nothing is interpolated."""
        return False

    def words(self, batch: int, shape: Shape, /) -> int:
        """Return how many random words `motion` or `field` needs for images of `shape`."""
        return 0

    def motion(self, words: Array, batch: int, /, *, dtype: Any, xp: Namespace) -> Motion | None:
        """Return one affine map per sample from random words (int32, 1-D), or None."""
        return None

    def field(self, words: Array, batch: int, shape: Shape, /, *, dtype: Any, xp: Namespace) -> Array | None:
        """Return displacements (2, batch, height · width) from random words, as a new array, or None."""
        return None

    def __call__(self, x: Array, y: Array, key: Key, /, *, xp: Namespace) -> tuple[Array, Array]:
        return warp((self,), x, key, xp=xp), y


def warp(transforms: Sequence[Geometric], x: Array, key: Key, /, *, xp: Namespace) -> Array:
    """Apply geometric transforms of the same `shape`, one after another, with one resampling and one random draw.

    Affine maps are composed, and displacements added to the result. An affine map after a displacement field would
    rotate and stretch the field; it is not applied, since the field is random, isotropic and stationary.
    """
    batch = x.shape[0]
    shape = image_shape(transforms[0].shape, tuple(x.shape[1:]), type(transforms[0]).__name__)
    motion: Motion | None = None
    fields = []
    counts = [transform.words(batch, shape) for transform in transforms]
    words, begin = random_bits(key, sum(counts), xp=xp), 0
    for transform, count in zip(transforms, counts, strict=True):
        part = words[begin : begin + count]
        begin += count
        own = transform.motion(part, batch, dtype=x.dtype, xp=xp)
        if own is not None:
            motion = own if motion is None else own.after(motion)
        field = transform.field(part, batch, shape, dtype=x.dtype, xp=xp)
        if field is not None:
            fields.append(field)
    if motion is None and not fields:
        return x
    at = places(motion, *shape[:2], dtype=x.dtype, xp=xp)
    for field in fields:
        field += at
        at = field
    whole = all(transform.whole for transform in transforms)
    return xp.reshape(resample(xp.reshape(x, (batch, *shape)), at, whole=whole, xp=xp), x.shape)
