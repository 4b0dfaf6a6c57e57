"""Ctrl-C and SIGTERM: the step is finished, the run saved, the way on printed, and the signal passed on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from helpers.small_runs import Cut

import bpxp
from bpxp import nn, optim
from bpxp.callbacks import Callback, Checkpoint
from bpxp.core.tree import named_leaves
from bpxp.training.interrupts import Interrupts

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(60, 8)).astype(np.float32), rng.integers(0, 3, 60)
ENDLESS = 10**7


def network(backend):
    return bpxp.Network([8, nn.Dense(16, activation="tanh"), nn.Dropout(0.2), 3], backend=backend, seed=1)


def fit(net, callbacks=(), epochs=ENDLESS, **options):
    trainer = bpxp.Trainer(net, optim.SGD(0.1, momentum=0.9), callbacks=callbacks, progress=False)
    return trainer.fit((X, Y), epochs=epochs, batch_size=7, **options)


def bits(net):
    return {name: net.backend.to_numpy(a).tobytes() for name, a in named_leaves((net.params, net.opt_state))}


class Send(Callback):
    """Sends signals after some mini-batches, as a terminal would."""

    def __init__(self, *signals, after=4):
        self.signals, self.after, self.calls = signals, after, 0

    def on_batches(self, trainer, done, total):
        self.calls += 1
        if self.calls == self.after:
            for number in self.signals:
                signal.raise_signal(number)


def after(backend, steps):
    """Return the bits of a network after that number of steps."""
    net = network(backend)
    with pytest.raises(Cut.Now):
        fit(net, [Cut(steps)])
    return bits(net)


@pytest.fixture(autouse=True)
def handlers():
    """The handlers are those of a program in the foreground, also if the tests run in the background, and stay so."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    assert {number: signal.signal(number, handler) for number, handler in before.items()} == usual


def test_ctrl_c_finishes_the_step_saves_and_says_how_to_go_on(backend, tmp_path, capsys):
    path = tmp_path / "run.bpxp"
    net = network(backend)
    with pytest.raises(KeyboardInterrupt):
        fit(net, [Send(signal.SIGINT), Checkpoint(path)])
    error = capsys.readouterr().err
    assert error == f"Ctrl-C in epoch 1, step {net._steps} of 9; to go on: trainer.fit(…, resume={str(path)!r})\n"
    assert not net.training
    whole = network(backend)
    assert fit(whole, epochs=2)["loss"] == fit(net, epochs=2, resume=path)["loss"]
    assert bits(whole) == bits(net)


def test_between_epochs(tmp_path, capsys):
    class AtTheEnd(Callback):
        def on_epoch_end(self, trainer, row):
            signal.raise_signal(signal.SIGINT)

    net, path = network("numpy"), tmp_path / "run.bpxp"
    with pytest.raises(KeyboardInterrupt):
        fit(net, [Checkpoint(path), AtTheEnd()])
    assert "Ctrl-C in epoch 1 done; to go on" in capsys.readouterr().err
    assert bpxp.Network.load(path, backend="numpy").epoch == net.epoch == 1
    assert bits(net) == after("numpy", 9)


def test_return_for_notebooks(tmp_path, capsys):
    net = network("numpy")
    send = Send(signal.SIGINT, after=13)
    trainer = bpxp.Trainer(net, callbacks=[send], progress=False)
    history = trainer.fit((X, Y), epochs=ENDLESS, batch_size=7, on_interrupt="return")
    assert (len(history), history is trainer.history, trainer.stop) == (1, True, "Ctrl-C")
    assert (
        "nothing is saved, which callbacks=[bpxp.callbacks.Checkpoint('run.bpxp')] would do" in capsys.readouterr().err
    )
    with pytest.raises(ValueError, match="'raise' or 'return'"):
        fit(net, on_interrupt="stop")


@pytest.mark.parametrize("on_interrupt", ["raise", "return"])
def test_sigterm_ends_the_program(tmp_path, on_interrupt):
    net, path = network("numpy"), tmp_path / "run.bpxp"
    with pytest.raises(SystemExit) as stop:
        fit(net, [Send(signal.SIGTERM), Checkpoint(path)], on_interrupt=on_interrupt)
    assert stop.value.code == 143
    assert bits(net) == after("numpy", net._steps)


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_second_signal_ends_at_once(second, tmp_path):
    path, send = tmp_path / "run.bpxp", Send(signal.SIGINT, second)
    with pytest.raises(KeyboardInterrupt if second == signal.SIGINT else SystemExit):
        fit(network("numpy"), [send, Checkpoint(path)])
    assert send.calls == 4
    assert not path.exists()  # nothing was waited for


