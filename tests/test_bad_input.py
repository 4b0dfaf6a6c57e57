"""Every mistake of mistakes.py: the named exception, its code, what the message says; and nothing is changed by it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from mistakes import ROWS, Row

import bpxp
from bpxp.backends import Backend, get_backend
from bpxp.core.tree import leaves
from bpxp.errors import BpxpError, BpxpWarning

MISTAKES = 76  # that the rows are about, by their numbers


class Case:
    """What a row may use: a network and data, and what notices if they are changed."""

    def __init__(self, backend: Backend, folder, patch) -> None:
        self.backend, self.folder, self.patch = backend, folder, patch
        self.x = np.linspace(-1.0, 1.0, 80, dtype=np.float32).reshape(20, 4)
        self.y = np.arange(20) % 3
        for a in (self.x, self.y):
            a.flags.writeable = False
        self.watched: list[tuple[bpxp.Network, list]] = []
        self.net = self.watch(bpxp.Network([4, 3], backend=backend, seed=0))

    def watch(self, net: bpxp.Network) -> bpxp.Network:
        self.watched.append((net, state(net)))
        return net

    def fit(self, y=None, callbacks=(), epochs=1, **options) -> None:
        trainer = bpxp.Trainer(self.net, callbacks=callbacks, progress=False)
        trainer.fit((self.x, self.y if y is None else y), epochs=epochs, **options)

    def unchanged(self) -> bool:
        return all(state(net) == before for net, before in self.watched)


def state(net: bpxp.Network) -> list:
    """Return all that training changes, to the bit."""
    arrays = [*leaves(net.params), *leaves(net.stats), *leaves(net.key), *leaves(net.opt_state or ())]
    return [net.epoch, net.training, net.seed, net.optimizer, *(net.backend.to_numpy(a).tobytes() for a in arrays)]


def calls(row: Row, c: Case) -> list:
    """Return the calls that make the mistake: every method takes x and y."""
    if row.kind in ("once", "backend"):
        return [lambda: row.call(c)]
    if row.kind == "x":
        x, y = row.call(), np.zeros(20, int)
    else:
        x, y = c.x, row.call()
    trainer = bpxp.Trainer(c.net, progress=False)
    found = [
        lambda: c.net.loss_and_gradients(x, y),
        lambda: c.net.gradient_descent((x, y), learning_rate=0.1),
        lambda: c.net.evaluate((x, y) if y is None else x, y),
        lambda: trainer.fit((x, y), epochs=1),
        lambda: trainer.fit((c.x, c.y), epochs=1, validation=(x, y)),
    ]
    return [*found, lambda: c.net.predict(x), lambda: c.net.predict_proba(x)] if row.kind == "x" else found


def identity(row: Row) -> str:
    return f"{row.number}-{row.name}".replace(" ", "_")


def make(row: Row, c: Case) -> None:
    for call in calls(row, c):
        if row.error is None:
            call()
        elif issubclass(row.error, Warning):
            with pytest.warns(row.error) as found:
                call()
            assert len(found) == 1
            tell(row, found[0].message)
            assert "tests" in Path(found[0].filename).parts  # the line that called, wherever it was noticed
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(row.error) as caught:
                    call()
            tell(row, caught.value)
    assert row.error is BpxpWarning or c.unchanged()


def changes(where: str) -> bool:
    """Return whether a call changes the network when it succeeds."""
    return where.startswith(("fit", "gradient_descent", "Network.params"))


def tell(row: Row, error: BaseException) -> None:
    """Check what an error says."""
    text = "\n".join([str(error), *getattr(error, "__notes__", [])])
    for part in row.parts:
        assert part in text
    assert text.count("\n") < 6
    if isinstance(error, (BpxpError, BpxpWarning)):
        assert error.code == f"BPX-{row.code}"
    elif row.code:  # an OSError keeps its type
        assert f"[BPX-{row.code}]" in text
    if isinstance(error, BpxpError):
        # Said where the call could have changed something, and only there.
        assert ("Nothing was changed." in text) == (row.code != "E052" and changes(error.where))


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind == "once"], ids=identity)
def test_a_mistake(row, tmp_path, monkeypatch):
    make(row, Case(get_backend("numpy"), tmp_path, monkeypatch))


@pytest.mark.parametrize("row", [row for row in ROWS if row.kind != "once"], ids=identity)
def test_a_mistake_on_each_backend(row, backend, tmp_path, monkeypatch):
    make(row, Case(backend, tmp_path, monkeypatch))


def test_every_mistake_has_a_row(promise):
    numbers = {row.number for row in ROWS}
    assert numbers == set(range(1, MISTAKES + 1))
    figure = f"{len(numbers)} of {MISTAKES}, made in {len(ROWS)} ways"
    promise("Invalid input answered by the documented exception, with place, cause and fix", figure)


class Fails(bpxp.callbacks.Callback):
    """A callback that raises one of the library's own errors, at a moment of the fit."""

    def __init__(self, moment):
        setattr(self, moment, self.fail)

    def fail(self, *_):
        raise bpxp.errors.InvalidValueError("here", "what a callback does not like", code="E002")


@pytest.mark.parametrize(("moment", "changed"), [("on_fit_begin", False), ("on_epoch_end", True), ("on_fit_end", True)])
def test_nothing_was_changed_is_said_where_it_is_true(backend, tmp_path, monkeypatch, moment, changed):
    c = Case(backend, tmp_path, monkeypatch)
    for _ in range(2):  # a second fit, too
        before = state(c.net)
        with pytest.raises(BpxpError) as caught:
            c.fit(callbacks=[Fails(moment)])
        assert ("Nothing was changed" in str(caught.value)) == (not changed) == (before == state(c.net))
    assert "Nothing" not in str(proposed_name())


def proposed_name():
    with pytest.raises(BpxpError) as caught:
        bpxp.History([{"loss": 1.0}])["val_loss"]
    return caught.value
