"""A recorded step repeats the step to the bit, and gives up, with a reason, where it could not."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
from runs import NETWORKS, OPTIMIZERS

import bpxp
from bpxp import optim
from bpxp.backends import recording
from bpxp.backends.base import eager
from bpxp.backends.recording import Recording, opaque
from bpxp.data import augment
from bpxp.tree import leaves


class Spy:
    """Every `Recording` that is made."""

    def __init__(self, monkeypatch):
        self.made: list[Recording] = []
        init = Recording.__init__

        def remember(replay, step, /):
            init(replay, step)
            self.made.append(replay)

        monkeypatch.setattr(Recording, "__init__", remember)


def trained(monkeypatch, worth, layers, shape, optimizer, n=60, batch=4, **options):
    """Return parameters, losses and replays of a training run in which `worth` steps are worth recording."""
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape), dtype=np.float32), rng.integers(0, 3, n)
    monkeypatch.setattr(Recording, "WORTH", worth)
    spy = Spy(monkeypatch)
    net = bpxp.Network(layers, input_shape=shape, hidden="relu", backend="numpy", seed=5)
    trainer = bpxp.Trainer(net, optimizer, progress=False)
    history = trainer.fit((x, y), epochs=3, batch_size=batch, validation=(x[:9], y[:9]), **options)
    return [a.tobytes() for a in leaves(net.params)], [*history["loss"], *history["validation_loss"]], spy.made


def same_bits_recorded(monkeypatch, *arguments, **options):
    params, losses, _ = trained(monkeypatch, 1 << 30, *arguments, **options)
    recorded, values, replays = trained(monkeypatch, 2, *arguments, **options)
    assert [replay.reason for replay in replays if replay.reason] == []
    assert any(replay.plays for replay in replays)
    assert recorded == params
    assert values == losses


@pytest.mark.parametrize("batch", [7, 6], ids=["a short last batch", "whole batches"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_run_is_the_same_bits(name, batch, monkeypatch):
    same_bits_recorded(monkeypatch, *NETWORKS[name], optim.SGD(0.1), batch=batch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__} {getattr(o, 'momentum', '')}")
def test_every_optimizer_is_the_same_bits(optimizer, monkeypatch):
    same_bits_recorded(monkeypatch, *NETWORKS["dense"], optimizer)


def test_augmentation_on_the_way_is_the_same_bits(monkeypatch):
    moves = [augment.Affine(degrees=10, shift=1), augment.ElasticDistortion(alpha=5.0, sigma=2.0), augment.Mixup(0.3)]
    same_bits_recorded(monkeypatch, NETWORKS["images"][0], (7, 6, 4), optim.SGD(0.1), augment=moves)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error", "huber"])
def test_every_loss_is_the_same_bits(loss, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 5), dtype=np.float32), (rng.random((40, 2)) < 0.5).astype(np.float32)
    runs = []
    for worth in (1 << 30, 2):
        monkeypatch.setattr(Recording, "WORTH", worth)
        net = bpxp.Network([5, 4, 2], loss=loss, backend="numpy", seed=1)
        bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit((x, y), epochs=2, batch_size=2)
        runs.append([a.tobytes() for a in leaves(net.params)])
    assert runs[0] == runs[1]


# ---------------------------------------------------------------- steps written for the purpose


class State(NamedTuple):
    w: Any
    total: Any


XP = bpxp.get_backend("numpy").xp


def start():
    return State(np.arange(4.0), np.zeros(1))


QUARTERS = np.full(4, 0.25)


def agree(step, data=QUARTERS, counts=(9, 1, 1, 3, 20)):
    """Run a step both ways, and return the replay."""
    replay, plain = Recording(step), eager(step)
    a, b = start(), start()
    for count in counts:
        a, b = replay(a, data, count=count), plain(b, data, count=count)
        for own, other in zip(leaves(a), leaves(b), strict=True):
            assert type(own) is np.ndarray
            np.testing.assert_array_equal(own, other)
    return replay


def test_memory_that_the_step_makes_and_fills_begins_anew_in_every_step():
    def step(state, data):
        total = XP.zeros((4,), dtype=XP.float64)
        total += state.w * data
        total *= 2.0
        return State(state.w + total, state.total + XP.sum(total))

    assert agree(step).plays


def test_views_stay_views_and_new_arrays_are_carried_over():
    def step(state, data):
        folded = XP.reshape(state.w, (2, 2))
        turned = XP.matrix_transpose(folded)
        flat = XP.reshape(turned, (4,))  # a copy: it has to be made again
        joined = XP.concat([flat[:2], XP.flip(flat)[:2]])
        return State(joined + data, XP.sum(joined, keepdims=True))

    assert agree(step).plays


def test_a_state_from_elsewhere_is_taken_over():
    def step(state, data):
        w, total = state
        w *= data
        total += 1.0
        return State(w, total)

    replay, data = Recording(step), np.full(4, 0.5)
    state = replay(start(), data, count=20)
    assert replay.plays
    state = replay(state._replace(w=np.ones(4)), data, count=2)
    np.testing.assert_array_equal(state.w, 0.25)
    assert state.total == 22


def test_other_data_are_another_recording():
    def step(state, data):
        return State(state.w + data, state.total)

    replay = Recording(step)
    state = replay(start(), np.ones(4), count=20)
    first = replay.plays
    state = replay(state, np.full(4, 2.0), count=20)
    assert replay.plays is not first
    np.testing.assert_array_equal(state.w, np.arange(4) + 60.0)
    state = replay(state, np.full(4, 3.0), count=1)  # not worth one: as it is written
    np.testing.assert_array_equal(state.w, np.arange(4) + 63.0)


def test_what_is_given_away_may_be_read_only():
    def step(state, data):
        return State(state.w + data, state.total)

    state = start()
    state.w.flags.writeable = False
    np.testing.assert_array_equal(Recording(step)(state, np.ones(4), count=20).w, np.arange(4) + 20.0)


def looks_at_a_number(state, data):
    return State(state.w + float(state.w[0] > 0), state.total)


def picks_by_an_array(state, data):
    return State(state.w[np.argsort(state.w)], state.total)


def trades_places(state, data):
    return State(state.total, state.w) if state.w.shape == state.total.shape else State(state.w[::-1], state.total)


def goes_behind(state, data):
    return State(np.asarray(state.w).copy() * 1.0 + 1.0, state.total)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (looks_at_a_number, "looks at a number"),
        (picks_by_an_array, "array of indices"),
        (trades_places, "trades places"),
        (goes_behind, "to the bit"),
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is_written(step, reason):
    replay = agree(step)
    assert not replay.plays
    assert reason in replay.reason


def test_large_steps_are_left_alone(monkeypatch):
    monkeypatch.setattr(recording, "ROOM", 100)
    replay = agree(lambda state, data: State(state.w + data + data + data + data, state.total))
    assert not replay.plays
    assert "results take more" in replay.reason


def test_a_large_state_is_not_even_copied(monkeypatch):
    monkeypatch.setattr(Recording, "STATE", 10)
    monkeypatch.setattr(Recording, "own", None)
    replay = agree(lambda state, data: State(state.w + data, state.total))
    assert "its state takes more" in replay.reason


def test_an_index_out_of_range_is_an_error_in_a_recording_too(monkeypatch):
    monkeypatch.setattr(recording, "COPIED", 0)  # the indices are looked through
    table = np.arange(10.0)

    def step(state, data):
        picked = XP.take(data, XP.astype(state.total, XP.int64), axis=0)
        return State(state.w + picked, state.total + 1.0)

    replay = Recording(step)
    monkeypatch.setattr(Recording, "WORTH", 2)
    state = replay(start(), table, count=6)
    assert replay.plays
    with pytest.raises(IndexError):
        replay(state, table, count=6)


def test_a_function_behind_numpys_back_is_one_call():
    twice = opaque(lambda a, b: (np.add(np.asarray(a), np.asarray(b)), np.asarray(a) * 2.0))

    def step(state, data):
        first, second = twice(state.w, data)
        return State(first, state.total + XP.sum(second))

    assert agree(step).plays
    np.testing.assert_array_equal(twice(np.ones(2), np.ones(2))[0], 2.0)


def test_an_evaluation_of_two_large_data_sets_in_turn_is_recorded_once(monkeypatch):
    monkeypatch.setattr("bpxp.network.CHUNK", 10)
    eager = []

    class Counting(bpxp.nn.Activation):
        def forward(self, params, z, /, *, xp):
            eager.append(z.shape[0])
            return z * 1.0, None

        def backward(self, params, cache, da, /, *, xp):
            return da * 1.0, ()

    class Mark(bpxp.callbacks.Callback):
        def on_epoch_end(self, trainer, row):
            eager.append("epoch")

    x, y = np.ones((1000, 300), np.float32), np.arange(1000) % 3  # more than is copied when it changes
    net = bpxp.Network([300, Counting(), 3], backend="numpy", seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(0.1), callbacks=[Mark()], progress=False)
    trainer.fit((x, y), epochs=4, batch_size=100, validation=(x.copy(), y), evaluate_train=True)
    last = eager[len(eager) - 1 - eager[-2::-1].index("epoch") :]
    assert last == ["epoch"]
