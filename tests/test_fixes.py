"""Every line of code that a message proposes is run: the call succeeds with it, on the numbers that were meant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from mistakes.fixes import FIXES, LABELS, line

import bpxp
from bpxp import nn, optim
from bpxp.core import aliases
from bpxp.errors import BpxpError


@pytest.mark.parametrize("case", FIXES, ids=lambda case: case.name.replace(" ", "_"))
def test_the_line_is_run(case):
    options = {"input_shape": None, **case.options}
    if isinstance(case.layers[0], int):
        del options["input_shape"]
    net = bpxp.Network(list(case.layers), backend="numpy", seed=0, **options)
    trainer = bpxp.Trainer(net, progress=False, metrics=[])

    def call(x, y):
        return net.predict(x) if case.call == "predict" else trainer.fit((x, y), epochs=1)

    names = {"x": case.x, "y": LABELS if case.y is None else case.y, "np": np}
    with pytest.raises(BpxpError) as caught:
        call(names["x"], names["y"])
    fix = caught.value.fix
    if case.call == "once":  # the call has not read it: it asked for a list first
        assert fix == "x = np.stack(list(x))"
    exec(line(fix, caught.value.where[-1]), names)  # "fit: y"
    assert np.array_equal(np.asarray(names["x"]), case.right)
    if case.right_y is not None:
        assert np.array_equal(np.asarray(names["y"]), case.right_y)
    call(names["x"], names["y"])


# ---------------------------------------------------------------- names of other libraries


def proposed(call):
    with pytest.raises(BpxpError) as caught:
        call()
    return caught.value.first.removeprefix("Did you mean ").removesuffix("?").strip("'")


def network(**options):
    return bpxp.Network([4, 3], backend="numpy", seed=0, **options)


TABLES = {
    "Loss": (nn.LOSSES, nn.get_loss),
    "Activation": (nn.ACTIVATIONS, nn.get_activation),
    "Initializer": (nn.INITIALIZERS, nn.get_initializer),
    "Optimizer": (optim.OPTIMIZERS, optim.get_optimizer),
    "Metric": (bpxp.metrics.METRICS, bpxp.metrics.get_metric),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_name_of_another_library_leads_to_the_right_thing_or_nowhere(kind):
    known, get = TABLES[kind]
    for right, others in aliases.KINDS[kind].items():
        assert right == aliases.NONE or right in known
        for other in others.split():
            if other in known or other in ("softmax", "logsoftmax"):
                continue
            assert proposed(lambda name=other: get(name)) == right, other
            get(right) if right else None


@pytest.mark.parametrize(
    ("kind", "name", "right"),
    [
        ("Loss", "cross_entropy", "softmax_cross_entropy"),
        ("Loss", "CrossEntropyLoss", "softmax_cross_entropy"),
        ("Loss", "sparse_categorical_crossentropy", "softmax_cross_entropy"),
        ("Loss", "log_loss", "softmax_cross_entropy"),
        ("Loss", "BCEWithLogitsLoss", "binary_cross_entropy"),
        ("Loss", "MSE", "mean_squared_error"),
        ("Loss", "Huber", "huber"),
        ("Loss", "mean_squared_logarithmic_error", ""),
        ("Activation", "LeakyReLU", "leaky_relu"),
        ("Activation", "celu", ""),
        ("Initializer", "kaiming_normal_", "he_normal"),
        ("Optimizer", "Adam", "adam"),
        ("Optimizer", "adamx", "adam"),
        ("Optimizer", "Nadam", ""),
        ("Metric", "sparse_categorical_accuracy", "accuracy"),
    ],
)
def test_as_other_libraries_write_it(kind, name, right):
    assert proposed(lambda: TABLES[kind][1](name)) == right


@pytest.mark.parametrize(
    ("name", "right"),
    [("cpu", "numpy"), ("gpu", "cupy', 'torch:cuda' or 'jax:gpu"), ("cuda", "cupy', 'torch:cuda' or 'jax:gpu"),
     ("pytorch", "torch"), ("tensorflow", ""), ("cuppy", "cupy")],
)  # fmt: skip
def test_backends(name, right):
    assert proposed(lambda: bpxp.get_backend(name)) == right


@pytest.mark.parametrize(("name", "right"), [("val_loss", "validation_loss"), ("val_acc", "validation_accuracy")])
def test_columns(name, right):
    row = {"epoch": 1, "loss": 0.5, "validation_loss": 0.4, "validation_accuracy": 0.5}
    assert proposed(lambda: bpxp.History([row])[name]) == right


ARGUMENTS = [
    (lambda **k: network(**k), {"activation": "relu"}, {"hidden": "relu"}),
    (lambda **k: bpxp.Network([4, 3], **k), {"device": "numpy"}, {"backend": "numpy"}),
    (lambda **k: bpxp.Network([4, 3], backend="numpy", **k), {"random_state": 3}, {"seed": 3}),
    (optim.Adam, {"lr": 0.1}, {"learning_rate": 0.1}),
    (optim.Adam, {"beta_1": 0.8}, {"beta1": 0.8}),
    (optim.SGD, {"eta": 0.1}, {"learning_rate": 0.1}),
    (optim.AdamW, {"eps": 1e-8}, {"epsilon": 1e-8}),
    (nn.Dropout, {"p": 0.5}, {"rate": 0.5}),
    (nn.Dense, {"out_features": 5}, {"units": 5}),
    (lambda **k: nn.Conv2D(4, **k), {"kernel_size": 3}, {"kernel": 3}),
    (nn.MaxPool2D, {"pool_size": 2}, {"pool": 2}),
    (lambda **k: bpxp.Trainer(network(), **k), {"verbose": False}, {"progress": False}),
    (lambda **k: fit(epochs=1, **k), {"validation_data": 0.5}, {"validation": 0.5}),
    (lambda **k: fit(epochs=1, **k), {"sample_weight": [1.0] * 6}, {"weight": [1.0] * 6}),
    (lambda **k: fit(**k), {"nb_epoch": 1}, {"epochs": 1}),
    (lambda **k: bpxp.callbacks.EarlyStopping(**k), {"restore_best_weights": True}, {"restore_best": True}),
]  # fmt: skip


def fit(**options):
    trainer = bpxp.Trainer(network(), progress=False)
    return trainer.fit((np.ones((6, 4)), LABELS), **options)


@pytest.mark.parametrize(
    ("call", "wrong", "right"), ARGUMENTS, ids=lambda case: "-".join(case) if isinstance(case, dict) else ""
)
def test_an_argument_of_another_library_is_named(call, wrong, right):
    with pytest.raises(TypeError) as caught:
        call(**wrong)
    assert caught.value.fix == f"{next(iter(right))}=…"
    call(**right)


@pytest.mark.parametrize(
    ("call", "fix"),
    [
        (lambda: fit(epochs=1, callbacks=[]), "Trainer(net, callbacks=…)"),
        (lambda: fit(epochs=1, verbose=0), "Trainer(net, progress=False)"),
        (lambda: network(optimizer="adam"), "Trainer(net, bpxp.optim.Adam(…))"),
        (lambda: bpxp.Trainer(network(), epochs=3), "fit(data, epochs=…)"),
    ],
)
def test_an_argument_that_belongs_elsewhere(call, fix):
    with pytest.raises(TypeError) as caught:
        call()
    assert caught.value.fix == fix


def test_an_input_shape_with_the_channels_first_is_a_warning_and_its_fix_works():
    layers = [nn.Conv2D(2, 3), nn.Flatten(), 3]
    with pytest.warns(bpxp.BpxpWarning, match="looks channels-first") as caught:
        net = bpxp.Network(layers, input_shape=(3, 8, 8), backend="numpy", seed=0)
    assert caught[0].message.fix == "input_shape=(8, 8, 3), and np.moveaxis(x, 1, -1)"
    x = np.random.default_rng(0).random((4, 3, 8, 8))
    with pytest.raises(ValueError, match=r"Fix: Network\(…, input_shape=\(8, 8, 3\)\)"):
        net.predict(np.moveaxis(x, 1, -1))
    net = bpxp.Network(layers, input_shape=(8, 8, 3), backend="numpy", seed=0)
    assert net.predict(np.moveaxis(x, 1, -1)).shape == (4,)


def test_arrays_of_torch_get_lines_of_torch():
    torch = pytest.importorskip("torch")
    right = torch.rand(6, 8, 5, 3)
    net = bpxp.Network([nn.Flatten(), 3], input_shape=(8, 5, 3), backend="torch", seed=0)
    for x in (right.permute(0, 3, 1, 2), right.permute(0, 2, 1, 3), right.permute(0, 3, 1, 2).reshape(6, 120)):
        with pytest.raises(BpxpError) as caught:
            net.predict(x)
        names = {"x": x, "torch": torch}
        exec(line(caught.value.fix, "x"), names)
        assert torch.equal(names["x"], right)
        net.predict(names["x"])


@pytest.mark.parametrize("callbacks", [bpxp.callbacks.EarlyStopping(), bpxp.callbacks.EarlyStopping])
def test_a_callback_alone(callbacks):
    with pytest.raises(TypeError) as caught:
        bpxp.Trainer(network(), callbacks=callbacks)
    assert caught.value.fix == "callbacks=[EarlyStopping(…)]"


def test_the_columns_of_text_are_dropped_in_the_words_of_their_library():
    x = {name: np.arange(6.0) for name in "abcd"} | {"name": list("uvwxyz")}
    for library in ("pandas", "polars"):
        frame = pytest.importorskip(library).DataFrame(x)
        with pytest.raises(BpxpError) as caught:
            fit_on(frame)
        names = {"x": frame}
        exec(line(caught.value.fix, "x"), names)
        fit_on(names["x"])


def fit_on(x):
    bpxp.Trainer(network(), progress=False).fit((x, LABELS), epochs=1)


@dataclass(frozen=True)
class Unnamed:
    """A layer whose parameters are a dict."""

    def init(self, rng, in_shape, /):
        return {"W": np.ones(3)}, in_shape

    def forward(self, params, x, /, *, xp):
        return x, ()

    def backward(self, params, cache, dy, /, *, xp):
        return dy, params


def test_parameters_that_are_no_tuple():
    with pytest.raises(
        TypeError, match=r"Unnamed\.init: the parameters are no tuple of arrays: got dict.*\[BPX-E085\]"
    ):
        bpxp.Network([4, Unnamed(), 3], backend="numpy", seed=0)


def test_what_is_to_be_installed_is_named_by_its_library():
    from bpxp.backends.names import LIBRARIES

    assert [library.install.split()[2].strip("'") for library in LIBRARIES.values()] == [
        "numpy", "cupy-cuda13x[ctk]", "torch", "jax", "array-api-strict",
    ]  # fmt: skip
