"""The handwritten digits that come with bpxp: 1,797 images of 8 by 8 pixels, there without a network."""

from __future__ import annotations

import importlib.resources

import numpy as np

from bpxp.data.dataset import Dataset
from bpxp.data.sources.idx import read_idx

FOLDER = "optdigits"
# The source counts 0 … 16 inked dots per cell; 16 becomes 255, half a step is rounded up.
GREYS = ((np.arange(17) * 255 + 8) // 16).astype(np.uint8)


def digits() -> tuple[Dataset, Dataset]:
    """Return the 8 by 8 handwritten digits, for training and for testing.

    Returns
    -------
    tuple of Dataset
        1,437 samples for training and 360 for testing, 36 of each class. x has shape (N, 8, 8, 1) and dtype uint8,
        0 … 255; y has shape (N,), the digit.

    Notes
    -----
    The test part of *Optical Recognition of Handwritten Digits*, which scikit-learn's `load_digits` returns too, there
    as 0 … 16: here 16 is 255, since uint8 means pixels 0 … 255 everywhere in bpxp. Which samples test is fixed in the
    shipped files; PROVENANCE.md beside them says how they were drawn.

    References
    ----------
    E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0.
    """
    return _part("train", "digits train"), _part("t10k", "digits test")


def _part(prefix: str, name: str) -> Dataset:
    folder = importlib.resources.files("bpxp.data") / FOLDER
    x = read_idx((folder / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
    y = read_idx((folder / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
    return Dataset(GREYS[x][..., np.newaxis], y.astype(np.int32), name=name, classes=tuple("0123456789"))
