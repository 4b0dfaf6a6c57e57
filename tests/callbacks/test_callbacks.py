"""Callbacks: when early stopping stops, what it brings back, what is written."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

import bpxp
from bpxp.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping, Progress
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.optim import SGD


@pytest.fixture
def net(backend):
    return bpxp.Network([3, 4, 2], backend=backend, seed=0)


@pytest.fixture
def data(rng):
    return rng.normal(size=(12, 3)), np.arange(12) % 2


class Script(Callback):
    """Puts given numbers into the history, and notes the parameters of each epoch."""

    def __init__(self, *values):
        self.values, self.params = values, []

    def on_epoch_end(self, trainer, row):
        row["score"] = self.values[row["epoch"] - 1]
        self.params.append([trainer.net.backend.to_numpy(a) for own in trainer.net.params for a in own])


def run(net, data, values, **options):
    script, stopping = Script(*values), EarlyStopping("score", **options)
    trainer = bpxp.Trainer(net, SGD(0.1), callbacks=[script, stopping], progress=False)
    return trainer, trainer.fit(data, epochs=len(values), batch_size=4), script, stopping


@pytest.mark.parametrize(
    ("values", "options", "epochs", "best"),
    [
        ([3.0, 2.0, 1.0, 0.5], {"mode": "min", "patience": 1}, 4, 4),
        ([3.0, 2.0, 2.0, 1.0], {"mode": "min", "patience": 1}, 3, 2),
        ([3.0, 2.0, 2.0, 2.0, 0.0], {"mode": "min", "patience": 2}, 4, 2),
        ([3.0, 2.0, 2.5, 1.0, 2.0, 2.0, 0.0], {"mode": "min", "patience": 2}, 6, 4),
        ([1.0, 2.0, 1.0, 0.0], {"mode": "max", "patience": 2}, 4, 2),
        ([3.0, 2.9, 2.8, 2.7], {"mode": "min", "patience": 2, "min_delta": 0.5}, 3, 1),
        ([float("nan"), float("nan"), 1.0], {"mode": "min", "patience": 2}, 2, None),
        ([1.0, float("nan"), 0.5, 2.0], {"mode": "min", "patience": 2}, 4, 3),
    ],
)
def test_early_stopping_counts(net, data, values, options, epochs, best):
    trainer, history, script, stopping = run(net, data, values, **options)
    assert (len(history), stopping.best_epoch) == (epochs, best)
    assert bool(trainer.stop) == (epochs < len(values) or len(values) - (best or 0) >= options["patience"])
    kept = script.params[(best or epochs) - 1]
    for a, b in zip([net.backend.to_numpy(a) for own in net.params for a in own], kept, strict=True):
        assert np.array_equal(a, b)


def test_early_stopping_brings_the_statistics_back_too(backend, data):
    # Those of the last epoch would not belong to the parameters of the best one.
    net = bpxp.Network([3, 4, bpxp.nn.BatchNorm(), 2], backend=backend, seed=0)
    stopping = EarlyStopping("validation_loss", patience=2, mode="max")
    trainer = bpxp.Trainer(net, SGD(0.5), callbacks=[stopping], progress=False)
    history = trainer.fit(data, epochs=6, batch_size=4, validation=data)
    assert stopping.best_epoch < len(history)
    assert net.evaluate(*data)["loss"] == history[stopping.best_epoch - 1]["validation_loss"]


def test_infinity_is_no_improvement(net, data):
    _, history, _, stopping = run(net, data, [1.0, float("inf"), 0.5, 0.4], mode="max", patience=3)
    assert (len(history), stopping.best_epoch) == (4, 1)


def test_early_stopping_without_bringing_back(net, data):
    _, _, script, _ = run(net, data, [1.0, 2.0, 3.0], mode="min", patience=2, restore_best=False)
    for a, b in zip([net.backend.to_numpy(a) for own in net.params for a in own], script.params[-1], strict=True):
        assert np.array_equal(a, b)


def test_unknown_column_is_named(net, data):
    trainer = bpxp.Trainer(net, SGD(0.1), callbacks=[EarlyStopping()], progress=False)
    with pytest.raises(InvalidValueError, match=r"'validation_loss'.*one of epoch, loss.*validation="):
        trainer.fit(data, epochs=1, batch_size=4)
    assert net.epoch == 0


@pytest.mark.parametrize(
    ("options", "error"),
    [({"patience": 0}, ValueError), ({"patience": 1.5}, TypeError), ({"min_delta": -1}, ValueError)],
)
def test_bad_options(options, error):
    with pytest.raises(error):
        EarlyStopping(**options)
    with pytest.raises(ValueError, match="'min' or 'max'"):
        EarlyStopping(mode="low")
    with pytest.raises(ValueError, match="'min' or 'max'"):
        Checkpoint("run.bpxp", monitor="loss", mode="maximum")


def test_checkpoint_each_epoch_and_the_best(net, data, tmp_path):
    script = Script(1.0, 3.0, 2.0)
    callbacks = [
        script,
        Checkpoint(tmp_path / "e{epoch}.bpxp"),
        Checkpoint(tmp_path / "best.bpxp", monitor="score", mode="max"),
    ]
    bpxp.Trainer(net, SGD(0.1), callbacks=callbacks, progress=False).fit(data, epochs=3, batch_size=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.bpxp", "e1.bpxp", "e2.bpxp", "e3.bpxp"]
    for name, epoch in (("e1", 1), ("e3", 3), ("best", 2)):
        loaded = bpxp.Network.load(tmp_path / f"{name}.bpxp", backend="numpy")
        for a, b in zip([a for own in loaded.params for a in own], script.params[epoch - 1], strict=True):
            assert np.array_equal(a, b)


def test_csv_log(net, data, tmp_path):
    path = tmp_path / "log.csv"
    trainer = bpxp.Trainer(net, SGD(0.1), callbacks=[CSVLog(path)], progress=False)
    history = trainer.fit(data, epochs=3, batch_size=4, validation=data)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == history.columns
    assert [float(row["loss"]) for row in rows] == history["loss"]


def test_plain_lines_without_a_terminal(net, data):
    text = io.StringIO()
    trainer = bpxp.Trainer(net, SGD(0.1), callbacks=[Progress(text)], progress=False)
    trainer.fit(data, epochs=10, batch_size=4, validation=data)
    lines = text.getvalue().splitlines()
    assert len(lines) == 10
    assert lines[0].startswith("epoch  1/10  loss 0.")
    assert "validation accuracy" in lines[9]


def test_bar_on_a_terminal(net, data):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    text = Terminal()
    trainer = bpxp.Trainer(net, SGD(0.1), callbacks=[Progress(text), EarlyStopping("loss", patience=9)], progress=False)
    trainer.fit(data, epochs=2, batch_size=4)
    assert "epoch 1/2  loss" in text.getvalue()


def test_on_batches_counts_up_to_the_epoch(net, data):
    seen = []

    class Count(Callback):
        def on_batches(self, trainer, done, total):
            seen.append((done, total))

    bpxp.Trainer(net, SGD(0.1), callbacks=[Count()], progress=False).fit(data, epochs=1, batch_size=5)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_failure_at_the_start_is_what_is_reported(net, data, tmp_path):
    callbacks = [CSVLog(tmp_path / "no" / "log.csv"), EarlyStopping("loss"), Progress(io.StringIO())]
    trainer = bpxp.Trainer(net, SGD(0.1), callbacks=callbacks, progress=False)
    with pytest.raises(FileNotFoundError, match="log.csv"):
        trainer.fit(data, epochs=1, batch_size=4)
    assert not net.training


class Bare:
    """Has every member of the protocol, and no base."""

    steps, failure, saves, saved = 2, None, "", None

    def __init__(self):
        self.seen = []
        self.on_batches = lambda trainer, done, total: self.seen.append(done)

    def on_fit_begin(self, trainer): ...
    def on_epoch_end(self, trainer, row): ...
    def on_pause(self, trainer, why):
        self.seen.append(why)

    def on_fit_end(self, trainer): ...
    def state(self, trainer):
        return {}

    def resume(self, trainer, state): ...
    def newest(self): ...
    def beside(self, word): ...


def test_what_satisfies_the_protocol_is_a_callback():
    bare = Bare()
    x, y = np.zeros((12, 2), np.float32), np.arange(12) % 2
    net = bpxp.Network([2, 2], backend="numpy", seed=0)
    bpxp.Trainer(net, callbacks=[bare], progress=False).fit((x, y), epochs=1, batch_size=3)
    assert bare.seen == [1, 2, "steps", 3, 4, "epoch"]


@pytest.mark.parametrize("lacks", ["saves", "on_pause", "newest"])
def test_what_a_callback_lacks_is_named(lacks):
    members = {name: a for name, a in vars(Bare).items() if name != lacks}
    partial = type("Partial", (), members)()
    with pytest.raises(
        InvalidTypeError, match=rf"it lacks {lacks}: got Partial.*Fix: class Partial\(bpxp.callbacks.Call"
    ):
        bpxp.Trainer(bpxp.Network([2, 2], backend="numpy"), callbacks=[partial])


@pytest.mark.parametrize(("steps", "error"), [(0, InvalidValueError), (-1, InvalidValueError), (1.5, InvalidTypeError)])
def test_pauses_after_no_number_of_steps_are_refused(steps, error):
    class Pausing(Callback):
        pass

    Pausing.steps = steps
    with pytest.raises(error, match="steps of Pausing"):
        bpxp.Trainer(bpxp.Network([2, 2], backend="numpy"), callbacks=[Pausing()])
