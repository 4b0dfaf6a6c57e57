"""A run that diverges: the step and the layer are named, the network goes back, the step can be done again in float64."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import diverging as planted
from helpers.containers import Closed, Parallel
from helpers.small_runs import DENSE, NETWORKS, OPTIMIZERS, Cut

import bpxp
from bpxp import nn, optim
from bpxp.callbacks import Callback, Checkpoint
from bpxp.core.tree import named_leaves
from bpxp.data import Dataset, augment
from bpxp.errors import CheckpointCorruptError, CheckpointFormatError, DivergenceError, InvalidValueError
from bpxp.training.divergence import monitor as doctor
from bpxp.training.divergence.replay import Bundle
from bpxp.training.divergence.trace import Quantity, layer_and_field, quantity
from bpxp.training.run import swapped

KINDS = list(planted.KINDS)


def diverge(case, **options):
    with pytest.raises(DivergenceError) as caught:
        case.fit(**options)
    return caught.value


@pytest.fixture(autouse=True)
def in_time(request, nightly):
    """A network of JAX takes seconds to compile: the first test tells of it, and all at night."""
    name = request.node.name
    if "[jax" in name and "right_step" not in name and not nightly:
        pytest.skip("at night")


def bits(net):
    arrays = named_leaves((net.params, net.stats, net.opt_state))
    return {name: net.backend.to_numpy(a).tobytes() for name, a in arrays}, net.epoch, net._steps


# ---------------------------------------------------------------- what is found


def test_the_right_step_layer_and_quantity(backend, nightly, promise):
    library = backend.name.partition(":")[0]
    few = {"jax": (1, 8), "strict": range(len(KINDS))}.get(library, range(2 * len(KINDS)))
    seeds = range(33 if library == "jax" else 200) if nightly else few
    for seed in seeds:
        case = planted.plant(seed, backend)
        error = diverge(case)
        assert (error.epoch, error.step, error.layer, error.quantity) == case.place, (seed, case.kind, str(error))
        if case.samples is not None:
            assert tuple(error.bad_samples) == case.samples, (seed, case.kind)
    promise(
        f"Divergence injected into a layer and a step, {backend.name}",
        f"{len(seeds)} of {len(seeds)} times the right step, layer and quantity; {len(KINDS)} kinds",
    )


def test_no_false_alarm(backend, nightly, promise):
    rng = np.random.default_rng(0)
    library = backend.name.partition(":")[0]
    runs = {"jax": 42}.get(library, 1000) if nightly else {"jax": 2, "strict": 8}.get(library, 40)
    every = [case for case in itertools.product(NETWORKS.values(), OPTIMIZERS) if nightly or case[0][1] == (12,)]
    for i in range(runs):
        (layers, shape), optimizer = every[i * 7 % len(every)]
        size = 10.0 ** rng.uniform(-3, 3)  # as the data of somebody who scales nothing
        x = (size * rng.normal(size=(11, *shape))).astype(np.float32)
        options = {"input_shape": shape} if len(shape) > 1 else {}
        net = bpxp.Network(layers, backend=backend, seed=i, hidden=["tanh", "relu", "sigmoid"][i % 3], **options)
        callbacks = [Every()] if i % 2 else []
        trainer = bpxp.Trainer(net, optimizer, callbacks=callbacks, progress=False)
        trainer.fit((x, rng.integers(0, 3, 11)), epochs=2, batch_size=4)
    promise(f"Finite runs, {backend.name}", f"0 false alarms in {runs:,}")


class Every(Callback):
    """Lets the state be looked at after every step."""

    steps = 1


def test_large_is_not_infinite(backend):
    # Sums of parameters, and of losses, go beyond float32; the numbers do not.
    net = bpxp.Network([2, nn.Dense(4, "tanh"), 3], backend=backend, seed=0)
    first, last = (type(own)(*map(net.backend.to_numpy, own)) for own in net.params)
    net.params = first._replace(W=np.full((2, 4), 3e38, np.float32)), last
    trainer = bpxp.Trainer(net, optim.SGD(1e-3), callbacks=[Every()], progress=False)
    assert len(trainer.fit((np.full((6, 2), 0.1, np.float32), [0, 1, 2, 0, 1, 2]), epochs=2, batch_size=2)) == 2


def test_a_sum_that_overflows_is_told_as_it_is():
    # Each loss is finite, and so is everything else of the steps; the sum over the epoch is not.
    net = bpxp.Network([1, 1], loss="mean_squared_error", backend="numpy", seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(1e-30), progress=False)
    with pytest.raises(DivergenceError, match="the sum of the losses is not finite, though all of this step is") as e:
        trainer.fit((np.ones((8, 1)), np.full((8, 1), 1.2e19)), epochs=1, batch_size=1)
    assert (e.value.step, e.value.layer, e.value.quantity) == (3, None, "")


def test_a_residual_block_says_which_of_its_layers(backend):
    layers = [5, nn.Residual([nn.Dense(5, "tanh"), planted.Fault(3, forward_by=math.nan)]), 3]
    net = bpxp.Network(layers, backend=backend, seed=0)
    case = planted.Drawn(0, backend).planted("residual", net, (1, 4), 0, "y", optim.SGD(0.1))
    error = diverge(case)
    assert (error.epoch, error.step, error.layer, error.quantity) == case.place
    assert "y of layer 0.1 (Fault)" in str(error)


class Spoilt(nn.Dense):
    def forward(self, params, x, /, *, xp):
        z, cache = super().forward(params, x, xp=xp)
        return z * math.nan, cache


@pytest.mark.parametrize(
    ("kind", "quantity", "place"),
    [(Parallel, "z", "z of layer 0.1.0 (Spoilt(5), Tanh)"), (Closed, "y", "y of layer 0 (Closed)")],
)
def test_a_layer_made_of_layers(kind, quantity, place):
    spoilt = nn.Sequential((Spoilt(5, "tanh"), nn.Dense(5)))
    net = bpxp.Network([kind(nn.Sequential((nn.Dense(5),)), spoilt), 3], input_shape=(5,), backend="numpy", seed=0)
    error = diverge(planted.Drawn(0, net.backend).planted("container", net, (1, 1), 0, quantity, optim.SGD(0.1)))
    assert (error.epoch, error.step, error.layer, error.quantity) == (1, 1, 0, quantity)
    assert place in str(error)
    again = bpxp.replay(error.bundle, custom=[kind, Spoilt])
    assert [(q.layer, q.name) for q in again.seen] == [(q.layer, q.name) for q in again.exact]
    assert "dW of layer 0." in str(again)


def test_images_augmentation_weights_and_a_stream(backend):
    x = np.random.default_rng(0).integers(0, 256, (11, 6, 6, 1)).astype(np.uint8)
    layers = [nn.Conv2D(2, 3), nn.BatchNorm(), nn.Flatten(), planted.Fault(5, backward_by=math.inf), 3]
    for resident in (True, False):
        net = bpxp.Network(layers, input_shape=(6, 6, 1), backend=backend, seed=0)
        trainer = bpxp.Trainer(net, optim.Adam(1e-3), progress=False)
        data = Dataset(x, np.arange(11) % 3, resident=resident, weight=np.arange(1.0, 12.0))
        with pytest.raises(DivergenceError) as caught:
            trainer.fit(data, epochs=3, batch_size=4, augment=[augment.Noise(0.1)], validation=0.2)
        error = caught.value
        assert (error.epoch, error.step, error.layer, error.quantity) == (2, 3, 3, "dx")
        assert len(error.samples) == 1  # 9 of 11 samples, in batches of 4
        assert not set(error.samples) & held_out(net.seed)
        again = bpxp.replay(error.bundle, custom=[planted.Fault])
        assert agree(again.seen, again.exact) > 10


def held_out(seed):
    from bpxp.training.setup import split

    return set(split(11, 0.2, seed)[1])


def agree(seen, exact):
    """Compare what was seen in the run with float64, as far as it was finite; return how many quantities."""
    until = next(i for i, q in enumerate(seen) if q.bad)
    for q, other in zip(seen[:until], exact[:until], strict=True):
        assert (q.layer, q.name, q.size) == (other.layer, other.name, other.size)
        assert q.norm == pytest.approx(other.norm, rel=1e-3, abs=1e-6), q
    return until


# ---------------------------------------------------------------- how things stand afterwards


@pytest.mark.parametrize("kind", ["forward", "gradient"])
def test_the_network_is_as_it_was_before_the_step(backend, kind):
    for seed in (3, 8) if "jax" not in backend.name else (3,):
        case, same = (planted.plant(seed, backend, kind) for _ in range(2))
        diverge(case)
        assert not case.net.training
        done = (case.epoch - 1) * planted.BATCHES + case.step - 1
        if done:
            with pytest.raises(Cut.Now):
                same.fit(callbacks=[Cut(done), Every()])
            assert bits(case.net) == bits(same.net), (kind, seed)


def test_it_goes_back_over_epochs(backend, monkeypatch):
    # The state is kept at the beginning alone, and a schedule looks at the losses of the epochs between.
    rate = optim.Plateau(0.5, patience=1, min_delta=1.0)
    nets = []
    for share in (doctor.SHARE, 10**9):
        monkeypatch.setattr(doctor, "SHARE", share)
        net = bpxp.Network([5, 6, planted.Fault(20, forward_by=math.inf), 3], backend=backend, seed=2)
        case = planted.Drawn(0, backend).planted("", net, (4, 3), 1, "y", optim.SGD(rate, momentum=0.5, average=0.5))
        error = diverge(case, evaluate_train=True)
        assert (error.epoch, error.step, error.layer, error.quantity) == case.place
        assert error.learning_rate == pytest.approx(0.5 / 100)
        nets.append(bits(net))
    assert nets[0] == nets[1]


@pytest.mark.parametrize("epoch", [1, 2, 6])
def test_what_the_loss_does_not_show(backend, epoch):
    # The last step of an epoch makes a parameter infinite: the loss tells only in the next one, or never.
    drawn = planted.Drawn(epoch, backend)
    drawn.at = epoch * planted.BATCHES - 1
    case = planted.update(drawn)
    trainer = bpxp.Trainer(case.net, case.optimizer, progress=False)
    with pytest.raises(DivergenceError) as caught:
        trainer.fit(case.data, epochs=6, batch_size=planted.BATCH)
    error = caught.value
    assert (error.epoch, error.step, error.layer, error.quantity) == case.place
    assert (case.epoch, case.step) == (epoch, planted.BATCHES)
    assert len(trainer.history) == case.net.epoch == epoch - 1


def test_watching_changes_no_bit(backend):
    nets = [bpxp.Network(DENSE, backend=backend, seed=0) for _ in range(2)]
    x, y = np.random.default_rng(0).normal(size=(23, 12)), np.arange(23) % 3
    for net, choice in zip(nets, ("locate", "raise"), strict=True):
        bpxp.Trainer(net, optim.Adam(1e-2), progress=False).fit((x, y), epochs=3, batch_size=4, on_divergence=choice)
    assert bits(nets[0]) == bits(nets[1])


def test_without_a_state_that_is_kept(backend, monkeypatch):
    case = planted.plant(1, backend, "forward")
    error = diverge(case, on_divergence="raise")
    assert (error.epoch, error.layer, error.bundle) == (case.epoch, None, None)
    assert "The parameters are those of a run that has diverged" in str(error)
    with pytest.raises(InvalidValueError, match="expected 'locate' or 'raise'"):
        case.fit(on_divergence="ignore")


def test_a_state_for_which_there_is_no_room_is_not_kept(monkeypatch):
    def full(*_):
        raise MemoryError

    case = planted.plant(1, "numpy", "forward")
    monkeypatch.setattr(doctor, "tree_map", full)
    assert "has diverged" in str(diverge(case))


def test_a_network_that_is_not_finite_to_begin_with(backend):
    net = bpxp.Network([5, 4, 3], backend=backend, seed=0)
    first, last = net.params
    net._held.now = net._held.now._replace(params=(first, last._replace(b=last.b * math.nan)))
    case = planted.Drawn(0, backend).planted("", net, (1, 1), 1, "b", optim.SGD(0.1))
    error = diverge(case)
    assert (error.epoch, error.step, error.layer, error.quantity) == case.place
    assert "begin with finite parameters" in str(error)


def test_what_does_not_come_back_is_told(monkeypatch):
    calls = itertools.count()

    @dataclass(frozen=True)
    class Moody(nn.Activation):
        def forward(self, params, z, /, *, xp):
            bool(xp.all(z == z))  # who looks at numbers is not recorded
            return (z * math.nan if next(calls) == 8 else 1.0 * z), None

        def backward(self, params, cache, da, /, *, xp):
            return 1.0 * da, ()

    net = bpxp.Network([5, nn.Dense(4, Moody()), 3], backend="numpy", seed=0)
    case = planted.Drawn(0, net.backend).planted("", net, (2, 3), 0, "a", optim.SGD(0.1))
    error = diverge(case)
    assert "Done again, the same steps were finite" in str(error)
    assert error.layer is None
    assert all(np.isfinite(net.backend.to_numpy(a)).all() for own in net.params for a in own)


# ---------------------------------------------------------------- files


def test_nothing_that_is_not_finite_is_saved(backend, tmp_path):
    case = planted.plant(4, backend, "update")
    best, run = tmp_path / "best.bpxp", tmp_path / "run-{epoch}.bpxp"
    saves = [Checkpoint(best, monitor="train_accuracy"), Checkpoint(run, steps=1)]
    with warnings.catch_warnings(action="error", category=bpxp.BpxpWarning):
        error = diverge(case, callbacks=saves, evaluate_train=True)
    assert error.file == tmp_path / "run.diverged.bpxp"
    files = sorted(tmp_path.glob("*.bpxp"))
    assert len(files) == (case.epoch > 1) + (case.epoch - 1) * planted.BATCHES + case.step - 1 + 1
    for path in files:
        if path != error.file:
            net = bpxp.Network.load(path, backend="numpy", custom=planted.CUSTOM)
            assert all(np.isfinite(a).all() for own in net.params for a in own)


def test_the_bundle_is_the_step(backend, tmp_path):
    for seed, kind in [(0, "forward"), (1, "transform"), (2, "optimizer_state")]:
        case = planted.plant(seed, backend, kind)
        path = tmp_path / "step.bpxp"
        error = diverge(case, bundle=path)
        assert error.file == path
        assert f"bpxp replay {path}" in error.__notes__[0]
        again = bpxp.replay(path, custom=planted.CUSTOM)
        assert (again.epoch, again.step, again.dtype) == (case.epoch, case.step, "float32")
        assert [tuple(q) for q in again.seen] == [tuple(q) for q in error.seen]
        if kind != "transform":  # the first quantity of all is the one that is infinite
            assert agree(again.seen, again.exact) > 8
        # The squares are beyond float32, not beyond float64.
        assert any(q.bad for q in again.exact) == (kind != "optimizer_state")
        loaded = bpxp.Network.load(path, backend=backend, custom=planted.CUSTOM)
        own, opt = swapped(case.net.params, case.net.opt_state)  # the network keeps the average between fits
        loaded.opt_state = opt
        case.net._held.now = case.net._held.now._replace(params=own, opt=opt)
        assert bits(loaded) == bits(case.net)
        assert np.array_equal(np.sort(Bundle.read(path).tensors["replay/samples"]), np.sort(error.samples))


def test_the_table_of_a_replay():
    case = planted.plant(6, "numpy", "sample")
    text = str(bpxp.replay(diverge(case).bundle))
    rows = [line.split() for line in text.splitlines()]
    assert rows[0][:4] == ["epoch", "1,", "step", f"{case.step};"]
    assert f"in float32 z of layer {case.layer} is the first that is not finite" in text
    assert "in float64 all is finite" in text
    assert any(row[:4] == ["z", "of", "layer", str(case.layer)] and "of" in row[5:] for row in rows)


def test_a_bundle_that_cannot_be_written(tmp_path):
    case = planted.plant(0, "numpy", "forward")
    error = diverge(case, bundle=tmp_path / "no" / "such" / "folder.bpxp")
    assert error.file is None
    assert "could not be written down" in error.__notes__[0]
    assert error.bundle is not None


def test_files_that_are_no_bundle(tmp_path):
    path = tmp_path / "net.bpxp"
    bpxp.Network([2, 2], backend="numpy").save(path)
    with pytest.raises(CheckpointFormatError, match="holds no step to do again"):
        bpxp.replay(path)
    bundle = diverge(planted.plant(9, "numpy", "sample")).bundle
    with pytest.raises(FileNotFoundError):
        bpxp.replay(tmp_path / "none.bpxp")
    for wrong in ("replay/seen", "batch/x", "opt/t"):
        broken = bundle._replace(tensors={name: a for name, a in bundle.tensors.items() if name != wrong})
        with pytest.raises(CheckpointCorruptError, match="the description of the step is damaged"):
            bpxp.replay(broken)


# ---------------------------------------------------------------- what is said


def test_the_message():
    case = planted.plant(5, "numpy", "exponential")
    error = diverge(case)
    text = str(error)
    assert text.startswith(f"fit: epoch 1, step {case.step} of 6: a of layer {case.layer} (Dense(")
    for part in (
        f"sample {case.samples[0]} of the data",
        f"z of layer {case.layer} up to",
        "the learning rate is 1e-06",
    ):
        assert part in text
    assert "Fix: scale the data" in text
    assert text.endswith("The network is as it was before that step. [BPX-E052]")
    assert len(text) < 900


@pytest.mark.parametrize(
    ("kind", "seed", "advice"),
    [
        ("explosion", 0, "parameters have grown to"),
        ("transform", 1, "look at the transforms of augment="),
        ("backward", 2, "look at Fault.backward"),
        ("forward", 3, "look at Fault.forward"),
        ("gradient", 4, "look at FaultyDense.backward"),
    ],
)
def test_what_to_try(kind, seed, advice):
    assert advice in str(diverge(planted.plant(seed, "numpy", kind)))


def test_looking_at_an_array():
    a = np.array([[1.0, np.nan], [-3.0, 0.0], [np.inf, 2.0]])
    norm = math.sqrt(14.0)
    seen = quantity((1,), "z", a)
    assert seen == Quantity((1,), "z", 3.0, pytest.approx(norm), 2, 6, (0, 1), (0, 2))
    assert quantity((), "W", a).rows == ()
    assert quantity((), "W", np.full(4, 1e300)).norm == pytest.approx(2e300)
    assert quantity((), "x", np.zeros((2, 0)))[2:] == (0.0, 0.0, 0, 0, (), ())
    assert layer_and_field("1/0/W") == ((1, 0), "W")
    assert layer_and_field("2/0") == ((2,), "0")
