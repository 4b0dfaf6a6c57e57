"""The file format: safetensors plus a description, written atomically, every byte verified on reading.

The tensors are named ``params/<layer>/<field>``, so any tool that reads safetensors can use the weights. The
description is canonical JSON under the key ``bpxp``: what the tensors belong to, a SHA-256 of each of them, and a seal,
the SHA-256 of the description itself. Nothing in the file is executed, imported or opened.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from bpxp.core.atomic import replacing
from bpxp.core.checks import as_path
from bpxp.core.typing import Shape
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointMismatchError,
    InvalidTypeError,
    InvalidValueError,
    printable,
)
from bpxp.saving import header
from bpxp.saving.header import HEADER_LIMIT, NAME, NAMES, TENSOR_LIMIT, Description

Tensors = dict[str, np.ndarray]

LARGE = 1 << 20  # bytes: above it, hashing takes longer than starting a thread
PIECE = 8 << 20  # bytes written at a time


def write(path: str | Path, tensors: Tensors, description: Description) -> None:
    """Write tensors and their description atomically; after an OSError, an old file at `path` is intact.

    The description is JSON, under keys other than ``format``, ``sha256`` and ``seal``.
    """
    path = as_path(path, "save(path)")
    ordered = {name: plain(name, tensors[name]) for name in sorted(tensors)}
    tensors = {name: a for kind in NAMES for name, a in ordered.items() if a.dtype.str == kind}
    small = sum(a.nbytes for a in tensors.values()) < LARGE
    sums = {name: digest(a) if small else "0" * 64 for name, a in tensors.items()}
    start = header.make(tensors, description, sums)
    if len(start) > HEADER_LIMIT or len(tensors) > TENSOR_LIMIT:
        what = f"too large: {len(tensors)} tensors, {len(start):,} bytes of header"
        raise InvalidValueError(f"save({os.fspath(path)!r})", what, code="E065")
    try:
        with replacing(path) as stream:
            stream.write(start)
            if small:
                stream.writelines(map(_bytes, tensors.values()))
            else:
                sums = _write_and_hash(stream, tensors)
                stream.seek(0)
                stream.write(header.make(tensors, description, sums))  # of the same length as the first
    except OSError as error:
        if error.errno is None or not path.is_file():
            raise
        # OSError derives the type from errno: PermissionError stays PermissionError.
        text = f"{error.strerror}; the file that was there before is intact [BPX-E067]"
        raise OSError(error.errno, text, os.fspath(path)) from error


def _write_and_hash(stream: BinaryIO, tensors: Tensors) -> dict[str, str]:
    """Write the tensors without copying and return their digests, which other cores compute meanwhile.

    Each block goes to the disk at once, not only at the final fsync.
    """
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as beside:
        found = {name: beside.submit(digest, a) for name, a in tensors.items()}
        for a in tensors.values():
            content = _bytes(a)
            for begin in range(0, len(content), PIECE):
                _start_writeback(stream, stream.write(content[begin : begin + PIECE]))
        return {name: future.result() for name, future in found.items()}


def _start_writeback(stream: BinaryIO, count: int) -> None:
    """Start writing the last `count` bytes to the disk, without waiting."""
    if hasattr(os, "posix_fadvise"):
        stream.flush()
        # On Linux, DONTNEED starts the writeback of dirty pages; elsewhere it is a harmless hint.
        os.posix_fadvise(stream.fileno(), stream.tell() - count, count, os.POSIX_FADV_DONTNEED)


def plain(name: str, a: np.ndarray) -> np.ndarray:
    """Return an array in the layout of the file: C order, little-endian."""
    a = np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<"))
    if a.dtype.str not in NAMES:
        raise InvalidTypeError("save", f"{name} cannot be written to a file", code="E065", got=f"dtype {a.dtype}")
    if not NAME.fullmatch(name):
        raise InvalidValueError("save", "not a name for a tensor", code="E065", got=repr(name), expected=NAME.pattern)
    return a


def read(path: str | Path) -> tuple[Tensors, Description]:
    """Return the tensors of a file and their description, every byte verified; see `opened`."""
    with opened(path) as file:
        return file.tensors(), file.description


@contextmanager
def opened(path: str | Path) -> Iterator[Opened]:
    """Open a file and verify everything before the tensors.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        As `open` raises them.
    CheckpointCorruptError
        Garbage, a truncated file, a changed byte.
    CheckpointSecurityError
        Names or sizes beyond the limits of the format.
    CheckpointFormatError
        Another format; pickles are refused.
    CheckpointVersionError
        Written by a newer bpxp.
    """
    path = as_path(path, "load(path)")
    where = f"load({os.fspath(path)!r})"
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        error.add_note(f"searched in {printable(str(path.absolute().parent))}")
        raise
    if stat.S_IFMT(mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise CheckpointFormatError(where, "not a file", code="E061", expected="a file that was saved")
    with open(path, "rb") as stream:
        yield Opened(stream, os.fstat(stream.fileno()).st_size, where)


class Opened:
    """A file whose tensors have not been read yet; `places` are their dtypes and shapes, in file order.

    Declared sizes are compared with the file's size before memory is allocated.
    """

    def __init__(self, stream: IO[bytes], total: int, where: str) -> None:
        self.description, self.places = header.read(stream, total, where)
        self._stream, self._where = stream, where

    def tensors(self, begin: tuple[str, ...] = ("",)) -> Tensors:
        """Read all tensors, and return those whose names start with one of `begin`, as arrays of their own.

        Each is read directly into its array, so reading needs no more memory than the file's size.
        """
        kept: Tensors = {}
        for name, (dtype, shape) in self.places.items():
            a = np.empty(shape, dtype)
            content = _bytes(a)
            if self._stream.readinto(content) != len(content):  # type: ignore[attr-defined]
                raise CheckpointCorruptError(self._where, f"the file ends within {name!r}", code="E060")
            if digest(a) != self.description["sha256"][name]:
                what = f"sha256 of {name!r} differs: the file is damaged"
                raise CheckpointCorruptError(self._where, what, code="E060")
            if name.startswith(begin):
                kept[name] = a
        return kept


def check_shapes(found: dict[str, Shape], expected: dict[str, Shape], where: str) -> None:
    """Raise `CheckpointMismatchError`, with all differences at once, unless names and shapes are as expected."""
    lines = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    lines += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    differing = [name for name, shape in found.items() if expected.get(name, shape) != shape]
    lines += [f"{name} is {found[name]}, the layers need {expected[name]}" for name in differing]
    if lines:
        what = f"the tensors are not those of the layers: {'; '.join(lines)}"
        raise CheckpointMismatchError(where, what, code="E064")


def digest(a: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    found = hashlib.sha256(f"{a.dtype.str}{a.shape}".encode())
    found.update(_bytes(np.ascontiguousarray(a)))
    return found.hexdigest()


def _bytes(a: np.ndarray) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    return a.reshape(-1).view(np.uint8).data
