"""Atomic replace: the old file or the new one, also after kills and on full disks, and no leftovers."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import bpxp
from bpxp.callbacks import Checkpoint
from bpxp.core import atomic
from bpxp.core.atomic import check_writable, replacing, sweep, write_atomically
from bpxp.errors import BpxpWarning

LEFTOVER = f"{atomic.BEGIN}0123456789abcdef{atomic.END}"


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "file.bpxp"
    path.write_bytes(b"old")
    return path


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


# ---------------------------------------------------------------- one file


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), SystemExit(143)])
@pytest.mark.parametrize("where", ["block", "fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_no_other(path, where, error, monkeypatch):
    def fail(*arguments):
        raise error

    if where != "block":
        monkeypatch.setattr(os, where, fail)
    with pytest.raises(type(error)), replacing(path) as stream:  # noqa: PT012
        stream.write(b"new")
        if where == "block":
            fail()
    monkeypatch.undo()
    assert (path.read_bytes(), names(path.parent)) == (b"old", [path.name])


def test_the_content_is_on_the_disk_before_the_name(path, monkeypatch):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, name=name, real=real: (calls.append(name), real(*a)))
    write_atomically(path, b"new")
    assert calls == ["fsync", "replace", "fsync"]  # of the file, and of its folder
    assert path.read_bytes() == b"new"


def test_leftovers_are_swept_and_nothing_else(path):
    mine = path.parent / "notes.part"
    for other in (path.parent / LEFTOVER, mine):
        other.write_bytes(b"half")
    write_atomically(path, b"new")
    assert names(path.parent) == sorted([path.name, mine.name])


def test_a_file_that_is_being_written_is_not_swept(path):
    with replacing(path) as first:
        first.write(b"first")
        with replacing(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
        sweep(path.parent)
    assert (path.read_bytes(), names(path.parent)) == (b"first", [path.name])


def test_a_sweeper_that_comes_between_is_survived(path, monkeypatch):
    # Another process sweeps after this one has created its file and before it holds it.
    real, others = open, []

    def slow(file, mode, **how):
        stream = real(file, mode, **how)
        if mode == "xb" and not others:
            others.append(file)
            sweep(path.parent)
        return stream

    monkeypatch.setattr(atomic, "open", slow, raising=False)
    write_atomically(path, b"new")
    assert (path.read_bytes(), names(path.parent)) == (b"new", [path.name])
    assert not others[0].exists()


def test_through_a_link_the_file_itself_is_replaced(path, tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = folder / "latest.bpxp"
    link.symlink_to(path)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert path.read_bytes() == b"new"


def test_many_writers_and_sweepers(path):
    def write(content):
        for _ in range(20):
            write_atomically(path, content)

    contents = [bytes([65 + i]) * 10_000 for i in range(4)]
    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert names(path.parent) == [path.name]


def test_what_would_fail_later_fails_now(path, tmp_path, monkeypatch):
    check_writable(path, 1000)
    assert (path.read_bytes(), names(tmp_path)) == (b"old", [path.name])
    with pytest.raises(FileNotFoundError, match=r"cannot write file\.bpxp: No such file or directory: .*/nowhere'$"):
        check_writable(tmp_path / "nowhere" / "file.bpxp", 0)
    with pytest.raises(IsADirectoryError):
        check_writable(tmp_path, 0)
    with pytest.raises(OSError, match=r"needs 1,000,000,000,000.0 MB of free space, .* MB available") as caught:
        check_writable(path, 10**18)
    assert caught.value.errno == errno.ENOSPC

    def refused(*arguments, **how):
        raise PermissionError(errno.EACCES, "Permission denied", arguments[0])

    monkeypatch.setattr(atomic, "open", refused, raising=False)  # a test may run as root, whom no mode stops
    with pytest.raises(PermissionError):
        check_writable(path, 0)


# ---------------------------------------------------------------- a fit on a disk that fails

X, Y = np.linspace(-1.0, 1.0, 60).reshape(20, 3), np.arange(20) % 2


def fit(path, epochs=4, **options):
    net = bpxp.Network([3, 4, 2], backend="numpy", seed=0)
    callbacks = [Checkpoint(path, **options)]
    trainer = bpxp.Trainer(net, callbacks=callbacks, progress=False)
    return net, trainer, lambda: trainer.fit((X, Y), epochs=epochs, batch_size=5)


def failing(monkeypatch, number, which):
    """Let the saves `which`, counted from 0, fail in fsync."""
    real, count = os.fsync, []

    def fsync(descriptor):
        if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            count.append(descriptor)
            if len(count) - 1 in which:
                raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EFBIG, errno.EDQUOT])
def test_a_save_that_fails_costs_a_warning(tmp_path, monkeypatch, number):
    path = tmp_path / "run.bpxp"
    _, _, run = fit(path)
    failing(monkeypatch, number, {1, 2})
    with pytest.warns(BpxpWarning, match="epoch [23] done could not be saved .*intact.*training goes on") as caught:
        assert len(run()) == 4
    assert len(caught) == 2
    assert bpxp.Network.load(path, backend="numpy").epoch == 4
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, OSError), (errno.EACCES, PermissionError)])
def test_if_the_last_save_fails_the_fit_says_so_at_its_end(tmp_path, monkeypatch, number, error):
    path = tmp_path / "run.bpxp"
    net, trainer, run = fit(path)
    failing(monkeypatch, number, {2, 3})
    with (
        pytest.warns(BpxpWarning, match="could not be saved"),
        pytest.raises(error, match="intact.*run.bpxp") as caught,
    ):
        run()
    assert caught.value.errno == number
    assert (net.epoch, len(trainer.history)) == (4, 4)  # the training is not lost
    assert bpxp.Network.load(path, backend="numpy").epoch == 2
    assert names(tmp_path) == [path.name]


def test_before_the_first_step_the_place_is_tried(tmp_path, monkeypatch):
    net, _, run = fit(tmp_path / "nowhere" / "run.bpxp")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run()
    assert (net.epoch, net.training) == (0, False)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    net, _, run = fit(tmp_path / "run.bpxp")
    with pytest.raises(OSError, match="0.0 MB available"):
        run()
    assert (net.epoch, names(tmp_path)) == (0, [])


def test_what_is_not_finite_is_not_saved(tmp_path):
    path = tmp_path / "run.bpxp"
    net, _, _ = fit(path)
    before = []

    class Poison(bpxp.callbacks.Callback):
        def on_pause(self, trainer, why):  # after the doctor's look, and before the checkpoint
            if trainer.run.steps == 6:
                before.append(path.read_bytes())
                trainer.run.state.params[0].W[0, 0] = np.nan

    trainer = bpxp.Trainer(net, callbacks=[Poison(), Checkpoint(path, steps=1)], progress=False)
    warns, raises = (
        pytest.warns(BpxpWarning, match="epoch 2, step [23] of 4: a parameter is not finite"),
        FloatingPointError,
    )
    with warns, np.errstate(all="ignore"), pytest.raises(raises):
        trainer.fit((X, Y), epochs=3, batch_size=5)
    assert [path.read_bytes()] == before
    assert bpxp.Network.load(path, backend="numpy").epoch == 1


# ---------------------------------------------------------------- killed, and full, for real

WRITERS = Path(__file__).parents[1] / "helpers" / "killed_writers.py"


def nursery(what, folder, count):
    """Run trials in a process that has children and limits of its own; return what it counted."""
    line = [sys.executable, str(WRITERS), what, str(folder), str(count)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_while_saving(tmp_path, nightly, promise):
    found = nursery("kill", tmp_path, 500 if nightly else 15)
    promise(
        "A run that saves every step, killed by kill -9 at a random time and resumed (numpy)",
        "{kills} kills, {halfway} of them halfway through a file; {lost} lost, {unreadable} unreadable, {leftovers} leftovers after the next save, "
        "{different} of {resumed} resumed runs with a differing bit".format(**found),
    )
    assert found["saved"] > found["kills"] / 2, found  # most were killed after a first file was there
    assert [found[name] for name in ("lost", "unreadable", "leftovers", "different")] == [0, 0, 0, 0]


def test_a_disk_that_is_full(tmp_path, nightly, promise):
    pytest.importorskip("resource")
    found = nursery("full", tmp_path, 100 if nightly else 10)
    promise(
        "Saving with no space left (file size limit)",
        "{trials} saves refused, previous file intact {intact} times, {leftovers} leftovers".format(**found),
    )
    assert found["intact"] == found["trials"]
    assert found["leftovers"] == 0
