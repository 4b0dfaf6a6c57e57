"""What is printed, and where to: control characters are escaped; no console, a closed pipe and any encoding will do."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import bpxp
from bpxp.callbacks import Checkpoint, Progress
from bpxp.cli import main
from bpxp.core.text import is_terminal, say, shell_word, table
from bpxp.errors import InvalidValueError, printable
from bpxp.saving import header

ESCAPE = "\x1b]0;title\x07\x1b[31m\x9b2J\r\u202e"
X, Y = np.linspace(-1.0, 1.0, 60).reshape(20, 3), np.arange(20) % 2


def network():
    return bpxp.Network([3, 4, 2], backend="numpy", seed=0)


def controls(text):
    return [c for c in text if not c.isprintable() and c != "\n"]


# ---------------------------------------------------------------- control characters


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("é → 数", "é → 数"),
        ("\x1b[31m", r"\x1b[31m"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b\u202e\udcff\x7f", r"\x9b\u202e\udcff\x7f"),
        ("a\\b", "a\\b"),
    ],
)
def test_what_is_not_printable_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable("x\n" + text.replace("\n", ""), keep="\n").startswith("x\n")


def test_errors_and_warnings_escape_what_they_quote():
    error = InvalidValueError(ESCAPE, "a\nb", code="E003", got=ESCAPE, fix=ESCAPE)
    assert not controls(str(error))
    assert "a\nb" in str(error)
    assert not controls(str(error.replaced(where="there")))
    with pytest.warns(bpxp.BpxpWarning) as caught:
        bpxp.errors.warn(ESCAPE, ESCAPE, code="W003")
    assert not controls(str(caught[0].message))


def test_tables_escape_their_cells():
    assert not controls(table([(ESCAPE, "x")]))
    history = bpxp.Trainer(network(), progress=False).fit((X, Y), epochs=1)
    history.append({ESCAPE: ESCAPE} | history[0])
    history.rows[0][ESCAPE] = ESCAPE
    assert not controls(repr(history))


@dataclass(frozen=True)
class Named:
    """A layer with a field that is not checked."""

    units: str = ""

    def init(self, rng, in_shape, /):
        return (), in_shape

    def forward(self, params, x, /, *, xp):
        if type(x) is not np.ndarray:
            raise ValueError(ESCAPE)
        return x, ()

    def backward(self, params, cache, dy, /, *, xp):
        return dy, ()


def test_a_network_shows_strings_of_its_file_escaped(tmp_path):
    path = tmp_path / "m.bpxp"
    bpxp.Network([3, Named(ESCAPE), 2], backend="numpy", seed=0).save(path)
    net = bpxp.Network.load(path, backend="numpy", custom=[Named])
    assert net.layers[0].units == ESCAPE
    assert not controls(repr(net))
    assert not controls(str(net.summary()))


def resealed(path, change):
    """Change the description of a file, which then has a right seal."""
    content = path.read_bytes()
    (n,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + n])
    described = json.loads(head["__metadata__"]["bpxp"])
    change(described)
    described.pop("seal")
    described["seal"] = header.seal(described)
    head["__metadata__"]["bpxp"] = json.dumps(described)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + n :])


FORGERIES = {
    "backend": lambda d: d["written"].update(backend=f"numpy+{ESCAPE}"),
    "dtype": lambda d: d["network"].update(dtype=ESCAPE),
    "loss": lambda d: d["network"].update(loss={"type": ESCAPE}),
    "layer": lambda d: d["network"].update(layers=[{"type": ESCAPE}]),
    "field": lambda d: d["network"]["layers"][0].update({ESCAPE: 1}),
    "optimizer": lambda d: d["run"]["plan"].update(optimizer={"type": ESCAPE}),
    "plan": lambda d: d["run"]["plan"].update(samples=ESCAPE),
    "stop": lambda d: d["run"].update(stop=f"{ESCAPE}\nbpxp: now run x | sh"),
    "callback": lambda d: d["run"].update(callbacks=[{"type": ESCAPE, "state": {}}]),
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.filterwarnings("always")
def test_strings_of_a_foreign_run_are_escaped(tmp_path, forgery, capfd, monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    path = tmp_path / "run.bpxp"
    assert main(["train", "--epochs", "1", "--quiet", "--checkpoint", str(path)]) == 0
    resealed(path, FORGERIES[forgery])
    content = path.read_bytes()
    main(["train", "--epochs", "2", "--resume", str(path)])
    path.write_bytes(content)
    np.save(tmp_path / "x.npy", np.zeros((8, 8), np.uint8))
    main(["predict", str(path), str(tmp_path / "x.npy")])
    out, error = capfd.readouterr()
    assert out + error
    assert not controls(out + error)
    assert "\nbpxp: now run" not in out


def test_a_fit_stops_for_a_reason_that_can_be_printed(tmp_path):
    path = tmp_path / "run.bpxp"
    bpxp.Trainer(network(), callbacks=[Checkpoint(path)], progress=False).fit((X, Y), epochs=1)
    resealed(path, lambda d: d["run"].update(stop=ESCAPE))
    trainer = bpxp.Trainer(network(), progress=False)
    trainer.fit((X, Y), epochs=2, resume=path)
    assert trainer.stop == printable(ESCAPE)


def test_names_of_files_are_escaped_by_the_command_line(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BPXP_BACKEND", "numpy")
    name = f"{ESCAPE}\udcffm.bpxp"
    np.save(f"{ESCAPE}p.npy", np.zeros((8, 8), np.uint8))
    Path(f"{ESCAPE}data").mkdir()
    lines = [
        ["train", "--epochs", "1", "--out", name],
        ["train", "--epochs", "1", "--checkpoint", f"{ESCAPE}c.bpxp"],
        ["train", "--epochs", "2", "--resume", f"{ESCAPE}c.bpxp"],
        ["predict", name, f"{ESCAPE}p.npy"],
        ["predict", f"{ESCAPE}none", f"{ESCAPE}p.npy"],
        ["predict", name, name],
        ["evaluate", name, f"{ESCAPE}data"],
        ["train", ESCAPE],
        ["train", "--backend", ESCAPE],
        ["train", "--optimizer", ESCAPE],
        ["train", "--dtype", ESCAPE],
        ["train", "--layers", ESCAPE],
        ["train", f"--{ESCAPE}"],
        ["replay", f"{ESCAPE}c.bpxp"],
        [ESCAPE],
    ]
    codes = []
    for line in lines:
        with contextlib.suppress(SystemExit):
            codes.append(main(line))
        out, error = capfd.readouterr()
        assert out + error, line
        assert not controls(out + error), line
    assert codes[:4] == [0, 0, 0, 0]


def test_the_line_that_resumes_can_be_pasted(tmp_path):
    word = "it's \x1b[31m\\ \x9b"
    done = subprocess.run(["bash", "-c", f"printf %s {shell_word(word)}"], capture_output=True, check=True)
    assert done.stdout == os.fsencode(word)
    assert (shell_word("a b"), shell_word("a")) == ("'a b'", "a")


# ---------------------------------------------------------------- the stream


class Bare:
    """A stream that has `write` and nothing else."""

    def __init__(self):
        self.text = ""

    def write(self, text):
        self.text += text


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def closed_file():
    stream = io.StringIO()
    stream.close()
    return stream


class LostTerminal(io.StringIO):
    def isatty(self):
        return True

    def write(self, text):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("make", [lambda: None, Bare, closed_pipe, closed_file, LostTerminal])
@pytest.mark.parametrize("given", [False, True])
def test_a_fit_needs_no_standard_output(make, given, monkeypatch):
    stream, callbacks = make(), []
    if given and stream is not None:
        callbacks = [Progress(stream)]
    else:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "stderr", stream)
    try:
        trainer = bpxp.Trainer(network(), callbacks=callbacks, progress=not callbacks)
        assert len(trainer.fit((X, Y), epochs=3)) == 3
    finally:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.close()
    if isinstance(stream, Bare):
        assert stream.text.count("epoch ") == 3


def test_what_is_a_terminal():
    assert not any(map(is_terminal, [None, Bare(), closed_file()]))
    assert is_terminal(LostTerminal())


@pytest.mark.parametrize(
    "line", ["train --epochs 2", "train --epochs 2 --out m.bpxp", "backends", "train --help", "--help"]
)
def test_a_closed_pipe_ends_no_command(line, tmp_path):
    program = f"{sys.executable} -m bpxp {line} | true; exit ${{PIPESTATUS[0]}}"
    how = {
        "env": os.environ | {"BPXP_BACKEND": "numpy", "PYTHONPATH": str(Path(bpxp.__file__).parents[1])},
        "cwd": tmp_path,
    }
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False, **how)
    assert (done.returncode, done.stderr) == (0, "")
    assert not line.endswith("m.bpxp") or bpxp.Network.load(tmp_path / "m.bpxp", backend="numpy").epoch == 2


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp437"])
def test_any_encoding_shows_what_is_printed(encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    say("é → \x1b 数", stream)
    bpxp.Trainer(network(), callbacks=[Progress(stream)], progress=False).fit((X, Y), epochs=1)
    assert b"\\u2192 \\x1b \\u6570" in stream.buffer.getvalue()


def test_print_works_on_a_console_that_is_not_utf8(tmp_path):
    net = bpxp.Network([8, bpxp.nn.BatchNorm(), 3], hidden="relu", backend="numpy", seed=0)
    trainer = bpxp.Trainer(net, progress=False)
    history = trainer.fit((np.ones((6, 8)), np.arange(6) % 3), epochs=1)
    unstable = bpxp.Network([3, 2], loss="mean_squared_error", backend="numpy", seed=0)
    with pytest.raises(bpxp.errors.DivergenceError) as caught:
        bpxp.Trainer(unstable, bpxp.optim.SGD(1e30), progress=False).fit((X, X[:, :2]), epochs=9)
    shown = [
        net, net.summary(), history, net.backend_report, bpxp.replay(caught.value.bundle), bpxp.data.digits()[0],
        bpxp.verify.check_gradients(net, np.ones((6, 8)), np.arange(6) % 3), bpxp.verify.check_equations(net),
        bpxp.verify.certify(net, ["numpy"], steps=1), bpxp.verify.xray(net, backend="numpy", steps=[1]),
        bpxp.verify.bisect(net, "numpy", "numpy", steps=1), bpxp.verify.check_layer(bpxp.nn.Dense(2), 3, backends=["numpy"]),
        bpxp.preflight(net, batch_size=2) if callable(bpxp.preflight) else "", bpxp.available_backends(),
    ]  # fmt: skip
    for thing in shown:
        out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
        print(thing, repr(thing), file=out)
        out.flush()


def test_messages_can_be_printed_on_windows():
    # Text of the program, its docstrings aside, is what a message is made of.
    for path in Path(bpxp.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        docs = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
                assert node.value.encode("cp1252", "replace").decode("cp1252") == node.value, f"{path}:{node.lineno}"


# ---------------------------------------------------------------- the bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_one_bar_for_the_whole_fit(monkeypatch):
    from rich.progress import Progress as Bar

    tasks, places = [], []
    real_add, real_update = Bar.add_task, Bar.update
    monkeypatch.setattr(Bar, "add_task", lambda self, *a, **k: tasks.append(a) or real_add(self, *a, **k))
    monkeypatch.setattr(Bar, "update", lambda self, task, **k: places.append(k) or real_update(self, task, **k))
    net = network()
    bpxp.Trainer(net, callbacks=[Progress(Terminal())], progress=False).fit((X, Y), epochs=3, batch_size=5)
    assert len(tasks) == 1
    assert [place["completed"] for place in places] == list(range(1, 13))
    assert {place["total"] for place in places} == {12}
    assert places[0]["description"] == "epoch 1/3"
    assert places[-1]["description"] == "epoch 3/3"
    places.clear()
    bpxp.Trainer(net, callbacks=[Progress(Terminal())], progress=False).fit((X, Y), epochs=2, batch_size=5)
    assert [place["completed"] for place in places] == list(range(1, 9))  # of this fit, whatever was before
    assert places[-1]["description"] == "epoch 5/5"


def test_brackets_in_a_line_are_no_markup(tmp_path):
    path, stream = tmp_path / "run[bold]:smile:.bpxp", Terminal()
    bpxp.Trainer(network(), callbacks=[Checkpoint(path)], progress=False).fit((X, Y), epochs=1)
    bpxp.Trainer(network(), callbacks=[Progress(stream)], progress=False).fit((X, Y), epochs=2, resume=path)
    assert re.search(r"run\[bold\]:smile:\.bpxp", stream.getvalue().replace("\n", ""))
