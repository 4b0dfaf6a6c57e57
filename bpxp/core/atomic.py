"""Atomic replace of a file: write to a temporary file, fsync, rename; leftovers of killed writers are swept."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where an open file can be neither renamed nor removed
    fcntl = None  # type: ignore[assignment]

BEGIN, END = ".bpxp-", ".part"  # of the names of files that are being written


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, all or nothing; see `replacing`."""
    with replacing(path) as stream:
        stream.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Yield a temporary file to write; at the end of the block it is fsynced and renamed to `path`.

    Of several writers the last one wins, and every reader sees the whole file of one of them. On any error, Ctrl-C
    included, the temporary file is removed and an old file at `path` is intact. Leftovers of killed processes are
    removed first.
    """
    path = Path(os.path.realpath(path))  # through a link, into the folder of the file itself
    sweep(path.parent)
    new, stream = _new_file(path)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is not None:
                os.replace(new, path)  # while it is open and locked: no sweeper takes it for a leftover
        if fcntl is None:
            os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _force_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove temporary files in `folder` whose writer has died.

    A writer locks its file, and the system releases the locks of a dead process: no process number has to be trusted,
    nor shared between containers. A leftover that cannot be removed stays.
    """
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(BEGIN) and entry.name.endswith(END):
                with contextlib.suppress(OSError), open(entry.path, "r+b") as stream:
                    if fcntl is not None:
                        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(entry.path)
                if fcntl is None:
                    with contextlib.suppress(OSError):
                        os.unlink(entry.path)


def check_writable(path: Path, size: int) -> None:
    """Raise now what writing `size` bytes to `path` would raise later, as far as can be known.

    Raises
    ------
    OSError
        No such folder, no permission, `path` is a folder, or fewer than `size` bytes are free.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    sweep(path.parent)
    new, stream = _new_file(path)
    stream.close()
    new.unlink()
    import shutil

    free = shutil.disk_usage(path.parent).free
    if free < size:
        what = f"needs {size / 1e6:,.1f} MB of free space, {free / 1e6:,.1f} MB available [BPX-E067]"
        raise OSError(errno.ENOSPC, what, str(path))


def _new_file(path: Path) -> tuple[Path, BinaryIO]:
    """Return a new, locked temporary file beside `path`."""
    while True:
        # Not tempfile: its mode 0600 would lock others out of a shared folder.
        new = path.parent / f"{BEGIN}{os.urandom(8).hex()}{END}"
        try:
            stream = open(new, "xb")  # noqa: SIM115  (the caller closes it)
        except OSError as error:  # name the file that was asked for, not the temporary one
            what = f"cannot write {path.name}: {error.strerror}"
            raise OSError(error.errno, what, str(path.parent)) from error
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks is never swept either
                fcntl.flock(stream, fcntl.LOCK_EX)
        if fcntl is None or os.fstat(stream.fileno()).st_nlink:
            return new, stream
        stream.close()  # a sweeper came between creating and locking it


def _force_folder(folder: Path) -> None:
    """Fsync the folder, which makes the rename durable."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot; the new file is in place anyway
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
