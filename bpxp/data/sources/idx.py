"""IDX, the file format of MNIST: a magic number, the shape, then the numbers, big-endian; plain or gzip-compressed."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import zlib
from contextlib import nullcontext
from typing import Any

import numpy as np

from bpxp.core.atomic import write_atomically
from bpxp.core.checks import as_path
from bpxp.core.content import LENGTH, what_it_is
from bpxp.errors import DatasetChecksumError, DatasetFormatError, InvalidTypeError, InvalidValueError

# The third byte of the magic number; the fourth is the number of dimensions.
KINDS = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
DTYPES = {code: np.dtype(name) for code, name in KINDS.items()}
GZIP_MAGIC = b"\x1f\x8b"
# Deflate writes at most 258 bytes per 2 bits, so an archive that announces more cannot hold it.
DEFLATE_LIMIT = 1032
MAX_DIMENSIONS = 32
MAX_BYTES = 1 << 32
CHUNK = 1 << 20

Source = str | os.PathLike[str] | bytes | bytearray | memoryview


def read_idx(source: Source, /, *, max_bytes: int = MAX_BYTES, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file.

    The size is checked before anything is allocated, and no archive is expanded beyond what its header announces.

    Parameters
    ----------
    source : path or bytes
        A file, or its content. Compression is detected from the content, not from the name.
    max_bytes : int, optional
        Refuse a file that announces a larger array.
    sha256 : str, optional
        The hexadecimal digest that the uncompressed file must have.

    Returns
    -------
    ndarray
        Of the shape in the header; dtype uint8, int8, int16, int32, float32 or float64, in native byte order.

    Raises
    ------
    DatasetFormatError
        Wrong magic number, truncated, bytes left over, damaged gzip, or larger than `max_bytes`.
    DatasetChecksumError
        If the digest differs from `sha256`.
    FileNotFoundError, IsADirectoryError, PermissionError
        As `open` raises them.

    References
    ----------
    Y. LeCun, C. Cortes, C. Burges, *The MNIST database*, section "The IDX file format".
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return _read(io.BytesIO(source), "read_idx(bytes)", len(source), max_bytes, sha256)
    path = as_path(source, "read_idx(source)")
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return _read(stream, f"read_idx({os.fspath(path)!r})", size, max_bytes, sha256)


def map_idx(path: str | os.PathLike[str], /) -> np.ndarray:
    """Map an IDX file into memory: rows are read from the disk when they are used.

    For a file that is larger than memory, see ``Dataset(resident=False)``.

    Parameters
    ----------
    path : path
        A file that is not compressed.

    Returns
    -------
    ndarray, read-only
        As from `read_idx`, but in the file's byte order.

    Raises
    ------
    DatasetFormatError
        Compressed, wrong magic number, truncated, or bytes left over.
    FileNotFoundError, IsADirectoryError, PermissionError
        As `open` raises them.
    """
    path = as_path(path, "map_idx(path)")
    where = f"map_idx({os.fspath(path)!r})"
    with open(path, "rb") as stream:
        if stream.read(2) == GZIP_MAGIC:
            what = "compressed, so rows cannot be read in place"
            raise DatasetFormatError(where, what, code="E070", fix="gunzip it, or read_idx")
        stream.seek(0)
        size = os.fstat(stream.fileno()).st_size
        header, dtype, shape, _ = _header(stream, where, size, max(size, MAX_BYTES), zipped=False)
        if size == len(header):  # nothing to map
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(stream, dtype, "r", len(header), shape))


def write_idx(path: str | os.PathLike[str], array: Any, /) -> None:
    """Write an IDX file, gzip-compressed if the name ends in ``.gz``.

    Neither a time nor a name is stored in it. The file is replaced atomically.

    Parameters
    ----------
    path : path
        The file; it is replaced if it exists.
    array : ndarray
        dtype uint8, int8, int16, int32, float32 or float64, of 1 to 32 dimensions.
    """
    a = np.asarray(array)
    codes = {dtype.newbyteorder("="): code for code, dtype in DTYPES.items()}
    code, where = codes.get(a.dtype.newbyteorder("=")), "write_idx(array)"
    if code is None:
        what, known, fix = "IDX has no such dtype", ", ".join(map(str, codes)), "array.astype('int32')"
        raise InvalidTypeError(where, what, code="E074", got=str(a.dtype), expected=known, fix=fix)
    if not 1 <= a.ndim <= MAX_DIMENSIONS or max(a.shape) >= 1 << 32:
        what, expected = "IDX cannot hold the shape", "1 to 32 dimensions"
        raise InvalidValueError(where, what, code="E074", got=str(a.shape), expected=expected)
    header = bytes([0, 0, code, a.ndim]) + np.array(a.shape, ">u4").tobytes()
    content = header + a.astype(DTYPES[code]).tobytes()
    path = as_path(path, "write_idx(path)")
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _read(stream: io.BufferedIOBase, where: str, size: int, max_bytes: int, sha256: str | None) -> np.ndarray:
    zipped = stream.read(2) == GZIP_MAGIC
    stream.seek(0)
    try:
        with gzip.GzipFile(fileobj=stream) if zipped else nullcontext(stream) as body:
            header, dtype, shape, expected = _header(body, where, size, max_bytes, zipped=zipped)
            content, filled = np.empty(math.prod(shape) * dtype.itemsize, np.uint8), 0
            while filled < content.size:
                count = body.readinto(content[filled : filled + CHUNK].data)
                if not count:
                    raise _damaged(where, "truncated", f"{len(header) + filled:,}", expected)
                filled += count
            if body.read(1):  # at the end of a gzip stream this also checks its CRC
                raise _damaged(where, "bytes left over", "more", expected)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _damaged(where, "the gzip stream is damaged", str(error), "") from error
    digest = hashlib.sha256(header)
    if sha256 is not None:
        digest.update(content.data)
        if digest.hexdigest() != sha256:
            what, got = "other bytes than the published ones", digest.hexdigest()
            raise DatasetChecksumError(where, what, code="E071", got=got, expected=f"SHA-256 {sha256}")
    array = content.view(dtype)
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array.reshape(shape)


def _header(
    body: io.BufferedIOBase, where: str, size: int, max_bytes: int, *, zipped: bool
) -> tuple[bytes, np.dtype[Any], tuple[int, ...], str]:
    """Return the header, dtype, shape, and the expected size in words, after comparing it with the file's `size`."""
    magic = body.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in DTYPES or not 1 <= magic[3] <= MAX_DIMENSIONS:
        got = f"magic number {magic.hex(' ') or '(empty)'}"
        expected = "00 00, a dtype (08, 09, 0b, 0c, 0d, 0e), 1 to 32 dimensions; or gzip"
        name, fix = what_it_is(magic + body.read(LENGTH))
        what = f"not an IDX file, but {name}" if name else "not an IDX file"
        raise DatasetFormatError(where, what, code="E070", got=got, expected=expected, fix=fix)
    dimensions = body.read(4 * magic[3])
    if len(dimensions) < 4 * magic[3]:
        raise _damaged(where, "truncated within the header", f"{4 + len(dimensions)} bytes", f"{4 + 4 * magic[3]}")
    header, dtype = magic + dimensions, DTYPES[magic[2]]
    shape = tuple(int(n) for n in np.frombuffer(dimensions, ">u4"))
    factors = (*shape, dtype.itemsize) if dtype.itemsize > 1 else shape
    need = len(header) + math.prod(factors)
    expected = f"{need:,} bytes ({' x '.join(map(str, factors))} + {len(header)})"
    # A zero among the dimensions must not hide that the others are absurd.
    if math.prod(max(n, 1) for n in factors) > max_bytes:
        limit = f"max_bytes={max_bytes:,} or less"
        raise DatasetFormatError(where, "too large", code="E070", got=expected, expected=limit)
    if need > size * DEFLATE_LIMIT if zipped else need != size:
        what = "truncated" if need > size else "bytes left over"
        raise _damaged(where, what, f"a gzip stream of {size:,} bytes" if zipped else f"{size:,}", expected)
    return header, dtype, shape, expected


def _damaged(where: str, what: str, got: str, expected: str) -> DatasetFormatError:
    return DatasetFormatError(where, what, code="E070", got=got, expected=expected, fix="download the file again")
