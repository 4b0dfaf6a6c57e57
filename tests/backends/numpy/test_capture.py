"""A recorded step repeats the step to the bit, and gives up, with a reason, where it could not."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers.small_runs import NETWORKS, OPTIMIZERS

import bpxp
from bpxp import optim
from bpxp.backends.base import eager
from bpxp.backends.capture import Replay
from bpxp.backends.numpy import capture as recording
from bpxp.backends.numpy.capture import Recording
from bpxp.core.tree import leaves
from bpxp.data import augment


@pytest.fixture(params=["numpy", "torch"])
def name(request):
    """The backends whose steps are recorded on the host."""
    if request.param == "torch":
        pytest.importorskip("torch")
    return request.param


class Spy:
    """Every replay that is made."""

    def __init__(self, monkeypatch):
        self.made: list[Replay] = []
        init = Replay.__init__

        def remember(replay, step, /):
            init(replay, step)
            self.made.append(replay)

        monkeypatch.setattr(Replay, "__init__", remember)


def trained(monkeypatch, name, worth, layers, shape, optimizer, n=60, batch=4, **options):
    """Return parameters, losses and replays of a training run in which `worth` steps are worth recording."""
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape), dtype=np.float32), rng.integers(0, 3, n)
    net = bpxp.Network(layers, input_shape=shape, hidden="relu", backend=name, seed=5)
    monkeypatch.setattr(recording_of(name), "WORTH", worth)
    spy = Spy(monkeypatch)
    trainer = bpxp.Trainer(net, optimizer, progress=False)
    history = trainer.fit((x, y), epochs=3, batch_size=batch, validation=(x[:9], y[:9]), **options)
    return bits(net), [*history["loss"], *history["validation_loss"]], spy.made


def recording_of(name):
    """Return the class of a backend's recordings."""
    if name == "numpy":
        return Recording
    from bpxp.backends.torch.capture import TorchRecording

    return TorchRecording


def bits(net):
    return [net.backend.to_numpy(a).tobytes() for a in leaves(net.params)]


def same_bits_recorded(monkeypatch, *arguments, **options):
    name, *others = arguments
    params, losses, _ = trained(monkeypatch, name, 1 << 30, *others, **options)
    recorded, values, replays = trained(monkeypatch, name, 2, *others, **options)
    assert [replay.reason for replay in replays if replay.reason] == []
    assert any(replay.plays for replay in replays)
    assert recorded == params
    assert values == losses


