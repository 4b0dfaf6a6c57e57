"""The handwritten digits that ship with bpxp: 1,797 images of 8 by 8 pixels, no download."""

from __future__ import annotations

import importlib.resources

import numpy as np

from bpxp.data.dataset import Dataset
from bpxp.data.sources.folder import NAMES, PARTS, assemble
from bpxp.data.sources.idx import read_idx

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
    as 0 … 16: here 16 is 255, as pixels of uint8 are 0 … 255. The split is fixed in the shipped
    files; PROVENANCE.md beside them says how it was drawn.

    References
    ----------
    E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0.
    """
    folder = importlib.resources.files("bpxp.data") / "optdigits"
    arrays = {name: read_idx((folder / f"{name}.gz").read_bytes()) for name in NAMES}
    greys = {images: GREYS[arrays[images]] for images, _ in PARTS.values()}
    return assemble(arrays | greys, "digits", tuple("0123456789"), "digits()")
