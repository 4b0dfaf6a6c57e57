"""61 to 71: networks that are not loaded, files of networks and data sets."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bpxp
from bpxp import data
from mistakes.rows import named, row

# The rows are a table: a few lines each.
# fmt: off

@row(61, None, "", kind="backend")
def predict_before_any_fit(c):
    # A network is complete when it is made: there is nothing to forget before `predict`.
    assert bpxp.Network([4, 3], backend=c.backend, seed=0).predict(c.x).shape == (20,)


# ---------------------------------------------------------------- 62-71: files


def saved(c: Any, name: str = "net.bpxp", **options: Any) -> Path:
    path: Path = c.folder / name
    bpxp.Network([4, 3], backend="numpy", seed=0, **options).save(path)
    return path


@row(62, FileNotFoundError, "", "nothing.bpxp", "searched in ")
def no_such_file(c):
    c.patch.chdir(c.folder)
    bpxp.Network.load("nothing.bpxp", backend="numpy")


@row(62, IsADirectoryError, "", "folder.bpxp")
def a_folder(c):
    (c.folder / "folder.bpxp").mkdir()
    bpxp.Network.load(c.folder / "folder.bpxp", backend="numpy")


def _path(name: str, call: Callable[[Any], Any], *parts: str) -> None:
    row(62, TypeError, "E001", *parts, "not a path: got", "a str or a Path")(named(name, call))


_path("Network.load", lambda c: bpxp.Network.load(None), "load(path)")
_path("Network.save", lambda c: c.net.save(3), "save(path)")
_path("fit(resume)", lambda c: c.fit(resume=3), "fit(resume=…)")
_path("fit(bundle)", lambda c: c.fit(bundle=3), "fit(bundle=…)")
_path("Checkpoint", lambda c: bpxp.callbacks.Checkpoint(None), "Checkpoint(path=…)")
_path("CSVLog", lambda c: bpxp.callbacks.CSVLog(0), "CSVLog(path=…)")
_path("read_idx", lambda c: data.read_idx(0), "read_idx(source)")
_path("write_idx", lambda c: data.write_idx(0, c.x), "write_idx(path)")
_path("map_idx", lambda c: data.map_idx(0), "map_idx(path)")
_path("folder_dataset", lambda c: data.folder_dataset(None), "folder_dataset(path)")
_path("mnist", lambda c: data.mnist(folder=3), "mnist(folder=…)")


@row(62, TypeError, "E004", "custom=…): not a class: got int")
def something_that_is_no_layer(c):
    bpxp.Network.load(saved(c), backend="numpy", custom=[3])


@row(62, PermissionError, "", "net.bpxp")
def no_permission(c):
    path = saved(c)

    def refuse(path: Any, *args: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    c.patch.setattr(bpxp.saving.format, "open", refuse, raising=False)  # root may read everything
    bpxp.Network.load(path, backend="numpy")


def changed(c: Any, change: Callable[[bytes], bytes], name: str = "net.bpxp") -> None:
    path = saved(c, name)
    path.write_bytes(change(path.read_bytes()))
    bpxp.Network.load(path, backend="numpy")


@row(63, ValueError, "E060", "net.bpxp", "not a checkpoint, or a damaged one")
def garbage(c):
    changed(c, lambda raw: b"no network at all, but some text")


@row(63, ValueError, "E060", "truncated, or otherwise damaged")
def truncated(c):
    changed(c, lambda raw: raw[:-1])


@row(63, ValueError, "E060", "sha256 of 'params/0/W' differs: the file is damaged")
def a_flipped_bit(c):
    changed(c, lambda raw: raw[:-60] + bytes([raw[-60] ^ 1]) + raw[-59:])


@row(64, ValueError, "E061", "a pickle, .pt, .npz or .h5 file, which can run code when it is read; bpxp refuses it")
def a_pickle(c):
    changed(c, lambda raw: b"\x80\x04" + raw)


@row(64, ValueError, "E061", "the file holds a network and no run to go on with", "Network.load(")
def a_network_is_no_run(c):
    path = saved(c)
    bpxp.Trainer(bpxp.Network([4, 3], backend="numpy", seed=0), progress=False).fit((c.x, c.y), epochs=1, resume=path)


@row(65, ValueError, "E064", "the network is another: layers")
def the_run_of_another_network(c):
    path, run = c.folder / "run.bpxp", {"batch_size": 5}
    callbacks = [bpxp.callbacks.Checkpoint(path)]
    other = bpxp.Network([4, 5, 3], backend="numpy", seed=0)
    bpxp.Trainer(other, progress=False, callbacks=callbacks).fit((c.x, c.y), epochs=1, **run)
    bpxp.Trainer(c.net, progress=False).fit((c.x, c.y), epochs=2, resume=path, **run)


@row(65, ValueError, "E064", "missing params/1/W", "unexpected params/2/W",
    "params/0/W is (4, 5), the layers need (4, 3)")
def other_tensors(c):
    from bpxp.saving.format import check_shapes

    found = {"params/0/W": (4, 5), "params/2/W": (1,)}
    check_shapes(found, {"params/0/W": (4, 3), "params/1/W": (3, 2)}, "load('net.bpxp')")


@row(66, ValueError, "E063", "written in format 9, this bpxp reads up to", "Fix: pip install -U bpxp")
def a_newer_format(c):
    changed(c, lambda raw: raw.replace(rb"\"format\":2", rb"\"format\":9"))


@row(67, ValueError, "E062", "not a name for a tensor: got '../../.../W'")
def a_name_that_climbs(c):
    changed(c, lambda raw: raw.replace(b'"params/0/W"', b'"params/../W"', 1).replace(b"params/..", b"../../..."[:9], 1))


@row(67, ValueError, "E060", "a header of 9,223,372,036,854,775,807 bytes")
def a_declared_size(c):
    changed(c, lambda raw: (2**63 - 1).to_bytes(8, "little") + raw[8:])


@row(68, OSError, "E067", "the file that was there before is intact", "net.bpxp")
def a_full_disk(c):
    path = saved(c)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    c.patch.setattr("os.fsync", full)
    bpxp.Network([4, 3], backend="numpy", seed=1).save(path)


@row(68, FileNotFoundError, "", "nowhere")
def no_folder_to_save_to(c):
    bpxp.Network([4, 3], backend="numpy", seed=1).save(c.folder / "nowhere" / "net.bpxp")


@row(68, OSError, "E067", "MB of free space")
def no_room_for_a_run(c):
    c.patch.setattr("shutil.disk_usage", lambda path: types.SimpleNamespace(free=100))
    c.fit(callbacks=[bpxp.callbacks.Checkpoint(c.folder / "run.bpxp")])


IDX = b"\0\0\x08\x03" + b"\0\0\0\x02\0\0\0\x03\0\0\0\x03" + bytes(18)


def _idx(number: int, name: str, content: bytes, *parts: str) -> None:
    row(number, ValueError, "E070", *parts)(named(name, lambda c: data.read_idx(content)))


_idx(69, "another magic number", b"\x89PNG" + IDX[4:], "not an IDX file", "magic number 89 50 4e 47", "or gzip")
_idx(69, "truncated", IDX[:-1], "truncated: got 33, expected 34 bytes (2 x 3 x 3 + 16)", "Fix: download")
_idx(69, "trailing", IDX + b"\0", "bytes left over: got 35, expected 34 bytes")
_idx(69, "truncated in the header", IDX[:9], "truncated within the header: got 9 bytes, expected 16")
_idx(69, "a damaged gzip stream", b"\x1f\x8b\x08" + bytes(40), "the gzip stream is damaged", "Fix: download")
_idx(69, "a bomb", b"\0\0\x08\x03" + b"\xff\xff\xff\xff" * 3, "too large", "max_bytes=")


@row(70, OSError, "E071", "other bytes than the published ones: got ", "expected SHA-256 00000000")
def other_bytes(c):
    data.read_idx(IDX, sha256="0" * 64)


@row(71, OSError, "E072", "is not on this machine and cannot be downloaded", "download=False", "BPXP_DATA_DIR",
    "folder=")
def no_network(c):
    c.patch.delenv("BPXP_DATA_DIR", raising=False)
    c.patch.setattr("platformdirs.user_cache_path", lambda *args, **options: c.folder)
    room = sys.modules["bpxp.data.sources.mnist"]
    c.patch.setattr(room, "MNIST", room.MNIST._replace(system=()))
    data.mnist(download=False)


@row(71, OSError, "E072", "no such folder", "write_idx")
def no_data_folder(c):
    data.folder_dataset(c.folder / "nowhere")
