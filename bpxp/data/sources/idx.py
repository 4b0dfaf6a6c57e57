"""IDX, the file format of MNIST: a magic number, the shape, then the numbers, big-endian; plain or gzip-compressed."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import zlib
from typing import Any

import numpy as np

from bpxp.core.atomic import write_atomically
from bpxp.core.checks import as_path
from bpxp.errors import DatasetChecksumError, DatasetFormatError, InvalidTypeError, InvalidValueError

# The third byte of the magic number; the fourth is the number of dimensions.
DTYPES = {
    code: np.dtype(name)
    for code, name in {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}.items()
}
GZIP_MAGIC = b"\x1f\x8b"
# Deflate writes at most 258 bytes per 2 bits, so an archive that announces more cannot hold it.
DEFLATE_LIMIT = 1032
MAX_DIMENSIONS = 32
MAX_BYTES = 1 << 32
CHUNK = 1 << 20
AGAIN = "download the file again"

Source = str | os.PathLike[str] | bytes | bytearray | memoryview


def read_idx(source: Source, /, *, max_bytes: int = MAX_BYTES, sha256: str | None = None) -> np.ndarray:
    """Read an IDX file.

    The size is checked before anything is allocated, and no archive is expanded beyond what its header announces.

    Parameters
    ----------
    source : path or bytes
        A file, or its content. Whether it is gzip-compressed is seen from the content, not from the name.
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
    with open(as_path(source, "read_idx(source)"), "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        return _read(stream, f"read_idx({os.fspath(source)!r})", size, max_bytes, sha256)


def map_idx(path: str | os.PathLike[str], /) -> np.ndarray:
    """Map an IDX file into memory: what is looked at comes from the disk, and nothing else is read.

    For a file that is larger than memory, see ``Dataset(resident=False)``.

    Parameters
    ----------
    path : path
        A file that is not compressed.

    Returns
    -------
    ndarray, read-only
        As `read_idx` has it, but for the byte order, which is the file's.

    Raises
    ------
    DatasetFormatError
        Compressed, wrong magic number, truncated, or bytes left over.
    FileNotFoundError, IsADirectoryError, PermissionError
        As `open` raises them.
    """
    where = f"map_idx({os.fspath(as_path(path, 'map_idx(path)'))!r})"
    with open(path, "rb") as stream:
        if stream.read(2) == GZIP_MAGIC:
            raise DatasetFormatError(
                where, "compressed, so that its rows have no place", code="E070", fix="gunzip it, or read_idx"
            )
        stream.seek(0)
        header, dtype, shape = _header(stream, where)
        got, need = os.fstat(stream.fileno()).st_size, len(header) + math.prod(shape) * dtype.itemsize
        if got != need:
            what = "truncated" if got < need else "bytes left over"
            raise DatasetFormatError(where, what, code="E070", got=f"{got:,}", expected=f"{need:,} bytes", fix=AGAIN)
        if got == len(header):  # there is nothing to be mapped
            # The zero among the dimensions must not hide that the others are absurd.
            if math.prod(max(n, 1) for n in (*shape, dtype.itemsize)) > MAX_BYTES:
                raise DatasetFormatError(where, "too large", code="E070", got=" x ".join(map(str, shape)))
            return np.empty(shape, dtype)
        return np.asarray(np.memmap(stream, dtype, "r", len(header), shape))


def write_idx(path: str | os.PathLike[str], array: Any, /) -> None:
    """Write an IDX file, gzip-compressed if the name ends in ``.gz``.

    Nothing of the time or the name is stored. The file appears at once and whole.

    Parameters
    ----------
    path : path
        The file; it is replaced if it exists.
    array : ndarray
        dtype uint8, int8, int16, int32, float32 or float64, of 1 to 32 dimensions.
    """
    a = np.asarray(array)
    codes = {dtype.newbyteorder("="): code for code, dtype in DTYPES.items()}
    code = codes.get(a.dtype.newbyteorder("="))
    if code is None:
        raise InvalidTypeError(
            "write_idx(array)",
            "IDX has no such dtype",
            code="E074",
            got=str(a.dtype),
            expected=", ".join(map(str, codes)),
            fix="array.astype('int32')",
        )
    if not 1 <= a.ndim <= MAX_DIMENSIONS or max(a.shape) >= 1 << 32:
        raise InvalidValueError(
            "write_idx(array)",
            "IDX cannot hold the shape",
            code="E074",
            got=str(a.shape),
            expected="1 to 32 dimensions",
        )
    header = bytes([0, 0, code, a.ndim]) + np.array(a.shape, ">u4").tobytes()
    content = header + a.astype(DTYPES[code]).tobytes()
    path = as_path(path, "write_idx(path)")
    write_atomically(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _read(stream: io.BufferedIOBase, where: str, size: int, max_bytes: int, sha256: str | None) -> np.ndarray:
    zipped = stream.read(2) == GZIP_MAGIC
    stream.seek(0)
    if not zipped:
        return _parse(stream, where, size, max_bytes, sha256, zipped=False)
    try:
        with gzip.GzipFile(fileobj=stream) as unzipped:
            return _parse(unzipped, where, size, max_bytes, sha256, zipped=True)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DatasetFormatError(where, "the gzip stream is damaged", code="E070", got=str(error), fix=AGAIN) from error


def _parse(
    body: io.BufferedIOBase, where: str, size: int, max_bytes: int, sha256: str | None, *, zipped: bool
) -> np.ndarray:
    header, dtype, shape = _header(body, where)
    need = math.prod(shape) * dtype.itemsize
    factors = [*shape, dtype.itemsize] if dtype.itemsize > 1 else [*shape]
    expected = f"{need + len(header):,} bytes ({' x '.join(map(str, factors))} + {len(header)})"
    # A zero among the dimensions must not hide that the others are absurd.
    if math.prod(max(n, 1) for n in factors) > max_bytes:
        raise DatasetFormatError(
            where, "too large", code="E070", got=expected, expected=f"max_bytes={max_bytes:,} or less"
        )
    if zipped and len(header) + need > size * DEFLATE_LIMIT:
        raise DatasetFormatError(
            where, "truncated", code="E070", got=f"a gzip stream of {size:,} bytes", expected=expected, fix=AGAIN
        )
    if not zipped and size != len(header) + need:
        what = "truncated" if size < len(header) + need else "bytes left over"
        raise DatasetFormatError(where, what, code="E070", got=f"{size:,}", expected=expected, fix=AGAIN)

    digest = hashlib.sha256(header)
    array = np.empty(need // dtype.itemsize, dtype)
    content, filled = array.view(np.uint8).data, 0
    while filled < need:
        count = body.readinto(content[filled : min(filled + CHUNK, need)])
        if not count:
            got = f"{len(header) + filled:,}"
            raise DatasetFormatError(where, "truncated", code="E070", got=got, expected=expected, fix=AGAIN)
        if sha256 is not None:
            digest.update(content[filled : filled + count])
        filled += count
    if body.read(1):  # at the end of a gzip stream this also checks its CRC
        raise DatasetFormatError(where, "bytes left over", code="E070", got="more", expected=expected, fix=AGAIN)
    if sha256 is not None and digest.hexdigest() != sha256:
        raise DatasetChecksumError(
            where,
            "other bytes than the published ones",
            code="E071",
            got=digest.hexdigest(),
            expected=f"SHA-256 {sha256}",
        )
    if not dtype.isnative:
        array = array.byteswap(inplace=True).view(dtype.newbyteorder("="))
    return array.reshape(shape)


def _header(body: io.BufferedIOBase, where: str) -> tuple[bytes, np.dtype[Any], tuple[int, ...]]:
    magic = body.read(4)
    known = len(magic) == 4 and magic[:2] == b"\0\0" and magic[2] in DTYPES and 1 <= magic[3] <= MAX_DIMENSIONS
    if not known:
        raise DatasetFormatError(
            where,
            "not an IDX file",
            code="E070",
            got=f"magic number {magic.hex(' ') or '(empty)'}",
            expected="00 00, a dtype (08, 09, 0b, 0c, 0d, 0e), 1 to 32 dimensions; or gzip",
        )
    dimensions = body.read(4 * magic[3])
    if len(dimensions) < 4 * magic[3]:
        raise DatasetFormatError(
            where,
            "truncated within the header",
            code="E070",
            got=f"{4 + len(dimensions)} bytes",
            expected=f"{4 + 4 * magic[3]}",
            fix=AGAIN,
        )
    shape = tuple(int(n) for n in np.frombuffer(dimensions, ">u4"))
    return magic + dimensions, DTYPES[magic[2]], shape
