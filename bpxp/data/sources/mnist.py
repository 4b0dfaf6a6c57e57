"""MNIST and Fashion-MNIST: found on this machine or downloaded, always checked against the published SHA-256."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bpxp.core.atomic import write_atomically
from bpxp.core.checks import as_path
from bpxp.data.dataset import Dataset
from bpxp.data.sources.fetch import Published, fetch
from bpxp.data.sources.folder import assemble, candidates
from bpxp.data.sources.idx import GZIP_MAGIC, read_idx
from bpxp.errors import DatasetChecksumError, DatasetFormatError, DatasetUnavailableError, warn

ENVIRONMENT = "BPXP_DATA_DIR"
Folder = str | os.PathLike[str] | None


class Collection(NamedTuple):
    """A published data set: its files, their mirrors, and where else on this machine they may be."""

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


def mnist(*, folder: Folder = None, download: bool = True, progress: bool = True) -> tuple[Dataset, Dataset]:
    """Return MNIST: 60,000 handwritten digits for training and 10,000 for testing.

    The four files, plain or .gz, are looked up in `folder`, in the folder named by the environment variable
    ``BPXP_DATA_DIR``, and in the user's cache; then they are downloaded. Every read checks the SHA-256.

    Parameters
    ----------
    folder : path, optional
        Where to look first, also in its subfolder ``mnist``, and where downloads are kept. Default: the user's cache.
    download : bool, optional
        False never opens a connection.
    progress : bool, optional
        Report downloads on stderr.

    Returns
    -------
    tuple of Dataset
        x has shape (N, 28, 28, 1) and dtype uint8; y has shape (N,), the digit.

    Raises
    ------
    DatasetUnavailableError
        If a file is neither here nor downloadable; the message says which files to put where.
    DatasetChecksumError, DatasetFormatError
        If a file in a folder that you named, or from every mirror, differs from the published one.

    References
    ----------
    Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, *Gradient-based learning applied to document recognition*, Proceedings
    of the IEEE 86 (11), 1998.
    """
    return _load(MNIST, folder, download, progress)


def fashion_mnist(*, folder: Folder = None, download: bool = True, progress: bool = True) -> tuple[Dataset, Dataset]:
    """Return Fashion-MNIST: articles of clothing in MNIST's format, and harder.

    Parameters, returns and errors are those of `mnist`; the subfolder is ``fashion-mnist``, and
    ``/usr/share/datasets/fashion-mnist`` is searched before downloading.

    References
    ----------
    H. Xiao, K. Rasul, R. Vollgraf, *Fashion-MNIST: a novel image dataset for benchmarking machine learning
    algorithms*, arXiv:1708.07747. MIT licence.
    """
    return _load(FASHION, folder, download, progress)


def _load(collection: Collection, folder: Folder, download: bool, progress: bool) -> tuple[Dataset, Dataset]:
    import platformdirs

    cache = platformdirs.user_cache_path("bpxp") / collection.name
    places = {f"{collection.call[:-1]}folder=…)": folder, ENVIRONMENT: os.environ.get(ENVIRONMENT) or None}
    roots = [as_path(place, where) for where, place in places.items() if place is not None]
    keep = cache if folder is None else roots[0]
    named = [root / sub for root in roots for sub in collection.subfolders]
    mirrors = list(collection.mirrors)
    arrays = {}
    for file in collection.files:
        array = _find(collection, file, named, [cache, *collection.system])
        arrays[file.name] = _obtain(collection, file, mirrors, keep, download, progress) if array is None else array
    return assemble(arrays, collection.name, collection.classes, collection.call)


def _find(collection: Collection, file: Published, named: list[Path], others: list[Path]) -> np.ndarray | None:
    """Return the array of `file` if it is on this machine.

    A bad file in a folder that the user named is an error; in the cache it is skipped, and replaced by the download.
    The two collections share file names, so a file of the other one is skipped, too.
    """
    foreign = {other.sha256 for known in (MNIST, FASHION) for other in known.files if known is not collection}
    for place in named + others:
        for path in candidates(place, file.name):
            try:
                if path.is_file():
                    return read_idx(path, max_bytes=file.size, sha256=file.sha256)
            except (DatasetFormatError, OSError) as error:  # OSError: other bytes, or unreadable
                if place in named and not any(digest in str(error) for digest in foreign):
                    error.add_note(f"Remove or replace it; {collection.call} then looks further, or downloads it.")
                    raise
    return None


def _obtain(
    collection: Collection, file: Published, mirrors: list[str], keep: Path, download: bool, progress: bool
) -> np.ndarray:
    """Download `file`, keep it in the folder `keep`, and return its array. Mirrors that failed go to the end."""
    fetched, failures = fetch(file, mirrors, progress=progress) if download else (None, [])
    if fetched is None:
        tried = "\n".join(f"  {failure.url}: {failure.reason}" for failure in failures) or "  download=False"
        if any(failure.wrong for failure in failures):
            what = f"no mirror sent {file.name} as it was published, SHA-256 {file.sha256} of the raw file:\n{tried}"
            first = "What they sent was removed"
            fix = "try again later, or copy the files from elsewhere and pass folder="
            raise DatasetChecksumError(collection.call, what, code="E071", first=first, fix=fix)
        files = ", ".join(f"{f.name}.gz ({f.packed:,} bytes; {f.size:,} unpacked)" for f in collection.files)
        what = f"{file.name} is not on this machine and cannot be downloaded:\n{tried}"
        what += f"\nThe files, plain or .gz, are {files}"
        fix = f"put them into {keep}, or into any folder and set {ENVIRONMENT} to it or pass folder="
        raise DatasetUnavailableError(collection.call, what, code="E072", fix=fix)
    mirrors[:] = mirrors[len(failures) :] + mirrors[: len(failures)]
    path = keep / (f"{file.name}.gz" if fetched.content[:2] == GZIP_MAGIC else file.name)
    try:
        keep.mkdir(parents=True, exist_ok=True)
        write_atomically(path, fetched.content)
    except OSError as error:
        what = f"{path} cannot be written ({error}); the next call downloads it again"
        warn(collection.call, what, code="W007", fix=f"set {ENVIRONMENT}, or pass folder=")
    return fetched.array
