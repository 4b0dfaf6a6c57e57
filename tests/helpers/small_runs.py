"""Training runs that several tests begin: small networks of every kind, optimizers with their options, a sudden end."""

from __future__ import annotations

from typing import Any

from bpxp import nn, optim
from bpxp.callbacks import Callback

DENSE: list[Any] = [12, 7, 3]
IMAGES: list[Any] = [nn.Conv2D(4, 3, padding="same"), nn.MaxPool2D(2), nn.Conv2D(3, 2, stride=2, activation="tanh")]
NETWORKS = {
    "dense": (DENSE, (12,)),
    "dropout": ([12, 7, nn.Dropout(0.4), 3], (12,)),
    "batch norm": ([12, nn.BatchNorm(), 7, nn.LayerNorm(), 3], (12,)),
    "residual": ([12, nn.Residual([nn.Dense(12), nn.Dropout(0.2)]), 3], (12,)),
    "images": ([*IMAGES, nn.AvgPool2D(1, 1), nn.Flatten(), 3], (7, 6, 4)),
    "few channels": ([nn.Conv2D(3, 3, padding="same"), nn.MaxPool2D(3), nn.Flatten(), 3], (7, 6, 1)),
    "groups": ([nn.Conv2D(4, 3, groups=2), nn.GlobalAvgPool2D(), 3], (5, 6, 2)),
}
OPTIMIZERS = [
    optim.SGD(0.1),
    optim.SGD(optim.OneCycle(0.1, steps=60), momentum=0.9, nesterov=True, l2=1e-3, clip_norm=0.1),
    optim.SGD(0.1, momentum=0.5, l1=1e-3, clip_value=0.01, average=0.9),
    optim.Adam(1e-2),
    optim.AdamW(1e-2, weight_decay=0.1),
    optim.RMSprop(1e-2),
    optim.Adagrad(1e-2),
]


class Cut(Callback):
    """Ends a fit after so many steps, as a crash would: nothing is done after the step."""

    class Now(Exception):
        pass

    def __init__(self, steps):
        self.steps = steps

    def on_pause(self, trainer, why):
        if trainer.run.steps == self.steps:
            raise self.Now
