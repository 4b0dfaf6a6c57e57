"""The line of code that brings samples of another shape to that which a network takes."""

from __future__ import annotations

import itertools
import math
from typing import Any

from bpxp.core.typing import Shape


def called(a: Any, name: str) -> str:
    """Return what to call an array in a line of code: lists and columns of data frames are made arrays first."""
    return name if hasattr(a, "reshape") and not hasattr(a, "to_numpy") else f"np.asarray({name})"


def vectors(shape: Shape, size: int, x: str) -> tuple[str, str]:
    """Return what is wrong with x for a network of `size` inputs, and a fix."""
    if len(shape) == 1:
        what = "must be 2-D (samples, features)"
        if size == 1:
            return what, f"{x}[:, None], samples of one feature"
        return what, f"{x}[None, :], one sample" if shape == (size,) else ""
    if len(shape) == 2:
        what = f"x has {shape[1]} features, the network expects {size}: in x W, axis 1 of x must be axis 0 of W"
        if shape[0] == size:
            return f"{what}; it looks transposed: x.T has shape {shape[::-1]}", f"{x}.T"
        return what, ""
    return f"x has {math.prod(shape[1:])} numbers per sample, the network expects {size}", ""


def rearranged(shape: Shape, in_shape: Shape, x: str, library: str) -> str:
    """Return the line that brings x to (n, *in_shape), an empty text if none is likely.

    A reshape keeps the order of the numbers: it may split and join axes, but never move one.
    """
    n, axes = shape[0], len(in_shape)
    first = (in_shape[-1], *in_shape[:-1])  # channels first
    moved, reshaped = f"{library}.moveaxis({{}}, {{}})".format, f"{x}.reshape({n}, {{}})".format
    if shape == in_shape:
        return f"{x}[None]"
    if shape == first:
        return f"{moved(x, '0, -1')}[None]"
    if shape[:-1] == in_shape:
        return moved(x, "-1, 0")
    if in_shape[0] in (1, 3) and axes == 3 and shape[1:] == (*in_shape[1:], in_shape[0]):
        return f"Network(…, input_shape={shape[1:]})"
    if shape[1:] == first and in_shape[-1] > 1:
        return moved(x, "1, -1")
    if sorted(shape[1:]) == sorted(in_shape) and in_shape[-1] > 1:
        order = next(p for p in itertools.permutations(range(1, axes + 1)) if tuple(shape[i] for i in p) == in_shape)
        return f"{library}.permute({x}, {(0, *order)})" if library == "torch" else f"np.transpose({x}, {(0, *order)})"
    if shape[1:] == (math.prod(in_shape),) and axes > 2 and in_shape[-1] > 1:
        by_channel = moved(reshaped(", ".join(map(str, first))), "1, -1")
        by_pixel = reshaped(", ".join(map(str, in_shape)))
        return f"{by_channel} for rows of one channel after the other, as CIFAR's; {by_pixel} for pixel after pixel"
    if _splits(shape[1:], in_shape):
        return reshaped(", ".join(map(str, in_shape)))
    return moved(reshaped(", ".join(map(str, first))), "1, -1") if _splits(shape[1:], first) else ""


def _splits(shape: Shape, into: Shape) -> bool:
    """Return whether the axes of `into` are those of `shape`, some of them split; axes of length 1 do not count."""
    rest = [n for n in into if n > 1]
    for n in (n for n in shape if n > 1):
        product = 1
        while product < n and rest:
            product *= rest.pop(0)
        if product != n:
            return False
    return not rest
