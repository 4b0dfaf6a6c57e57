"""A data set from a folder with four IDX files in the names that MNIST gave them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bpxp.core.checks import as_path
from bpxp.data.dataset import Dataset
from bpxp.data.sources.idx import read_idx
from bpxp.errors import DatasetFormatError, DatasetUnavailableError

# The images and the labels of each part.
PARTS = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
NAMES = tuple(name for names in PARTS.values() for name in names)


def candidates(folder: Path, name: str) -> list[Path]:
    """Return where `name` may be in `folder`: plain or .gz, with a hyphen or a dot before ``idx``."""
    return [folder / f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]


def folder_dataset(path: str | os.PathLike[str]) -> tuple[Dataset, Dataset]:
    """Read your own data set, in MNIST's format.

    Parameters
    ----------
    path : path
        A folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, each plain or as ``.gz``; `write_idx` writes such files. Images have shape
        (N, height, width) or (N, height, width, channels), other features (N, features); any size and any dtype of IDX.

    Returns
    -------
    tuple of Dataset
        For training and for testing. Classes are 0 … the largest label.

    Raises
    ------
    DatasetUnavailableError
        If a file is missing.
    DatasetFormatError
        If a file is no IDX file, or the files do not fit together.
    """
    folder = as_path(path, "folder_dataset(path)")
    files = {name: next((c for c in candidates(folder, name) if c.is_file()), None) for name in NAMES}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        where = f"folder_dataset({os.fspath(path)!r})"
        what = "files are missing" if folder.is_dir() else "no such folder"
        got, expected = f"no {', '.join(missing)}", "these names, plain or .gz"
        fix = "write them with bpxp.data.write_idx(path, array)"
        raise DatasetUnavailableError(where, what, code="E072", got=got, expected=expected, fix=fix)
    arrays = {name: read_idx(file) for name, file in files.items() if file is not None}
    classes = tuple(str(k) for k in range(1 + max(int(arrays[y].max(initial=0)) for _, y in PARTS.values())))
    train, test = assemble(arrays, folder.name, classes, str(folder))
    if train.x.shape[1:] != test.x.shape[1:]:
        what, got = "images of different shapes", f"{train.x.shape[1:]} for training, {test.x.shape[1:]} for testing"
        raise DatasetFormatError(str(folder), what, code="E070", got=got)
    return train, test


def assemble(
    arrays: Mapping[str, np.ndarray], name: str, classes: tuple[str, ...], where: str
) -> tuple[Dataset, Dataset]:
    """Return the data sets for training and testing of the arrays in four files; a grey image gets its channel axis."""
    found = []
    for part, names in PARTS.items():
        x, y = (arrays[name] for name in names)
        indices = y.ndim == 1 and y.dtype.kind in "iu" and len(y) and y.min() >= 0
        if not indices or x.ndim not in (2, 3, 4) or len(x) != len(y):
            what = f"{len(x)} samples but {len(y)} labels" if len(x) != len(y) else "not images and labels"
            got = f"x {x.shape} {x.dtype}, y {y.shape} {y.dtype}"
            expected = "x (N, height, width), y (N,) of integers >= 0, N > 0"
            raise DatasetFormatError(where, f"{name} {part}: {what}", code="E070", got=got, expected=expected)
        pixels = True if x.ndim > 2 and x.dtype == np.uint8 else None
        x = x[..., np.newaxis] if x.ndim == 3 else x
        found.append(Dataset(x, y.astype(np.int32), name=f"{name} {part}", classes=classes, pixels=pixels))
    return found[0], found[1]
