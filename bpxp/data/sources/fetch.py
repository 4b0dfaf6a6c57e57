"""Downloading a published file from the first mirror that sends the right bytes; others never touch the disk."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np

from bpxp.data.sources.idx import read_idx
from bpxp.errors import DatasetChecksumError, DatasetFormatError

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
CHUNK = 1 << 16


class Published(NamedTuple):
    """A file as its authors published it: name, sizes in bytes raw and as .gz, and SHA-256 of the raw bytes."""

    name: str
    size: int
    packed: int
    sha256: str


class Failure(NamedTuple):
    """Why a mirror did not help; `wrong` if it answered with other bytes than the published ones."""

    url: str
    reason: str
    wrong: bool


class Fetched(NamedTuple):
    """What a mirror sent (`content`, as it was sent), and the array in it."""

    content: bytes
    array: np.ndarray


def fetch(
    file: Published, mirrors: Sequence[str], *, progress: bool = True, timeout: tuple[float, float] = TIMEOUT
) -> tuple[Fetched | None, list[Failure]]:
    """Return `file` from the first of `mirrors` that sends it rightly, and why those before it did not.

    Parameters
    ----------
    file : Published
        Mirrors have it as ``<mirror><name>.gz``; whether it is compressed is seen from the content.
    mirrors : sequence of str
        Addresses that end in a slash.
    progress : bool, optional
        Say on stderr what is being downloaded; a bar if it is a terminal.
    timeout : tuple of float, optional
        Seconds to connect, and between two pieces.
    """
    failures = []
    for mirror in mirrors:
        url = f"{mirror}{file.name}.gz"
        try:
            content = _download(url, file, progress, timeout)
        except (OSError, ValueError) as error:  # what requests, the sockets and a strange header raise
            failures.append(Failure(url, _reason(error), wrong=isinstance(error, _TooLong)))
            continue
        try:
            return Fetched(content, read_idx(content, max_bytes=file.size, sha256=file.sha256)), failures
        except DatasetChecksumError as error:
            failures.append(Failure(url, error.brief, wrong=True))
        except DatasetFormatError as error:
            digest = hashlib.sha256(content).hexdigest()
            reason = f"{error.brief} The {len(content):,} bytes that came have SHA-256 {digest}"
            failures.append(Failure(url, reason, wrong=True))
    return None, failures


def _download(url: str, file: Published, progress: bool, timeout: tuple[float, float]) -> bytes:
    import pooch

    sink = _Bounded(file.size)
    with _bar(f"{file.name} ({file.packed / 1e6:.1f} MB)", url) if progress else nullcontext() as bar:
        pooch.HTTPDownloader(progressbar=bar or False, chunk_size=CHUNK, timeout=timeout)(url, sink, None)
    return sink.getvalue()


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    # urllib3 wraps the cause into a sentence about its connection pool.
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return f"{type(error).__name__}: {cause}"


class _TooLong(ValueError):
    """A mirror sends more than the file can have."""


class _Bounded(io.BytesIO):
    """A buffer that refuses more bytes than the file can have, packed or not: a mirror cannot fill the memory."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.limit = size + size // 1000 + 1024  # gzip of what cannot be compressed is a little larger

    def write(self, chunk: Any, /) -> int:
        if self.tell() + len(chunk) > self.limit:
            raise _TooLong(f"sent more than {self.limit:,} bytes, which the file cannot have")
        return super().write(chunk)


def _bar(title: str, url: str) -> AbstractContextManager[Any]:
    if sys.stderr.isatty():
        return _RichBar(title)
    print(f"bpxp: downloading {title} from {url}", file=sys.stderr, flush=True)
    return nullcontext()


class _RichBar(AbstractContextManager["_RichBar"]):
    """What pooch asks of a progress bar (total, update, reset, close), drawn by rich."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(title, total=None)

    def __enter__(self) -> _RichBar:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)  # 0: the mirror did not say

    def update(self, size: int) -> None:
        self._progress.update(self._task, advance=size)

    def reset(self) -> None:
        self._progress.reset(self._task, total=self.total)

    def close(self) -> None:
        """Pooch closes a bar only after success, so `__exit__` does the work."""
