"""What a network knows of its inputs: which integers are pixels, the range of training, the order of the columns."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from bpxp.backends import Array, Backend, get_backend
from bpxp.backends.dlpack import is_host_array
from bpxp.data.dataset import Dataset, are_images, as_vectors
from bpxp.data.rows import Rows
from bpxp.data.validation import inputs
from bpxp.data.validation.columns import Names, column_names
from bpxp.errors import warn
from bpxp.network.step import as_floats
from bpxp.nn.spec import Spec

Range = tuple[float, float]
FAR = 10  # half-widths of the range of training, from its middle: standardized data stay within
FEW = 100  # numbers say little of their range
WIDE = 16  # numbers in a sample that may be an image
PIECES = 16  # of samples on the host that are too many to look at all


def are_pixels(spec: Spec, data: Any, x: Array, backend: Backend) -> bool:
    """Return whether the numbers of x, an array of the backend, are pixels 0 … 255, which the network scales to 0 … 1.

    Floats never are: pixels as floats are 0 … 1 already.
    """
    choice = spec.inputs.pixels
    if choice is False or not inputs.are_integers(x, backend) or spec.takes_ids:
        return False
    if choice == "uint8":
        return bool(x.dtype == backend.xp.uint8)
    if choice == "auto":
        low, high = spec.inputs.range or (0.0, 1.0)
        if low < 0.0 or high > 1.0 or (isinstance(data, Dataset) and data.pixels is False):
            return False  # training had other numbers
        said = isinstance(data, Dataset) and data.pixels
        return bool(said or are_images(x, backend, flat=len(spec.input_shape) == 1))
    return True


def features_of(data: Any) -> Names:
    """Return the names of the columns of a Dataset, or of the data frame in a pair or alone."""
    if isinstance(data, Dataset):
        return data.features
    return column_names(data[0] if isinstance(data, (tuple, list)) and len(data) == 2 else data)


def in_bytes(x: Array | Rows, backend: Backend) -> bool:
    """Return whether validated samples are pixels."""
    return bool(x.dtype == (np.uint8 if isinstance(x, Rows) else backend.xp.uint8))


def learned(spec: Spec, data: Any, x: Array | Rows, backend: Backend) -> Spec:
    """Return what is known after training on validated samples of data: that they are pixels, and names of columns."""
    if spec.inputs.pixels == "auto" and in_bytes(x, backend):
        spec = spec.knows(pixels=True)
    if not spec.inputs.features and (features := features_of(data)):
        spec = spec.knows(features=features)
    return spec


def like_inputs(spec: Spec, x: Array | Rows, y: Any, backend: Backend, where: str) -> Any:
    """Return targets of an autoencoder, as many numbers as a sample of x has: flat and scaled as x is; others as given.

    Integers that are only 0 and 1 are a mask, and stay.
    """
    size = math.prod(spec.output_shape)
    if spec.loss.targets not in ("values", "labels") or size != math.prod(x.shape[1:]) or size == 1:
        return y
    if isinstance(y, (list, tuple)):
        with contextlib.suppress(ValueError):  # ragged: its own error is raised where targets are validated
            y = np.asarray(y)
    if len(getattr(y, "shape", ())) < 2 or math.prod(y.shape[1:]) != size or hasattr(y, "columns"):
        return y
    host = is_host_array(y)
    a, place = (y, get_backend("numpy")) if host else (inputs.adopt(y, backend, where), backend)
    a = as_vectors(a, place) if len(spec.output_shape) == 1 and len(a.shape) > 2 else a
    if not inputs.are_integers(a, place) or not (spec.inputs.pixels is True or in_bytes(x, backend)):
        return a
    low, high = inputs.extent(a, place)
    if low < 0 or high > 255 or high <= 1:
        return a
    return as_floats(place.xp.astype(a, place.xp.uint8), getattr(place.xp, spec.dtype), xp=place.xp)


def with_range(spec: Spec, x: Array | Rows, backend: Backend, where: str) -> Spec:
    """Return the spec with the range of the validated samples of a fit, and of those before."""
    if spec.takes_ids:
        return spec
    found = extent(x, backend)
    _warn_of_bytes(spec, found, x, backend, where)
    low, high = found
    if low == high or math.prod(x.shape) < FEW:  # then its width says nothing: zero is in it
        low, high = -max(-low, high), max(-low, high)
    if spec.inputs.range is not None:
        low, high = min(low, spec.inputs.range[0]), max(high, spec.inputs.range[1])
    return spec.knows(range=(low, high))


def check(spec: Spec, x: Array | Rows, backend: Backend, where: str, *, integers: bool) -> None:
    """Warn of samples far outside of the range of training, and of integers that look like pixels."""
    known = spec.inputs.range
    if spec.inputs.pixels is True:
        known = (0.0, 1.0) if known is None else (min(known[0], 0.0), max(known[1], 1.0))
    if spec.takes_ids or (known is None and not (integers and spec.inputs.pixels == "auto")):
        return
    found = extent(x, backend)
    if known is None:
        _warn_of_bytes(spec, found, x, backend, where)
        return
    middle, reach = (known[0] + known[1]) / 2, FAR * (known[1] - known[0]) / 2
    if reach and not middle - reach <= found[0] <= found[1] <= middle + reach:
        what = f"numbers from {found[0]:.4g} to {found[1]:.4g}, far outside of the range of training, "
        fix = "scale x as in training"
        if spec.inputs.pixels is True:
            fix = "pixels as integers 0 … 255, or as floats 0 … 1: x / 255"
        elif known[0] >= 0.0 and known[1] <= 1.0 and found[0] >= 0.0 and 1.0 < found[1] <= 255.0 and integers:
            fix = "net.pixels = True if these are pixels, and training had them as 0 … 1; or scale x as in training"
        warn(where, f"{what}{known[0]:.4g} to {known[1]:.4g}", code="W016", fix=fix)


def extent(x: Array | Rows, backend: Backend) -> Range:
    """Return the smallest and the largest number of samples; pixels are 0 … 1 after scaling."""
    if in_bytes(x, backend):
        return 0.0, 1.0
    if not isinstance(x, Rows):
        return inputs.extent(x, backend)
    numpy, found = get_backend("numpy"), []
    for block in x.pieces(PIECES):
        found.append(inputs.extent(block, numpy))
    return min(low for low, _ in found), max(high for _, high in found)


def _warn_of_bytes(spec: Spec, found: Range, x: Array | Rows, backend: Backend, where: str) -> None:
    """Warn of whole numbers from 0 to 255, many in a sample, where `pixels` is "auto"."""
    if spec.inputs.pixels != "auto" or found != (0.0, 255.0) or math.prod(spec.input_shape) < WIDE:
        return
    few = x.read(0, min(len(x), 100)) if isinstance(x, Rows) else backend.to_numpy(x[: min(100, x.shape[0]), ...])
    if np.array_equal(few, np.floor(few)):
        what = "whole numbers from 0 to 255 look like pixels, and are not scaled to 0 … 1"
        warn(where, what, code="W017", fix="net.pixels = True, or net.pixels = False for numbers that are no pixels")
