"""Several transforms as one: in order, each with its own random stream, and as few resamplings as possible."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bpxp.core.checks import set_field
from bpxp.core.threefry import Key
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.data.augment.geometric import Geometric, warp
from bpxp.data.augment.shapes import image_shape
from bpxp.errors import InvalidTypeError

Transform = Callable[..., tuple[Array, Array]]


@dataclass(frozen=True)
class Compose:
    """Apply transforms in order.

    Parameters
    ----------
    transforms : sequence of transforms
        Consecutive geometric ones share one bilinear resampling: cheaper, and less blurred.
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        set_field(self, "transforms", validate_transforms(self.transforms, "Compose(transforms=…)"))

    @property
    def mixes(self) -> bool:
        """Whether targets are mixed, so they have to be rows."""
        return any(getattr(transform, "mixes", False) for transform in self.transforms)

    def __call__(self, x: Array, y: Array, key: Key, /, *, xp: Namespace) -> tuple[Array, Array]:
        for places in self._groups:
            own, group = key.at(places[0]), [self.transforms[i] for i in places]
            if len(group) > 1:
                x = warp(group, x, own, xp=xp)  # type: ignore[arg-type]
            else:
                x, y = group[0](x, y, own, xp=xp)
        return x, y

    @functools.cached_property
    def _groups(self) -> tuple[tuple[int, ...], ...]:
        """The indices of the transforms, grouped by shared resampling."""
        groups: list[list[int]] = []
        for i, transform in enumerate(self.transforms):
            last = self.transforms[i - 1] if i else None
            if isinstance(transform, Geometric) and isinstance(last, Geometric) and transform.shape == last.shape:
                groups[-1].append(i)
            else:
                groups.append([i])
        return tuple(map(tuple, groups))


def validate_transforms(transforms: Any, where: str) -> tuple[Transform, ...]:
    """Return transforms as a tuple; each must be callable and hashable."""
    if callable(transforms) or not isinstance(transforms, Iterable):
        what = "not a sequence of transforms"
        raise InvalidTypeError(where, what, code="E056", got=type(transforms).__name__, fix="augment=[Rotate(10)]")
    found = tuple(transforms)
    for i, transform in enumerate(found):
        if isinstance(transform, type) or not callable(transform) or type(transform).__hash__ is None:
            got = transform.__name__ if isinstance(transform, type) else type(transform).__name__
            expected = "a hashable function (x, y, key, /, *, xp) -> (x, y), such as Rotate(10)"
            raise InvalidTypeError(where, f"[{i}] is not a transform", code="E056", got=got, expected=expected)
    return found


def arranged(transforms: Any, in_shape: Shape, where: str = "fit(augment=…)") -> tuple[Compose, ...]:
    """Return transforms as a training step takes them: one `Compose`, or (), that fits the samples."""
    found = validate_transforms(transforms, where)
    for transform in found:
        _fits(transform, in_shape)
    return (Compose(found),) if found else ()


def _fits(transform: Any, in_shape: Shape) -> None:
    if isinstance(transform, Compose):
        for part in transform.transforms:
            _fits(part, in_shape)
    elif hasattr(transform, "shape"):
        image_shape(transform.shape, in_shape, type(transform).__name__)
