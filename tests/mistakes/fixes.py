"""Mistakes whose message has a line of code: the arrays that are passed, and those that the line has to make of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpxp import nn

RNG = np.random.default_rng(0)
VECTORS, LABELS, COLUMN = RNG.normal(size=(6, 4)), np.arange(6) % 3, RNG.normal(size=(6, 1))
COLOURS, GREY = RNG.random((6, 8, 5, 3)), RNG.random((6, 4, 4, 1))
SERIES = RNG.normal(size=(6, 7, 2))
ROWS = COLOURS.transpose(0, 3, 1, 2).reshape(6, 120)


def pandas(a: np.ndarray) -> Any:
    import pandas

    return pandas.Series(a) if a.ndim == 1 else pandas.DataFrame(a)


def with_nan(a: np.ndarray) -> np.ndarray:
    a = a.copy()
    a[1].flat[0] = a[4].flat[-1] = np.nan
    return a


@dataclass(frozen=True)
class Fix:
    """A mistake: x or y as it is passed, and what the fix of the message has to make of it, or both."""

    name: str
    x: Any
    right: np.ndarray
    y: Any = None
    right_y: np.ndarray | None = None
    layers: tuple[Any, ...] = (4, 3)
    options: dict[str, Any] = field(default_factory=dict)
    call: str = "fit"


def images(name: str, x: Any, right: np.ndarray, **more: Any) -> Fix:
    layers = (nn.Flatten(), 3)
    return Fix(name, x, right, layers=layers, options={"input_shape": right.shape[1:]}, **more)


def values(
    name: str, y: Any, right: np.ndarray, *layers: Any, x: np.ndarray = VECTORS, loss: str = "mean_squared_error"
) -> Fix:
    options = {"loss": loss, "input_shape": x.shape[1:]}
    return Fix(name, x, x, y, right, (*layers,), options)


FINITE = [0, 2, 3, 5]
FIXES = [
    images("channels first", COLOURS.transpose(0, 3, 1, 2), COLOURS),
    images("channels first, a list", COLOURS.transpose(0, 3, 1, 2).tolist(), COLOURS),
    images("height and width exchanged", COLOURS.transpose(0, 2, 1, 3), COLOURS),
    images("samples last", COLOURS.transpose(1, 2, 3, 0), COLOURS),
    images("one image", COLOURS[0], COLOURS[:1], call="predict"),
    images("one image, channels first", COLOURS[0].transpose(2, 0, 1), COLOURS[:1], call="predict"),
    images("rows of CIFAR", ROWS, COLOURS),
    images("rows of CIFAR in a frame", pandas(ROWS), COLOURS),
    images("channels first, each in a row", ROWS.reshape(6, 3, 40), COLOURS),
    images("pixels in a row", COLOURS.reshape(6, 40, 3), COLOURS),
    images("without channels", GREY[..., 0], GREY),
    images("grey rows in a frame", pandas(GREY.reshape(6, 16)), GREY),
    images("grey, channels first", GREY.transpose(0, 3, 1, 2), GREY),
    images("series, features first", SERIES.transpose(0, 2, 1), SERIES),
    images("gaps in images", with_nan(COLOURS), COLOURS[FINITE], right_y=LABELS[FINITE]),
    Fix("gaps", with_nan(VECTORS), VECTORS[FINITE], LABELS, LABELS[FINITE]),
    Fix("gaps in lists", with_nan(VECTORS).tolist(), VECTORS[FINITE], LABELS.tolist(), LABELS[FINITE]),
    Fix("gaps in a frame", pandas(with_nan(VECTORS)), VECTORS[FINITE], pandas(LABELS), LABELS[FINITE]),
    Fix("gaps in a prediction", with_nan(VECTORS), VECTORS[FINITE], call="predict"),
    Fix("one sample", VECTORS[0], VECTORS[:1], call="predict"),
    Fix("one sample, a list", VECTORS[0].tolist(), VECTORS[:1], call="predict"),
    Fix("one feature", COLUMN[:, 0], COLUMN, layers=(1, 3)),
    Fix("one feature, a column of a frame", pandas(COLUMN[:, 0]), COLUMN, layers=(1, 3)),
    Fix("transposed", VECTORS.T, VECTORS),
    Fix("transposed, a list", VECTORS.T.tolist(), VECTORS),
    Fix("a generator", (row for row in VECTORS), VECTORS, call="once"),
    Fix("complex", VECTORS + 0j, VECTORS),
    Fix("complex, a list", (VECTORS + 0j).tolist(), VECTORS),
    Fix("masked", np.ma.masked_array(VECTORS, VECTORS > 1.0), np.where(VECTORS > 1.0, 0.0, VECTORS)),
    values("one output", COLUMN[:, 0], COLUMN, 4, 1),
    values("one output, a list", COLUMN[:, 0].tolist(), COLUMN, 4, 1),
    values("one output, a column of a frame", pandas(COLUMN[:, 0]), COLUMN, 4, 1),
    values("values of sequences, flat", SERIES.reshape(6, 14), SERIES, nn.Dense(2), x=SERIES),
    values("labels from one", LABELS + 1, LABELS, 4, 3, loss="softmax_cross_entropy"),
    values("labels from one, a list", (LABELS + 1).tolist(), LABELS, 4, 3, loss="softmax_cross_entropy"),
    values("names", ["a", "b", "c"] * 2, LABELS, 4, 3, loss="softmax_cross_entropy"),
    values("names in a frame", pandas(np.array(["a", "b", "c"] * 2, object)), LABELS, 4, 3, loss="softmax_cross_entropy"),
]  # fmt: skip


def line(fix: str, name: str) -> str:
    """Return the first way of a fix as a statement that sets `name`."""
    fix = fix.removeprefix("pass ").removeprefix("Labels 1..n? Use ").replace("(value)", "(0.0)")
    for word in (", or ", " for rows", ", one sample", ", samples of"):
        fix = fix.partition(word)[0]
    return fix if " = " in fix else f"{name} = {fix}"