def test_a_signal_that_is_ignored_stays_ignored():
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of a program that a shell has put into the background
    try:
        assert len(fit(network("numpy"), [Send(signal.SIGINT)], epochs=2)) == 2
    finally:
        signal.signal(signal.SIGINT, old)


def test_a_handler_of_the_programs_own_decides():
    heard = []
    old = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        history = fit(network("numpy"), [Send(signal.SIGTERM, after=13)])
        assert (len(history), heard) == (1, [signal.SIGTERM])
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_fit_within_a_fit(tmp_path):
    # A search over hyper-parameters, say: the inner fit ends, and passes the signal on to the outer one.
    class Inner(Callback):
        def on_epoch_end(self, trainer, row):
            inner = network("numpy")
            fit(inner, [Send(signal.SIGINT)])
            assert inner._steps == 4

    net = network("numpy")
    with pytest.raises(KeyboardInterrupt):
        fit(net, [Inner(), Checkpoint(tmp_path / "run.bpxp")])
    assert net.epoch == 1


def test_other_threads_install_nothing():
    found = []

    def work():
        before = signal.getsignal(signal.SIGINT)
        with Interrupts() as interrupts:
            found.append(signal.getsignal(signal.SIGINT) == before)
        interrupts.pass_on()
        found.append(len(fit(network("numpy"), epochs=2)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, 2]


def test_interrupts_at_random_times(tmp_path, nightly, promise):
    # The network in memory and the one in the file are those of a whole number of steps, wherever the signal falls.
    path, torn, trials = tmp_path / "run.bpxp", 0, 300 if nightly else 15
    for trial in range(trials):
        net = network("numpy")
        delay = random.Random(trial).uniform(0.0, 0.05)
        begun = threading.Event()

        class Begin(Callback):
            def on_fit_begin(self, trainer, begun=begun):
                begun.set()

        def interrupt(begun=begun, delay=delay):
            begun.wait()
            time.sleep(delay)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            fit(net, [Begin(), Checkpoint(path)])
        thread.join()
        # To that very step on another way: resumed from the file, nothing is left to do; from the beginning, all.
        saved = bpxp.Network.load(path, backend="numpy")
        same = [saved._steps == net._steps, all(map(np.array_equal, leaves(saved), leaves(net)))]
        same.append(net._steps == 0 or bits(net) == after("numpy", net._steps))
        torn += not all(same)
    promise("A fit interrupted by Ctrl-C at a random time (numpy)", f"{trials} interrupts, {torn} torn models")
    assert torn == 0


def leaves(net):
    return [net.backend.to_numpy(a) for _, a in named_leaves(net.params)]


SCRIPT = """
import sys, numpy as np, bpxp
class Ready(bpxp.callbacks.Callback):
    def on_epoch_end(self, trainer, row):
        if row["epoch"] == 2:
            print("ready", flush=True)
net = bpxp.Network([4, 8, 2], backend="numpy", seed=0)
callbacks = [Ready(), bpxp.callbacks.Checkpoint(sys.argv[1])]
trainer = bpxp.Trainer(net, callbacks=callbacks, progress=False)
x = np.zeros((50, 4)) + np.arange(4)
trainer.fit((x, np.arange(50) % 2), epochs=10**7, batch_size=5)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("program", ["script", "command"])
def test_exit_codes(number, code, program, tmp_path):
    path = tmp_path / "run.bpxp"
    if program == "script":
        line = [sys.executable, "-c", SCRIPT, str(path)]
    else:
        line = [
            sys.executable,
            "-m",
            "bpxp",
            "train",
            "--epochs",
            "100000",
            "--checkpoint",
            str(path),
            "--backend",
            "numpy",
        ]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    if program == "command":
        process.stdout.readline()  # the first line is the network, the second the first epoch
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    # A shell says 130 also of a program that Ctrl-C has killed; subprocess says -2.
    assert process.returncode in ((-number, code) if program == "script" else (code,))
    assert str(path) in error
    assert "to go on: " in error
    assert bpxp.Network.load(path, backend="numpy").epoch >= 1
