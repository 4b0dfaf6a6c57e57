"""Trials for test_atomic.py that kill children, or take the process's own rights away: in a process apart.

``python killed_writers.py kill|full FOLDER COUNT`` prints what it counted, as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path

import numpy as np

import bpxp
from bpxp import nn, optim
from bpxp.callbacks import Callback, Checkpoint
from bpxp.core.tree import named_leaves
from bpxp.saving.format import read

X = np.random.default_rng(0).normal(size=(40, 20)).astype(np.float32)
Y = np.arange(40) % 3
LAYERS = [20, nn.Dense(300, activation="relu"), nn.Dropout(0.3), 3]


class Ready(Callback):
    """Says through a pipe that training begins."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def on_batches(self, trainer: bpxp.Trainer, done: int, total: int) -> None:
        if self.pipe:
            os.write(self.pipe, b"!")
        self.pipe = 0


def fit(path: Path, *, pipe: int = 0, epochs: int = 25) -> dict[str, bytes]:
    """Train, every step saved, from where the file stands; return all bits."""
    net = bpxp.Network(LAYERS, backend="numpy", seed=0)
    callbacks = [Ready(pipe), Checkpoint(path, steps=1)]
    trainer = bpxp.Trainer(net, optim.Adam(0.01), callbacks=callbacks, progress=False)
    history = trainer.fit((X, Y), epochs=epochs, batch_size=16, resume=True)
    arrays = {name: a.tobytes() for name, a in named_leaves((net.params, net.opt_state))}
    return {**arrays, "loss": json.dumps(history["loss"]).encode()}


def kill(folder: Path, count: int) -> dict[str, int]:
    wanted = fit(folder / "whole.bpxp")
    (folder / "whole.bpxp").unlink()
    found = dict.fromkeys(["kills", "halfway", "saved", "lost", "unreadable", "leftovers", "resumed", "different"], 0)
    path, chance, last = folder / "run.bpxp", random.Random(0), 0
    while found["kills"] < count:
        hear, tell = os.pipe()
        child = os.fork()
        if not child:
            try:
                fit(path, pipe=tell)
                os._exit(0)
            except BaseException:
                os._exit(1)
        os.close(tell)
        os.read(hear, 1)
        os.close(hear)
        time.sleep(chance.uniform(0.0, 0.02))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):  # it was through: this run is compared, and the next one begins
            assert os.WEXITSTATUS(status) == 0
            found["resumed"] += 1
            found["different"] += fit(path) != wanted
            path.unlink()
            last = 0
            continue
        found["kills"] += 1
        found["halfway"] += len(list(folder.glob(".*"))) > 0
        if not path.exists():
            found["lost"] += last > 0  # there was a file, and there is none
            continue
        found["saved"] += 1
        try:
            step = int(read(path)[0]["opt/t"][0])
            found["lost"] += step < last  # an older file than the one that was there
            last = step
        except Exception:
            found["unreadable"] += 1
    found["resumed"] += 1
    found["different"] += fit(path) != wanted  # and the last one, to its end: the next saves sweep
    found["leftovers"] = len(list(folder.iterdir())) - 1
    return found


def full(folder: Path, count: int) -> dict[str, int]:
    import resource

    warnings.simplefilter("ignore")
    path, found = folder / "run.bpxp", {"trials": 0, "intact": 0, "leftovers": 0}
    fit(path, epochs=1)
    before, size = path.read_bytes(), path.stat().st_size
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for trial in range(count):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size * trial // count, hard))
        try:
            fit(path, epochs=2)
            raise AssertionError("there was no room, and nobody said so")
        except OSError:
            pass
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        found["trials"] += 1
        found["intact"] += path.read_bytes() == before
        found["leftovers"] += len(list(folder.iterdir())) - 1
    return found


if __name__ == "__main__":
    what, folder, count = sys.argv[1:]
    print(json.dumps({"kill": kill, "full": full}[what](Path(folder), int(count))))
