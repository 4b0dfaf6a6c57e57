"""Atomic replace of a file: write to a temporary file, fsync, rename; leftovers of killed writers are swept."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
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

    Through a symbolic link the file itself is replaced; the new one has its mode and owner. A device, a pipe and a file
    that is write-protected are refused with an `OSError`, as by `check_writable`.
    """
    path, old = _target(path)
    new, stream = _new_file(path, old)
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
        No such folder, no permission, `path` is no regular file, or fewer than `size` bytes are free.
    """
    path, old = _target(path)
    new, stream = _new_file(path, old)
    stream.close()
    new.unlink()
    import shutil

    free = shutil.disk_usage(path.parent).free
    if free < size:
        what = f"needs {size / 1e6:,.1f} MB of free space, {free / 1e6:,.1f} MB available [BPX-E067]"
        raise OSError(errno.ENOSPC, what, str(path))


KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def regular(path: Path) -> os.stat_result | None:
    """Return the status of the file at `path`, behind symbolic links; None if there is none, or raise an OSError.

    Raises
    ------
    OSError
        It is a folder, a device, a pipe or a socket, or write-protected.
    """
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = stat.S_IFMT(found.st_mode)
    if kind == stat.S_IFDIR:
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if kind != stat.S_IFREG:
        what = f"{KINDS.get(kind, 'a special file')} and no regular file, so it is not replaced; give another path"
        what += " [BPX-E067]"
        raise OSError(errno.EINVAL, what, str(path))
    if not os.access(path, os.W_OK):
        raise OSError(errno.EACCES, f"{os.strerror(errno.EACCES)}: the file is write-protected", str(path))
    return found


def _target(path: Path) -> tuple[Path, os.stat_result | None]:
    """Return the file that `path` leads to, in a folder that can be written to and is swept, and its status."""
    old = regular(path)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        number = errno.ENOTDIR if target.parent.exists() else errno.ENOENT
        folder = target.parent if path.is_symlink() else path.parent  # as it was asked for
        raise OSError(number, f"cannot write {path.name}: {os.strerror(number)}", str(folder))
    sweep(target.parent)
    return target, old


def _new_file(path: Path, old: os.stat_result | None) -> tuple[Path, BinaryIO]:
    """Return a new, locked temporary file beside `path`, with the owner and the mode of the old file."""
    mode = 0o666 if old is None else stat.S_IMODE(old.st_mode)
    while True:
        # Not tempfile: its mode 0600 would lock others out of a shared folder.
        new = path.parent / f"{BEGIN}{os.urandom(8).hex()}{END}"
        try:
            # Never more readable than the old file, not even while it is written.
            stream = open(new, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        except OSError as error:  # name the file that was asked for, not the temporary one
            what = f"cannot write {path.name}: {error.strerror}"
            raise OSError(error.errno, what, str(path.parent)) from error
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks is never swept either
                fcntl.flock(stream, fcntl.LOCK_EX)
        if fcntl is None or os.fstat(stream.fileno()).st_nlink:
            if old is not None and fcntl is not None:
                with contextlib.suppress(OSError):  # only root may give a file to another owner
                    os.fchown(stream.fileno(), old.st_uid, old.st_gid)
                with contextlib.suppress(OSError):  # a file system without modes
                    os.fchmod(stream.fileno(), mode)
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
