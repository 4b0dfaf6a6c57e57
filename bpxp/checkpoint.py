"""One file for a network: safetensors with a description in it, written all or nothing.

The tensors are named ``params/<layer>/<field>``, so that any tool that reads safetensors can use the weights. The
description is one canonical JSON text under the key ``bpxp``; it holds the layers' hyper-parameters and a SHA-256 of
every tensor. Nothing in the file is executed, imported or opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bpxp import registry
from bpxp.atomic import write_atomically
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointVersionError,
    message,
)
from bpxp.tree import named_leaves, tree_map

if TYPE_CHECKING:
    from bpxp.backends import Backend
    from bpxp.network import Network

FORMAT = 1
KEY = "bpxp"
HEADER_LIMIT = 1 << 20  # bytes: a description needs a few hundred


def save(net: Network, path: str | Path) -> None:
    """Write a network to a file; the file at `path` is the old one or the new one, never a part.

    Parameters
    ----------
    net : Network
    path : path
        By custom with the ending ``.bpxp``.

    Raises
    ------
    OSError
        Where the folder cannot be written to; an old file at `path` is intact.
    """
    from safetensors.numpy import save as to_bytes

    named = named_leaves(net.params, "params")
    tensors = {name: np.ascontiguousarray(net.backend.to_numpy(a)) for name, a in named}
    description = {
        "format": FORMAT,
        "network": {
            "layers": registry.describe(net.layers),
            "input_shape": list(net.input_shape),
            "loss": registry.describe(net.loss),
            "dtype": net.dtype,
            "seed": net.seed,
            "epoch": net.epoch,
        },
        "sha256": {name: digest(a) for name, a in tensors.items()},
    }
    text = json.dumps(description, sort_keys=True, separators=(",", ":"))
    write_atomically(Path(path), to_bytes(tensors, metadata={KEY: text}))


def load(path: str | Path, *, backend: str | Backend | None = None, custom: Iterable[type] = ()) -> Network:
    """Read a network from a file, on any backend.

    Parameters
    ----------
    path : path
    backend : str, Backend or None, optional
        As for `Network`.
    custom : iterable of type, optional
        Classes of layers of your own that the file names.

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
    CheckpointMismatchError
        The tensors are not those of the described layers.
    """
    from bpxp.network import Network

    where = f"load({os.fspath(path)!r})"
    tensors, description = read(Path(path), where)
    config = description["network"]
    net = Network(
        registry.build(config["layers"], custom),
        input_shape=tuple(config["input_shape"]),
        loss=registry.build(config["loss"], custom),
        dtype=config["dtype"],
        backend=backend,
        seed=config["seed"],
        init="zeros",
    )
    expected = {name: tuple(a.shape) for name, a in named_leaves(net.params, "params")}
    found = {name: a.shape for name, a in tensors.items()}
    if expected != found:
        raise CheckpointMismatchError(message(where, _differences(expected, found)))
    values = iter(tensors[name] for name in expected)
    net.params = tree_map(lambda _: next(values), net.params)
    net.epoch = config["epoch"]
    return net


def read(path: Path, where: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the tensors and the description of a file, after every check that needs no network."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as from_bytes

    raw = path.read_bytes()
    refuse_other_formats(raw, where)
    (size,) = struct.unpack("<Q", raw[:8])
    if size > HEADER_LIMIT or size > len(raw) - 8:
        raise CheckpointCorruptError(
            message(
                where, "the file is damaged or no checkpoint", got=f"a header of {size:,} bytes in {len(raw):,} bytes"
            )
        )
    try:
        text = json.loads(raw[8 : 8 + size])["__metadata__"][KEY]
        description = json.loads(text)
        version = description["format"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointFormatError(
            message(
                where,
                "a safetensors file without bpxp's description, or a damaged one",
                expected="a file that Network.save wrote",
            )
        ) from error
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointVersionError(
            message(where, f"written in format {version}, this bpxp reads up to {FORMAT}", fix="pip install -U bpxp")
        )
    try:
        tensors = from_bytes(raw)
        expected = description["sha256"]
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise CheckpointCorruptError(message(where, f"the file is damaged ({error})")) from error
    for name, a in tensors.items():
        if digest(a) != expected.get(name):
            raise CheckpointCorruptError(message(where, f"sha256 of {name!r} differs: the file is damaged"))
    if set(expected) != set(tensors):
        raise CheckpointCorruptError(message(where, "tensors are missing: the file is damaged"))
    return tensors, description


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


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> str:
    lines = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    lines += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    lines += [
        f"{name} is {found[name]}, the layers need {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    return "the tensors are not those of the layers: " + "; ".join(lines)


def digest(a: np.ndarray) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    head = f"{a.dtype.str}{a.shape}".encode()
    return hashlib.sha256(head + a.tobytes()).hexdigest()
