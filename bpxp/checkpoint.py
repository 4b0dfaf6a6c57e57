"""The file format: safetensors with a description in it, written all or nothing, every byte of it checked on reading.

The tensors are named ``params/<layer>/<field>``, so that any tool that reads safetensors can use the weights. The
description is one canonical JSON text under the key ``bpxp``: what the tensors belong to, a SHA-256 of each of them,
and a seal, the SHA-256 of the description itself. Nothing in the file is executed, imported or opened.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import struct
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bpxp.atomic import replacing
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointSecurityError,
    CheckpointVersionError,
    InvalidTypeError,
    InvalidValueError,
    message,
)

Tensors = dict[str, np.ndarray]
Description = dict[str, Any]

FORMAT = 2
KEY = "bpxp"
HEADER_LIMIT = 1 << 20  # bytes: a description needs some thousands
TENSOR_LIMIT = 10_000
AXES = 32
NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_./-]{1,200}")
# In the order in which safetensors itself writes them: the widest first, so that all are aligned.
KINDS = {"I64": "<i8", "F64": "<f8", "F32": "<f4", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
NAMES = {kind: name for name, kind in KINDS.items()}
LARGE = 1 << 20  # bytes: what takes longer to hash than to start a thread


def write(path: str | Path, tensors: Tensors, description: Description) -> None:
    """Write tensors and their description; the file at `path` is the old one or the new, never a part.

    Parameters
    ----------
    path : path
        By custom with the ending ``.bpxp``.
    tensors : dict of str to ndarray
    description : dict
        JSON values, under keys other than ``format``, ``sha256`` and ``seal``.

    Raises
    ------
    OSError
        Where the folder cannot be written to, or is full; an old file at `path` is intact.
    """
    plain = {name: _plain(name, tensors[name]) for name in sorted(tensors)}
    tensors = {name: a for kind in NAMES for name, a in plain.items() if a.dtype.str == kind}
    small = sum(a.nbytes for a in tensors.values()) < LARGE
    sums = {name: digest(a) if small else "0" * 64 for name, a in tensors.items()}
    header = _header(tensors, description, sums)
    if len(header) > HEADER_LIMIT or len(tensors) > TENSOR_LIMIT:
        raise InvalidValueError(
            message(f"save({os.fspath(path)!r})", f"too large: {len(tensors)} tensors, {len(header):,} bytes of header")
        )
    try:
        with replacing(Path(path)) as stream, ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as beside:
            stream.write(header)
            # Other cores hash what this one writes; the header has room for what they find.
            found = beside.map(digest, () if small else tensors.values())
            stream.writelines(map(_bytes, tensors.values()))
            if not small:
                stream.seek(0)
                stream.write(_header(tensors, description, dict(zip(tensors, found, strict=True))))
    except OSError as error:
        if error.errno is None or not Path(path).is_file():
            raise
        # The same type, as the number has it: PermissionError stays PermissionError.
        text = f"{error.strerror}; the file that was there before is intact"
        raise OSError(error.errno, text, os.fspath(path)) from error


def _plain(name: str, a: np.ndarray) -> np.ndarray:
    """Return an array as its bytes stand in the file: in C order, little-endian."""
    a = np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("<"))
    if a.dtype.str not in NAMES:
        raise InvalidTypeError(message("save", f"{name} cannot be written to a file", got=f"dtype {a.dtype}"))
    if not NAME.fullmatch(name):
        raise InvalidValueError(message("save", "not a name for a tensor", got=repr(name), expected=NAME.pattern))
    return a


def _header(tensors: Tensors, description: Description, sums: dict[str, str]) -> bytes:
    """Return what stands before the tensors: its length does not depend on the digests."""
    whole = {**description, "format": FORMAT, "sha256": sums}
    header: dict[str, Any] = {"__metadata__": {KEY: canonical({**whole, "seal": seal(whole)})}}
    end = 0
    for name, a in tensors.items():
        begin, end = end, end + a.nbytes
        header[name] = {"dtype": NAMES[a.dtype.str], "shape": list(a.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read(path: str | Path) -> tuple[Tensors, Description]:
    """Return the tensors of a file and their description, every byte of them checked.

    What the file declares is compared with its size before a tensor is read.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If there is no file to read.
    CheckpointCorruptError
        Garbage, a truncated file, a changed byte.
    CheckpointSecurityError
        Names or sizes that nobody would write by accident.
    CheckpointFormatError
        Another format; pickles are refused.
    CheckpointVersionError
        Written by a newer bpxp.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    where = f"load({os.fspath(path)!r})"
    if stat.S_IFMT(os.stat(path).st_mode) not in (stat.S_IFREG, stat.S_IFDIR):
        raise CheckpointFormatError(message(where, "not a file", expected="a file that was saved"))
    with open(path, "rb") as stream:
        total = os.fstat(stream.fileno()).st_size
        start = stream.read(9)
        refuse_other_formats(start, total, where)
        (size,) = struct.unpack("<Q", start[:8])
        if size > total - 8:
            raise CheckpointCorruptError(
                message(where, "damaged, or no checkpoint", got=f"a header of {size:,} bytes in {total:,} bytes")
            )
        if size > HEADER_LIMIT:
            raise CheckpointSecurityError(
                message(where, "too large a header", got=f"{size:,} bytes", expected=f"at most {HEADER_LIMIT:,}")
            )
        head = start + stream.read(max(size - 1, 0))
        header = _parsed(head[8:], where)
        description = _description(header, where)
        _check_sizes(header, total - 8 - size, where)
        raw = head + stream.read(total - 8 - size)
    try:
        tensors: Tensors = from_bytes(raw)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointCorruptError(message(where, f"the file is damaged ({error})")) from error
    sums = description["sha256"]
    if set(sums) != set(tensors):
        raise CheckpointCorruptError(message(where, "tensors are missing or added: the file is damaged"))
    for name, a in tensors.items():
        if digest(a) != sums[name]:
            raise CheckpointCorruptError(message(where, f"sha256 of {name!r} differs: the file is damaged"))
    return tensors, description


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
        if not isinstance(header, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointCorruptError(message(where, f"the header is damaged ({error})")) from error
    return header


def _description(header: dict[str, Any], where: str) -> Description:
    """Return bpxp's own JSON from the header of a safetensors file, its shape and its seal checked."""
    try:
        description: Description = json.loads(header["__metadata__"][KEY])
        version = int(description["format"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise CheckpointFormatError(
            message(where, "without bpxp's description, or damaged", expected="a file that Network.save wrote")
        ) from error
    if version > FORMAT:
        raise CheckpointVersionError(
            message(where, f"written in format {version}, this bpxp reads up to {FORMAT}", fix="pip install -U bpxp")
        )
    if version > 1:  # format 1 had no seal
        found = description.pop("seal", None)
        if found != seal(description):
            raise CheckpointCorruptError(message(where, "sha256 of the description differs: the file is damaged"))
    if not (isinstance(description.get("network"), dict) and isinstance(description.get("sha256"), dict)):
        raise CheckpointCorruptError(message(where, "the description is damaged"))
    return description


def _check_sizes(header: dict[str, Any], size: int, where: str) -> None:
    """Raise unless the declared tensors fill `size` bytes exactly, one after the other, under decent names."""
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(entries) > TENSOR_LIMIT:
        raise CheckpointSecurityError(message(where, f"{len(entries):,} tensors", expected=f"at most {TENSOR_LIMIT:,}"))
    for name in entries:
        if not NAME.fullmatch(name):
            raise CheckpointSecurityError(message(where, "not a name for a tensor", got=ascii(name)[:80]))
    try:
        spans = []
        for entry in entries.values():
            begin, end = entry["data_offsets"]
            if not all(type(n) is int and 0 <= n < 2**48 for n in (begin, end, *entry["shape"][:AXES])):
                raise ValueError("impossible sizes")
            if len(entry["shape"]) > AXES:
                raise ValueError("too many axes")
            if end - begin != math.prod(entry["shape"]) * int(KINDS[entry["dtype"]][2:]):
                raise ValueError("a shape that does not fill its place")
            spans.append((begin, end))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(message(where, f"the header is damaged ({error})")) from error
    last = 0
    for begin, end in sorted(spans):
        if begin != last:
            raise CheckpointCorruptError(message(where, "tensors overlap, or leave gaps: the file is damaged"))
        last = end
    if last != size:
        raise CheckpointCorruptError(
            message(where, "truncated, or otherwise damaged", got=f"{size:,} bytes of tensors", expected=f"{last:,}")
        )


def check_tensors(tensors: Tensors, expected: dict[str, tuple[int, ...]], where: str) -> None:
    """Raise `CheckpointMismatchError`, with all differences at once, unless names and shapes are the expected ones."""
    lines = [f"missing {name} {shape}" for name, shape in expected.items() if name not in tensors]
    lines += [f"unexpected {name} {a.shape}" for name, a in tensors.items() if name not in expected]
    lines += [
        f"{name} is {a.shape}, the layers need {expected[name]}"
        for name, a in tensors.items()
        if name in expected and expected[name] != a.shape
    ]
    if lines:
        raise CheckpointMismatchError(message(where, "the tensors are not those of the layers: " + "; ".join(lines)))


def refuse_other_formats(start: bytes, total: int, where: str) -> None:
    """Raise for files that are something else, by their first bytes."""
    zipped, pickled, hdf5 = b"PK\x03\x04", b"\x80", b"\x89HDF"
    if start.startswith((zipped, pickled, hdf5)) and start[8:9] != b"{":
        raise CheckpointFormatError(
            message(
                where,
                "a pickle, .pt, .npz or .h5 file, which can run code when it is read; bpxp refuses it",
                fix="net.params = …, with arrays that you trust",
            )
        )
    if total < 10 or start[8:9] != b"{":
        raise CheckpointCorruptError(
            message(where, "not a checkpoint, or a damaged one", got=f"{total:,} bytes", expected="a safetensors file")
        )


def canonical(value: Any) -> str:
    """Return JSON that is the same text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def seal(description: Description) -> str:
    """Return the SHA-256 of a description."""
    return hashlib.sha256(canonical(description).encode()).hexdigest()


def digest(a: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    found = hashlib.sha256(f"{a.dtype.str}{a.shape}".encode())
    found.update(_bytes(np.ascontiguousarray(a)))
    return found.hexdigest()


def digest_of_all(arrays: Iterable[np.ndarray]) -> str:
    """Return one SHA-256 for several arrays."""
    return hashlib.sha256("".join(map(digest, arrays)).encode()).hexdigest()


def _bytes(a: np.ndarray) -> memoryview:
    """Return the bytes of a contiguous array, without a copy."""
    return a.reshape(-1).view(np.uint8).data
