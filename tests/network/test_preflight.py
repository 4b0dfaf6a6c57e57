"""The pre-flight says what the real step does: compared with the shape ledger, with a counted run, and with its memory."""

from __future__ import annotations

import math
import tracemalloc
import types

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.backends import base, get_backend
from bpxp.backends.abstract import namespace as shapes
from bpxp.backends.abstract.array import ARITHMETIC, COMPARISONS
from bpxp.core.tree import tree_map
from bpxp.data import augment
from bpxp.data.order import epoch_order
from bpxp.network.preflight import CPU_CORE, GPU
from bpxp.network.step import Data, State, TrainingStep

IMAGES = {"input_shape": (12, 12, 3)}
CNN = [nn.Conv2D(8, 3, activation="relu"), nn.MaxPool2D(2), nn.Flatten(), 10]
DEEP = [
    nn.Conv2D(8, 3, padding="same", bias=False),
    nn.BatchNorm(),
    nn.GELU(),
    nn.Conv2D(8, 3, stride=2, groups=2),
    nn.AvgPool2D(2),
    nn.Dropout(0.25),
    nn.GlobalAvgPool2D(),
    nn.LayerNorm(),
    10,
]
RESIDUAL = [nn.Residual((nn.Conv2D(3, 3, padding="same"), nn.Tanh())), nn.MaxPool2D(3, 2), nn.Flatten(), 10]


def mlp(backend, **options):
    return bpxp.Network([20, 16, 10], backend=backend, seed=0, **options)


# ---------------------------------------------------------------- FLOPs


@pytest.mark.parametrize("layers", [CNN, DEEP, RESIDUAL], ids=["cnn", "deep", "residual"])
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_flops_are_those_of_the_shape_ledger(backend, layers, batch):
    if layers is DEEP and batch == 1:
        batch = 2  # batch normalisation needs a variance
    net = bpxp.Network(layers, backend=backend, seed=0, **IMAGES)
    each = sum(layer.forward_flops + layer.backward_flops for layer in net.summary().layers)
    assert bpxp.preflight(net, batch_size=batch).flops == batch * each


def test_flops_of_dense_layers_by_hand(backend):
    costs = bpxp.preflight(mlp(backend), batch_size=8)
    # z and dW of both layers, dx of the second.
    assert costs.flops == 2 * 8 * (20 * 16 * 2 + 16 * 10 * 3)
    assert costs.largest_product in {(8, 20, 16), (20, 8, 16)}
    assert costs.by_operation["matmul"].operations == 5


# ---------------------------------------------------------------- operations and bytes, counted in a real run


class Counted:
    """A NumPy array that writes down what is done with it."""

    def __init__(self, a, log):
        self.a, self.log = np.asarray(a), log

    shape = property(lambda self: self.a.shape)
    dtype = property(lambda self: self.a.dtype)
    ndim = property(lambda self: self.a.ndim)

    def __getitem__(self, index):
        return Counted(self.a[index], self.log)


def touched(a):
    return a.dtype.itemsize * math.prod(n for n, stride in zip(a.shape, a.strides, strict=True) if stride or not n)


def bare(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(bare, value))
    return value.a if isinstance(value, Counted) else value


def arrays_in(values):
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from arrays_in(value)
        elif isinstance(value, np.ndarray):
            yield value


def counted(name, function, log):
    """Return `function` on counted arrays: an operation unless its result is a view."""

    def call(*args, **kwargs):
        args = bare(args)
        result = function(*args, **kwargs)
        several = isinstance(result, tuple)
        results = [np.asarray(r) for r in (result if several else (result,))]
        read = [] if name.endswith("_like") else list(arrays_in(args))
        if name != "empty" and not any(np.may_share_memory(r, a) for r in results for a in read):
            moved = sum(map(touched, [*read, *results]))
            if name in ("take", "take_along_axis"):
                moved = touched(read[1]) + 2 * results[0].nbytes
            flops = 2 * results[0].size * read[0].shape[-1] if name == "matmul" else 0
            log.append((name, moved, flops))
        wrapped = [Counted(r, log) for r in results]
        return tuple(wrapped) if several else wrapped[0]

    return call


