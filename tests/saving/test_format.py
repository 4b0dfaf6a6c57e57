"""Saving and loading: round trips on each backend, and the error for each kind of damage."""

from __future__ import annotations

import io
import itertools
import json
import os
import pickle
import struct
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointSecurityError,
    CheckpointVersionError,
    InvalidTypeError,
    InvalidValueError,
)
from bpxp.saving import format as checkpoint
from bpxp.saving.header import seal

OLD = Path(__file__).parent


@pytest.fixture
def net(backend):
    return bpxp.Network([4, nn.Dense(3, activation="relu"), nn.LeakyReLU(0.2), 2], backend=backend, seed=5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.bpxp"


@pytest.fixture
def small(path):
    net = bpxp.Network([2, 3, 2], backend="numpy", seed=0)
    net.save(path)
    return path


def flat(net):
    return np.concatenate([net.backend.to_numpy(a).ravel() for own in net.params for a in own])


def test_what_is_saved_comes_back_on_any_backend(net, path, rng):
    x = rng.normal(size=(5, 4)).astype(np.float32)
    net.gradient_descent((x, [0, 1, 0, 1, 0]), learning_rate=0.5)
    net.save(path)
    for backend in (net.backend, "numpy"):
        other = bpxp.Network.load(path, backend=backend)
        assert np.array_equal(flat(other), flat(net))
        assert other.layers == net.layers
        assert (other.loss, other.dtype, other.seed, other.epoch) == (net.loss, net.dtype, net.seed, net.epoch)
        a, b = net.backend.to_numpy(net.predict_proba(x)), other.backend.to_numpy(other.predict_proba(x))
        np.testing.assert_allclose(a, b, rtol=1e-5)
    other = bpxp.Network.load(path, backend=net.backend)
    assert np.array_equal(net.backend.to_numpy(net.logits(x)), other.backend.to_numpy(other.logits(x)))


@pytest.mark.parametrize("activation", sorted(nn.ACTIVATIONS))
@pytest.mark.parametrize("loss", sorted(nn.LOSSES))
def test_every_activation_and_loss_can_be_saved(path, activation, loss):
    net = bpxp.Network([2, 3, 2], hidden=activation, loss=loss, backend="numpy", seed=0, dtype="float64")
    net.save(path)
    other = bpxp.Network.load(path, backend="numpy")
    assert (other.layers, other.loss, other.dtype) == (net.layers, net.loss, "float64")


def test_training_goes_on_after_loading(path, rng):
    x, y = rng.normal(size=(30, 4)), rng.integers(0, 2, 30)
    net = bpxp.Network([4, 3, 2], backend="numpy", seed=5)
    trainer = bpxp.Trainer(net, "sgd", progress=False)
    trainer.fit((x, y), epochs=2)
    net.save(path)
    other = bpxp.Network.load(path, backend="numpy")
    trainer.fit((x, y), epochs=2)
    history = bpxp.Trainer(other, "sgd", progress=False).fit((x, y), epochs=2)
    assert history["epoch"] == [3, 4]
    assert np.array_equal(flat(net), flat(other))


def test_other_tools_can_read_it(small):
    from safetensors.numpy import load_file

    tensors = load_file(small)
    assert {name: a.shape for name, a in tensors.items()} == {
        "params/0/W": (2, 3),
        "params/0/b": (3,),
        "params/1/W": (3, 2),
        "params/1/b": (2,),
    }


def test_the_same_network_gives_the_same_bytes(small, tmp_path):
    bpxp.Network.load(small, backend="numpy").save(tmp_path / "again.bpxp")
    assert small.read_bytes() == (tmp_path / "again.bpxp").read_bytes()


def test_the_file_is_what_safetensors_itself_would_write(path):
    # bpxp writes the bytes, so that a large file is hashed while it is written, and never copied.
    from safetensors.numpy import save

    layers = [nn.Conv2D(2, 3), nn.BatchNorm(), nn.Flatten(), 3]
    for dtype in ("float32", "float64"):
        bpxp.Network(layers, input_shape=(4, 4, 1), backend="numpy", seed=0, dtype=dtype).save(path)
        tensors, _ = checkpoint.read(path)
        assert path.read_bytes() == save(tensors, metadata=header_of(path.read_bytes())["__metadata__"])
    mixed = {
        "b": np.arange(3),
        "a": np.ones((2, 2), np.float32),
        "c": np.zeros(5, bool),
        "d": np.arange(3, dtype=np.uint8),
    }
    checkpoint.write(path, mixed, {"network": {}})
    assert path.read_bytes() == save(mixed, metadata=header_of(path.read_bytes())["__metadata__"])


def test_large_arrays_strided_ones_and_none(path, rng):
    a = rng.normal(size=(700, 900))
    tensors = {"a": a, "T": a.T, "every": a[::3, ::-2], "big-endian": a.astype(">f4"), "none": a[:0], "one": a[:1, 0]}
    checkpoint.write(path, tensors, {"network": {}})
    found, _ = checkpoint.read(path)
    assert found["big-endian"].dtype == np.float32
    assert all(np.array_equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    ("tensors", "error", "text"),
    [
        ({"a": np.ones(2, np.float16)}, InvalidTypeError, "dtype float16"),
        ({"a": np.array(["x"])}, InvalidTypeError, "dtype <U1"),
        ({"a/../b": np.ones(2)}, InvalidValueError, "not a name"),
        ({"a b": np.ones(2)}, InvalidValueError, "not a name"),
        ({f"a{i}": np.ones(1) for i in range(10_001)}, InvalidValueError, "too large: 10001 tensors"),
    ],
)
def test_what_cannot_be_written_is_not_begun(path, tensors, error, text):
    with pytest.raises(error, match=text):
        checkpoint.write(path, tensors, {"network": {}})
    assert list(path.parent.iterdir()) == []


def state_of(path):
    """Return all that a file says, so that it can be compared."""
    tensors, description = checkpoint.read(path)
    return {name: (a.dtype.str, a.shape, a.tobytes()) for name, a in tensors.items()}, description


@pytest.mark.parametrize("what", ["a network", "a run"])
def test_flipped_bits_are_found(small, what, nightly, promise):
    raw = bytearray(small.read_bytes() if what == "a network" else (OLD / "format-2-run.safetensors").read_bytes())
    small.write_bytes(raw)
    whole = state_of(small)
    bits = range(8 * len(raw)) if 8 * len(raw) <= 3000 else np.linspace(0, 8 * len(raw) - 1, 3000).astype(int).tolist()
    bits = bits if nightly else bits[::5]
    unseen = 0
    for bit in bits:
        raw[bit // 8] ^= 1 << bit % 8
        small.write_bytes(raw)
        raw[bit // 8] ^= 1 << bit % 8
        try:
            assert state_of(small) == whole  # white space, for example
            unseen += 1
        except CheckpointError:
            continue
    promise(
        f"A file of {what} with one bit flipped", f"{len(bits)} flips, {len(bits) - unseen} of them refused, 0 harmful"
    )
    assert unseen == 0


def test_every_flipped_bit_of_the_versions_number(small):
    # Some of them turn format 2 into one of before there were seals.
    raw = bytearray(small.read_bytes())
    place = raw.index(b'\\"format\\":2') + len(b'\\"format\\":')
    for bit in range(8):
        raw[place] ^= 1 << bit
        small.write_bytes(raw)
        raw[place] ^= 1 << bit
        with pytest.raises(CheckpointError):
            checkpoint.read(small)


def test_every_truncation_is_found(small, promise):
    raw = small.read_bytes()
    for n in range(len(raw)):
        small.write_bytes(raw[:n])
        with pytest.raises(CheckpointError):
            bpxp.Network.load(small, backend="numpy")
    small.write_bytes(raw + b"\0")
    with pytest.raises(CheckpointCorruptError):
        bpxp.Network.load(small, backend="numpy")
    promise("A file truncated after each of its bytes, or one byte longer", f"{len(raw) + 1} of {len(raw) + 1} refused")


def test_a_file_that_shrinks_while_it_is_read(small):
    raw = small.read_bytes()
    for n in range(len(raw)):
        with pytest.raises(CheckpointError):
            checkpoint.Opened(io.BytesIO(raw[:n]), len(raw), "load").tensors()


def test_a_part_of_the_tensors_is_kept_and_all_are_checked(path):
    path.write_bytes((OLD / "format-2-run.safetensors").read_bytes())
    every, _ = checkpoint.read(path)
    with checkpoint.opened(path) as file:
        part = file.tensors(("params/", "stats/"))
    assert set(part) == {name for name in every if name.startswith(("params/", "stats/"))}
    assert all(np.array_equal(part[name], every[name]) for name in part)
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1  # of the history
    path.write_bytes(raw)
    with pytest.raises(CheckpointCorruptError, match="run/history"), checkpoint.opened(path) as file:
        file.tensors(("params/",))


def test_a_file_takes_its_own_size_in_memory(path):
    tensors = {name: np.ones((1000, 1000), np.float32) for name in "abc"}
    checkpoint.write(path, tensors, {"network": {}})
    del tensors
    tracemalloc.start()
    try:
        found, _ = checkpoint.read(path)
        assert tracemalloc.get_traced_memory()[1] < 1.05 * path.stat().st_size
        assert all(a.flags.owndata and a.flags.writeable for a in found.values())
        del found
        tracemalloc.reset_peak()
        with checkpoint.opened(path) as file:
            found = file.tensors(("c",))
        assert list(found) == ["c"]
        assert tracemalloc.get_traced_memory()[0] < 0.4 * path.stat().st_size
    finally:
        tracemalloc.stop()


def header_of(raw):
    (size,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + size])


def with_header(raw, header, payload=None):
    (size,) = struct.unpack("<Q", raw[:8])
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + (raw[8 + size :] if payload is None else payload)


def rewrite(path, change):
    """Change a description, and seal it as its writer would: what is left to find is what it says."""
    raw = path.read_bytes()
    header = header_of(raw)
    description = json.loads(header["__metadata__"]["bpxp"])
    del description["seal"]
    change(description)
    description["seal"] = seal(description)
    header["__metadata__"]["bpxp"] = json.dumps(description)
    path.write_bytes(with_header(raw, header))


def changed(**entries):
    return lambda description: description["network"].update(entries)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda d: d.update(format=99), CheckpointVersionError, "format 99, this bpxp reads up to 2"),
        *[
            (lambda d, v=v: d.update(format=v), CheckpointFormatError, "without bpxp's description")
            for v in (0, -1, 2.0, "2", True, None)
        ],
        (lambda d: d.update(sha256={}), CheckpointCorruptError, "missing or added"),
        (lambda d: d.pop("network"), CheckpointCorruptError, "description"),
        (changed(layers=[{"type": "os.system"}]), CheckpointFormatError, "an unknown type: got 'os.system'"),
        (changed(layers=[{"type": "Dense", "units": 0}]), CheckpointFormatError, "impossible Dense"),
        (changed(layers=[{"type": "Dense", "units": 4}]), CheckpointMismatchError, r"unexpected params/1/W \(3, 2\)"),
        (changed(input_shape=[1]), CheckpointMismatchError, r"params/0/W is \(2, 3\), the layers need \(1, 3\)"),
        (changed(loss={"type": "Dense", "units": 1}), CheckpointFormatError, "does not describe a network"),
        (changed(dtype="float16"), CheckpointFormatError, "floating dtype among"),
        (changed(epoch="now"), CheckpointFormatError, "epoch"),
        (changed(epoch=-1), CheckpointFormatError, "epoch"),
        (changed(steps=2**40), CheckpointFormatError, "steps"),
        (changed(seed=[1]), CheckpointFormatError, "seed"),
        (changed(layers=[{"type": ["Dense"]}]), CheckpointFormatError, "unhashable"),
        (
            changed(layers=[{"type": "Dense", "units": 3, "path": "/etc/passwd"}]),
            CheckpointFormatError,
            "impossible Dense",
        ),
        (changed(layers=[{"type": "Flatten"}], input_shape=[10**6] * 70), CheckpointMismatchError, "unexpected"),
        # Bombs: what the layers would need is compared with what the file has, before it is there.
        (
            changed(layers=[{"type": "Dense", "units": 10**9}]),
            CheckpointSecurityError,
            "more numbers than the file has",
        ),
        (changed(layers=[{"type": "Dense", "units": 10**400}]), CheckpointSecurityError, "more numbers"),
        (changed(layers=[{"type": "BatchNorm"}], input_shape=[10**10]), CheckpointSecurityError, "more numbers"),
        (changed(layers=[{"type": "Dense", "units": 4}] * 2000), CheckpointSecurityError, "more numbers"),
        (
            changed(layers=[{"type": "Embedding", "count": 10**5, "dim": 10**4}]),
            CheckpointSecurityError,
            "more numbers",
        ),
        (changed(layers=3), CheckpointFormatError, "int 3"),
    ],
    ids=itertools.count(),
)
def test_wrong_descriptions(small, change, error, text):
    rewrite(small, change)
    bpxp.Network.load  # noqa: B018  (its imports are not what is measured)
    tracemalloc.start()
    try:
        with pytest.raises(error, match=text):
            bpxp.Network.load(small, backend="numpy")
        assert tracemalloc.get_traced_memory()[1] < 10e6
    finally:
        tracemalloc.stop()


