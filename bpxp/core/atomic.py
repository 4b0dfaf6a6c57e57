"""Writing a file so that nobody ever sees half of it, and nothing stays behind of an attempt that was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows, where a file that is open can be neither renamed nor removed
    fcntl = None  # type: ignore[assignment]

BEGIN, END = ".bpxp-", ".part"  # of the names of files that are being written


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, all or nothing; see `replacing`."""
    with replacing(path) as stream:
        stream.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give a new file to write; at the end of the block it is forced to the disk, and takes the place of `path`.

    Of several writers the last one wins, and every reader sees the whole file of one of them. The new file is removed
    if anything goes wrong, Ctrl-C included; an old file at `path` is then as it was. What a killed process left behind
    is removed first.
    """
    path = Path(os.path.realpath(path))  # through a link, into the folder where the file itself lies
    sweep(path.parent)
    new, stream = _new_file(path.parent)
    try:
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            if fcntl is not None:
                os.replace(new, path)  # while it is open, and so is held: no sweeper takes it for a leftover
        if fcntl is None:
            os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    _force_folder(path.parent)


def sweep(folder: Path) -> None:
    """Remove the files in `folder` that a process was writing when it died.

    A writer holds a lock on its file, which the system takes from the dead: no process number has to be trusted, not
    in another container either. A leftover that cannot be removed is left.
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
    """Raise now what writing `size` bytes to `path` would raise later, as far as one can know.

    Raises
    ------
    OSError
        No such folder, no permission, `path` is a folder, or fewer than `size` bytes are free.
    """
    path = Path(os.path.realpath(path))
    if path.is_dir():
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    sweep(path.parent)
    new, stream = _new_file(path.parent)
    stream.close()
    new.unlink()
    free = shutil.disk_usage(path.parent).free
    if free < size:
        what = f"needs {size / 1e6:,.1f} MB of free space, {free / 1e6:,.1f} MB are there [BPX-E067]"
        raise OSError(errno.ENOSPC, what, str(path))


def _new_file(folder: Path) -> tuple[Path, BinaryIO]:
    """Return a new file in `folder` that no sweeper will take."""
    while True:
        # Not tempfile: its mode 0600 would lock others out of a shared folder.
        path = folder / f"{BEGIN}{secrets.token_hex(8)}{END}"
        stream = open(path, "xb")  # noqa: SIM115  (the caller closes it)
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks is never swept either
                fcntl.flock(stream, fcntl.LOCK_EX)
        if fcntl is None or os.fstat(stream.fileno()).st_nlink:
            return path, stream
        stream.close()  # a sweeper came between creating and locking it


def _force_folder(folder: Path) -> None:
    """Force a rename to the disk: it is there only when the folder is."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot; the new file is in place all the same
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
