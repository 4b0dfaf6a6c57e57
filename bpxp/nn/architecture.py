"""A model from the list of sizes and layers that a user writes: ``[784, 30, 10]`` is two dense layers.

The list is validated before any parameter is drawn.
"""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any

from bpxp.core.typing import Shape
from bpxp.errors import InvalidTypeError, InvalidValueError, warn
from bpxp.nn import (
    ACTIVATIONS,
    Activation,
    AvgPool2D,
    BatchNorm,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Identity,
    Layer,
    LayerNorm,
    Loss,
    MaxPool2D,
    Reshape,
    Sequential,
    get_activation,
    get_initializer,
)

WHERE = "Network"


def build_model(
    layers: Sequence[int | Layer], input_shape: Any, hidden: Any, output: Any, init: Any
) -> tuple[Sequential, Shape]:
    """Return the model and the shape of one sample.

    Parameters
    ----------
    layers : sequence of int or Layer
        A number is the width of a dense layer. Without `input_shape` the first entry is the number of inputs.
    input_shape : int, tuple of int or None
        Shape of one sample.
    hidden, output : str or Activation
        For layers without an activation of their own: all but the last, and the last. An activation that follows in the
        list takes their place, also behind normalisation, dropout, pooling and reshaping.
    init : str or Initializer
        For layers without one.
    """
    entries = _validate_entries(layers)
    first = "layers"
    if input_shape is None:
        if len(entries) < 2 and all(isinstance(entry, int) for entry in entries):
            what = f"needs at least 2 sizes (input, output), got {len(entries)}: {entries!r}"
            raise InvalidValueError(WHERE, what, code="E010", fix="Network([784, 30, 10])")
        if not isinstance(entries[0], int):
            what = "the list begins with a layer, so the shape of one sample is needed"
            fix = "input_shape=(28, 28, 1)"
            raise InvalidValueError(f"{WHERE}(input_shape=…)", what, code="E010", got="input_shape=None", fix=fix)
        in_shape: Shape = (entries[0],)
        entries = entries[1:]
        first = "sizes"
    else:
        in_shape = validate_shape(input_shape, f"{WHERE}(input_shape=…)")
        if not entries:
            raise InvalidValueError(
                f"{WHERE}({first}=…)", "no layers", code="E010", got="[]", fix="Network([30, 10], …)"
            )
    initializer = get_initializer(init)
    between, last = get_activation(hidden, "hidden"), get_activation(output, "output")
    if isinstance(entries[-1], Activation) and not isinstance(last, Identity):
        got, fix = f"{type(entries[-1]).__name__}() at the end, and {type(last).__name__}()", "leave one of them out"
        raise InvalidValueError(f"{WHERE}(output=…)", "two activations of the output", code="E005", got=got, fix=fix)
    filled = []
    for i, entry in enumerate(entries):
        default = Identity() if _activated(entries[i + 1 :]) else between if i < len(entries) - 1 else last
        filled.append(_fill(entry, activation=default, initializer=initializer))
    channels, *sides = in_shape
    if channels in (1, 3) and len(sides) == 2 and sides[0] == sides[1] >= 8 and any(hasattr(e, "grid") for e in filled):
        what, fix = f"{in_shape} looks channels-first; images are (height, width, channels)", f"{(*sides, channels)}"
        warn(f"{WHERE}(input_shape=…)", what, code="W020", fix=f"input_shape={fix}, and np.moveaxis(x, 1, -1)")
    return Sequential(tuple(filled)), in_shape


LOOKED_THROUGH = (BatchNorm, LayerNorm, Dropout, MaxPool2D, AvgPool2D, GlobalAvgPool2D, Flatten, Reshape)


def _activated(following: list[int | Layer]) -> bool:
    """Return whether the layers that follow begin with an activation: then the layer before has none of its own."""
    return isinstance(next((entry for entry in following if not isinstance(entry, LOOKED_THROUGH)), None), Activation)


