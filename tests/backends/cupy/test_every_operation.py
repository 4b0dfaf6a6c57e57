"""Every layer, activation, loss, optimizer, schedule, transform and metric enters a CUDA graph, with each option."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")

from operations.table import ACTIVATIONS, LAYERS, LOSSES, OPTIMIZERS, SCHEDULES, over  # noqa: E402

import bpxp  # noqa: E402
from bpxp import metrics, nn, optim  # noqa: E402
from bpxp.data import augment  # noqa: E402

N, BATCH = 24, 4


def things(record):
    return [record.thing, *(thing for _, thing in record.changed())]


def trained(net, x, y, optimizer="sgd", **options):
    """Train, evaluate and take single steps until graphs of both sizes are proved."""
    asked = options.pop("metrics", None)
    trainer = bpxp.Trainer(net, optimizer, progress=False, metrics=asked)
    trainer.fit((x, y), epochs=6, batch_size=BATCH, validation=(x, y), on_divergence="raise", **options)
    for _ in range(8):
        net.gradient_descent((x[:BATCH], y[:BATCH]), learning_rate=1e-3)
    assert net.eager_steps == {}
    assert any(getattr(run, "plays", None) for run in net._compiled.values())


@over(LAYERS)
def test_layers(record, rng):
    for layer in things(record):
        x = (0.1 if not record.whole else 1) * record.draw(rng, N)
        x = x.astype(np.int32 if record.whole else np.float32)
        net = bpxp.Network([layer, nn.Flatten(), 3], input_shape=record.shape, backend="cupy", seed=0)
        trained(net, x, rng.integers(0, 3, N), optim.SGD(1e-3))


@over(ACTIVATIONS)
def test_activations(record, rng):
    for activation in things(record):
        net = bpxp.Network([4, nn.Dense(5, activation), 3], backend="cupy", seed=0)
        trained(net, rng.random((N, 4), dtype=np.float32), rng.integers(0, 3, N))


@over(LOSSES)
@pytest.mark.parametrize("outputs", [3, 12])
def test_losses(record, outputs, rng):
    for loss in things(record):
        if isinstance(getattr(loss, "pos_weight", None), tuple):
            loss = dataclasses.replace(loss, pos_weight=tuple(range(1, outputs + 1)))
        net = bpxp.Network([4, 5, outputs], loss=loss, backend="cupy", seed=0)
        y = record.draw(rng, N, outputs)[1]
        trained(net, rng.random((N, 4), dtype=np.float32), y, optim.SGD(1e-3), weight=rng.random(N))


@pytest.mark.filterwarnings("ignore::bpxp.errors.BpxpWarning")  # of schedules that end early
@over(OPTIMIZERS, SCHEDULES)
def test_rules(record, rng):
    x, y = rng.random((N, 4), dtype=np.float32), rng.integers(0, 3, N)
    for thing in things(record):
        rule = thing if isinstance(thing, optim.Optimizer) else optim.SGD(thing, momentum=0.9)
        trained(bpxp.Network([4, 5, 3], backend="cupy", seed=0), x, y, rule)


TRANSFORMS = [
    augment.Affine(degrees=10, scale=0.1, shear=5, shift=1),
    augment.Rotate(10),
    augment.Scale(0.1),
    augment.Shift(1),
    augment.Shift(1.5, subpixel=True),
    augment.Flip(),
    augment.Cutout(2),
    augment.ElasticDistortion(),
    augment.Mixup(0.3),
    augment.Noise(0.1),
    augment.Compose((augment.Flip(), augment.Noise(0.1))),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=str)
def test_transforms(transform, rng):
    x = rng.integers(0, 256, (N, 7, 6, 3), dtype=np.uint8)
    net = bpxp.Network([nn.Conv2D(2, 3), nn.Flatten(), 3], input_shape=(7, 6, 3), backend="cupy", seed=0)
    trained(net, x, rng.integers(0, 3, N), augment=[transform])


def test_no_transform_is_left_out():
    assert {type(transform).__name__ for transform in TRANSFORMS} == {*augment.__all__} - {"Geometric"}


@pytest.mark.parametrize("name", metrics.METRICS)
def test_metrics(name, rng):
    x = rng.random((N, 4), dtype=np.float32)
    for loss, y in (
        ("softmax_cross_entropy", rng.integers(0, 3, N)),
        ("binary_cross_entropy", rng.integers(0, 2, (N, 3))),
        ("mean_squared_error", rng.random((N, 3))),
    ):
        net = bpxp.Network([4, 5, 3], loss=loss, backend="cupy", seed=0)
        try:
            trained(net, x, y, metrics=[name])
        except bpxp.errors.BpxpError:  # of another loss
            continue