def test_a_description_that_its_seal_does_not_fit(small):
    raw = small.read_bytes()
    assert raw.count(b'\\"epoch\\":0') == 1
    small.write_bytes(raw.replace(b'\\"epoch\\":0', b'\\"epoch\\":7'))
    with pytest.raises(CheckpointCorruptError, match="sha256 of the description"):
        bpxp.Network.load(small, backend="numpy")


def entry(**changes):
    return lambda header: header["params/0/W"].update(changes)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda h: h.update({"../up": h.pop("params/0/W")}), CheckpointSecurityError, "not a name.*'../up'"),
        (lambda h: h.update({"a\n": h.pop("params/0/W")}), CheckpointSecurityError, "not a name"),
        (
            lambda h: h.update(
                {f"a{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10_001)}
            ),
            CheckpointSecurityError,
            "10,005 tensors",
        ),
        # A terabyte that is not there: refused by arithmetic, before a byte is reserved.
        (entry(shape=[2**19, 2**19], data_offsets=[24, 24 + 2**40]), CheckpointCorruptError, "gaps|truncated"),
        (entry(shape=[2**19, 2**19]), CheckpointCorruptError, "shape and offsets differ"),
        (entry(shape=[2**62, 2**62]), CheckpointCorruptError, "impossible sizes"),
        (entry(shape=[-2, -3]), CheckpointCorruptError, "impossible sizes"),
        (entry(shape=[1] * 40), CheckpointCorruptError, "too many axes"),
        (entry(shape=[2.0, 3]), CheckpointCorruptError, "impossible sizes"),
        (entry(shape="six"), CheckpointCorruptError, "damaged"),
        (entry(data_offsets=[12, 36]), CheckpointCorruptError, "overlap"),
        (entry(data_offsets=[24]), CheckpointCorruptError, "damaged"),
        (entry(dtype="F8"), CheckpointCorruptError, "F8"),
        (lambda h: h.update({"params/0/W": 3}), CheckpointCorruptError, "damaged"),
    ],
    ids=itertools.count(),
)
def test_wrong_headers(small, change, error, text):
    raw = small.read_bytes()
    header = header_of(raw)
    change(header)
    small.write_bytes(with_header(raw, header))
    with pytest.raises(error, match=text):
        bpxp.Network.load(small, backend="numpy")


