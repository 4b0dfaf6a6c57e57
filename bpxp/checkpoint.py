"""The file format of a network: safetensors with a description in it, written all or nothing.

The tensors are named ``params/<layer>/<field>``, so that any tool that reads safetensors can use the weights. The
description is one canonical JSON text under the key ``bpxp``; it holds the layers' hyper-parameters and a SHA-256 of
every tensor. Nothing in the file is executed, imported or opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from bpxp.atomic import write_atomically
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointVersionError,
    message,
)

Tensors = dict[str, np.ndarray]

FORMAT = 1
KEY = "bpxp"
HEADER_LIMIT = 1 << 20  # bytes: a description needs a few hundred


def write(path: str | Path, tensors: Tensors, network: dict[str, Any]) -> None:
    """Write tensors and the description of their network; the file at `path` is the old one or the new, never a part.

    Parameters
    ----------
    path : path
        By custom with the ending ``.bpxp``.
    tensors : dict of str to ndarray
    network : dict
        JSON values.

    Raises
    ------
    OSError
        Where the folder cannot be written to; an old file at `path` is intact.
    """
    from safetensors.numpy import save as to_bytes

    tensors = {name: np.ascontiguousarray(a) for name, a in tensors.items()}
    sums = {name: digest(a) for name, a in tensors.items()}
    text = json.dumps({"format": FORMAT, "network": network, "sha256": sums}, sort_keys=True, separators=(",", ":"))
    write_atomically(Path(path), to_bytes(tensors, metadata={KEY: text}))


def read(path: str | Path) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors of a file and the description of their network, every byte of them checked.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
        If there is no file to read.
    CheckpointCorruptError
        Garbage, a truncated file, a changed byte.
    CheckpointFormatError
        Another format; pickles are refused.
    CheckpointVersionError
        Written by a newer bpxp.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    where = f"load({os.fspath(path)!r})"
    raw = Path(path).read_bytes()
    refuse_other_formats(raw, where)
    (size,) = struct.unpack("<Q", raw[:8])
    if size > HEADER_LIMIT or size > len(raw) - 8:
        raise CheckpointCorruptError(
            message(where, "damaged, or no checkpoint", got=f"a header of {size:,} bytes in {len(raw):,} bytes")
        )
    description = _description(raw[8 : 8 + size], where)
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
    return tensors, description["network"]


def _description(header: bytes, where: str) -> dict[str, Any]:
    """Return bpxp's own JSON from the header of a safetensors file, its shape checked."""
    try:
        description = json.loads(json.loads(header)["__metadata__"][KEY])
        version = int(description["format"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointFormatError(
            message(where, "without bpxp's description, or damaged", expected="a file that Network.save wrote")
        ) from error
    if version > FORMAT:
        raise CheckpointVersionError(
            message(where, f"written in format {version}, this bpxp reads up to {FORMAT}", fix="pip install -U bpxp")
        )
    if not (isinstance(description.get("network"), dict) and isinstance(description.get("sha256"), dict)):
        raise CheckpointCorruptError(message(where, "the description is damaged"))
    return description  # type: ignore[no-any-return]


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


def refuse_other_formats(raw: bytes, where: str) -> None:
    """Raise for files that are something else, by their first bytes."""
    zipped, pickled, hdf5 = b"PK\x03\x04", b"\x80", b"\x89HDF"
    if raw.startswith((zipped, pickled, hdf5)) and raw[8:9] != b"{":
        raise CheckpointFormatError(
            message(
                where,
                "a pickle, .pt, .npz or .h5 file, which can run code when it is read; bpxp refuses it",
                fix="net.params = …, with arrays that you trust",
            )
        )
    if len(raw) < 10 or raw[8:9] != b"{":
        raise CheckpointCorruptError(
            message(
                where, "not a checkpoint, or a damaged one", got=f"{len(raw):,} bytes", expected="a safetensors file"
            )
        )


def digest(a: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    head = f"{a.dtype.str}{a.shape}".encode()
    return hashlib.sha256(head + a.tobytes()).hexdigest()
