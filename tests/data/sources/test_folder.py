"""A folder of IDX files: any shape, each spelling of the names, and errors that name the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bpxp.data import folder_dataset, write_idx
from bpxp.errors import DatasetFormatError, DatasetUnavailableError

Write = Callable[..., Path]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_it_reads_the_four_files(tmp_path: Path, write: Write, arrays: dict[str, np.ndarray], end: str) -> None:
    train, test = folder_dataset(write(tmp_path / "shapes", end))
    for part, prefix in ((train, "train"), (test, "t10k")):
        np.testing.assert_array_equal(part.x[..., 0], arrays[f"{prefix}-images-idx3-ubyte"], strict=True)
        np.testing.assert_array_equal(part.y, arrays[f"{prefix}-labels-idx1-ubyte"].astype(np.int32), strict=True)
        assert part.classes == ("0", "1", "2")
    assert (train.name, test.name) == ("shapes train", "shapes test")


def test_dots_instead_of_hyphens(tmp_path: Path, write: Write) -> None:
    for file in list(write(tmp_path).iterdir()):
        file.rename(file.with_name(file.name.replace("-idx", ".idx")))
    assert len(folder_dataset(str(tmp_path))[0]) == 30


@pytest.mark.parametrize("shape", [(7,), (4, 4, 3)])
def test_features_and_colours_keep_their_shape(tmp_path: Path, write: Write, shape: tuple[int, ...]) -> None:
    write(tmp_path)
    for prefix, n in (("train", 30), ("t10k", 12)):
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte.gz", np.ones((n, *shape), np.float32))
    train, test = folder_dataset(tmp_path)
    assert train.x.shape == (30, *shape)
    assert test.x.dtype == np.float32


def test_missing_files_are_named(tmp_path: Path, write: Write) -> None:
    (write(tmp_path) / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DatasetUnavailableError, match="files are missing: got no t10k-labels-idx1-ubyte,"):
        folder_dataset(tmp_path)
    with pytest.raises(DatasetUnavailableError, match="no such folder"):
        folder_dataset(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("train-labels-idx1-ubyte", np.zeros(29, np.uint8), "30 samples but 29 labels"),
        ("train-labels-idx1-ubyte", np.zeros((30, 1), np.uint8), "not images and labels"),
        ("train-labels-idx1-ubyte", np.zeros(30, np.float32), "not images and labels"),
        ("t10k-labels-idx1-ubyte", np.full(12, -1, np.int8), "not images and labels"),
        ("t10k-images-idx3-ubyte", np.zeros(12, np.uint8), "not images and labels"),
        ("t10k-images-idx3-ubyte", np.zeros((12, 5, 5), np.uint8), "different shapes"),
    ],
)
def test_files_that_do_not_fit_together(tmp_path: Path, write: Write, name: str, array: np.ndarray, words: str) -> None:
    write_idx(write(tmp_path) / f"{name}.gz", array)
    with pytest.raises(DatasetFormatError, match=words):
        folder_dataset(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path, write: Write) -> None:
    file = write(tmp_path) / "train-images-idx3-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DatasetFormatError, match="train-images-idx3-ubyte"):
        folder_dataset(tmp_path)