def written_as(text):
    return struct.pack("<Q", len(text)) + text


def described(text):
    """Return the header of a file whose description is this JSON."""
    return written_as(json.dumps({"__metadata__": {"bpxp": text}}).encode())


def test_headers_without_end(small):
    deep = b"[" * 100_000
    for text in (deep, b'{"a":' + deep, b"{" + b" " * 100, b'{"__metadata__":{"bpxp":"' + deep + b'"}}', b"{\xff\xfe}"):
        small.write_bytes(written_as(text))
        with pytest.raises((CheckpointCorruptError, CheckpointFormatError)):
            bpxp.Network.load(small, backend="numpy")
    small.write_bytes(written_as(b"{" + b" " * (1 << 20)))
    with pytest.raises(CheckpointSecurityError, match="too large a header"):
        bpxp.Network.load(small, backend="numpy")
    for size in (0, 1):
        small.write_bytes(struct.pack("<Q", size) + b"{" * 10)
        with pytest.raises(CheckpointCorruptError):
            bpxp.Network.load(small, backend="numpy")


HEADERS = {
    "nested": described('{"format":2,"network":{},"sha256":{},"a":' + "[" * 900 + "]" * 900 + "}"),
    "lists": described('{"format":2,"a":[' + "[]," * 250_000 + "[]]}"),
    "objects": described('{"format":2,' + ",".join(f'"{i}":{{}}' for i in range(60_000)) + "}"),
    "entries": written_as(b'{"a":[' + b"{}," * 340_000 + b"{}]}"),
    "surrogates": written_as(b'{"a":"' + b"\\ud800" * 170_000 + b'"}'),
    "digits": written_as(b'{"a":' + b"9" * 1_000_000 + b"}"),
    "size": struct.pack("<Q", 1 << 63) + b"{}" * 10,
    "tensors": written_as(
        b"{"
        + b",".join(b'"%d":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % i for i in range(16_000))
        + described('{"format":1,"network":{},"sha256":{}}')[8:].replace(b"{", b",", 1)
    ),
}


def test_headers_that_fill_the_memory(small, promise):
    bpxp.Network.load(small, backend="numpy")  # its imports are not what is measured
    found = {}
    for name, raw in HEADERS.items():
        small.write_bytes(raw)
        tracemalloc.start()
        try:
            with pytest.raises(CheckpointError):
                bpxp.Network.load(small, backend="numpy")
            found[name] = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    figure = f"{len(found)} of {len(found)} refused, {max(found.values()) / 2**20:.0f} MiB of memory at most"
    promise("Checkpoints with headers crafted to exhaust memory", figure)
    assert max(found.values()) < 50 << 20, found


def test_what_two_readers_might_read_differently(small):
    raw = small.read_bytes()
    header = json.dumps(header_of(raw))
    twice = header.replace('"params/0/b":', '"params/0/W":')
    for text in (twice, header.replace('{"__metadata__":', '{"__metadata__":{},"__metadata__":')):
        small.write_bytes(written_as(text.encode()) + raw[8 + struct.unpack("<Q", raw[:8])[0] :])
        with pytest.raises(CheckpointCorruptError, match="duplicate key"):
            checkpoint.read(small)
    for encoding in ("utf-16-le", "utf-32-le"):  # JSON, but not for other tools
        small.write_bytes(written_as(header.encode(encoding)) + raw[8 + struct.unpack("<Q", raw[:8])[0] :])
        with pytest.raises(CheckpointCorruptError):
            checkpoint.read(small)


def test_what_is_no_file_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(CheckpointFormatError, match="not a file"):
            bpxp.Network.load(path)


# ---------------------------------------------------------------- older formats


def test_format_1_is_read():
    # Written by bpxp 0.1.0 before there were runs and seals.
    net = bpxp.Network.load(OLD / "format-1.safetensors", backend="numpy")
    assert [type(layer).__name__ for layer in net.layers] == "Conv2D BatchNorm Flatten Dropout Residual Dense".split()
    assert (net.input_shape, net.seed, net.epoch, net._steps, net.size) == ((4, 4, 1), 7, 2, 6, 123)
    x = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1)).astype(np.uint8)
    np.testing.assert_allclose(net.predict_proba(x[:1])[0], [0.368552, 0.349320, 0.282127], rtol=1e-5)


