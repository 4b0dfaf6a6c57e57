"""A run that was cut goes on to the same bits: at every step, on every backend, with everything that has a memory."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.small_runs import Cut

import bpxp
from bpxp import nn, optim
from bpxp.callbacks import Callback, Checkpoint, CSVLog, EarlyStopping
from bpxp.core.tree import named_leaves
from bpxp.data import augment
from bpxp.errors import (
    BpxpWarning,
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointMismatchError,
    InvalidValueError,
)
from bpxp.saving import format as checkpoint

N, BATCH, EPOCHS = 13, 5, 3  # three steps an epoch, the last of them with three samples
STEPS = -(-N // BATCH) * EPOCHS
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(N, 6)).astype(np.float32), rng.integers(0, 3, N)
IMAGES = rng.integers(0, 256, (N, 5, 5, 1)).astype(np.uint8)
HELD_OUT = rng.normal(size=(7, 6)).astype(np.float32), rng.integers(0, 3, 7)


class Case:
    """A fit, made anew each time as a new process would make it."""

    def __init__(self, layers, optimizer, stop=(), images=False, **options):
        self.layers, self.optimizer, self.stop, self.images = layers, optimizer, stop, images
        self.options = {"epochs": EPOCHS, "batch_size": BATCH, "validation": HELD_OUT, **options}

    def net(self, backend):
        shape = {"input_shape": (5, 5, 1)} if self.images else {}
        return bpxp.Network(self.layers, backend=backend, seed=3, **shape)

    def fit(self, net, callbacks=(), **options):
        stop = [EarlyStopping(**self.stop)] if self.stop else []
        trainer = bpxp.Trainer(net, self.optimizer, callbacks=[*callbacks, *stop], progress=False)
        return trainer.fit((IMAGES if self.images else X, Y), **{**self.options, **options})


DENSE = [6, nn.Dense(8, activation="tanh"), 3]
RANDOM = [6, nn.Dense(8, activation="relu"), nn.BatchNorm(), nn.Dropout(0.4), 3]
# Without a bias before the normalisation: its gradient is 0 but for rounding, which RMSprop makes as large as any other,
# and no two libraries round alike.
IMAGE = [nn.Conv2D(3, 3, activation="relu", bias=False), nn.BatchNorm(), nn.Flatten(), nn.Dropout(0.2), 3]
MOVES = [augment.Affine(degrees=10, shift=1), augment.Noise(0.1), augment.Mixup(0.2)]
CASES = {
    "sgd": Case(DENSE, optim.SGD(0.1)),
    "momentum, average, early stopping": Case(
        RANDOM, optim.SGD(0.9, momentum=0.9, nesterov=True, average=0.8), stop={"patience": 2}
    ),
    "adam, plateau": Case(RANDOM, optim.Adam(optim.Plateau(0.5, patience=1))),
    "adamw, schedule, clipping": Case(RANDOM, optim.AdamW(optim.WarmUp(optim.CosineDecay(0.05, 8), 2), clip_norm=0.1)),
    "rmsprop, images, augmentation": Case(
        IMAGE, optim.RMSprop(0.01, l2=0.01), images=True, augment=MOVES, validation=0.3, evaluate_train=True
    ),
    "sgd, weights, classes": Case(
        DENSE, optim.SGD(0.1), weight=np.arange(N) % 3 + 1, class_weight="balanced", validation=0.3, evaluate_train=True
    ),
    "adagrad, weights": Case(RANDOM, optim.Adagrad(0.1, l1=0.001), weight=np.arange(N) % 3, shuffle=False),
}


def state(net):
    """Return every bit that the network has after a fit."""
    arrays = dict(named_leaves((net.params, net.stats, net.opt_state)))
    return {name: net.backend.to_numpy(a) for name, a in arrays.items()}, net._steps, net.epoch, net.seed


def rows(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def differing(a, b):
    """Return the names of what is not the same, bit for bit."""
    (arrays, *rest), (others, *more) = a, b
    assert arrays.keys() == others.keys()
    found = [name for name in arrays if not same(arrays[name], others[name])]
    return found + ([] if rest == more else [f"{rest} and {more}"])


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---------------------------------------------------------------- the same bits


def test_every_cut_of_every_run(backend, tmp_path, nightly, promise):
    # What is compiled for a network serves all its fits: JAX resumes in the network that has been trained, the others
    # in one that is as a new process has it.
    names = [name for name in CASES if "images" not in name or "strict" not in backend.name]  # it would take minutes
    if not nightly:
        names = {"jax": names[1:2], "strict": names[1:3]}.get(backend.name.partition(":")[0], names)
    cases = {name: CASES[name] for name in names}
    cuts, size = 0, {"batch_size": 2} if nightly else {}  # then the last step of an epoch has a single sample
    for i, (name, case) in enumerate(cases.items()):
        net = case.net(backend)
        whole = case.fit(net, **size)
        wanted = state(net)
        other = case.net(backend)
        watched = case.fit(other, [Checkpoint(tmp_path / f"{i}-{{epoch}}.bpxp", steps=1)], **size)
        assert rows(watched) == rows(whole), f"{name}: saving changes the history"
        assert differing(state(other), wanted) == [], f"{name}: saving changes the bits"
        files = sorted(tmp_path.glob(f"{i}-*.bpxp"))
        assert len(files) >= 4
        for file in files if nightly else files[::2]:
            if "jax" not in backend.name:
                other = case.net(backend)
            resumed = case.fit(other, resume=file, **size)
            assert rows(resumed) == rows(whole), f"{name}, {file.name}"
            assert differing(state(other), wanted) == [], f"{name}, {file.name}"
            cuts += 1
    promise(f"A run cut at a step and resumed ({backend.name})", f"{cuts} cut points, 0 differing bits")


def test_every_pair_of_cuts(backend, tmp_path, nightly):
    # Cut, resumed, cut again, resumed: also where the file that is resumed from is the one that is written.
    case, path = CASES["momentum, average, early stopping"], tmp_path / "run.bpxp"
    net = case.net(backend)
    whole = case.fit(net, [Checkpoint(tmp_path / "{epoch}.bpxp", steps=1)])
    wanted = state(net)
    files = {i: tmp_path / f"{f'{i // 3}+{i % 3}' if i % 3 else i // 3}.bpxp" for i in range(1, STEPS)}
    pairs = list(itertools.combinations(files, 2))
    for first, second in pairs if nightly else pairs[::9]:
        for source, cut in ((files[first], [Cut(second)]), (path, [])):
            if "jax" not in backend.name:
                net = case.net(backend)
            callbacks = [Checkpoint(path, steps=1), *cut]
            if cut:
                with pytest.raises(Cut.Now):
                    case.fit(net, callbacks, resume=source)
            else:
                resumed = case.fit(net, callbacks, resume=source)
        assert rows(resumed) == rows(whole)
        assert differing(state(net), wanted) == []


def test_a_finished_run_is_not_trained_again(tmp_path):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    net = case.net("numpy")
    whole = case.fit(net, [Checkpoint(path)])
    wanted = state(net)
    assert rows(case.fit(net, [Checkpoint(path)], resume=path)) == rows(whole)
    assert differing(state(net), wanted) == []
    # More epochs are those that a longer fit would have done.
    longer = case.net("numpy")
    whole = case.fit(longer, epochs=EPOCHS + 2)
    assert rows(case.fit(net, resume=path, epochs=EPOCHS + 2)) == rows(whole)
    assert differing(state(net), state(longer)) == []


def test_a_run_after_another_fit(tmp_path):
    # The network has a past: its history begins with this fit, its epochs do not.
    case, path = CASES["momentum, average, early stopping"], tmp_path / "run.bpxp"
    net = case.net("numpy")
    case.fit(net, epochs=1)
    net.save(tmp_path / "begin.bpxp")
    whole = case.fit(net)
    assert whole["epoch"] == [2, 3, 4]
    other = case.net("numpy")
    case.fit(other, epochs=1)
    with pytest.raises(Cut.Now):
        case.fit(other, [Checkpoint(path, steps=1), Cut(5)])
    other = case.net("numpy")
    assert rows(case.fit(other, resume=path)) == rows(whole)
    assert differing(state(other), state(net)) == []


def test_a_stopped_run_stays_stopped(tmp_path):
    case, path = Case(RANDOM, optim.SGD(1e-9), stop={"patience": 1, "min_delta": 1.0}), tmp_path / "run.bpxp"
    net = case.net("numpy")
    whole = case.fit(net, [Checkpoint(path)])
    assert len(whole) == 2
    wanted = state(net)
    assert rows(case.fit(net, resume=path)) == rows(whole)
    assert differing(state(net), wanted) == []


def test_another_backend_takes_over(backend, tmp_path, nightly):
    # Order and masks are the same; the numbers agree as far as two libraries do.
    names = ["momentum, average, early stopping", "rmsprop, images, augmentation"]
    for name in names if nightly or "jax" not in backend.name else names[:1]:
        case, there, back = CASES[name], tmp_path / "there.bpxp", tmp_path / "back.bpxp"
        net, other, third = case.net("numpy"), case.net(backend), case.net("numpy")
        whole = case.fit(net)
        with pytest.raises(Cut.Now):
            case.fit(case.net("numpy"), [Checkpoint(there, steps=4), Cut(4)])
        with pytest.raises(Cut.Now):
            case.fit(other, [Checkpoint(back, steps=5), Cut(5)], resume=there)
        first = case.fit(other, resume=there)
        second = case.fit(third, resume=back)
        for history, found in ((first, other), (second, third)):
            for a, b in zip(rows(history), rows(whole), strict=True):
                assert a == pytest.approx(b, rel=1e-4)
            for (key, a), b in zip(state(found)[0].items(), state(net)[0].values(), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5, err_msg=key)


def test_other_matrix_products_are_noticed(tmp_path):
    path, case = tmp_path / "run.bpxp", CASES["sgd"]
    case.fit(case.net("numpy"), [Checkpoint(path)])
    tensors, description = checkpoint.read(path)
    written = {**description["written"], "backend": "torch:cuda+bfloat16"}
    kept = {key: description[key] for key in ("network", "run")}
    checkpoint.write(path, tensors, {**kept, "written": written})
    with pytest.warns(BpxpWarning, match="products were of bfloat16, and are of float32 now"):
        case.fit(case.net("numpy"), resume=path)


def test_the_seed_is_that_of_the_file(tmp_path):
    path, case = tmp_path / "run.bpxp", CASES["rmsprop, images, augmentation"]
    net = case.net("numpy")
    whole = case.fit(net)
    with pytest.raises(Cut.Now):
        case.fit(case.net("numpy"), [Checkpoint(path, steps=4), Cut(4)])
    other = bpxp.Network(IMAGE, input_shape=(5, 5, 1), init="he", backend="numpy")  # another seed, other weights
    assert rows(case.fit(other, resume=path)) == rows(whole)
    assert differing(state(other), state(net)) == []


def test_the_batch_size_of_the_file_is_the_default(tmp_path):
    path, case = tmp_path / "run.bpxp", CASES["sgd"]
    whole = case.fit(case.net("numpy"), [Checkpoint(path)])
    other = bpxp.Trainer(case.net("numpy"), optim.SGD(0.1), progress=False)
    assert rows(other.fit((X, Y), epochs=EPOCHS, validation=HELD_OUT, resume=path)) == rows(whole)


# ---------------------------------------------------------------- files


def test_the_file_of_a_run_is_a_network_too(tmp_path):
    case, path = CASES["momentum, average, early stopping"], tmp_path / "run.bpxp"
    net = case.net("numpy")
    whole = case.fit(net, [Checkpoint(path)])
    loaded = bpxp.Network.load(path, backend="numpy")
    # The average, which was evaluated, and the running statistics.
    assert loaded.evaluate(*HELD_OUT)["loss"] == whole[-1]["validation_loss"]
    assert (loaded.epoch, loaded._steps, loaded.layers) == (EPOCHS, STEPS, net.layers)
    # And the other way round: a network is no run.
    loaded.save(tmp_path / "net.bpxp")
    with pytest.raises(CheckpointFormatError, match="a network and no run.*Network.load"):
        case.fit(net, resume=tmp_path / "net.bpxp")


def test_a_run_goes_on_in_a_loaded_network(tmp_path):
    case, path = CASES["adam, plateau"], tmp_path / "run.bpxp"
    net = case.net("numpy")
    whole = case.fit(net)
    with pytest.raises(Cut.Now):
        case.fit(case.net("numpy"), [Checkpoint(path, steps=4), Cut(4)])
    other = bpxp.Network.load(path, backend="numpy")
    assert rows(case.fit(other, resume=path)) == rows(whole)
    assert differing(state(other), state(net)) == []


def test_names_and_number_of_files(tmp_path):
    case = CASES["sgd"]
    case.fit(case.net("numpy"), [Checkpoint(tmp_path / "a{epoch}.bpxp", keep=2)])
    case.fit(case.net("numpy"), [Checkpoint(tmp_path / "b{epoch}.bpxp", steps=2, keep=3)])
    case.fit(case.net("numpy"), [Checkpoint(tmp_path / "c.bpxp", steps=2)])
    assert {path.name for path in tmp_path.iterdir()} == {
        "a2.bpxp",
        "a3.bpxp",
        "b2+2.bpxp",  # steps 6 and 8, and the epoch's end
        "b2.bpxp",
        "b3.bpxp",
        "c.bpxp",
    }


def test_keep_after_resuming(tmp_path):
    case, path = CASES["sgd"], tmp_path / "e{epoch}.bpxp"
    case.fit(case.net("numpy"), [Checkpoint(path)])  # an older run: its files are replaced, and not removed
    with pytest.raises(Cut.Now):
        case.fit(case.net("numpy"), [Checkpoint(path, steps=1, keep=2), Cut(5)])
    assert {p.name for p in tmp_path.iterdir()} == {"e1+1.bpxp", "e1+2.bpxp", "e2.bpxp", "e3.bpxp"}
    case.fit(case.net("numpy"), [Checkpoint(path, keep=2)], resume=tmp_path / "e1+2.bpxp")
    assert {p.name for p in tmp_path.iterdir()} == {"e2.bpxp", "e3.bpxp"}


def test_resume_true_takes_the_newest_or_begins(tmp_path):
    case, path = CASES["sgd"], tmp_path / "e{epoch}.bpxp"
    net = case.net("numpy")
    whole = case.fit(net)
    for steps in (2, 4, 5, 8):
        with pytest.raises(Cut.Now):
            case.fit(case.net("numpy"), [Checkpoint(path, steps=1), Cut(steps)], resume=True)
    assert Checkpoint(path).newest() == tmp_path / "e2+2.bpxp"
    other = case.net("numpy")
    assert rows(case.fit(other, [Checkpoint(path)], resume=True)) == rows(whole)
    assert differing(state(other), state(net)) == []
    with pytest.raises(InvalidValueError, match="no Checkpoint that says where"):
        case.fit(other, [Checkpoint(path, monitor="loss")], resume=True)


def test_callbacks_go_on(tmp_path):
    case, path, log = CASES["sgd"], tmp_path / "run.bpxp", tmp_path / "log.csv"

    class Sum(Callback):
        def on_fit_begin(self, trainer):
            self.total, self.weights = 0.0, np.zeros(2)

        def on_epoch_end(self, trainer, row):
            self.total += row["loss"]
            self.weights += row["loss"]
            row["total"] = self.total

        def state(self, trainer):
            return {"total": self.total, "weights": self.weights}

        def resume(self, trainer, state):
            self.total, self.weights = state["total"], np.array(state["weights"])

    def callbacks():
        best = Checkpoint(tmp_path / "best.bpxp", monitor="loss", mode="max")
        return [Sum(), CSVLog(log), best, Checkpoint(path, steps=1)]

    case.fit(case.net("numpy"), callbacks())
    wanted, best = log.read_text().split(), (tmp_path / "best.bpxp").read_bytes()
    with pytest.raises(Cut.Now):
        case.fit(case.net("numpy"), [*callbacks(), Cut(7)])
    (tmp_path / "best.bpxp").unlink()
    again = callbacks()
    history = case.fit(case.net("numpy"), again, resume=path)
    assert history[-1]["total"] == pytest.approx(sum(history["loss"]))
    assert np.array_equal(again[0].weights, np.full(2, again[0].total))
    with log.open(newline="") as file:
        found = list(csv.DictReader(file))
    assert [{k: v for k, v in row.items() if k != "seconds"} for row in found] == [
        {k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(wanted)
    ]
    # The loss was largest in the first epoch: what came after the cut did not improve on it.
    assert not (tmp_path / "best.bpxp").exists()
    assert best


def test_callbacks_that_come_and_go_are_named(tmp_path):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    case.fit(case.net("numpy"), [Checkpoint(path), EarlyStopping("loss")])
    with pytest.warns(BpxpWarning, match="EarlyStopping was there when the run was saved, and is not now"):
        case.fit(case.net("numpy"), resume=path)
    case.fit(case.net("numpy"), [Checkpoint(path)])
    with pytest.warns(BpxpWarning, match="EarlyStopping was not there .* begins anew"):
        case.fit(case.net("numpy"), [EarlyStopping("loss")], resume=path)


def test_progress_says_where_it_goes_on(tmp_path, capsys):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    with pytest.raises(Cut.Now):
        case.fit(case.net("numpy"), [Checkpoint(path, steps=5), Cut(5)])
    trainer = bpxp.Trainer(case.net("numpy"), case.optimizer)
    trainer.fit((X, Y), **case.options, resume=path)
    assert f"resumed from {path}: epoch 2, step 2 of 3\nepoch 2/3" in capsys.readouterr().out


FORMAT_2_LOSS = [1.583357884333684, 1.3460709498478816, 1.1034519488994892]
FORMAT_2_VALIDATION_LOSS = [1.1583291292190552, 1.0539934635162354, 0.9934799671173096]


def test_a_run_of_format_2_goes_on(tmp_path):
    # Saved in the middle of the second epoch by bpxp 0.1.0.
    old = Path(__file__).parents[1] / "saving" / "format-2-run.safetensors"
    x = np.arange(52.0).reshape(13, 4) % 7 / 7
    net = bpxp.Network([4, nn.Dense(5, activation="tanh"), nn.BatchNorm(), nn.Dropout(0.2), 3], backend="numpy")
    stopping = EarlyStopping("loss", patience=2)
    optimizer = optim.Adam(optim.CosineDecay(0.05, 9), average=0.5, clip_norm=1.0)
    trainer = bpxp.Trainer(net, optimizer, callbacks=[stopping], progress=False)
    history = trainer.fit((x, np.arange(13) % 3), epochs=3, batch_size=5, validation=(x[:4], [0, 1, 2, 0]), resume=old)
    assert (history["epoch"], net.seed, net._steps, stopping.best_epoch) == ([1, 2, 3], 11, 9, 3)
    np.testing.assert_allclose(history["loss"], FORMAT_2_LOSS, rtol=1e-5)
    np.testing.assert_allclose(history["validation_loss"], FORMAT_2_VALIDATION_LOSS, rtol=1e-5)


def test_samples_may_stay_on_the_host_when_a_run_goes_on(tmp_path):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    net = case.net("numpy")
    whole = case.fit(net)
    case.fit(case.net("numpy"), [Checkpoint(path)], epochs=1)
    held, aside = (bpxp.data.Dataset(*data, resident=False) for data in ((X, Y), HELD_OUT))
    other = case.net("numpy")
    trainer = bpxp.Trainer(other, case.optimizer, progress=False)
    history = trainer.fit(held, **{**case.options, "validation": aside}, resume=path)
    assert rows(history) == rows(whole)
    assert differing(state(other), state(net)) == []


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"layers": [6, nn.Dense(9, activation="tanh"), 3]},
            r"the network is another: layers\[0\].units is 8 in the file, 9",
        ),
        ({"layers": [6, nn.Dense(8), 3]}, r"layers\[0\].activation is Tanh in the file, Sigmoid here"),
        ({"layers": [6, 3]}, "layers is .* in the file"),
        ({"optimizer": optim.SGD(0.2)}, "otherwise: optimizer.learning_rate is 0.1 in the file, 0.2 here"),
        ({"optimizer": optim.Adam(0.1)}, "optimizer is SGD in the file, Adam here"),
        ({"batch_size": 4}, "batch_size is 5 in the file, 4 here"),
        ({"shuffle": False, "evaluate_train": True}, "evaluate_train is False.*; shuffle is True in the file, False"),
        ({"validation": None}, "validation_contents is .* in the file, None here"),
        ({"validation": (X[:7], Y[:7])}, "validation_contents.x is .*; validation_contents.y is"),
        ({"data": (X + np.eye(N, 6, -3), Y)}, "otherwise: contents.x is .* in the file"),
        ({"data": (X, (Y + 1) % 3)}, "otherwise: contents.y is .* in the file"),
        ({"data": (X[:12], Y[:12])}, "contents.x is .*; samples is 13 in the file, 12 here"),
        ({"weight": np.ones(N)}, "otherwise: contents.weight is None in the file"),
        ({"validation": (HELD_OUT[0] * 2.0, HELD_OUT[1])}, "validation_contents.x is"),
    ],
)
def test_another_fit_is_refused_with_all_differences(tmp_path, change, text):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    case.fit(case.net("numpy"), [Checkpoint(path)])
    net = bpxp.Network(change.pop("layers", DENSE), backend="numpy", seed=4)
    before = [np.array(a) for _, a in named_leaves(net.params)]
    trainer = bpxp.Trainer(net, change.pop("optimizer", case.optimizer), progress=False)
    with pytest.raises(CheckpointMismatchError, match=text):
        trainer.fit(change.pop("data", (X, Y)), **{**case.options, **change}, resume=path)
    assert all(map(np.array_equal, before, [a for _, a in named_leaves(net.params)]))
    assert (net.epoch, net.seed, net.training) == (0, 4, False)


def test_a_damaged_description_of_a_run(tmp_path):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    case.fit(case.net("numpy"), [Checkpoint(path)])
    tensors, description = checkpoint.read(path)
    kept = {key: description[key] for key in ("network", "run", "written")}

    def saved(tensors=tensors, network=(), **run):
        network = {**kept["network"], **dict(network)}
        checkpoint.write(path, tensors, {**kept, "network": network, "run": {**kept["run"], **run}})
        return path

    net = case.net("numpy")
    for change in [
        {"first": "now"},
        {"done": None},
        {"done": 2**31},
        {"seconds": []},
        {"plan": 3},
        {"plan": {"batch_size": 0}},
        {"callbacks": [3]},
        {"callbacks": [{"type": "EarlyStopping"}]},
        {"network": {"seed": -1}},
        {"network": {"epoch": 1.5}},
        {"tensors": {**tensors, "run/history": np.frombuffer(b"[1", np.uint8)}},
        {"tensors": {**tensors, "run/history": np.frombuffer(b"[1]", np.uint8)}},
        {"tensors": {key: a for key, a in tensors.items() if key != "run/history"}},
    ]:
        with pytest.raises(CheckpointCorruptError, match="description of the run"):
            case.fit(net, resume=saved(**change))
    for change in ({"done": 3}, {"first": 4}):
        with pytest.raises(CheckpointCorruptError, match="the place of the run is none"):
            case.fit(net, resume=saved(**change))
    for name in ("opt/t", "params/0/W"):
        with pytest.raises(CheckpointMismatchError, match=f"missing {name}"):
            case.fit(net, resume=saved({key: a for key, a in tensors.items() if key != name}))
    assert net.epoch == 0
    with pytest.raises(FileNotFoundError):
        case.fit(net, resume=tmp_path / "nothing.bpxp")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointCorruptError, match="truncated"):
        case.fit(net, resume=path)


def test_a_damaged_state_of_a_callback(tmp_path):
    case, path = CASES["sgd"], tmp_path / "run.bpxp"
    case.fit(case.net("numpy"), [EarlyStopping("loss"), Checkpoint(path)])
    tensors, description = checkpoint.read(path)
    del tensors["callbacks/0/params/0/W"]
    checkpoint.write(path, tensors, {key: description[key] for key in ("network", "run", "written")})
    with pytest.raises(CheckpointCorruptError, match="EarlyStopping cannot go on .*params/0/W"):
        case.fit(case.net("numpy"), [EarlyStopping("loss")], resume=path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"path": "x.bpxp", "steps": 0}, ValueError, ">= 1"),
        ({"path": "x.bpxp", "steps": 1.5}, TypeError, "not an int"),
        ({"path": "x{epoch}.bpxp", "keep": 0}, ValueError, ">= 1"),
        ({"path": "x.bpxp", "keep": 2}, ValueError, "{epoch} belongs into the file's name"),
        ({"path": "{epoch}/x.bpxp"}, ValueError, "{epoch} belongs into the file's name"),
        ({"path": "x.bpxp", "steps": 5, "monitor": "loss"}, ValueError, "at the end of an epoch"),
    ],
)
def test_bad_options_of_a_checkpoint(options, error, text):
    with pytest.raises(error, match=text):
        Checkpoint(**options)
