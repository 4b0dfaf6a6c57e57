"""What reads files: IDX, plain and compressed, and checkpoints."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as other_reader

import bpxp
from bpxp.data.sources.idx import DTYPES, read_idx
from bpxp.errors import CheckpointError, DatasetFormatError
from bpxp.saving.format import Opened
from bpxp.saving.header import seal
from fuzz.engine import Target
from fuzz.mutate import NUMBERS, Texts, changed, pick

DATA = Path(__file__).parents[1] / "saving"


def idx(dtype: int, *shape: int) -> bytes:
    """Return an IDX file of these dimensions."""
    count = int(np.prod(shape)) * DTYPES[dtype].itemsize
    return bytes([0, 0, dtype, len(shape)]) + np.array(shape, ">u4").tobytes() + bytes(i % 251 for i in range(count))


class Idx(Target):
    """`read_idx` of plain files."""

    name = "idx"
    allowed = (DatasetFormatError,)

    def __init__(self) -> None:
        shapes: list[tuple[int, ...]] = [(5,), (2, 3), (2, 2, 3), (1, 2, 1, 2), (0,), (0, 3), (1,) * 9]
        self.good = [idx(dtype, *shape) for dtype in DTYPES for shape in shapes]
        for raw in self.good:
            self.run(raw)

    def make(self, rng: random.Random) -> bytes:
        raw = pick(rng, self.good)
        if rng.random() < 0.3:  # one of the dimensions is another
            at, n = 4 + 4 * int(rng.random() * raw[3]), pick(rng, NUMBERS)
            raw = raw[:at] + n.to_bytes(4, "big") + raw[at + 4 :]
            return raw if rng.random() < 0.5 else changed(rng, raw, self.good)
        return changed(rng, raw, self.good)

    def run(self, value: bytes) -> None:
        a = read_idx(value)
        assert a.nbytes + 4 + 4 * a.ndim == len(value)
        assert a.dtype.isnative


class IdxGz(Idx):
    """`read_idx` of compressed files: damaged before they were compressed, or after."""

    name = "idx_gz"

    def __init__(self) -> None:
        super().__init__()
        self.packed = [
            gzip.compress(raw, mtime=0) for raw in (*self.good, bytes([0, 0, 8, 1, 0, 1, 0, 0]) + bytes(65536))
        ]

    def make(self, rng: random.Random) -> bytes:
        if rng.random() < 0.5:
            return changed(rng, pick(rng, self.packed), self.packed)
        raw = stored(super().make(rng))
        return raw if rng.random() < 0.8 else changed(rng, raw, self.packed)

    def run(self, value: bytes) -> None:
        a = read_idx(value)
        assert a.nbytes <= max(1 << 20, 2000 * len(value))


def stored(raw: bytes) -> bytes:
    """Return a gzip archive whose content is not compressed, which takes no time."""
    size = struct.pack("<HH", len(raw), len(raw) ^ 0xFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01" + size + raw + struct.pack("<II", zlib.crc32(raw), len(raw))


class CheckpointFile(Target):
    """A file of a network or a run: everything up to the tensors, each of them checked."""

    name = "checkpoint"
    allowed = (CheckpointError,)

    def __init__(self) -> None:
        self.good = [saved([1, 2]), saved([1, bpxp.nn.BatchNorm(), 2])]
        self.good += [(DATA / name).read_bytes() for name in ("format-1.safetensors", "format-2-run.safetensors")]
        headers, self.payloads = zip(*map(taken_apart, self.good), strict=True)
        self.headers = Texts([json.dumps(header, separators=(",", ":")) for header in headers])
        descriptions = [header["__metadata__"]["bpxp"] for header in headers]
        self.descriptions = Texts(descriptions)
        self.rests = [{k: v for k, v in header.items() if k != "__metadata__"} for header in headers]
        for raw in self.good:
            self.run(raw)

    def make(self, rng: random.Random) -> bytes:
        what, i = rng.random(), int(rng.random() ** 5 * len(self.good))  # mostly the small ones
        if what < 0.6:
            return changed(rng, self.good[i], self.good)
        if what < 0.8:
            text = self.headers.changed(rng, i)
        else:
            text = self.described(rng, i)
        encoded = text.encode("utf-8", "surrogatepass")
        raw = struct.pack("<Q", len(encoded)) + encoded + self.payloads[i]
        return raw if what < 0.95 else changed(rng, raw, self.good)

    def described(self, rng: random.Random, i: int) -> str:
        """Return a header whose description has been changed and sealed again, as somebody would who wants it read."""
        text = self.descriptions.changed(rng, i)
        try:
            description = json.loads(text)
            description.pop("seal", None)
            text = json.dumps({**description, "seal": seal(description)})
        except (ValueError, AttributeError, TypeError, RecursionError):
            pass
        return json.dumps({"__metadata__": {"bpxp": text}, **self.rests[i]})

    def run(self, value: bytes) -> None:
        tensors = Opened(io.BytesIO(value), len(value), "load").tensors()
        try:
            others = other_reader(value)
        except (SafetensorError, KeyError, ValueError, TypeError) as error:
            raise AssertionError("bpxp reads what safetensors refuses") from error
        assert tensors.keys() == others.keys()
        for name, a in tensors.items():
            b = others[name]
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def saved(layers: list) -> bytes:
    """Return the file of a network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.bpxp"
        bpxp.Network(layers, backend="numpy", seed=0).save(path)
        return path.read_bytes()


def taken_apart(raw: bytes) -> tuple[dict, bytes]:
    """Return the header of a file, as JSON, and its tensors."""
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]