def operator(name, method):
    def operate(self, *others):
        return counted(name, lambda a, *b: getattr(a, method)(*b), self.log)(self, *others)

    return operate


def in_place(name, method):
    def operate(self, other):
        self.log.append((name, touched(self.a) * 2 + sum(map(touched, arrays_in([bare(other)]))), 0))
        assert getattr(self.a, method)(bare(other)) is self.a
        return self

    return operate


for name, short in ARITHMETIC.items():
    setattr(Counted, f"__{short}__", operator(name, f"__{short}__"))
    setattr(Counted, f"__r{short}__", operator(name, f"__r{short}__"))
    setattr(Counted, f"__i{short}__", in_place(name, f"__i{short}__"))
for name, short in COMPARISONS.items():
    setattr(Counted, f"__{short}__", operator(name, f"__{short}__"))
Counted.__neg__ = operator("negative", "__neg__")


def counting_namespace(log):
    plain = vars(get_backend("numpy").xp)
    functions = {n: counted(n, f, log) for n, f in plain.items() if n in [*base.FUNCTIONS, *base.CREATION, "threefry"]}
    return types.SimpleNamespace(**{**plain, **functions, "finfo": np.finfo, "isdtype": np.isdtype, "memo": {}})


def real_state(net, optimizer, xp, n, batch, augmented, wrap):
    """Return what the trainer would begin with."""
    kind = np.dtype(net.dtype)
    key = net.key or (net._key_at(0) if augmented else ())
    params, stats, key = tree_map(wrap, (net.params, net.stats, key))
    order = wrap(epoch_order(0, 0, n, batch))
    zeros = [wrap(np.zeros(1, dtype)) for dtype in (np.int32, kind, kind)]
    return State(params, optimizer.init(params, xp=xp), stats, key, order, *zeros)


def real_data(net, n, batch, pixels, weighted, rows, wrap):
    rng = np.random.default_rng(0)
    x = rng.random((n, *net.input_shape)).astype(net.dtype)
    labels = rng.integers(0, net.output_shape[0], n).astype(np.int32)
    if rows or net.loss.targets != "classes":
        labels = np.eye(net.output_shape[0], dtype=net.dtype)[labels]
    x = (x * 255).astype(np.uint8) if pixels else x
    weight = wrap(rng.random(n).astype(net.dtype)) if weighted else None
    return Data(wrap(x), wrap(labels), weight, wrap(np.arange(batch, dtype=np.int32)))


def count_a_step(net, optimizer, n, batch, pixels=False, weighted=False, transforms=()):
    log = []
    xp = counting_namespace(log)
    mixes = any(getattr(t, "mixes", False) for t in transforms)
    arranged = augment.compose.arranged(transforms, net.input_shape)
    state = real_state(net, optimizer, xp, n, batch, bool(transforms), lambda a: Counted(a.copy(), log))
    data = real_data(net, n, batch, pixels, weighted, mixes, lambda a: Counted(a, log))
    step = TrainingStep(net.model, net.loss, optimizer, arranged, xp=xp)
    state = step(state, data)  # the first step makes tables that the others only read
    log.clear()
    state = step(state, data)
    return log


def compare(net, optimizer, n, batch, **options):
    transforms = options.pop("augment", ())
    log = count_a_step(net, optimizer, n, batch, transforms=transforms, **options)
    costs = bpxp.preflight(net, batch_size=batch, samples=n, optimizer=optimizer, augment=transforms, **options)
    names = {name: sum(own == name for own, _, _ in log) for name, _, _ in log}
    assert {name: cost.operations for name, cost in costs.by_operation.items()} == names
    moved = {name: sum(moved for own, moved, _ in log if own == name) for name in names}
    assert {name: cost.bytes for name, cost in costs.by_operation.items()} == moved
    assert (costs.operations, costs.flops) == (len(log), sum(flops for _, _, flops in log))


