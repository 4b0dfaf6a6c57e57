"""Data: sources, data sets on the host or a device, mini-batches, augmentation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bpxp.data.dataset import Dataset, as_dataset
from bpxp.data.loader import Loader
from bpxp.data.order import epoch_order

if TYPE_CHECKING:
    from bpxp.data import augment
    from bpxp.data.sources.digits import digits
    from bpxp.data.sources.folder import folder_dataset
    from bpxp.data.sources.idx import map_idx, read_idx, write_idx
    from bpxp.data.sources.mnist import fashion_mnist, mnist

__all__ = [
    "Dataset",
    "Loader",
    "as_dataset",
    "augment",
    "digits",
    "epoch_order",
    "fashion_mnist",
    "folder_dataset",
    "map_idx",
    "mnist",
    "read_idx",
    "write_idx",
]

# Imported at first use: a network that is trained on arrays needs none of it.
_SOURCES = {
    "digits": "digits",
    "fashion_mnist": "mnist",
    "folder_dataset": "folder",
    "map_idx": "idx",
    "mnist": "mnist",
    "read_idx": "idx",
    "write_idx": "idx",
}


def __getattr__(name: str) -> Any:
    if name == "augment":
        return importlib.import_module("bpxp.data.augment")
    if name in _SOURCES:
        return getattr(importlib.import_module(f"bpxp.data.sources.{_SOURCES[name]}"), name)
    raise AttributeError(f"module 'bpxp.data' has no attribute {name!r}")
