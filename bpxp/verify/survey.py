"""A survey: the gradient check of small networks, one for each activation with each loss."""

from __future__ import annotations

from collections.abc import Iterator

from bpxp.network.network import Network
from bpxp.nn import ACTIVATIONS, LOSSES
from bpxp.verify.gradients import GradientReport, check_gradients
from bpxp.verify.parity.run import samples

BATCH = 5


def survey(backend: str | None = None) -> Iterator[tuple[str, GradientReport]]:
    """Yield (name, report) for a network 4-5-3 of each activation and loss, up to the first wrong gradient."""
    for loss in LOSSES:
        for hidden in ACTIVATIONS:
            net = Network([4, 5, 3], hidden=hidden, loss=loss, backend=backend, seed=1, init="scaled_normal")
            yield f"{hidden} + {loss}", check_model(net)


def check_model(net: Network) -> GradientReport:
    """Check a network on a batch of random inputs, and of targets that its loss takes."""
    other = net.to(net.backend)
    other._learn(other.spec.knows(pixels=False, range=None))  # they are not like those of training
    return check_gradients(other, *samples(net, BATCH))