RULES = {
    "SGD": optim.SGD(0.1),
    "SGD with everything": optim.SGD(0.1, momentum=0.9, nesterov=True, l2=1e-3, l1=1e-4),
    "Adam": optim.Adam(1e-3, clip_norm=1.0, average=0.9),
    "AdamW": optim.AdamW(optim.CosineDecay(1e-3, 10), weight_decay=1e-2, clip_value=1.0),
    "RMSprop": optim.RMSprop(1e-3),
    "Adagrad": optim.Adagrad(1e-2),
}


@pytest.mark.parametrize("optimizer", RULES)
def test_operations_and_bytes_of_every_optimizer(optimizer):
    compare(mlp("numpy"), RULES[optimizer], 64, 16)


@pytest.mark.parametrize("layers", [CNN, DEEP, RESIDUAL], ids=["cnn", "deep", "residual"])
@pytest.mark.parametrize("options", [{}, {"pixels": True}, {"weighted": True}], ids=str)
def test_operations_and_bytes_of_images(layers, options):
    net = bpxp.Network(layers, backend="numpy", seed=0, **IMAGES)
    compare(net, optim.SGD(0.1), 32, 16, **options)
    compare(net, optim.SGD(0.1), 30, 16, **options)  # the last mini-batch is masked


@pytest.mark.parametrize("activation", [name for name in nn.ACTIVATIONS if name != "identity"])
def test_operations_and_bytes_of_every_activation(activation):
    compare(mlp("numpy", hidden=activation), optim.SGD(0.1), 16, 8)


@pytest.mark.parametrize("loss", nn.LOSSES)
def test_operations_and_bytes_of_every_loss(loss):
    compare(mlp("numpy", loss=loss), optim.SGD(0.1), 16, 8)
    compare(mlp("numpy", loss=loss), optim.SGD(0.1), 15, 8, weighted=True)


def test_operations_and_bytes_of_an_embedding_and_of_the_tanh_gelu():
    layers = [nn.Embedding(11, 4), nn.Flatten(), nn.Dense(6, activation=nn.GELU("tanh")), 3]
    compare(bpxp.Network(layers, input_shape=(5,), backend="numpy", seed=0), optim.SGD(0.1), 16, 8)


