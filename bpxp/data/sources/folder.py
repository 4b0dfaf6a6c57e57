"""A data set from a folder with four IDX files in the names that MNIST gave them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from bpxp.core.checks import as_path
from bpxp.data.dataset import Dataset
from bpxp.data.sources.idx import read_idx
from bpxp.errors import DatasetFormatError, DatasetUnavailableError

PARTS = {"train": "train", "test": "t10k"}


def names(prefix: str) -> tuple[str, str]:
    """Return the names of the images and the labels."""
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def candidates(folder: Path, name: str) -> list[Path]:
    """Return where `name` may be in `folder`: as it is or .gz, with a hyphen or a dot before ``idx``."""
    return [folder / f"{stem}{end}" for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]


def folder_dataset(path: str | os.PathLike[str]) -> tuple[Dataset, Dataset]:
    """Read a data set of one's own, written in MNIST's format.

    Parameters
    ----------
    path : path
        A folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
        ``t10k-labels-idx1-ubyte``, each plain or as ``.gz``; `write_idx` writes such files. Images have shape
        (N, height, width), (N, height, width, channels) or, for features that are no image, (N, features), of any size
        and any dtype of IDX.

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
    wanted = [name for prefix in PARTS.values() for name in names(prefix)]
    files = {name: next((c for c in candidates(folder, name) if c.is_file()), None) for name in wanted}
    missing = [name for name, file in files.items() if file is None]
    if missing:
        raise DatasetUnavailableError(
            f"folder_dataset({os.fspath(path)!r})",
            "files are missing" if folder.is_dir() else "no such folder",
            code="E072",
            got=f"no {', '.join(missing)}",
            expected="these names, plain or .gz",
            fix="write them with bpxp.data.write_idx(path, array)",
        )
    arrays = {name: read_idx(file) for name, file in files.items() if file is not None}
    classes = tuple(str(k) for k in range(1 + max(int(arrays[names(p)[1]].max(initial=0)) for p in PARTS.values())))
    train, test = (
        assemble(arrays[images], arrays[labels], name=f"{folder.name} {part}", classes=classes, where=str(folder))
        for part, (images, labels) in ((part, names(prefix)) for part, prefix in PARTS.items())
    )
    if train.x.shape[1:] != test.x.shape[1:]:
        raise DatasetFormatError(
            str(folder),
            "images of different shapes",
            code="E070",
            got=f"{train.x.shape[1:]} for training, {test.x.shape[1:]} for testing",
        )
    return train, test


def assemble(x: np.ndarray, y: np.ndarray, *, name: str, classes: tuple[str, ...], where: str) -> Dataset:
    """Return images (N, height, width[, channels]) and labels (N,) as a `Dataset`; a grey image gets its channel axis.

    Raises
    ------
    DatasetFormatError
        If the arrays do not fit together, or a label is no class index.
    """
    whole = y.ndim == 1 and y.dtype.kind in "iu" and len(y) and y.min() >= 0
    if not whole or x.ndim not in (2, 3, 4) or len(x) != len(y):
        raise DatasetFormatError(
            where,
            f"{name}: {len(x)} samples but {len(y)} labels" if len(x) != len(y) else f"{name}: not images and labels",
            code="E070",
            got=f"x {x.shape} {x.dtype}, y {y.shape} {y.dtype}",
            expected="x (N, height, width), y (N,) of integers >= 0, N > 0",
        )
    return Dataset(x[..., np.newaxis] if x.ndim == 3 else x, y.astype(np.int32), name=name, classes=classes)
