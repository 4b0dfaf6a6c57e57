"""A data set: inputs, targets and optional weights, on the host or a device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bpxp.backends import Array, Backend, get_backend
from bpxp.backends.dlpack import is_host_array, library_of
from bpxp.core.checks import number, positive_int, set_field
from bpxp.core.random import SPLIT, HostRandom, Seed, normalize_seed
from bpxp.data.validation.columns import column_names
from bpxp.data.validation.inputs import adopt, as_host
from bpxp.errors import InvalidTypeError, InvalidValueError


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Samples with their targets; immutable: `take`, `split` and `to` return new ones.

    Parameters
    ----------
    x : array, shape (N, …)
        Inputs. Images are (N, height, width, channels). Lists and data frames become NumPy arrays; arrays of a library
        are kept as they are.
    y : array, shape (N,) or (N, n_out)
        Class indices, or one row of targets per sample.
    weight : array, shape (N,), optional
        Weight of each sample, >= 0.
    name : str, optional
        Shown in messages.
    classes : sequence of str, optional
        The name of each class index.
    backend : str or Backend, optional
        Where the arrays are; None is the host. Arrays that are elsewhere are copied there, as by `to`.
    resident : bool, optional
        For data on the host. True: `Trainer.fit` and `Network.evaluate` copy all of it to the device. False: it stays
        in host memory or in a file (``numpy.load(…, mmap_mode="r")``, `map_idx`), and is streamed to the device by
        double-buffered prefetch, with the same results. None: streamed if it does not fit into device memory.
    pixels : bool, optional
        Whether integers in x are pixels 0 … 255, which a network scales to 0 … 1. None: as ``Network(pixels=…)`` says.
    features : sequence of str, optional
        The names of the columns of x; those of a data frame are taken from it.

    Raises
    ------
    InvalidValueError
        Different lengths, no samples, or rows of different lengths.
    InvalidTypeError
        Not an array of numbers.
    """

    x: Array
    y: Array
    weight: Array | None = None
    name: str = "data"
    classes: tuple[str, ...] = ()
    backend: Any = None  # given by its name or as a Backend, kept as a Backend
    resident: bool | None = None
    pixels: bool | None = None
    features: tuple[str | int, ...] = ()

    def __post_init__(self) -> None:
        set_field(self, "features", tuple(self.features) or column_names(self.x))
        for field in ("x", "y", "weight"):
            if field != "weight" or self.weight is not None:
                set_field(self, field, _as_array(getattr(self, field), f"Dataset({field}=…)"))
        set_field(self, "classes", tuple(self.classes))
        for field in ("resident", "pixels"):
            if (value := getattr(self, field)) not in (None, False, True):
                got, choices = f"{type(value).__name__} {value!r}", "True, False or None"
                raise InvalidTypeError(f"Dataset({field}=…)", "not a choice", code="E001", got=got, expected=choices)
        if self.resident is False and self.backend is None and not isinstance(self.x, np.ndarray):
            what, got = "data that stay on the host are NumPy arrays", f"x of {library_of(self.x)}"
            raise InvalidTypeError("Dataset(resident=False)", what, code="E030", got=got)
        n = self.x.shape[0]
        if n == 0:
            raise InvalidValueError("Dataset(x=…)", "0 samples", code="E037", got=f"shape {tuple(self.x.shape)}")
        if self.y.shape[0] != n:
            what = f"{n} samples but {self.y.shape[0]} labels"
            got = f"x {tuple(self.x.shape)} and y {tuple(self.y.shape)}"
            expected = "one label or row of targets per sample"
            raise InvalidValueError("Dataset(x=…, y=…)", what, code="E040", got=got, expected=expected)
        if self.weight is not None and tuple(self.weight.shape) != (n,):
            what, got = "not one weight per sample", f"shape {tuple(self.weight.shape)}"
            raise InvalidValueError("Dataset(weight=…)", what, code="E047", got=got, expected=f"({n},)")
        if self.features and tuple(self.x.shape[1:]) != (len(self.features),):
            what, got = "not one name per column", f"{len(self.features)} for x of shape {tuple(self.x.shape)}"
            raise InvalidValueError("Dataset(features=…)", what, code="E036", got=got)
        if self.backend is not None:
            set_field(self, "backend", get_backend(self.backend))
            for field in ("x", "y", "weight"):
                if (a := getattr(self, field)) is not None:
                    a = _narrow(a) if field == "y" and isinstance(a, np.ndarray) else a
                    set_field(self, field, adopt(a, self.backend, f"Dataset({field}=…)"))

    def __len__(self) -> int:
        return int(self.x.shape[0])

    def __repr__(self) -> str:
        arrays = {"x": self.x, "y": self.y, "weight": self.weight}
        known = {key: a for key, a in arrays.items() if a is not None}
        shapes = ", ".join(f"{key}={tuple(a.shape)} {_dtype_name(a)}" for key, a in known.items())
        size = sum(math.prod(a.shape) * np.dtype(_dtype_name(a)).itemsize for a in known.values())
        classes = f", {len(self.classes)} classes" if self.classes else ""
        place = self.backend.name if self.backend else "host"
        return f"Dataset({self.name!r}, {shapes}{classes}, {size / 1e6:.1f} MB on {place})"

    def to(self, backend: str | Backend | None = None) -> Dataset:
        """Return the same data on `backend`; itself if it is there already.

        Arrays already on the device are shared. Integer targets become int32, everything else keeps its dtype. Data
        on another backend go through the host.

        Raises
        ------
        DeviceMismatchError
            If the data set was made from another library's arrays on another device.
        """
        target = get_backend(backend)
        if self.backend is target:
            return self
        x, y, weight = (
            self.backend.to_numpy(a) if self.backend is not None and a is not None else a
            for a in (self.x, self.y, self.weight)
        )
        return replace(
            self,
            x=adopt(x, target, "Dataset.to: x"),
            y=adopt(_narrow(y) if isinstance(y, np.ndarray) else y, target, "Dataset.to: y"),
            weight=None if weight is None else adopt(weight, target, "Dataset.to: weight"),
            backend=target,
        )

    def take(self, indices: Any, *, name: str | None = None) -> Dataset:
        """Return the samples at `indices`, in that order.

        Parameters
        ----------
        indices : sequence of int, shape (M,)
            Each in 0 … N-1; repetitions are allowed.
        name : str, optional
            Of the new data set; default: the old name.
        """
        rows = np.asarray(indices)
        if rows.ndim != 1 or (rows.dtype.kind not in "iu" and rows.size):
            got = f"shape {rows.shape}, dtype {rows.dtype}"
            fix = "take(numpy.flatnonzero(mask)) for a mask" if rows.dtype == bool else ""
            raise InvalidTypeError("Dataset.take(indices)", "not a sequence of ints", code="E001", got=got, fix=fix)
        bad = np.flatnonzero((rows < 0) | (rows >= len(self)))
        if bad.size:
            got, first = f"indices[{bad[0]}] = {rows[bad[0]]}", f"{bad.size} of {rows.size} are out of range"
            where, expected = "Dataset.take(indices)", f"0..{len(self) - 1}"
            raise InvalidValueError(where, "out of range", code="E073", got=got, expected=expected, first=first)
        rows = rows.astype(np.int32)
        x, y, weight = (None if a is None else self._rows(a, rows) for a in (self.x, self.y, self.weight))
        return replace(self, x=x, y=y, weight=weight, name=self.name if name is None else name)

    def flatten(self) -> Dataset:
        """Return the same samples as vectors: x of shape (N, height * width * channels)."""
        pixels = True if self.pixels is None and are_images(self.x, self.backend) else self.pixels
        return replace(self, x=as_vectors(self.x, self.backend), pixels=pixels)

    def subset(self, n: int) -> Dataset:
        """Return the first `n` samples."""
        if positive_int(n, "Dataset.subset(n)") > len(self):
            what, expected = "more than there are", f"1..{len(self)}"
            raise InvalidValueError("Dataset.subset(n)", what, code="E073", got=str(n), expected=expected)
        return self.take(np.arange(n), name=f"{self.name}[:{n}]")

    def split(self, fraction: float, seed: Seed = 0) -> tuple[Dataset, Dataset]:
        """Split at random, ``train, validation = data.split(0.1)``.

        Parameters
        ----------
        fraction : float
            The share of the second part, in (0, 1); it gets ``round(fraction * N)`` samples.
        seed : int, SeedSequence, Generator or None, optional
            The same seed gives the same parts on every backend.

        Returns
        -------
        tuple of Dataset
            The rest and the part, each in the order of this data set.

        Raises
        ------
        InvalidValueError
            If one part would be empty.
        """
        share = number(fraction, "Dataset.split(fraction)", low=0.0, high=1.0, low_open=True, high_open=True)
        n, size = len(self), round(share * len(self))
        if size in (0, n):
            got = f"{share} of {n} samples, parts of {n - size} and {size}"
            raise InvalidValueError("Dataset.split(fraction)", "a part would have 0 samples", code="E050", got=got)
        order = HostRandom(normalize_seed(seed, "Dataset.split(seed=…)"), (SPLIT,)).permutation(n)
        return self.take(np.sort(order[size:])), self.take(np.sort(order[:size]), name=f"{self.name} (split)")

    def _rows(self, a: Array, rows: np.ndarray) -> Array:
        if self.backend is not None:
            return self.backend.xp.take(a, self.backend.asarray(rows), axis=0)
        if isinstance(a, np.ndarray):
            return np.take(a, rows, axis=0)
        what, fix = "the data are arrays of another library", "data.to(backend).take(…)"
        raise InvalidTypeError("Dataset.take", what, code="E030", got=library_of(a), fix=fix)