@pytest.mark.parametrize("batch", [7, 6], ids=["a short last batch", "whole batches"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_run_is_the_same_bits(network, batch, name, monkeypatch):
    same_bits_recorded(monkeypatch, name, *NETWORKS[network], optim.SGD(0.1), batch=batch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__} {getattr(o, 'momentum', '')}")
def test_every_optimizer_is_the_same_bits(optimizer, name, monkeypatch):
    same_bits_recorded(monkeypatch, name, *NETWORKS["dense"], optimizer)


def test_augmentation_on_the_way_is_the_same_bits(name, monkeypatch):
    moves = [augment.Affine(degrees=10, shift=1), augment.ElasticDistortion(alpha=5.0, sigma=2.0), augment.Mixup(0.3)]
    same_bits_recorded(monkeypatch, name, NETWORKS["images"][0], (7, 6, 4), optim.SGD(0.1), augment=moves)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error", "huber"])
def test_every_loss_is_the_same_bits(loss, name, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 5), dtype=np.float32), (rng.random((40, 2)) < 0.5).astype(np.float32)
    runs = []
    for worth in (1 << 30, 2):
        net = bpxp.Network([5, 4, 2], loss=loss, backend=name, seed=1)
        monkeypatch.setattr(recording_of(name), "WORTH", worth)
        bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit((x, y), epochs=2, batch_size=2)
        runs.append(bits(net))
    assert runs[0] == runs[1]


# ---------------------------------------------------------------- steps written for the purpose


class State(NamedTuple):
    w: Any
    total: Any


class Lab:
    """A backend on which steps are tried, recorded and as they are written."""

    def __init__(self, name):
        backend = bpxp.get_backend(name)
        self.xp, self.recording, self.array, self.host = (
            backend.xp,
            recording_of(name),
            backend.asarray,
            backend.to_numpy,
        )
        self.quarters = self.array(np.full(4, 0.25))

    def start(self):
        return State(self.array(np.arange(4.0)), self.array(np.zeros(1)))

    def agree(self, step, data=None, counts=(9, 1, 1, 3, 20)):
        """Run a step both ways, and return the replay."""
        data = self.quarters if data is None else data
        replay, plain = self.recording(step), eager(step)
        a, b = self.start(), self.start()
        for count in counts:
            a, b = replay(a, data, count=count), plain(b, data, count=count)
            for own, other in zip(leaves(a), leaves(b), strict=True):
                assert type(own) is type(data)
                np.testing.assert_array_equal(self.host(own), self.host(other), strict=True)
        return replay


@pytest.fixture
def lab(name):
    return Lab(name)


def test_memory_that_the_step_makes_and_fills_begins_anew_in_every_step(lab):
    xp = lab.xp

    def step(state, data):
        total = xp.zeros((4,), dtype=xp.float64)
        ramp = xp.arange(4, dtype=xp.float64) + 1.0  # of nothing, too, and nobody writes into it
        total += state.w * data
        total *= ramp
        part = xp.reshape(total, (2, 2))
        part *= 2.0
        return State(state.w + total, state.total + xp.sum(total))

    assert lab.agree(step).plays


def test_what_is_read_before_it_is_written_begins_anew_too(lab):
    xp = lab.xp

    def step(state, data):
        carried = xp.zeros((4,), dtype=xp.float64)
        before = carried + state.w  # nothing else shows in the first steps, where w is 0 and nothing is carried
        carried += xp.maximum(state.w - 1.0, xp.zeros((4,), dtype=xp.float64))
        return State(before + data, state.total + xp.sum(carried))

    def begin():
        return State(lab.array(np.zeros(4)), lab.array(np.zeros(1)))

    small = lab.array(np.full(4, 1 / 16))
    replay = lab.recording(step)
    recorded, plain = replay(begin(), small, count=40), eager(step)(begin(), small, count=40)
    assert replay.plays, replay.reason
    for own, other in zip(leaves(recorded), leaves(plain), strict=True):
        np.testing.assert_array_equal(lab.host(own), lab.host(other))


def test_views_stay_views_and_new_arrays_are_carried_over(lab):
    xp = lab.xp

    def step(state, data):
        folded = xp.reshape(state.w, (2, 2))
        turned = xp.matrix_transpose(folded)
        flat = xp.reshape(turned, (4,))  # a copy: it has to be made again
        joined = xp.concat([flat[:2], xp.flip(flat)[:2]])
        return State(joined + data, xp.sum(joined, keepdims=True))

    assert lab.agree(step).plays


def test_numbers_beside_arrays_are_the_same_bits(lab):
    xp = lab.xp

    def step(state, data):
        w = (1.0 - state.w) * 0.1 + 2 / (state.w + 3.0)
        w -= 0.7
        w /= 3.0
        count = xp.astype(state.total, xp.int64) * 3 + 1
        chosen = xp.where(w > 0.1, w, 0.0)
        small = xp.astype(w, xp.float32) * 0.1  # a tenth of float32, not of float64
        return State(chosen + xp.astype(small, xp.float64), state.total + xp.astype(count % 7, xp.float64) ** 2)

    assert lab.agree(step).plays


def test_a_state_from_elsewhere_is_taken_over(lab):
    def step(state, data):
        w, total = state
        w *= data
        total += 1.0
        return State(w, total)

    replay, data = lab.recording(step), lab.array(np.full(4, 0.5))
    state = replay(lab.start(), data, count=20)
    assert replay.plays
    state = replay(state._replace(w=lab.array(np.ones(4))), data, count=2)
    np.testing.assert_array_equal(lab.host(state.w), 0.25)
    assert lab.host(state.total) == 22


def test_other_data_are_another_recording(lab):
    def step(state, data):
        return State(state.w + data, state.total)

    replay = lab.recording(step)
    state = replay(lab.start(), lab.array(np.ones(4)), count=20)
    first = replay.plays
    state = replay(state, lab.array(np.full(4, 2.0)), count=20)
    assert replay.plays is not first
    np.testing.assert_array_equal(lab.host(state.w), np.arange(4) + 60.0)
    state = replay(state, lab.array(np.full(4, 3.0)), count=1)  # not worth one: as it is written
    np.testing.assert_array_equal(lab.host(state.w), np.arange(4) + 63.0)


def test_what_is_given_away_may_be_read_only():
    def step(state, data):
        return State(state.w + data, state.total)

    state = State(np.arange(4.0), np.zeros(1))
    state.w.flags.writeable = False
    np.testing.assert_array_equal(Recording(step)(state, np.ones(4), count=20).w, np.arange(4) + 20.0)


def looks_at_a_number(lab, state):
    return State(state.w + float(state.w[0] > 0), state.total)


def picks_by_an_array(lab, state):
    return State(state.w[lab.xp.argsort(state.w)], state.total)


def trades_places(lab, state):
    return (
        State(state.total, state.w) if state.w.shape == state.total.shape else State(lab.xp.flip(state.w), state.w[:1])
    )


def goes_behind(lab, state):
    return State(lab.array(lab.host(state.w) + 1.0), state.total)


def writes_into_what_is_not_its_own(lab, state):
    lab.quarters[:1] *= 1.0
    return State(state.w + 1.0, state.total)


@pytest.mark.parametrize(
    ("step", "reasons"),
    [
        (looks_at_a_number, {"numpy": "looks at a number", "torch": "looks at numbers"}),
        (picks_by_an_array, {"numpy": "array of indices", "torch": "sort has several results"}),
        (trades_places, "trades places"),
        (goes_behind, "to the bit"),
        (writes_into_what_is_not_its_own, {"torch": "not its own"}),
    ],
)
def test_what_cannot_be_recorded_runs_as_it_is_written(step, reasons, lab, name):
    if isinstance(reasons, dict) and name not in reasons:
        pytest.skip("what the step does, this recording can repeat")
    replay = lab.agree(lambda state, data: step(lab, state))
    assert not replay.plays
    assert (reasons if isinstance(reasons, str) else reasons[name]) in replay.reason


def test_large_steps_are_left_alone(lab, monkeypatch):
    monkeypatch.setattr(sys.modules[lab.recording.__module__], "RESULTS", 100)
    replay = lab.agree(lambda state, data: State(state.w + data + data + data + data, state.total))
    assert not replay.plays
    assert "results take more" in replay.reason


def test_a_large_state_is_not_even_copied(lab, monkeypatch):
    monkeypatch.setattr(lab.recording, "STATE", 10)
    monkeypatch.setattr(lab.recording, "own", None)
    replay = lab.agree(lambda state, data: State(state.w + data, state.total))
    assert "its state takes more" in replay.reason


def test_an_index_out_of_range_is_an_error_in_a_recording_too(lab, monkeypatch):
    monkeypatch.setattr(recording, "COPIED", 0)  # the indices are looked through
    table, xp = lab.array(np.arange(10.0)), lab.xp

    def step(state, data):
        picked = xp.take(data, xp.astype(state.total, xp.int64), axis=0)
        return State(state.w + picked, state.total + 1.0)

    replay = lab.recording(step)
    monkeypatch.setattr(lab.recording, "WORTH", 2)
    state = replay(lab.start(), table, count=6)
    assert replay.plays
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        replay(state, table, count=6)


def test_a_function_behind_the_librarys_back_is_one_call(lab):
    hidden = sys.modules[lab.recording.__module__].opaque(
        lambda a, b: (lab.array(lab.host(a) + lab.host(b)), lab.array(lab.host(a) * 2.0))
    )

    def step(state, data):
        first, second = hidden(state.w, data)
        return State(first, state.total + lab.xp.sum(second))

    assert lab.agree(step).plays
    ones = lab.array(np.ones(2))
    np.testing.assert_array_equal(lab.host(hidden(ones, ones)[0]), 2.0)


def test_an_evaluation_of_two_large_data_sets_in_turn_is_recorded_once(monkeypatch):
    monkeypatch.setattr("bpxp.network.inference_batch.CHUNK", 10)
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
