"""What a callback monitors is there, and its direction is the metric's: known before the first step, or refused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import bpxp
from bpxp.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.optim import SGD

X = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
Y = (X[:, 0] + X[:, 1] > 0).astype(int)


def network(**how):
    return bpxp.Network([4, 8, 2], backend="numpy", seed=0, **how)


class Seen(Callback):
    epochs = 0

    def on_epoch_end(self, trainer, row):
        self.epochs += 1


def refused(callback, net=None, metrics=None, epochs=2, **options):
    """Return the error of a fit that must not begin."""
    net, seen = net or network(), Seen()
    before = [a.tobytes() for own in net.params for a in own]
    trainer = bpxp.Trainer(net, SGD(0.5), callbacks=[callback, seen], metrics=metrics, progress=False)
    with pytest.raises((InvalidValueError, InvalidTypeError)) as caught:
        trainer.fit((X, Y), epochs=epochs, **options)
    assert seen.epochs == net.epoch == 0
    assert before == [a.tobytes() for own in net.params for a in own]
    assert "Nothing was changed" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("make", [EarlyStopping, lambda monitor: Checkpoint("best.bpxp", monitor=monitor)])
def test_a_column_that_will_not_be_there(make, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = type(make("loss")).__name__
    for monitor, options, hint in (
        ("val_loss", {"validation": 0.2}, "Did you mean 'validation_loss'?"),
        ("val_acc", {"validation": 0.2}, "Did you mean 'validation_accuracy'?"),
        ("validation_los", {"validation": 0.2}, "Did you mean 'validation_loss'?"),
        ("validation_accuracy", {}, "Fix: fit(…, validation=0.1)"),
        ("val_loss", {}, "Fix: fit(…, validation=0.1)"),
        ("accuracy", {"validation": 0.2}, "Did you mean 'validation_accuracy'?"),
        ("train_loss", {"validation": 0.2}, ""),
        ("validation_class", {"validation": 0.2}, ""),
    ):
        error = refused(make(monitor), **options)
        assert error.where == f"{kind}(monitor=…)"
        assert hint in str(error)
    assert list(tmp_path.iterdir()) == []
    bpxp.Trainer(network(), callbacks=[make("validation_loss")], progress=False).fit((X, Y), epochs=1, validation=0.1)


def test_nothing_of_another_callback_is_lost(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("of before")
    trainer = bpxp.Trainer(network(), callbacks=[CSVLog(log), EarlyStopping("val_loss")], progress=False)
    with pytest.raises(InvalidValueError):
        trainer.fit((X, Y), epochs=1)
    assert log.read_text() == "of before"


def test_columns_of_metrics_with_several_values():
    metrics = ["accuracy", bpxp.metrics.PrecisionRecallF1(per_class=True)]
    for monitor in ("validation_class_f1", "validation_class_recall_1", "train_accuracy"):
        stopping = EarlyStopping(monitor, patience=30)
        trainer = bpxp.Trainer(network(), SGD(0.5), callbacks=[stopping], metrics=metrics, progress=False)
        history = trainer.fit((X, Y), epochs=6, validation=0.2, evaluate_train=True)
        assert stopping.best_epoch == int(np.argmax(history[monitor])) + 1


@dataclass(frozen=True)
class Share:
    """Share of the samples that are right, or wrong."""

    name: str
    wrong: bool

    def init(self, n_out, /, *, xp, dtype):
        return xp.zeros((1,), dtype=xp.int32), xp.zeros((1,), dtype=xp.int32)

    def update(self, counts, logits, y, weight, /, *, xp):
        hits = (xp.astype(xp.argmax(logits, axis=1), xp.int32) == y) != self.wrong
        one = xp.ones_like(y) if weight is None else xp.astype(weight > 0.0, xp.int32)
        found, total = counts
        found += xp.sum(xp.astype(hits, xp.int32) * one, axis=0, keepdims=True, dtype=xp.int32)
        total += xp.sum(one, axis=0, keepdims=True, dtype=xp.int32)
        return found, total

    def result(self, counts, /):
        found, total = (int(c[0]) for c in counts)
        return found / total


@dataclass(frozen=True)
class Declared(Share):
    higher_is_better = False


@dataclass(frozen=True)
class Guesses(Share):
    """The share of class 1 among the guesses: neither way is better."""

    def update(self, counts, logits, y, weight, /, *, xp):
        return super().update(counts, logits, xp.ones_like(y), weight, xp=xp)


@pytest.mark.parametrize(
    ("metric", "best"),
    [
        (Share("error", True), np.argmin),
        (Share("loss_free", False), np.argmax),
        (Share("accuracy_lost", True), np.argmin),
        (Declared("anything", True), np.argmin),
        (bpxp.metrics.TopK(1), np.argmax),
    ],
)
def test_the_direction_is_the_metrics_own(backend, metric, best, tmp_path):
    monitor = f"validation_{metric.name}"
    callbacks = [EarlyStopping(monitor, patience=40), Checkpoint(tmp_path / "best.bpxp", monitor=monitor)]
    net = bpxp.Network([4, 8, 2], backend=backend, seed=0)
    trainer = bpxp.Trainer(net, SGD(0.5), callbacks=callbacks, metrics=[metric], progress=False)
    history = trainer.fit((X, Y), epochs=8, batch_size=10, validation=0.2)
    assert len(set(history[monitor])) > 1
    assert callbacks[0].best_epoch == int(best(history[monitor])) + 1
    assert bpxp.Network.load(tmp_path / "best.bpxp", backend="numpy").epoch == callbacks[0].best_epoch


def test_a_direction_that_is_not_known_is_asked_for():
    metric = Guesses("ones", False)
    error = refused(EarlyStopping("validation_ones"), metrics=[metric], validation=0.2)
    assert (error.code, error.where) == ("BPX-E059", "EarlyStopping(mode=…)")
    for column in ("learning_rate", "seconds"):
        assert refused(EarlyStopping(column)).code == "BPX-E059"
    stopping = EarlyStopping("validation_ones", mode="min", patience=30)
    trainer = bpxp.Trainer(network(), SGD(0.5), callbacks=[stopping], metrics=[metric], progress=False)
    history = trainer.fit((X, Y), epochs=5, validation=0.2)
    assert stopping.best_epoch == int(np.argmin(history["validation_ones"])) + 1


@pytest.mark.parametrize("loss", ["mean_squared_error", "poisson", "binary_cross_entropy"])
def test_other_targets_are_measured_too(loss):
    @dataclass(frozen=True)
    class Distance:
        """Mean absolute difference of activated outputs and targets."""

        name = "distance"

        def init(self, n_out, /, *, xp, dtype):
            return xp.zeros((1,), dtype=dtype), xp.zeros((1,), dtype=dtype)

        def update(self, counts, logits, y, weight, /, *, xp):
            a = bpxp.nn.get_loss(loss).activate(logits, xp=xp)
            one = xp.ones((logits.shape[0],), dtype=logits.dtype) if weight is None else weight
            each = xp.sum(xp.abs(a - y), axis=1) * one
            return counts[0] + xp.sum(each, axis=0, keepdims=True), counts[1] + xp.sum(one, axis=0, keepdims=True)

        def result(self, counts, /):
            return float(counts[0][0] / counts[1][0])

    y = np.stack([Y, 1 - Y], axis=1)
    stopping = EarlyStopping("validation_distance", patience=30)
    trainer = bpxp.Trainer(network(loss=loss), SGD(0.1), callbacks=[stopping], metrics=[Distance()], progress=False)
    history = trainer.fit((X, y), epochs=4, validation=0.2)
    assert stopping.best_epoch == int(np.argmin(history["validation_distance"])) + 1


def test_a_column_of_another_callback_is_looked_for_after_the_first_epoch():
    class Adds(Callback):
        def on_epoch_end(self, trainer, row):
            row["score"] = float(row["epoch"])

    for order in (1, -1):
        stopping = EarlyStopping("score", mode="max")
        trainer = bpxp.Trainer(network(), callbacks=[Adds(), stopping][::order], progress=False)
        if order == 1:
            trainer.fit((X, Y), epochs=2)
            assert stopping.best_epoch == 2
        else:  # it would come too late
            with pytest.raises(InvalidValueError, match="no such column"):
                trainer.fit((X, Y), epochs=2)
    assert refused_with_adds(Adds, EarlyStopping("score")).code == "BPX-E059"
    error = refused_with_adds(Adds, EarlyStopping("scores", mode="max"), epoch=1)
    assert error.after == "The network is as it was after this epoch"


def refused_with_adds(adds, stopping, epoch=0):
    net = network()
    with pytest.raises(InvalidValueError) as caught:
        bpxp.Trainer(net, callbacks=[adds(), stopping], progress=False).fit((X, Y), epochs=2)
    assert net.epoch == epoch
    return caught.value


# --- methods that would never be called


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("on_train_begin", "def on_fit_begin(self, …)"),
        ("on_train_batch_end", "def on_batches(self, …)"),
        ("on_validation_end", "def on_epoch_end(self, …)"),
        ("on_epoch_begin", "name it _on_epoch_begin"),
        ("on_epoch_ends", "name it _on_epoch_ends"),
    ],
)
def test_a_moment_that_is_none(name, fix):
    kind = type("Mine", (Callback,), {name: lambda self, *args: None})
    with pytest.raises(InvalidValueError, match=f"Mine: no moment of a fit is called {name}") as caught:
        bpxp.Trainer(network(), callbacks=[kind()])
    assert caught.value.fix.startswith(fix)
    assert "on_epoch_end" in caught.value.expected


def test_a_method_that_cannot_be_called():
    class Mine(Callback):
        def on_epoch_end(self, trainer):
            """Lacks the row."""

    with pytest.raises(InvalidTypeError, match=r"Mine\.on_epoch_end: it cannot be called") as caught:
        bpxp.Trainer(network(), callbacks=[Mine()])
    assert caught.value.fix == "def on_epoch_end(self, trainer, row)"

    class Free(Callback):
        def on_epoch_end(self, *args):
            """Takes anything."""

    bpxp.Trainer(network(), callbacks=[Free()])


def test_a_callback_refuses_a_fit_before_it_begins():
    class Refuses(Callback):
        begun = False

        def on_setup(self, trainer):
            raise PermissionError("no")

        def on_fit_begin(self, trainer):
            self.begun = True

    callback = Refuses()
    with pytest.raises(PermissionError):
        bpxp.Trainer(network(), callbacks=[callback], progress=False).fit((X, Y), epochs=1)
    assert not callback.begun


# --- what no file can hold


class MyLoss:
    targets = "classes"
    inner = bpxp.nn.SoftmaxCrossEntropy()

    def __call__(self, logits, y, weight=None, /, *, xp):
        return self.inner(logits, y, weight, xp=xp)

    def activate(self, logits, /, *, xp):
        return self.inner.activate(logits, xp=xp)


@pytest.mark.parametrize("how", [{}, {"monitor": "loss"}])
def test_a_loss_that_no_file_can_hold(tmp_path, how):
    error = refused(Checkpoint(tmp_path / "run.bpxp", **how), network(loss=MyLoss()))
    assert error.code == "BPX-E065"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({"a": np.zeros(3, np.complex64)}, "'a' cannot be written"),
        ({"a": {1, 2}}, "'a' cannot be written"),
        ({"a b": np.zeros(3)}, "not a name for a tensor"),
        ({"a": object()}, "'a' cannot be written"),
        ([1, 2], "no dict"),
    ],
)
def test_a_state_that_no_file_can_hold(tmp_path, state, text):
    class Mine(Callback):
        def state(self, trainer):
            return state

    saver, seen, net = Checkpoint(tmp_path / "run.bpxp"), Seen(), network()
    trainer = bpxp.Trainer(net, callbacks=[saver, Mine(), seen], progress=False)
    with pytest.raises(InvalidTypeError, match="Mine.state") as caught:
        trainer.fit((X, Y), epochs=1)
    assert text in str(caught.value)
    assert (seen.epochs, net.epoch, list(tmp_path.iterdir())) == (0, 0, [])
    bpxp.Trainer(net, callbacks=[Mine()], progress=False).fit((X, Y), epochs=1)  # which is not saved
