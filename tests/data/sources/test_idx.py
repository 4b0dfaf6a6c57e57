"""IDX files: what is written is read back, and what is damaged is refused before it costs memory."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import random
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from fuzz.files import Idx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bpxp.data import map_idx, read_idx, write_idx
from bpxp.errors import DatasetChecksumError, DatasetFormatError, InvalidTypeError, InvalidValueError

DTYPES = ["uint8", "int8", "int16", "int32", "float32", "float64"]
# 2 x 3 bytes, written by hand from the description of the format.
SMALL = bytes([0, 0, 0x08, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255])


@pytest.mark.parametrize("name", ["a.idx", "a.idx.gz"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 3), (1, 2, 1, 2)])
def test_round_trip(tmp_path: Path, dtype: str, shape: tuple[int, ...], name: str) -> None:
    array = (np.arange(np.prod(shape)) * 7.25 - 20).reshape(shape).astype(np.int8).astype(dtype)
    array.flags.writeable = False
    write_idx(tmp_path / name, array)
    read = read_idx(tmp_path / name)
    assert read.dtype == np.dtype(dtype)
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array, strict=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("order", [">", "<"])
def test_the_writer_takes_any_byte_order_and_layout(tmp_path: Path, order: str) -> None:
    array = np.asfortranarray(np.arange(12).reshape(3, 4)).astype(f"{order}i4")[::-1, ::2]
    write_idx(tmp_path / "a", array)
    np.testing.assert_array_equal(read_idx(tmp_path / "a"), array)
    write_idx(tmp_path / "b", np.int16([258]))
    assert (tmp_path / "b").read_bytes() == bytes([0, 0, 0x0B, 1, 0, 0, 0, 1, 1, 2])


def test_bytes_written_by_hand() -> None:
    for source in (SMALL, bytearray(SMALL), memoryview(SMALL), gzip.compress(SMALL, mtime=0)):
        np.testing.assert_array_equal(read_idx(source), np.uint8([[1, 2, 3], [4, 5, 255]]), strict=True)


def test_gzip_is_seen_from_the_content(tmp_path: Path) -> None:
    (tmp_path / "no-suffix").write_bytes(gzip.compress(SMALL, mtime=0))
    (tmp_path / "plain.gz").write_bytes(SMALL)
    for name in ("no-suffix", "plain.gz"):
        assert read_idx(str(tmp_path / name)).tolist() == [[1, 2, 3], [4, 5, 255]]


def test_an_archive_of_several_members() -> None:
    assert read_idx(gzip.compress(SMALL[:5], mtime=0) + gzip.compress(SMALL[5:], mtime=0)).shape == (2, 3)


def test_the_archive_does_not_depend_on_time_or_name(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        write_idx(tmp_path / name, np.arange(9, dtype=np.uint8))
    content = (tmp_path / "a.gz").read_bytes()
    assert content == (tmp_path / "b.gz").read_bytes()
    assert content[4:8] == bytes(4)
    assert not content[3] & 0x08  # no file name


@pytest.mark.parametrize("length", range(len(SMALL)))
def test_truncated_anywhere(length: int) -> None:
    with pytest.raises(DatasetFormatError):
        read_idx(SMALL[:length])
    with pytest.raises(DatasetFormatError):
        read_idx(gzip.compress(SMALL[:length], mtime=0))


def test_truncated_archive_anywhere() -> None:
    packed = gzip.compress(SMALL, mtime=0)
    for length in range(len(packed)):
        with pytest.raises(DatasetFormatError):
            read_idx(packed[:length])


def test_the_message_has_both_sizes_and_a_fix() -> None:
    with pytest.raises(
        DatasetFormatError, match=r"truncated: got 17, expected 18 bytes \(2 x 3 \+ 12\)\. Fix: download"
    ):
        read_idx(SMALL[:-1])
    header = bytes([0, 0, 8, 3, 0, 0, 0xEA, 0x60, 0, 0, 0, 28, 0, 0, 0, 28])
    with pytest.raises(DatasetFormatError, match=r"got 16, expected 47,040,016 bytes \(60000 x 28 x 28 \+ 16\)"):
        read_idx(header)


@pytest.mark.parametrize(
    "content", [SMALL + b"\0", gzip.compress(SMALL + b"\0", mtime=0), gzip.compress(SMALL, mtime=0) + b"trailing"]
)
def test_trailing_bytes(content: bytes) -> None:
    with pytest.raises(DatasetFormatError, match=r"left over|damaged"):
        read_idx(content)


def test_a_flipped_bit_in_an_archive() -> None:
    packed = gzip.compress(SMALL, mtime=0)
    for position in range(10, len(packed)):
        with pytest.raises(DatasetFormatError):
            read_idx(packed[:position] + bytes([packed[position] ^ 1]) + packed[position + 1 :])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"\(empty\)"),
        (b"<html><title>403 Forbidden</title>", "3c 68 74 6d"),
        (b"\x80\x04\x95 a pickle", "80 04"),
        (b"\0\0\x08\0\x07", "1 to 32 dimensions"),
        (b"\0\0\x0a\x01\0\0\0\x01\x07", "not an IDX file"),
        (b"\0\x01\x08\x01\0\0\0\x01\x07", "not an IDX file"),
        (b"\0\0\x08\xff" + bytes(4 * 255), "1 to 32 dimensions"),
    ],
)
def test_wrong_magic(content: bytes, words: str) -> None:
    with pytest.raises(DatasetFormatError, match=words):
        read_idx(content)


def archive(header: bytes, zeros: int) -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", mtime=0) as stream:
        stream.write(header)
        for _ in range(zeros >> 20):
            stream.write(bytes(1 << 20))
    return out.getvalue()


BOMBS = {
    "product": bytes([0, 0, 8, 3]) + b"\xff" * 12,  # 2^96 bytes
    "zero": bytes([0, 0, 8, 4]) + bytes(4) + b"\xff" * 12,  # no element, of an absurd shape
    "deep": bytes([0, 0, 0x0E, 32]) + b"\x10\0\0\0" * 32,
    "announced": gzip.compress(bytes([0, 0, 8, 1, 0xF0, 0, 0, 0]), mtime=0),  # 4 GB in 30 bytes
    "bomb": archive(SMALL[:12], 64 << 20),  # announces 6 bytes and holds 64 MiB
    "bomb-2MiB": archive(bytes([0, 0, 8, 1, 0, 0x20, 0, 0]), 64 << 20),
}


def test_bombs_cost_no_memory(promise: Callable[[str, str], None]) -> None:
    found = {}
    for name, content in BOMBS.items():
        tracemalloc.start()
        try:
            with pytest.raises(DatasetFormatError):
                read_idx(content)
            found[name] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    figure = f"{len(found)} of {len(found)} refused, {max(found.values()) / 2**20:.0f} MiB of memory at most"
    promise("IDX files crafted to exhaust memory", figure)
    assert max(found.values()) < 8 << 20, found


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_an_array_takes_its_own_size_in_memory(tmp_path: Path, dtype: str) -> None:
    write_idx(tmp_path / "a.gz", np.ones(8_000_000 // np.dtype(dtype).itemsize, dtype))
    read_idx(tmp_path / "a.gz")
    tracemalloc.start()
    try:
        array = read_idx(tmp_path / "a.gz")
        assert tracemalloc.get_traced_memory()[1] < array.nbytes + (4 << 20)  # and a few pieces
    finally:
        tracemalloc.stop()
    assert array.flags.writeable


def test_max_bytes() -> None:
    assert read_idx(SMALL, max_bytes=6).size == 6
    with pytest.raises(DatasetFormatError, match=r"too large: got 18 bytes .*max_bytes=5"):
        read_idx(SMALL, max_bytes=5)


def test_sha256_of_the_raw_bytes() -> None:
    digest = hashlib.sha256(SMALL).hexdigest()
    for content in (SMALL, gzip.compress(SMALL, mtime=0)):
        read_idx(content, sha256=digest)
        with pytest.raises(DatasetChecksumError, match=f"got {digest}, expected SHA-256 {'0' * 64}"):
            read_idx(content, sha256="0" * 64)


def test_errors_of_open_keep_their_type(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_idx(tmp_path / "nothing")
    with pytest.raises(IsADirectoryError if sys.platform != "win32" else PermissionError):
        read_idx(tmp_path)


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint16", "float16", "complex64", "U3"])
def test_the_writer_refuses_other_dtypes(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(InvalidTypeError, match=r"no such dtype.*uint8, int8"):
        write_idx(tmp_path / "a", np.zeros(3).astype(dtype))
    assert not list(tmp_path.iterdir())


def test_the_writer_refuses_other_shapes(tmp_path: Path) -> None:
    for shape in [(), (1,) * 33]:
        with pytest.raises(InvalidValueError, match="1 to 32 dimensions"):
            write_idx(tmp_path / "a", np.zeros(shape, np.uint8))


def test_a_writer_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path / "a", np.uint8([1]))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bpxp.core.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_idx(tmp_path / "a", np.uint8([2, 3]))
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert read_idx(tmp_path / "a").tolist() == [1]


def test_what_is_mapped_is_what_is_read(tmp_path: Path) -> None:
    target, rng = Idx(), random.Random(0)
    (tmp_path / "a").write_bytes(bytes([0, 0, 8, 4]) + bytes(4) + b"\xff" * 12)  # no element, of an absurd shape
    for i in range(600):
        if i:
            (tmp_path / "a").write_bytes(target.make(rng))
        try:
            wanted = read_idx(tmp_path / "a")
        except DatasetFormatError:
            with pytest.raises(DatasetFormatError):
                map_idx(tmp_path / "a")
        else:
            np.testing.assert_array_equal(map_idx(tmp_path / "a"), wanted)


@settings(max_examples=200, deadline=1000)
@given(st.binary(max_size=80), st.sampled_from([b"", SMALL[:4], SMALL[:12], gzip.compress(SMALL, mtime=0)[:10]]))
@example(b"", b"\x1f\x8b")
def test_garbage_raises_only_what_is_documented(garbage: bytes, start: bytes) -> None:
    with contextlib.suppress(DatasetFormatError):
        read_idx(start + garbage)
