"""What a network is, without its numbers: the one description that steps, files, checks and reports share."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bpxp.core.aliases import suggestion
from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves
from bpxp.core.typing import Params, Shape
from bpxp.errors import InvalidTypeError, InvalidValueError, printable
from bpxp.nn.activations import Activation, HardSigmoid, Identity, Sigmoid
from bpxp.nn.architecture import build_model, check_loss_fits
from bpxp.nn.dropout import Dropout
from bpxp.nn.embedding import Embedding
from bpxp.nn.layer import Layer
from bpxp.nn.losses import Loss, get_loss
from bpxp.nn.observe import walk
from bpxp.nn.reshaping import Flatten, Reshape
from bpxp.nn.sequential import Sequential

PIXELS = ("auto", "uint8")  # beside True and False


@dataclass(frozen=True)
class Inputs:
    """What a network knows of its inputs, beside their shape; training may add to it.

    Attributes
    ----------
    pixels : bool, "auto" or "uint8"
        Whether integers are pixels 0 … 255, which are scaled to 0 … 1: see `bpxp.Network`.
    range : pair of float, optional
        The smallest and the largest number of training, scaled.
    features : tuple of str or int
        The names of the columns, where training had some.
    """

    pixels: bool | str = "auto"
    range: tuple[float, float] | None = None
    features: tuple[str | int, ...] = ()


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
    inputs : Inputs
    """

    model: Sequential
    loss: Loss
    input_shape: Shape
    output_shape: Shape
    dtype: str
    inputs: Inputs = Inputs()

    @property
    def title(self) -> str:
        """``"64 -> 30 -> 10, SoftmaxCrossEntropy"``."""
        widths = (getattr(layer, "units", type(layer).__name__) for layer in self.model.layers)
        return printable(f"{' -> '.join(map(str, (*self.input_shape, *widths)))}, {type(self.loss).__name__}")

    @property
    def n_out(self) -> int:
        """Number of outputs: of classes, labels or values."""
        return self.output_shape[-1]

    @property
    def uses(self) -> frozenset[str]:
        """What the layers need beside x: see `bpxp.nn.Layer`."""
        return self.model.uses

    @functools.cached_property
    def ids(self) -> int:
        """How many ids there are, if samples are looked up in the table of an embedding; else 0."""
        return table_size(self.model)

    @functools.cached_property
    def probabilities(self) -> bool:
        """Whether the outputs are those of a sigmoid: probabilities, where the loss would else take logits."""
        return isinstance(output_activation(self.model), (Sigmoid, HardSigmoid))

    @functools.cached_property
    def takes_ids(self) -> bool:
        """Whether the inputs are ids of an `Embedding`: integers that are never pixels, and have no scale."""
        try:
            return any(isinstance(layer, Embedding) for _, layer in walk(self.model))
        except InvalidTypeError:  # a layer names its children wrongly: it is refused where they are observed
            return False

    def knows(self, **inputs: Any) -> Spec:
        """Return the spec with more known of its inputs: fields of `Inputs`."""
        return replace(self, inputs=replace(self.inputs, **inputs))

    def with_pixels(self, pixels: Any, where: str) -> Spec:
        """Return the spec with this choice of `pixels`, validated."""
        if not isinstance(pixels, (bool, str)):
            got, expected = f"{type(pixels).__name__} {pixels!r}", "True, False, 'auto' or 'uint8'"
            raise InvalidTypeError(where, "not a choice", code="E001", got=got, expected=expected)
        if isinstance(pixels, str) and pixels not in PIXELS:
            got, expected, first = repr(pixels), "True, False, 'auto' or 'uint8'", suggestion(pixels, PIXELS)
            raise InvalidValueError(where, "unknown", code="E003", got=got, expected=expected, first=first)
        if pixels not in (False, "auto") and self.takes_ids:
            what = "the ids of an Embedding are no pixels"
            raise InvalidValueError(where, what, code="E005", got=repr(pixels), fix="pixels=False")
        return self.knows(pixels=pixels)

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
    pixels: Any = "auto",
) -> tuple[Spec, Params]:
    """Return the spec of a network as a user lists it, and its parameters drawn on the host; see `bpxp.Network`."""
    model, in_shape = build_model(layers, input_shape, hidden, output, init)
    known = get_loss(loss)
    params, out_shape = model.init(rng, in_shape)
    for layer, own in zip(model.layers, params, strict=True):
        for a in leaves(own):
            if not hasattr(a, "dtype"):
                what, fix = "the parameters are no tuple of arrays", "a NamedTuple of NumPy arrays"
                raise InvalidTypeError(f"{type(layer).__name__}.init", what, code="E085", got=type(a).__name__, fix=fix)
    check_loss_fits(model, out_shape, known)
    spec = Spec(model, known, in_shape, out_shape, dtype)
    return spec.with_pixels(pixels, "Network(pixels=…)"), params


def output_activation(model: Sequential) -> Any:
    """Return the activation whose values are the outputs, or None: only their shape may change after it."""
    for layer in reversed(model.layers):
        if isinstance(layer, Sequential) and layer.layers:
            return output_activation(layer)
        applied = layer if isinstance(layer, Activation) else getattr(layer, "activation", None)
        if applied is not None and not isinstance(applied, Identity):
            return applied
        if not isinstance(layer, (Activation, Flatten, Reshape, Dropout)):
            return None
    return None


def table_size(model: Sequential) -> int:
    """Return the number of ids of the embedding that looks the samples up, or 0 if there is none."""
    for layer in model.layers:
        if isinstance(layer, Sequential) and layer.layers:
            return table_size(layer)
        if isinstance(layer, Embedding):
            return layer.count
        if not isinstance(layer, (Flatten, Identity, Reshape)):
            return 0
    return 0
