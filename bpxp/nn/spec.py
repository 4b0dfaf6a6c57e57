"""What a network is, without its numbers: the one description that steps, files, checks and reports share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bpxp.core.random import HostRandom
from bpxp.core.typing import Params, Shape
from bpxp.nn.architecture import build_model, check_loss_fits
from bpxp.nn.layer import Layer
from bpxp.nn.losses import Loss, get_loss
from bpxp.nn.sequential import Sequential


@dataclass(frozen=True)
class Spec:
    """A model and its loss, the shapes of one sample's input and output, and the dtype.

    Attributes
    ----------
    model : Sequential
    loss : Loss
    input_shape, output_shape : tuple of int
        Of one sample, without the batch.
    dtype : {"float32", "float64"}
    """

    model: Sequential
    loss: Loss
    input_shape: Shape
    output_shape: Shape
    dtype: str

    @property
    def n_out(self) -> int:
        """Number of outputs: of classes, labels or values."""
        return self.output_shape[-1]

    @property
    def uses(self) -> frozenset[str]:
        """What the layers need beside x: see `bpxp.nn.Layer`."""
        return self.model.uses

    def init_stats(self, params: Params, /) -> Any:
        """Return the running statistics before the first step; () without layers that have some."""
        return self.model.init_stats(params) if "stats" in self.uses else ()


def specify(
    layers: Sequence[int | Layer],
    rng: HostRandom,
    *,
    input_shape: Any,
    hidden: Any,
    output: Any,
    loss: str | Loss,
    init: Any,
    dtype: str,
) -> tuple[Spec, Params]:
    """Return the spec of a network as a user lists it, and its parameters drawn on the host; see `bpxp.Network`."""
    model, in_shape = build_model(layers, input_shape, hidden, output, init)
    known = get_loss(loss)
    params, out_shape = model.init(rng, in_shape)
    check_loss_fits(model, out_shape, known)
    return Spec(model, known, in_shape, out_shape, dtype), params
