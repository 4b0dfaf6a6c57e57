"""The real MNIST and Fashion-MNIST, where they are on this machine; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from bpxp.data import Dataset, fashion_mnist, mnist
from bpxp.errors import DatasetUnavailableError

TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]


@pytest.mark.parametrize(
    ("load", "counts"), [(mnist, (TRAIN, TEST)), (fashion_mnist, ([6000] * 10, [1000] * 10))], ids=["mnist", "fashion"]
)
def test_shapes_and_counts(load: Callable[..., tuple[Dataset, Dataset]], counts: tuple[list[int], list[int]]) -> None:
    try:
        parts = load(download=False)
    except DatasetUnavailableError:
        pytest.skip("not on this machine; set BPXP_DATA_DIR")
    for part, n, classes in zip(parts, (60_000, 10_000), counts, strict=True):
        assert part.x.shape == (n, 28, 28, 1)
        assert part.x.dtype == np.uint8
        assert (part.x.min(), part.x.max()) == (0, 255)
        assert part.y.dtype == np.int32
        assert np.bincount(part.y).tolist() == classes
        assert len(part.classes) == 10