def as_dataset(data: Dataset | Sequence[Any], where: str = "data") -> Dataset:
    """Return `data` as a `Dataset`: it is one, or ``(x, y)``, or ``(x, y, weight)``."""
    if isinstance(data, Dataset):
        return data
    if isinstance(data, tuple | list) and len(data) in (2, 3):
        return Dataset(*data)
    got = f"{type(data).__name__}" + (f" of {len(data)}" if isinstance(data, tuple | list) else "")
    raise InvalidTypeError(where, "not data", code="E030", got=got, expected="a Dataset, (x, y) or (x, y, weight)")


def are_images(x: Array, backend: Backend | None, *, flat: bool = True) -> bool:
    """Return whether x are images of bytes: uint8 with height and width, and channels, too, unless they become `flat`.

    Bytes that are only 0 and 1 are flags, or one-hot.
    """
    if _dtype_name(x) != "uint8" or len(x.shape) < (3 if flat else 4) or 0 in x.shape:
        return False
    if isinstance(x, np.ndarray):  # it may be a file: most images show it in the first rows
        return any(x[i : i + 100].max() > 1 for i in range(0, len(x), 100))
    return int(x.max() if backend is None else backend.to_numpy(backend.xp.max(x))) > 1


def as_vectors(x: Array, backend: Backend | None) -> Array:
    """Return samples of any shape as rows, (n, size)."""
    shape = (x.shape[0], -1)
    return x.reshape(shape) if backend is None else backend.xp.reshape(x, shape)


def _as_array(a: Any, where: str) -> Array:
    array = as_host(a, where) if is_host_array(a) else a
    if array.ndim == 0:
        what = "a single number, not one row per sample"
        raise InvalidTypeError(where, what, code="E030", got=f"{type(a).__name__} {a}")
    return array


def _narrow(y: np.ndarray) -> np.ndarray:
    """Return integers as int32, which every backend supports."""
    if y.dtype.kind not in "iu" or y.dtype == np.int32:
        return y
    limits = np.iinfo(np.int32)
    bad = np.flatnonzero((y < limits.min) | (y > limits.max))
    if bad.size:
        what, got = "the target does not fit into int32", f"{y.reshape(-1)[bad[0]]} (the {bad[0]}th value)"
        raise InvalidValueError("Dataset.to", what, code="E041", got=got, first=f"{bad.size} of {y.size} do not")
    return y.astype(np.int32)


def _dtype_name(a: Array) -> str:
    return str(a.dtype).rsplit(".", maxsplit=1)[-1]