def _validate_entries(layers: Any) -> list[int | Layer]:
    if isinstance(layers, (str, bytes)) or not isinstance(layers, Sequence):
        raise InvalidTypeError(
            f"{WHERE}(layers=…)",
            "not a sequence of ints and layers",
            code="E010",
            got=f"{type(layers).__name__} {layers!r}",
            expected="a sequence of ints",
            fix="Network([784, 30, 10])",
        )
    entries: list[int | Layer] = []
    for i, entry in enumerate(layers):
        whole = isinstance(entry, numbers.Integral) and not isinstance(entry, bool)
        if not whole and isinstance(entry, Layer) and not isinstance(entry, type):
            entries.append(entry)
            continue
        if not whole:
            name = entry.__name__ if isinstance(entry, type) else f"{type(entry).__name__} {entry!r}"
            fix = f"{name}(…), an instance of it" if isinstance(entry, type) else ""
            if isinstance(entry, str) and entry in ACTIVATIONS:
                fix = f"nn.{type(ACTIVATIONS[entry]).__name__}()"
            what = f"sizes[{i}] must be an int or a layer, got {name}"
            raise InvalidTypeError(WHERE, what, code="E010", fix=fix)
        if entry < 1:
            raise InvalidValueError(WHERE, f"sizes[{i}] must be >= 1, got {int(entry)}", code="E010")
        entries.append(int(entry))
    return entries


def validate_shape(shape: Any, where: str, name: str = "input_shape") -> Shape:
    """Return the shape of a sample as a tuple of ints >= 1; an int is a shape of one axis."""
    shape = (shape,) if isinstance(shape, numbers.Integral) else shape
    if not isinstance(shape, (tuple, list)) or not shape:
        expected, fix = "an int or a tuple of ints", f"{name}=(28, 28, 1)"
        raise InvalidTypeError(where, "not a shape", code="E001", got=repr(shape), expected=expected, fix=fix)
    for i, n in enumerate(shape):
        if isinstance(n, bool) or not isinstance(n, numbers.Integral):
            raise InvalidTypeError(where, f"{name}[{i}] must be an int", code="E001", got=f"{type(n).__name__} {n!r}")
        if n < 1:
            raise InvalidValueError(where, f"{name}[{i}] must be >= 1", code="E002", got=str(n))
    return tuple(int(n) for n in shape)


def _fill(entry: int | Layer, **choices: Any) -> Layer:
    """Return an int as a dense layer, and a layer with its open choices filled in."""
    layer: Any = Dense(entry) if isinstance(entry, int) else entry
    names = {field.name for field in dataclasses.fields(layer)} if dataclasses.is_dataclass(layer) else set()
    missing = {name: value for name, value in choices.items() if name in names and getattr(layer, name) is None}
    filled: Layer = dataclasses.replace(layer, **missing) if missing else layer
    return filled


FITS = """softmax_cross_entropy, binary_cross_entropy and poisson take logits: output='identity'; \
mean_squared_error, mean_absolute_error and huber fit any output"""


def check_loss_fits(model: Sequential, out_shape: Shape, loss: Loss) -> None:
    """Raise unless the loss can be computed from what the last layer returns."""
    where = f"{WHERE}(loss={type(loss).__name__})"
    if not out_shape:
        what = "the loss takes at least one row of outputs per sample"
        raise InvalidValueError(where, what, code="E013", got="output shape ()", fix="a dense layer at the end")
    last = model.layers[-1]
    applied = last if isinstance(last, Activation) else getattr(last, "activation", None)
    takes_logits = loss.targets in ("classes", "labels", "counts")
    if takes_logits and isinstance(applied, Activation) and not isinstance(applied, Identity):
        what = "the loss applies its own output function to logits, and would do so twice"
        got = f"output {type(applied).__name__}"
        fix = "output='identity', and net.predict_proba"
        raise InvalidValueError(where, what, code="E013", got=got, expected=FITS, fix=fix)
    if loss.targets == "classes" and out_shape[-1] == 1:
        fix = "2 outputs, or loss='binary_cross_entropy'"
        raise InvalidValueError(where, "softmax over 1 class is constant", code="E013", got="1 output", fix=fix)
