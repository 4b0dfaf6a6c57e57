"""The bundled digits: the same bytes everywhere, and a fair split."""

from __future__ import annotations

import hashlib
import importlib.resources
import re

import numpy as np

from bpxp.data import digits, read_idx

FOLDER = importlib.resources.files("bpxp.data") / "optdigits"
COUNTS = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]  # of the source, per class
# SHA-256 of all images of a class, in the source's order (computed from scikit-learn's copy).
CLASSES = [
    "3c272074f399e32c076c814e063d88837fcbcaa66ecdf62d78489e5833dff1f1",
    "244f5bc0f5b1baddefc7b6947f9bbe79479e45dcdd633e25fe86594d905033b0",
    "d195be0f6f4d2d7f2fca855097974fa88068b162a480cddd638fc45720b8e9a5",
    "20df08dbedd13bd37718162e88b68f023e935567de11bf9d9495b3f93e9ba052",
    "08f039e1a884c4a22a669fb7dbce8165833c30196498fe7e59a962b656bb63e3",
    "32daf5a9607e44dbd5c9c5783982b689bf834ff1ebe1189edb172e30e6a60579",
    "6413417cd040ff80f2b4d10231dd563ca665b48bfd69dc706752e4134413ec0b",
    "7bb5f76cb0771c1aff1ef1740f8c329c0187ab5996c4b48f6d4b2484b0159f8e",
    "21b794a25fe58696ab035c101c6c82f847a7fd516cb9a7971620e07860f26fd2",
    "1722446c7524d9ba2edd0037a635ee30a5924e408987804b9646fbe2500565ba",
]


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def test_shapes_and_dtypes() -> None:
    train, test = digits()
    assert (train.x.shape, train.y.shape) == ((1437, 8, 8, 1), (1437,))
    assert (test.x.shape, test.y.shape) == ((360, 8, 8, 1), (360,))
    assert train.x.dtype == test.x.dtype == np.uint8
    assert train.y.dtype == test.y.dtype == np.int32
    assert train.classes == test.classes == tuple("0123456789")
    assert (train.x.min(), train.x.max()) == (0, 255)


def test_the_arrays_are_frozen() -> None:
    train, test = digits()
    assert digest(train.x) == "932c51e6b42d82b859ab4afd65de69337acfda2d6310748b417d7c340b75f369"
    assert digest(test.x) == "a75b541d462df462b5453a7d91b017562eea96d29735c2dfd40486677435e918"
    assert digest(train.y.astype(np.uint8)) == "65ab975291b62760e78c21e92caf8015d956007039da2046b48accaf98b6753a"
    assert digest(test.y.astype(np.uint8)) == "8f485815660272a79b85e6d5b375fe745b28c361425ade37cb4cc66e05ed9b52"


def test_the_files_are_those_of_the_provenance_note() -> None:
    note = (FOLDER / "PROVENANCE.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\S+-ubyte) \| [\d,]+ \| ([0-9a-f]{64}) \|", note)
    assert len(rows) == 4
    for name, sha256 in rows:
        read_idx((FOLDER / f"{name}.gz").read_bytes(), sha256=sha256)


def test_the_scale_is_rounded_255_16ths() -> None:
    raw = read_idx((FOLDER / "train-images-idx3-ubyte.gz").read_bytes())
    train, _ = digits()
    assert set(np.unique(raw)) == set(range(17))
    np.testing.assert_array_equal(train.x[..., 0], np.floor(raw * (255 / 16) + 0.5).astype(np.uint8), strict=True)


def test_the_split_is_stratified_and_disjoint() -> None:
    train, test = digits()
    assert np.bincount(test.y).tolist() == [36] * 10
    assert (np.bincount(train.y) + 36).tolist() == COUNTS
    images = np.concatenate([train.x, test.x]).reshape(1797, -1)
    assert len(np.unique(images, axis=0)) == 1797  # no image twice, so none in both parts


def test_the_split_is_the_one_that_the_provenance_note_tells() -> None:
    """Put the source's order together again from the note, as far as it can be: within each class."""
    train, test = digits()
    for k in range(10):
        chosen = np.zeros(COUNTS[k], bool)
        bits = np.random.Philox(np.random.SeedSequence([0, 2, k])).random_raw(COUNTS[k])
        chosen[np.argsort(bits, kind="stable")[:36]] = True
        whole = np.empty((COUNTS[k], 8, 8, 1), np.uint8)
        whole[chosen], whole[~chosen] = test.x[test.y == k], train.x[train.y == k]
        assert digest(whole) == CLASSES[k]


def test_every_call_gives_arrays_of_its_own() -> None:
    digits()[0].x[:] = 0
    assert digits()[0].x.any()
