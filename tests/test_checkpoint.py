"""Saving and loading: what comes back, on which backend, and what every damage is called."""

from __future__ import annotations

import json
import os
import pickle
import struct
import threading

import numpy as np
import pytest

import bpxp
from bpxp import checkpoint, nn
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointFormatError,
    CheckpointMismatchError,
    CheckpointVersionError,
)


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


def test_every_flipped_bit_is_found(small):
    raw = bytearray(small.read_bytes())
    whole = flat(bpxp.Network.load(small, backend="numpy"))
    harmless = 0
    for i in range(len(raw)):
        raw[i] ^= 1 << (i % 8)
        small.write_bytes(raw)
        raw[i] ^= 1 << (i % 8)
        try:
            other = bpxp.Network.load(small, backend="numpy")
        except CheckpointError:
            continue
        # White space, or an entry of the description that is no number of the network.
        assert np.array_equal(flat(other), whole), f"byte {i} changed the weights unseen"
        harmless += 1
    assert harmless < len(raw) / 4


def test_every_truncation_is_found(small):
    raw = small.read_bytes()
    for n in range(len(raw)):
        small.write_bytes(raw[:n])
        with pytest.raises(CheckpointError):
            bpxp.Network.load(small, backend="numpy")
    small.write_bytes(raw + b"\0")
    with pytest.raises(CheckpointCorruptError):
        bpxp.Network.load(small, backend="numpy")


def rewrite(path, change):
    raw = path.read_bytes()
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    description = json.loads(header["__metadata__"]["bpxp"])
    change(description)
    header["__metadata__"]["bpxp"] = json.dumps(description)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + size :])


def changed(**entries):
    return lambda description: description["network"].update(entries)


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        (lambda d: d.update(format=99), CheckpointVersionError, "format 99, this bpxp reads up to 1"),
        (lambda d: d.update(sha256={}), CheckpointCorruptError, "missing or added"),
        (lambda d: d.pop("network"), CheckpointCorruptError, "description"),
        (changed(layers=[{"type": "os.system"}]), CheckpointFormatError, "a type that is not known: got 'os.system'"),
        (changed(layers=[{"type": "Dense", "units": 0}]), CheckpointFormatError, "impossible Dense"),
        (changed(layers=[{"type": "Dense", "units": 7}]), CheckpointMismatchError, r"unexpected params/1/W \(3, 2\)"),
        (changed(input_shape=[9]), CheckpointMismatchError, r"params/0/W is \(2, 3\), the layers need \(9, 3\)"),
        (changed(loss={"type": "Dense", "units": 1}), CheckpointFormatError, "does not describe a network"),
        (changed(dtype="float16"), CheckpointFormatError, "floating dtype among"),
        (changed(epoch="now"), CheckpointFormatError, "epoch"),
        (changed(layers=3), CheckpointFormatError, "int 3"),
    ],
)
def test_wrong_descriptions(small, change, error, text):
    rewrite(small, change)
    with pytest.raises(error, match=text):
        bpxp.Network.load(small, backend="numpy")


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
