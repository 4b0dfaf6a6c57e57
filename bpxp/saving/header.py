"""The header of a file: written, and parsed as untrusted input.

It is the JSON of safetensors (names, dtypes, shapes and offsets of the tensors), with bpxp's description as a string
under the key ``bpxp`` of its metadata.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import struct
from typing import IO, Any

import numpy as np

from bpxp.core.content import LENGTH, what_it_is
from bpxp.core.typing import Shape
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointFormatError,
    CheckpointSecurityError,
    CheckpointVersionError,
)

Description = dict[str, Any]
Places = dict[str, tuple[np.dtype[Any], Shape]]  # of each tensor, in file order

FORMAT = 2
KEY = "bpxp"
HEADER_LIMIT = 1 << 20  # bytes; a typical description has a few thousand
TENSOR_LIMIT = 10_000
AXES = 32
NAME = re.compile(r"(?!.*\.\.)[A-Za-z0-9_./-]{1,200}")
# In the order in which safetensors writes them: widest first, so that all are aligned.
KINDS = {"I64": "<i8", "F64": "<f8", "F32": "<f4", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
NAMES = {kind: name for name, kind in KINDS.items()}


def make(tensors: dict[str, np.ndarray], description: Description, sums: dict[str, str]) -> bytes:
    """Return the header; its length does not depend on the digests."""
    whole = {**description, "format": FORMAT, "sha256": sums}
    header: dict[str, Any] = {"__metadata__": {KEY: canonical({**whole, "seal": seal(whole)})}}
    end = 0
    for name, a in tensors.items():
        begin, end = end, end + a.nbytes
        header[name] = {"dtype": NAMES[a.dtype.str], "shape": list(a.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read(stream: IO[bytes], total: int, where: str) -> tuple[Description, Places]:
    """Return the description of a file of `total` bytes, and dtype and shape of its tensors, which fill the rest."""
    start = stream.read(9)
    _refuse_other_formats(start, stream, total, where)
    (size,) = struct.unpack("<Q", start[:8])
    if size > total - 8:
        got = f"a header of {size:,} bytes in {total:,} bytes"
        raise CheckpointCorruptError(where, "damaged, or no checkpoint", code="E060", got=got)
    if size > HEADER_LIMIT:
        got, expected = f"{size:,} bytes", f"at most {HEADER_LIMIT:,}"
        raise CheckpointSecurityError(where, "too large a header", code="E062", got=got, expected=expected)
    header = _parsed(start[8:] + stream.read(max(size - 1, 0)), where)
    description = _description(header, where)
    places = _places(header, total - 8 - size, where)
    if description["sha256"].keys() != places.keys():
        raise CheckpointCorruptError(where, "tensors are missing or added: the file is damaged", code="E060")
    return description, places


def _refuse_other_formats(start: bytes, stream: IO[bytes], total: int, where: str) -> None:
    """Raise for files of another format, by their first bytes."""
    zipped, pickled, hdf5 = b"PK\x03\x04", b"\x80", b"\x89HDF"
    if start.startswith((zipped, pickled, hdf5)) and start[8:9] != b"{":
        what = "a pickle, .pt, .npz or .h5 file, which can run code when it is read; bpxp refuses it"
        raise CheckpointFormatError(where, what, code="E061", fix="net.params = …, with arrays that you trust")
    if total < 10 or start[8:9] != b"{":
        name, fix = what_it_is(start + stream.read(LENGTH))
        if name:
            raise CheckpointFormatError(where, f"not a checkpoint, but {name}", code="E061", fix=fix)
        what = "not a checkpoint, or a damaged one"
        raise CheckpointCorruptError(where, what, code="E060", got=f"{total:,} bytes", expected="a safetensors file")


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    try:
        header = _json(text.decode())
        if not isinstance(header, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise CheckpointCorruptError(where, f"the header is damaged ({error})", code="E060") from error
    return header


def _json(text: str) -> Any:
    """Parse JSON without duplicate keys, of which other tools might take the other one."""
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _description(header: dict[str, Any], where: str) -> Description:
    """Return bpxp's description from the header of a safetensors file, its structure and seal verified."""
    try:
        if not all(isinstance(text, str) for text in header["__metadata__"].values()):
            raise TypeError("metadata is not text")
        description: Description = _json(header["__metadata__"][KEY])
        version = description["format"]
        if type(version) is not int or version < 1:
            raise ValueError("not a format number")
        if version > FORMAT:
            what = f"written in format {version}, this bpxp reads up to {FORMAT}"
            raise CheckpointVersionError(where, what, code="E063", fix="pip install -U bpxp")
        sealed = version > 1 or "seal" in description  # format 1 had none
        found = description.pop("seal", None)
        if sealed and found != seal(description):
            raise CheckpointCorruptError(where, "sha256 of the description differs: the file is damaged", code="E060")
    except CheckpointError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what, expected = "without bpxp's description, or damaged", "a file that Network.save wrote"
        raise CheckpointFormatError(where, what, code="E061", expected=expected) from error
    if not (isinstance(description.get("network"), dict) and isinstance(description.get("sha256"), dict)):
        raise CheckpointCorruptError(where, "the description is damaged", code="E060")
    return description


def _places(header: dict[str, Any], size: int, where: str) -> Places:
    """Return the tensors in file order, if their names are valid and they fill `size` bytes exactly."""
    entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    if len(entries) > TENSOR_LIMIT:
        what, expected = f"{len(entries):,} tensors", f"at most {TENSOR_LIMIT:,}"
        raise CheckpointSecurityError(where, what, code="E062", expected=expected)
    for name in entries:
        if not NAME.fullmatch(name):
            raise CheckpointSecurityError(where, "not a name for a tensor", code="E062", got=ascii(name)[:80])
    try:
        spans = []
        for name, entry in entries.items():
            begin, end = entry["data_offsets"]
            if not all(type(n) is int and 0 <= n < 2**48 for n in (begin, end, *entry["shape"][:AXES])):
                raise ValueError("impossible sizes")
            if len(entry["shape"]) > AXES:
                raise ValueError("too many axes")
            dtype, shape = np.dtype(KINDS[entry["dtype"]]), tuple(entry["shape"])
            if end - begin != math.prod(shape) * dtype.itemsize:
                raise ValueError("shape and offsets differ in size")
            spans.append((begin, end, name, dtype, shape))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointCorruptError(where, f"the header is damaged ({error})", code="E060") from error
    spans.sort(key=lambda span: span[:2])
    last = 0
    for begin, end, *_ in spans:
        if begin != last:
            raise CheckpointCorruptError(where, "tensors overlap, or leave gaps: the file is damaged", code="E060")
        last = end
    if last != size:
        what = "truncated, or otherwise damaged"
        raise CheckpointCorruptError(where, what, code="E060", got=f"{size:,} bytes of tensors", expected=f"{last:,}")
    return {name: (dtype, shape) for _, _, name, dtype, shape in spans}


def canonical(value: Any) -> str:
    """Return canonical JSON: the same text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def seal(description: Description) -> str:
    """Return the SHA-256 of a description."""
    return hashlib.sha256(canonical(description).encode()).hexdigest()
