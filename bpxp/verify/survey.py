"""A survey: the gradient check of small networks, one for each activation with each loss."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bpxp.network import Network
from bpxp.nn import ACTIVATIONS, LOSSES, Embedding
from bpxp.random import DIRECTION, HostRandom
from bpxp.verify.gradients import GradientReport, check_gradients

BATCH = 5


def survey(backend: str | None = None) -> Iterator[tuple[str, GradientReport]]:
    """Yield (name, report) for a network 4-5-3 of each activation and loss.

    Parameters
    ----------
    backend : str or None, optional
        As for `Network`.

    Raises
    ------
    GradientCheckError
        At the first wrong gradient.
    """
    for loss in LOSSES:
        for hidden in ACTIVATIONS:
            net = Network([4, 5, 3], hidden=hidden, loss=loss, backend=backend, seed=1, init="scaled_normal")
            yield f"{hidden} + {loss}", check_model(net)


def check_model(net: Network) -> GradientReport:
    """Check a network on a batch of random inputs, and of targets that its loss takes."""
    rng = HostRandom(2, (DIRECTION,))
    x = rng.at(0).normal((BATCH, *net.input_shape))
    if isinstance(net.layers[0], Embedding):
        x = np.floor(net.layers[0].count * rng.at(0).uniform(x.shape))
    n_out = net.output_shape[0]
    u = rng.at(1).uniform((BATCH, n_out))
    y = {
        "classes": np.argmax(u, axis=1),
        "labels": (u > 0.5).astype(np.float64),
        "values": rng.at(2).normal((BATCH, n_out)),
        "counts": np.floor(4.0 * u),
    }[net.loss.targets]
    return check_gradients(net, x, y)
