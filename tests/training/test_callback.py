"""An error in a callback: it ends the fit, which is saved, and keeps its type; the other callbacks have their turn."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.small_runs import NETWORKS

import bpxp
from bpxp import optim
from bpxp.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping
from bpxp.core.tree import named_leaves

rng = np.random.default_rng(0)
DATA = rng.normal(size=(23, 12)).astype(np.float32), rng.integers(0, 3, 23)


def fit(net, callbacks=(), epochs=3, **options):
    trainer = bpxp.Trainer(net, optim.Adam(0.01), callbacks=callbacks, progress=False)
    return trainer.fit(DATA, epochs=epochs, batch_size=5, validation=DATA, **options)


def network(backend):
    return bpxp.Network(NETWORKS["dropout"][0], backend=backend, seed=1)


def bits(net):
    arrays = named_leaves((net.params, net.opt_state))
    return {name: net.backend.to_numpy(a).tobytes() for name, a in arrays}, net.epoch, net._steps


@pytest.mark.parametrize("moment", ["on_batches", "on_epoch_end", "on_pause"])
def test_the_fit_is_saved_and_goes_on(backend, tmp_path, moment, nightly):
    if "jax" in backend.name and not nightly:
        pytest.skip("at night: it compiles for seconds")

    class Broken(Callback):
        calls = 0

        def fails(self, trainer, *args):
            self.calls += 1
            if self.calls == 2:
                raise ZeroDivisionError("mine")

    setattr(Broken, moment, Broken.fails)
    path, log = tmp_path / "run.bpxp", tmp_path / "log.csv"
    net, whole = network(backend), network(backend)
    saving = Checkpoint(path)
    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        fit(net, [Broken(), saving, CSVLog(log), EarlyStopping(patience=9)])
    where, saved = caught.value.__notes__
    assert where.startswith(f"in the callback Broken.{moment}, epoch ")
    assert saved == f"the run is saved; to go on: trainer.fit(…, resume={str(path)!r})"
    assert saving.saved == path
    assert not net.training
    fit(net, [CSVLog(log), EarlyStopping(patience=9)], resume=path)
    fit(whole, [EarlyStopping(patience=9)])
    assert bits(net) == bits(whole)
    assert len(log.read_text().splitlines()) == 4


def test_without_a_checkpoint_there_is_one_note():
    class Broken(Callback):
        def on_epoch_end(self, trainer, row):
            raise ZeroDivisionError("mine")

    net = network("numpy")
    with pytest.raises(ZeroDivisionError) as caught:
        fit(net, [Broken()])
    assert caught.value.__notes__ == ["in the callback Broken.on_epoch_end, epoch 1"]
    fit(net)  # and afterwards all is well


def test_the_others_have_their_turn(tmp_path):
    class Broken(Callback):
        def on_epoch_end(self, trainer, row):
            raise ZeroDivisionError("mine")

        def state(self, trainer):
            raise KeyError("hers")

    class Seen(Callback):
        calls = ()

        def on_epoch_end(self, trainer, row):
            self.calls += ("epoch",)

        def on_fit_end(self, trainer):
            self.calls += ("end",)
            raise OSError("his")

    last = Seen()
    with pytest.raises(ZeroDivisionError) as caught:
        fit(network("numpy"), [Broken(), last, Checkpoint(tmp_path / "run.bpxp")])
    assert last.calls == ("epoch", "end")
    saved, ended = caught.value.__notes__[1:]
    assert saved == "the run could not be saved: KeyError('hers')"
    assert ended == "and in the callback Seen.on_fit_end, epoch 1: OSError('his')"
    assert not (tmp_path / "run.bpxp").exists()


def test_what_is_not_finite_is_not_saved_for_an_error(tmp_path):
    class Breaks(Callback):
        def on_batches(self, trainer, done, total):
            state = trainer.run.state
            trainer.run.state = state._replace(loss=state.loss * np.nan)
            raise ZeroDivisionError("mine")

    path = tmp_path / "run.bpxp"
    with pytest.warns(bpxp.BpxpWarning, match="not finite"), pytest.raises(ZeroDivisionError) as caught:
        fit(network("numpy"), [Breaks(), Checkpoint(path)])
    assert len(caught.value.__notes__) == 1
    assert not path.exists()


def test_a_fit_that_a_callback_forbids_is_not_begun(tmp_path):
    class Forbids(Callback):
        def on_fit_begin(self, trainer):
            raise PermissionError("no")

    log = tmp_path / "log.csv"
    log.write_text("of before")
    net = network("numpy")
    before = net.backend.to_numpy(net.params[0].W)
    with pytest.raises(PermissionError):
        fit(net, [Forbids(), CSVLog(log), Checkpoint(tmp_path / "run.bpxp")])
    assert log.read_text() == "of before"
    assert np.array_equal(net.params[0].W, before)
    assert not (tmp_path / "run.bpxp").exists()