def test_the_bytes_of_format_1_are_checked_too(path):
    raw = bytearray((OLD / "format-1.safetensors").read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointCorruptError, match="sha256 of 'stats/1/var'"):
        bpxp.Network.load(path)


def test_other_files_are_called_what_they_are(path, tmp_path):
    with pytest.raises(FileNotFoundError):
        bpxp.Network.load(path)
    with pytest.raises(IsADirectoryError):
        bpxp.Network.load(tmp_path)
    path.write_bytes(pickle.dumps({"W": [1.0]}))
    with pytest.raises(CheckpointFormatError, match="pickle.*refuses"):
        bpxp.Network.load(path)
    with path.open("wb") as file:
        np.savez(file, W=np.ones(3))
    with pytest.raises(CheckpointFormatError, match="npz"):
        bpxp.Network.load(path)
    path.write_bytes(b"garbage, and a good deal of it")
    with pytest.raises(CheckpointCorruptError, match="not a checkpoint"):
        bpxp.Network.load(path)
    from safetensors.numpy import save_file

    save_file({"a": np.ones(2)}, path)
    with pytest.raises(CheckpointFormatError, match="without bpxp's description"):
        bpxp.Network.load(path)
    path.write_bytes(struct.pack("<Q", 1 << 40) + b"{" * 100)
    with pytest.raises(CheckpointCorruptError, match="header of 1,099,511,627,776 bytes"):
        bpxp.Network.load(path)


