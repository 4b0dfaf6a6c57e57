"""Download a published file from the first mirror that sends the right bytes; wrong bytes never reach the disk."""

from __future__ import annotations

import hashlib
import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bpxp.core.text import is_terminal, report
from bpxp.data.sources.idx import read_idx
from bpxp.errors import DatasetChecksumError, DatasetFormatError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

TIMEOUT = (10.0, 30.0)  # seconds to connect, and between two pieces
CHUNK = 1 << 16


class Published(NamedTuple):
    """A file as its authors published it: name, sizes in bytes raw and as .gz, and SHA-256 of the raw bytes."""

    name: str
    size: int
    packed: int
    sha256: str


class Failure(NamedTuple):
    """Why a mirror failed; `wrong` if it sent other bytes than the published ones."""

    url: str
    reason: str
    wrong: bool


class Fetched(NamedTuple):
    """The file as a mirror sent it, packed or not, and the array in it."""

    content: bytes
    array: np.ndarray


def fetch(
    file: Published, mirrors: Sequence[str], *, progress: bool = True, timeout: tuple[float, float] = TIMEOUT
) -> tuple[Fetched | None, list[Failure]]:
    """Return `file` from the first of `mirrors` that sends the published bytes, and why those before it failed.

    Mirrors, whose addresses end in a slash, have it as ``<mirror><name>.gz``; compression is detected from the content.
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
            received = f"The {len(content):,} bytes received have SHA-256 {hashlib.sha256(content).hexdigest()}"
            failures.append(Failure(url, f"{error.brief} {received}", wrong=True))
    return None, failures


def _download(url: str, file: Published, progress: bool, timeout: tuple[float, float]) -> bytes:
    import pooch

    sink = _Bounded(file.size)
    title = f"{file.name} ({file.packed / 1e6:.1f} MB)"
    with _progress(title, url) if progress else nullcontext(False) as bar:
        pooch.HTTPDownloader(progressbar=bar, chunk_size=CHUNK, timeout=timeout)(url, sink, None)
    return sink.getvalue()


def _reason(error: Exception) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"HTTP status {status}"
    # urllib3 wraps the cause in a sentence about its connection pool.
    cause = getattr(error.args[0], "reason", error) if error.args else error
    return f"{type(error).__name__}: {cause}"


class _TooLong(ValueError):
    """A mirror sends more bytes than the file has."""


class _Bounded(io.BytesIO):
    """A buffer with an upper limit: a mirror cannot fill the memory."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.limit = size + size // 1000 + 1024  # gzip of incompressible data is a little larger

    def write(self, chunk: Any, /) -> int:
        if self.tell() + len(chunk) > self.limit:
            raise _TooLong(f"sent more than {self.limit:,} bytes, which the file cannot have")
        return super().write(chunk)


@contextmanager
def _progress(title: str, url: str) -> Iterator[_Bar | bool]:
    """Give pooch's progress bar: a bar on a terminal, elsewhere False after one line on stderr."""
    if not is_terminal(sys.stderr):
        report(f"bpxp: downloading {title} from {url}", sys.stderr)
        yield False
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Bar(progress, progress.add_task(title, total=None))


@dataclass
class _Bar:
    """A progress bar as pooch wants it (total, update, reset, close), drawn by rich."""

    progress: Progress
    task: TaskID
    total: int = 0  # bytes; 0: the mirror did not say

    def update(self, size: int) -> None:
        self.progress.update(self.task, advance=size, total=self.total or None)

    def reset(self) -> None:
        self.progress.reset(self.task)

    def close(self) -> None:
        """The context closes the bar, after a failure too."""
