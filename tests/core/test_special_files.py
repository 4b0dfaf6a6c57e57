"""Writing: what is no regular file is refused, modes and links stay, and `~` is the home folder wherever a path is taken."""

from __future__ import annotations

import os
import pwd
import socket
import stat
from pathlib import Path

import numpy as np
import pytest

import bpxp
from bpxp.callbacks import Checkpoint, CSVLog
from bpxp.cli import main
from bpxp.core.atomic import check_writable, write_atomically
from bpxp.core.checks import as_path
from bpxp.errors import InvalidTypeError, InvalidValueError

X, Y = np.linspace(-1.0, 1.0, 60).reshape(20, 3), np.arange(20) % 2
NET = bpxp.Network([3, 2], backend="numpy", seed=0)


def fit(*callbacks, **options):
    net = bpxp.Network([3, 2], backend="numpy", seed=0)
    bpxp.Trainer(net, callbacks=callbacks, progress=False).fit((X, Y), epochs=2, batch_size=5, **options)


def diverge(path):
    net = bpxp.Network([3, 2], loss="mean_squared_error", backend="numpy", seed=0)
    with pytest.raises(bpxp.errors.DivergenceError) as caught:
        bpxp.Trainer(net, bpxp.optim.SGD(1e30), progress=False).fit((X, X[:, :2]), epochs=9, bundle=path)
    if caught.value.file is None:
        raise OSError(caught.value.__notes__)


# Everything that writes to a path of the user's.
WRITERS = {
    "save": NET.save,
    "write_idx": lambda path: bpxp.data.write_idx(path, np.zeros(3, np.uint8)),
    "check_writable": lambda path: check_writable(Path(path), 0),
    "Checkpoint": lambda path: fit(Checkpoint(path)),
    "CSVLog": lambda path: fit(CSVLog(path)),
    "bundle": diverge,
    "certificate": lambda path: bpxp.verify.certify(NET, ["numpy"], steps=1).save(path),
    "xray": lambda path: bpxp.verify.xray(NET, backend="numpy", steps=[1]).save(path),
}
COMMANDS = {
    "train": "train --epochs 1 --quiet --out",
    "checkpoint": "train --epochs 1 --quiet --checkpoint",
    "certify": "certify --layers 3,2 --backends numpy --steps 1 --out",
    "bisect": "bisect numpy numpy --layers 3,2 --steps 1 --out",
    "xray": "xray --layers 3,2 --backend numpy --at 1 --out",
}


def special(folder, kind):
    """Make a special file of the test's own, and never touch one of the machine."""
    path = folder / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        except OSError:
            pytest.skip("only root may make a device")
    return path


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_is_refused(tmp_path, writer, kind, linked):
    path = special(tmp_path, kind)
    asked = path
    if linked:
        asked = tmp_path / "link"
        asked.symlink_to(path)
    before = path.lstat()
    with pytest.raises(OSError, match="no regular file"):
        WRITERS[writer](asked)
    after = path.lstat()
    assert (after.st_ino, after.st_mode, after.st_rdev) == (before.st_ino, before.st_mode, before.st_rdev)
    assert asked.is_symlink() == linked
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({kind, asked.name})


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_refuses_it_before_the_work(tmp_path, command, capsys, monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    path = special(tmp_path, "pipe")
    assert main([*COMMANDS[command].split(), str(path)]) == 1
    out, error = capsys.readouterr()
    assert "a named pipe and no regular file" in error
    assert "accuracy" not in out
    assert stat.S_ISFIFO(path.lstat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o660, 0o666, 0o755])
@pytest.mark.parametrize("writer", sorted(set(WRITERS) - {"check_writable"}))
def test_the_mode_of_a_file_stays(tmp_path, writer, mode):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    WRITERS[writer](path)
    assert path.read_bytes() != b"old"
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_new_file_follows_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        NET.save(tmp_path / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_private_file_is_private_while_it_is_written(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    path.write_bytes(b"old")
    path.chmod(0o600)
    real = os.open

    def watched(name, flags, mode=0o777, **how):
        descriptor = real(name, flags, mode, **how)
        if str(name).endswith(".part"):
            seen.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        return descriptor

    monkeypatch.setattr(os, "open", watched)
    write_atomically(path, b"new")
    assert seen == [0o600]


def test_the_owner_of_a_file_stays(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root may give a file away")
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.chown(path, 12345, 54321)
    NET.save(path)
    assert (path.stat().st_uid, path.stat().st_gid) == (12345, 54321)


def test_a_write_protected_file_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o444)
    if os.geteuid() == 0:  # whom no mode stops
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    for writer in WRITERS.values():
        with pytest.raises(OSError, match="Permission denied"):
            writer(path)
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("writer", WRITERS)
def test_a_missing_folder_is_named_as_it_was_asked_for(tmp_path, writer, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "here").symlink_to("real")
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(OSError, match="No such file or directory") as caught:
        WRITERS[writer]("models/new/m.bpxp")
    assert "'models/new" in str(caught.value) or "models/new" in str(getattr(caught.value, "__notes__", ""))
    assert "real" not in str(caught.value)
    assert not (tmp_path / "here" / "models").exists()


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "models").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match=r"cannot write m.bpxp.*models'"):
        NET.save(tmp_path / "models" / "m.bpxp")