def test_a_layer_of_ones_own_needs_its_class(path):
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Double(nn.Activation):
        def forward(self, params, z, /, *, xp):
            return 2.0 * z, None

        def backward(self, params, cache, da, /, *, xp):
            return 2.0 * da, ()

    net = bpxp.Network([2, Double(), 2], backend="numpy", seed=0)
    net.save(path)
    with pytest.raises(CheckpointFormatError, match="custom="):
        bpxp.Network.load(path, backend="numpy")
    assert np.array_equal(flat(bpxp.Network.load(path, backend="numpy", custom=[Double])), flat(net))


def test_a_failed_write_leaves_the_old_file(small, monkeypatch):
    before = small.read_bytes()
    net = bpxp.Network.load(small, backend="numpy")
    net.gradient_descent(([[1.0, 2.0]], [1]), learning_rate=1.0)
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        net.save(small)
    assert small.read_bytes() == before
    assert [path.name for path in small.parent.iterdir()] == [small.name]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_large_write_that_ends_halfway_leaves_the_old_file(path, monkeypatch, error):
    checkpoint.write(path, {"a": np.zeros(1)}, {"network": {}})
    before, begun = path.read_bytes(), []

    def fail(stream, count):
        begun.append(count)
        if len(begun) == 2:
            raise error

    monkeypatch.setattr(checkpoint, "_start_writeback", fail)
    with pytest.raises(type(error)):
        checkpoint.write(path, {name: np.ones(checkpoint.PIECE, np.uint8) for name in "abc"}, {"network": {}})
    assert begun == [checkpoint.PIECE] * 2
    assert (path.read_bytes(), [p.name for p in path.parent.iterdir()]) == (before, [path.name])


def test_a_reader_sees_the_old_file_or_the_new(small):
    nets = [bpxp.Network([2, 3, 2], backend="numpy", seed=s) for s in (1, 2)]
    wanted = [flat(net) for net in nets]
    nets[0].save(small)
    stop = threading.Event()

    def write():
        while not stop.is_set():
            for net in nets:
                net.save(small)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(50):
            found = flat(bpxp.Network.load(small, backend="numpy"))
            assert any(np.array_equal(found, want) for want in wanted)
    finally:
        stop.set()
        writer.join()


def test_mode_is_what_open_would_give(small):
    plain = small.parent / "plain"
    plain.touch()
    assert small.stat().st_mode == plain.stat().st_mode


def test_digest_depends_on_dtype_shape_and_bytes():
    a = np.arange(6, dtype=np.float32)
    digests = {checkpoint.digest(x) for x in (a, a.reshape(2, 3), a.view(np.int32), a + 1)}
    assert len(digests) == 4
    assert checkpoint.digest(a) == checkpoint.digest(a.copy())
