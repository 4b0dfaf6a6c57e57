"""MNIST and Fashion-MNIST: found on this machine or downloaded, and always checked against the published SHA-256."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bpxp.core.atomic import write_atomically
from bpxp.core.checks import as_path
from bpxp.data.dataset import Dataset
from bpxp.data.sources.fetch import Failure, Published, fetch
from bpxp.data.sources.folder import PARTS, assemble, candidates, names
from bpxp.data.sources.idx import GZIP_MAGIC, read_idx
from bpxp.errors import (
    DatasetChecksumError,
    DatasetFormatError,
    DatasetUnavailableError,
    warn,
)

ENVIRONMENT = "BPXP_DATA_DIR"


class Collection(NamedTuple):
    """What is known of a published data set: its files, the mirrors that have them, and where else they may lie."""

    call: str
    name: str
    files: tuple[Published, ...]
    mirrors: tuple[str, ...]
    subfolders: tuple[str, ...]
    system: tuple[Path, ...]
    classes: tuple[str, ...]


MNIST = Collection(
    call="mnist()",
    name="mnist",
    files=(
        Published("train-images-idx3-ubyte", 47_040_016, 9_912_422,
                  "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
        Published("train-labels-idx1-ubyte", 60_008, 28_881,
                  "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
        Published("t10k-images-idx3-ubyte", 7_840_016, 1_648_877,
                  "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
        Published("t10k-labels-idx1-ubyte", 10_008, 4_542,
                  "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://raw.githubusercontent.com/fgnt/mnist/master/",
    ),
    subfolders=("mnist", "MNIST/raw", ""),
    system=(),
    classes=tuple("0123456789"),
)  # fmt: skip

FASHION = Collection(
    call="fashion_mnist()",
    name="fashion-mnist",
    files=(
        Published("train-images-idx3-ubyte", 47_040_016, 26_421_880,
                  "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        Published("train-labels-idx1-ubyte", 60_008, 29_515,
                  "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        Published("t10k-images-idx3-ubyte", 7_840_016, 4_422_102,
                  "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        Published("t10k-labels-idx1-ubyte", 10_008, 5_148,
                  "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ),
    mirrors=(
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    subfolders=("fashion-mnist", "FashionMNIST/raw", ""),
    system=(Path("/usr/share/datasets/fashion-mnist"),),  # Debian's package dataset-fashion-mnist
    classes=("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
)  # fmt: skip


def mnist(
    *, folder: str | os.PathLike[str] | None = None, download: bool = True, progress: bool = True
) -> tuple[Dataset, Dataset]:
    """Return MNIST: 60,000 handwritten digits for training and 10,000 for testing.

    The four files, plain or .gz, are looked for in `folder`; in the folder named by the environment variable
    ``BPXP_DATA_DIR``; in the user's cache; then they are downloaded. Each is checked by SHA-256 whenever it is read.

    Parameters
    ----------
    folder : path, optional
        Where to look first, in it or in its subfolder ``mnist``, and where downloads are kept; otherwise in the
        user's cache.
    download : bool, optional
        False never opens a connection.
    progress : bool, optional
        Say on stderr what is being downloaded.

    Returns
    -------
    tuple of Dataset
        x has shape (N, 28, 28, 1) and dtype uint8; y has shape (N,), the digit.

    Raises
    ------
    DatasetUnavailableError
        If a file is neither here nor to be had; it says which files to put where.
    DatasetChecksumError, DatasetFormatError
        If a file in a folder that you named, or all that the mirrors sent, differs from the published one.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, Proceedings
    of the IEEE 86 (11), 1998.
    """
    return _load(MNIST, folder, download, progress)


def fashion_mnist(
    *, folder: str | os.PathLike[str] | None = None, download: bool = True, progress: bool = True
) -> tuple[Dataset, Dataset]:
    """Return Fashion-MNIST: articles of clothing in the form of MNIST, and harder.

    Parameters, returns and errors are those of `mnist`; the subfolder is ``fashion-mnist``, and
    ``/usr/share/datasets/fashion-mnist`` is looked into before downloading.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms*, arXiv:1708.07747. MIT licence.
    """
    return _load(FASHION, folder, download, progress)


def _load(
    collection: Collection, folder: str | os.PathLike[str] | None, download: bool, progress: bool
) -> tuple[Dataset, Dataset]:
    keep = _cache(collection) if folder is None else as_path(folder, f"{collection.call[:-1]}folder=…)")
    mirrors = list(collection.mirrors)
    arrays = {}
    for file in collection.files:
        found = _find(collection, file, folder)
        arrays[file.name] = found if found is not None else _obtain(collection, file, mirrors, keep, download, progress)
    train, test = (
        assemble(
            arrays[images],
            arrays[labels],
            name=f"{collection.name} {part}",
            classes=collection.classes,
            where=collection.call,
        )
        for part, (images, labels) in ((part, names(prefix)) for part, prefix in PARTS.items())
    )
    return train, test


def _cache(collection: Collection) -> Path:
    import platformdirs

    return platformdirs.user_cache_path("bpxp") / collection.name


def _places(collection: Collection, folder: str | os.PathLike[str] | None) -> Iterator[tuple[Path, bool]]:
    """Yield each folder to look into, and whether the user named it."""
    for root in (folder, os.environ.get(ENVIRONMENT)):
        if root:
            for subfolder in collection.subfolders:
                yield Path(root) / subfolder, True
    yield _cache(collection), False
    for place in collection.system:
        yield place, False


def _find(collection: Collection, file: Published, folder: str | os.PathLike[str] | None) -> np.ndarray | None:
    """Return the array of `file` if it is on this machine.

    A bad file in a folder that the user named is an error; one in the cache is passed over, and replaced by the
    download. The two collections use the same names, so a file of the other one is no bad file.
    """
    others = {other.sha256 for known in (MNIST, FASHION) for other in known.files if known is not collection}
    for place, named in _places(collection, folder):
        for path in candidates(place, file.name):
            try:
                if path.is_file():
                    return read_idx(path, max_bytes=file.size, sha256=file.sha256)
            except (DatasetFormatError, OSError) as error:  # an OSError: other bytes, or it cannot be read
                if named and not any(digest in str(error) for digest in others):
                    error.add_note(f"Remove or replace it; {collection.call} then looks further, or downloads it.")
                    raise
    return None


def _obtain(
    collection: Collection, file: Published, mirrors: list[str], keep: Path, download: bool, progress: bool
) -> np.ndarray:
    """Download `file`, keep it in the folder `keep`, and return its array. Mirrors that failed go to the end."""
    if not download:
        raise _unavailable(collection, file, keep, "  download=False")
    fetched, failures = fetch(file, mirrors, progress=progress)
    if fetched is None:
        if any(failure.wrong for failure in failures):
            raise _wrong(collection, file, failures)
        raise _unavailable(collection, file, keep, _tried(failures))
    mirrors[:] = mirrors[len(failures) :] + mirrors[: len(failures)]
    path = keep / (f"{file.name}.gz" if fetched.content[:2] == GZIP_MAGIC else file.name)
    try:
        keep.mkdir(parents=True, exist_ok=True)
        write_atomically(path, fetched.content)
    except OSError as error:
        what = f"{path} cannot be written ({error}); the next call downloads it again"
        warn(collection.call, what, code="W007", fix=f"set {ENVIRONMENT}, or pass folder=")
    return fetched.array


def _tried(failures: list[Failure]) -> str:
    return "\n".join(f"  {failure.url}: {failure.reason}" for failure in failures)


def _wrong(collection: Collection, file: Published, failures: list[Failure]) -> DatasetChecksumError:
    return DatasetChecksumError(
        collection.call,
        f"no mirror sent {file.name} as it was published, SHA-256 {file.sha256} of the raw file:\n{_tried(failures)}",
        code="E071",
        first="What they sent was removed",
        fix="try again later, or copy the files from elsewhere and pass folder=",
    )


def _unavailable(collection: Collection, file: Published, keep: Path, tried: str) -> DatasetUnavailableError:
    files = ", ".join(f"{f.name}.gz ({f.packed:,} bytes; {f.size:,} unpacked)" for f in collection.files)
    return DatasetUnavailableError(
        collection.call,
        f"{file.name} is not on this machine and cannot be downloaded:\n{tried}\nThe files, plain or .gz, are {files}",
        code="E072",
        fix=f"put them into {keep}, or into any folder and set {ENVIRONMENT} to it or pass folder=",
    )