def test_a_link_to_nowhere_names_where_it_leads(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "gone" / "m.bpxp")
    with pytest.raises(FileNotFoundError, match=r"gone'"):
        NET.save(tmp_path / "link")


# ---------------------------------------------------------------- the home folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    monkeypatch.delenv("BPXP_DATA_DIR", raising=False)
    monkeypatch.chdir(here)
    yield home
    assert not list(here.iterdir())  # no folder named "~"


@pytest.mark.parametrize("writer", sorted(set(WRITERS) - {"check_writable"}))
@pytest.mark.parametrize("kind", [str, Path])
def test_what_is_written_to_the_home_folder(home, writer, kind):
    WRITERS[writer](kind("~/file"))
    assert (home / "file").stat().st_size


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_writes_to_the_home_folder(home, command):
    *line, option = COMMANDS[command].split()
    assert main([*line, f"{option}=~/file"]) == 0
    assert (home / "file").stat().st_size


def test_what_is_read_from_the_home_folder(home, monkeypatch):
    fit(Checkpoint(home / "run.bpxp"))
    NET.save(home / "m.bpxp")
    assert bpxp.Network.load("~/m.bpxp", backend="numpy").size == NET.size
    fit(Checkpoint("~/run.bpxp"), resume="~/run.bpxp")
    fit(Checkpoint("~/run.bpxp"), resume=True)
    diverge(home / "d.bpxp")
    assert bpxp.replay("~/d.bpxp").step
    bpxp.data.write_idx(home / "a", np.arange(3, dtype=np.uint8))
    assert bpxp.data.read_idx("~/a").tolist() == bpxp.data.map_idx("~/a").tolist() == [0, 1, 2]
    np.save(home / "x.npy", np.zeros((8, 8), np.uint8))
    bpxp.Network([64, 10], backend="numpy", seed=0).save(home / "digits.bpxp")
    assert main(["predict", "~/digits.bpxp", "~/x.npy"]) == 0


def test_data_in_the_home_folder(home, monkeypatch):
    from bpxp.data.sources import mnist as module

    for part, n in (("train", 12), ("t10k", 6)):
        (home / "data").mkdir(exist_ok=True)
        bpxp.data.write_idx(home / "data" / f"{part}-images-idx3-ubyte", np.zeros((n, 2, 2), np.uint8))
        bpxp.data.write_idx(home / "data" / f"{part}-labels-idx1-ubyte", (np.arange(n) % 2).astype(np.uint8))
    assert len(bpxp.data.folder_dataset("~/data")[0]) == 12
    assert main(["train", "~/data", "--epochs", "1", "--batch-size", "4", "--quiet"]) == 0

    looked = []
    monkeypatch.setattr(module, "candidates", lambda place, name: looked.append(place) or [])
    for how in ("folder", "environment"):
        looked.clear()
        if how == "environment":
            monkeypatch.setenv("BPXP_DATA_DIR", "~/data")
        with pytest.raises(bpxp.errors.DatasetUnavailableError):
            bpxp.data.mnist(folder="~/data" if how == "folder" else None, download=False)
        assert looked[:3] == [home / "data" / "mnist", home / "data" / "MNIST" / "raw", home / "data"]


def test_which_paths_are_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", "/h")
    monkeypatch.chdir(tmp_path)
    assert as_path("~", "x") == Path("/h")
    assert as_path(f"~{pwd.getpwuid(0).pw_name}/a", "x") == Path(pwd.getpwuid(0).pw_dir) / "a"
    # As in a shell: a file of that name, and none of a user who does not exist.
    for text in ("./~/a", "~no-such-user/a", "~$book.npy"):
        assert as_path(as_path(text, "x"), "x") == tmp_path / text
    assert as_path("a~/b", "x") == Path("a~/b")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("", InvalidValueError),
        ("a\0b", InvalidValueError),
        (b"a", InvalidTypeError),
        (3, InvalidTypeError),
        (None, InvalidTypeError),
    ],
)
def test_what_is_no_path(path, error):
    for call in (NET.save, bpxp.Network.load, Checkpoint, CSVLog, bpxp.data.folder_dataset, bpxp.data.map_idx):
        with pytest.raises(error, match=r"path"):
            call(path)
