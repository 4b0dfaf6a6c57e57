"""One of everything that states equations: what `bpxp verify` runs, and the tests on every backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bpxp import nn, optim
from bpxp.verify.equations.check_equations import check_equations
from bpxp.verify.equations.comparison import DerivationReport

OPTIONS: dict[str, Any] = {
    "l1": 0.1,
    "l2": 0.2,
    "weight_decay": 0.3,
    "clip_norm": 2.0,
    "clip_value": 0.7,
    "average": 0.6,
}


def catalogue() -> dict[str, Any]:
    """Return name → thing: each public layer, activation, loss, optimizer and schedule at least once."""
    layers = [
        nn.Dense(3),
        nn.Conv2D(2, (2, 3), padding="same"),
        nn.MaxPool2D(3, stride=2, padding=1),
        nn.AvgPool2D(3, stride=2, padding=1),
        nn.GlobalAvgPool2D(),
        nn.Flatten(),
        nn.Reshape((2, 3, 2)),
        nn.BatchNorm(),
        nn.LayerNorm(),
        nn.Dropout(0.3),
        nn.Embedding(4, 2),
        nn.Residual([nn.Dense(3, "tanh"), nn.Dense(4)]),
    ]
    schedules = [
        optim.Constant(0.1),
        optim.StepDecay(0.1, every=7, factor=0.5),
        optim.ExponentialDecay(0.1, 0.9),
        optim.CosineDecay(0.1, steps=30, floor=0.01),
        optim.OneCycle(0.1, steps=40),
        optim.WarmUp(optim.CosineDecay(0.1, steps=30), steps=5),
        optim.Plateau(0.1, factor=0.5, patience=2, min_delta=0.1, floor=0.04),
    ]
    return {
        **{f"layer {type(layer).__name__}": layer for layer in layers},
        "layer Conv2D, with all options": nn.Conv2D(4, 2, stride=2, padding=1, dilation=(1, 2), groups=2),
        **{f"activation {name}": activation for name, activation in nn.ACTIVATIONS.items()},
        **{f"loss {name}": loss for name, loss in nn.LOSSES.items()},
        **{f"optimizer {name}": optimizer for name, optimizer in optim.OPTIMIZERS.items()},
        "optimizer adamw, with all options": optim.AdamW(0.1, **OPTIONS),
        **{f"schedule {type(schedule).__name__}": schedule for schedule in schedules},
    }


def check_all(backend: Any = None) -> Iterator[tuple[str, DerivationReport]]:
    """Yield (name, report) of everything in the catalogue.

    Parameters
    ----------
    backend : str, Backend or None, optional
        As for `Network`.

    Raises
    ------
    DerivationError
        At the first equation that the code does not compute.
    """
    for name, thing in catalogue().items():
        yield name, check_equations(thing, backend=backend)