TRANSFORMS = [
    augment.Rotate(10),
    augment.Shift(2),
    augment.Flip(),
    augment.ElasticDistortion(),
    augment.Cutout(3),
    augment.Noise(0.1),
    augment.Mixup(),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_operations_and_bytes_of_augmentation(transform):
    compare(bpxp.Network(CNN, backend="numpy", seed=0, **IMAGES), optim.SGD(0.1), 16, 8, augment=[transform])


def test_every_kernel_that_a_backend_may_bring_has_a_rule():
    assert set(shapes.KERNEL_RULES) == {"threefry"}


# ---------------------------------------------------------------- memory


def peak_of_a_step(net, optimizer, n, batch):
    """Return the bytes that a step on NumPy takes beside what lives already, as tracemalloc sees it."""
    xp = net.xp
    step = TrainingStep(net.model, net.loss, optimizer, xp=xp)
    state = real_state(net, optimizer, xp, n, batch, False, np.copy)
    data = real_data(net, n, batch, False, False, False, np.asarray)
    state = step(state, data)  # first calls make tables of their own
    tracemalloc.start()
    try:
        state = step(state, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("optimizer", [optim.SGD(0.1), optim.Adam(1e-3)], ids=["sgd", "adam"])
@pytest.mark.parametrize("which", ["wide", "cnn", "deep"])
def test_peak_memory_is_that_of_numpy(which, optimizer):
    if which == "wide":
        net = bpxp.Network([784, 256, 10], hidden="relu", backend="numpy", seed=0)
    else:
        layers = {"cnn": CNN, "deep": DEEP}[which]
        net = bpxp.Network(layers, backend="numpy", seed=0, input_shape=(28, 28, 3))
    costs = bpxp.preflight(net, batch_size=64, optimizer=optimizer)
    real = peak_of_a_step(net, optimizer, 128, 64)
    # NumPy reuses some temporaries, and has buffers and Python objects of its own: within 1 % and 16 KiB.
    own = 16 << 10
    if np.lib.NumpyVersion(np.__version__) < "2.3.0":
        own += 32 << 10  # a sum had a buffer of 8192 numbers
    assert costs.peak_bytes - costs.resident_bytes == pytest.approx(real, rel=0.01, abs=own)


def test_what_is_resident(backend):
    net = mlp(backend)
    plain = bpxp.preflight(net, batch_size=8, samples=1000)
    size = 4 * net.size
    data = 1000 * 20 * 4 + 1000 * 4
    rest = 1000 * 4 + 8 * 4 + 5 * 4  # order, lane, position, loss, weight, t, learning rate
    assert plain.resident_bytes == size + data + rest
    assert bpxp.preflight(net, batch_size=8, samples=1000, optimizer="adam").resident_bytes == 3 * size + data + rest
    pixels = bpxp.preflight(net, batch_size=8, samples=1000, pixels=True)
    assert plain.resident_bytes - pixels.resident_bytes == 3 * 1000 * 20


# ---------------------------------------------------------------- what it says, and what it does not do


def test_the_network_is_only_looked_at(backend):
    net = bpxp.Network(DEEP, backend=backend, seed=0, **IMAGES)
    before = tree_map(backend.to_numpy, (net.params, net.stats, net.key))
    bpxp.preflight(net, batch_size=16, optimizer="adam")
    after = tree_map(backend.to_numpy, (net.params, net.stats, net.key))
    tree_map(np.testing.assert_array_equal, before, after)
    assert net.opt_state is None


def test_every_library_is_asked_to_do_the_same(backend):
    net, reference = mlp(backend), mlp("numpy")
    costs, expected = bpxp.preflight(net, batch_size=8), bpxp.preflight(reference, batch_size=8)
    assert costs.by_operation == expected.by_operation
    assert costs.backend == backend.name


def test_a_network_larger_than_this_machine():
    net = bpxp.Network([8, 4, 2], backend="numpy", seed=0)
    costs = bpxp.preflight(net, batch_size=10**9, samples=10**12)
    assert costs.peak_bytes > 10**13
    assert costs.advice[0].startswith("memory-bound")


def test_advice_by_what_counts():
    small = bpxp.preflight(mlp("numpy"), batch_size=4)
    launches, arithmetic, traffic = small.parts(GPU)
    assert small.advice[0].startswith("launch-bound (launches ")
    assert "a batch of " in small.advice[0]
    assert launches > arithmetic + traffic
    wide = bpxp.preflight(bpxp.Network([512, 1024, 10], backend="numpy", init="zeros"), batch_size=1024)
    assert wide.advice[0].startswith("compute-bound")
    assert wide.seconds(GPU) < wide.seconds(CPU_CORE)


def test_advice_on_a_gpu(monkeypatch):
    net = mlp("numpy")
    elsewhere = types.SimpleNamespace(name="cupy", matmul="float32", device="<CUDA Device 0>")
    monkeypatch.setitem(vars(net), "backend", elsewhere)
    assert "or the CPU, where a core takes about " in bpxp.preflight(net, batch_size=4).advice[0]


def test_the_batch_that_the_advice_names_is_enough():
    net = mlp("numpy")
    advice = bpxp.preflight(net, batch_size=4).advice[0]
    batch = int(advice.split("a batch of ")[1].split()[0].replace(",", ""))
    assert not bpxp.preflight(net, batch_size=batch).advice[0].startswith("launch-bound")
    assert bpxp.preflight(net, batch_size=batch // 2).advice[0].startswith("launch-bound")


def test_as_text(backend):
    text = str(bpxp.preflight(mlp(backend), batch_size=8, samples=100))
    assert text.startswith(f"one training step of 8 samples: SGD, float32, backend {backend.name}\n")
    assert "17.9 kFLOP in matrix products" in text
    assert "and 100 samples, and " in text


def test_wrong_numbers():
    with pytest.raises(bpxp.errors.InvalidValueError, match=r"preflight\(batch_size=…\)"):
        bpxp.preflight(mlp("numpy"), batch_size=0)
    with pytest.raises(bpxp.errors.InvalidTypeError, match=r"preflight\(samples=…\)"):
        bpxp.preflight(mlp("numpy"), samples="many")
