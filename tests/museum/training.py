"""What most people look at: whether the loss goes down, and whether the digits are recognised."""

from __future__ import annotations

import functools
from typing import Any

import bpxp
from bpxp import nn, optim
from bpxp.errors import BpxpError

EPOCHS, FEW, BATCH = 15, 4, 32
ACCURACY = 0.93  # on the 360 digits for testing, after 15 epochs
RATES = (1.0, 0.3, 0.1, 0.03, 0.01, 3.0, 10.0)  # times the usual learning rate: who sees a bad result tries another one


def sgd(**options: Any) -> Any:
    return lambda factor: optim.SGD(0.1 * factor, momentum=0.9, **options)


IMAGES = [nn.Conv2D(8, 3, padding="same"), nn.BatchNorm(), nn.ReLU(), nn.MaxPool2D(2), nn.Flatten(), 10]
# Layers, options of the network, and the optimizer for a factor of the learning rate.
NETWORKS: dict[str, tuple[list[Any], dict[str, Any], Any]] = {
    "dense": ([64, 30, 30, 10], {"hidden": "tanh"}, sgd()),
    "squared error": ([64, 30, 30, 10], {"hidden": "tanh", "loss": "mean_squared_error"}, sgd()),
    "sigmoid": ([64, 30, 10], {"hidden": "sigmoid"}, sgd()),
    "elu": ([64, 30, 30, 10], {"hidden": nn.ELU()}, sgd()),
    "mish": ([64, 30, 30, 10], {"hidden": "mish"}, sgd()),
    "leaky": ([64, 30, 30, 10], {"hidden": nn.LeakyReLU(0.0)}, sgd()),
    "identity": ([64, nn.Dense(30, "tanh"), nn.Identity(), 10], {}, sgd()),
    "batch norm": ([64, nn.Dense(30, "tanh"), nn.BatchNorm(), 10], {}, sgd()),
    "dropout": ([64, nn.Dense(60, "relu"), nn.Dropout(0.3), 10], {}, sgd()),
    "penalty": ([64, 30, 10], {"hidden": "tanh"}, sgd(l2=1e-3)),
    "clipped": ([64, 30, 10], {"hidden": "tanh"}, sgd(clip_norm=1.0)),
    "averaged": ([64, 30, 10], {"hidden": "tanh"}, sgd(average=0.9)),
    "adam": ([64, 30, 10], {"hidden": "tanh"}, lambda factor: optim.Adam(0.01 * factor)),
    "adamw": ([64, 30, 10], {"hidden": "tanh"}, lambda factor: optim.AdamW(0.01 * factor, weight_decay=0.01)),
    "images": (IMAGES, {}, sgd()),
    "overlapping windows": (
        [
            nn.Conv2D(8, 3, padding="same", activation="relu"),
            nn.MaxPool2D(2, 1),
            nn.Conv2D(12, 2, 2),
            nn.ReLU(),
            nn.Flatten(),
            10,
        ],
        {},
        sgd(),
    ),
    "groups": (
        [nn.Conv2D(8, 3, padding="same"), nn.ReLU(), nn.Conv2D(8, 3, stride=2, groups=2), nn.ReLU(), nn.Flatten(), 10],
        {},
        sgd(),
    ),
}


@functools.cache
def digits() -> Any:
    return bpxp.data.digits()


def fit(name: str, factor: float, epochs: int) -> tuple[list[float], float]:
    """Return the loss of each epoch, and the accuracy on the digits for testing at the end."""
    layers, options, optimizer = NETWORKS[name]
    train, test = digits()
    shape = {"input_shape": (8, 8, 1)} if isinstance(layers[0], nn.Conv2D) else {}
    net = bpxp.Network(layers, **options, **shape, backend="numpy", seed=0)
    regression = net.loss.targets == "values"
    y = nn.one_hot(train.y, 10, dtype=net.xp.float32, xp=net.xp) if regression else train.y
    history = bpxp.Trainer(net, optimizer(factor), progress=False).fit((train.x, y), epochs=epochs, batch_size=BATCH)
    right = net.xp.argmax(net.logits(test.x), axis=1) == test.y
    return history["loss"], float(right.mean())


def loss_falls(name: str) -> bool:
    """Return whether the loss goes down over four epochs."""
    try:
        losses, _ = fit(name, 1.0, FEW)
    except BpxpError:
        return False
    return losses[-1] < losses[0]


def accuracy(name: str) -> float:
    """Return the accuracy after 15 epochs, of the first learning rate with which it is good enough, or of the best."""
    best = 0.0
    for factor in RATES:
        try:
            best = max(best, fit(name, factor, EPOCHS)[1])
        except BpxpError:
            continue
        if best >= ACCURACY:
            break
    return best
