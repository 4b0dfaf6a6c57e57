"""The table: losses, each beside its definition with any number of digits, and its slope at its kinks."""

from __future__ import annotations

import math

import numpy as np
from mpmath import mp
from operations.record import Kink, OfLoss, Refusal, numbers

from bpxp import nn

SMOOTHING = (*numbers(">= 0"), 1.0)
xp = np  # of the calls that are refused: their shapes are looked at, and nothing else


def softmax(z):
    e = [mp.exp(v - max(z)) for v in z]
    return [v / mp.fsum(e) for v in e]


def categorical(smoothing=0.0):
    """−Σ t log a, with y the class index."""
    smoothing = mp.mpf(smoothing)

    def targets(z, y):
        return [(1 - smoothing) * (k == y) + smoothing / len(z) for k in range(len(z))]

    def value(z, y):
        below = [v - max(z) for v in z]  # beside the largest numbers a logarithm would be lost
        total = mp.log(mp.fsum(map(mp.exp, below)))
        return mp.fsum(t * (total - v) for t, v in zip(targets(z, y), below, strict=True))

    def slope(z, y):
        return [a - t for a, t in zip(softmax(z), targets(z, y), strict=True)]

    return {"value": value, "slope": slope}


def sigma(z):
    e = mp.exp(-abs(z))
    return (1 if z >= 0 else e) / (1 + e)


def plus(z):
    return max(z, 0) + mp.log1p(mp.exp(-abs(z)))


def binary(pos_weight=1.0, smoothing=0.0):
    """Σ −p t log a − (1 − t) log (1 − a), over the labels that are known."""
    smoothing = mp.mpf(smoothing)

    def labels(z, y):
        p = [mp.mpf(w) for w in (pos_weight if isinstance(pos_weight, tuple) else (pos_weight,) * len(z))]
        for k, (v, t) in enumerate(zip(z, y, strict=True)):
            known = not mp.isnan(t)
            yield v, (1 - smoothing) * t + smoothing / 2 if known else mp.mpf(0), p[k], known

    def value(z, y):
        return mp.fsum(p * t * plus(-v) + (1 - t) * plus(v) for v, t, p, known in labels(z, y) if known)

    def slope(z, y):
        return [known * ((1 - t) * sigma(v) - p * t * sigma(-v)) for v, t, p, known in labels(z, y)]

    return {"value": value, "slope": slope}


def mean_of(each, derivative):
    """The mean over the outputs of something of z and y."""

    def value(z, y):
        return mp.fsum(each(v, t) for v, t in zip(z, y, strict=True)) / len(z)

    def slope(z, y):
        return [derivative(v, t) / len(z) for v, t in zip(z, y, strict=True)]

    return {"value": value, "slope": slope}


def huber(threshold):
    def each(z, y):
        d = abs(z - y)
        return d * d / 2 if d <= threshold else threshold * (d - mp.mpf(threshold) / 2)

    return mean_of(each, lambda z, y: min(max(z - y, -threshold), threshold))


def shapes(loss, *, column=True):
    """What is never broadcast: a vector against a column, and a wrong number of outputs."""
    found = [Refusal(lambda: loss(np.zeros((3, 2)), np.zeros((3, 9)), xp=xp), ValueError, r"y of shape \(3, 9\)")]
    if column:
        found.append(
            Refusal(lambda: loss(np.zeros((20, 1)), np.zeros(20), xp=xp), ValueError, r"Fix: y\[:, None\]"),
        )
    return tuple(found)


LOSSES = [
    OfLoss(
        "SoftmaxCrossEntropy",
        nn.SoftmaxCrossEntropy(),
        names=("Loss", "LOSSES"),
        **categorical(),
        # logits whose differences are finite
        top=lambda info: info.max / 2,
        options={"label_smoothing": (0.1, 0.5)},
        bad={"label_smoothing": SMOOTHING},
        refuses=(
            *shapes(nn.SoftmaxCrossEntropy(), column=False),
            Refusal(
                lambda: nn.SoftmaxCrossEntropy()(np.zeros((3, 2)), np.zeros(1, np.int32), xp=xp),
                ValueError,
                r"one class index per sample.*got y of shape \(1,\), expected \(3,\)",
            ),
        ),
    ),
    OfLoss(
        "SoftmaxCrossEntropy, smoothed",
        nn.SoftmaxCrossEntropy(0.1),
        **categorical(0.1),
        top=lambda info: info.max / 8,
        options={"label_smoothing": (0.0, 0.2)},
    ),
    OfLoss(
        "BinaryCrossEntropy",
        nn.BinaryCrossEntropy(),
        **binary(),
        # the sum over the labels is finite
        top=lambda info: info.max / 8,
        options={"pos_weight": (2.0, (1.0, 2.0, 3.0)), "label_smoothing": (0.1, 0.5)},
        bad={"pos_weight": (*numbers("> 0"), (1.0, -2.0), (1.0, "2")), "label_smoothing": SMOOTHING},
        refuses=(
            *shapes(nn.BinaryCrossEntropy(), column=False),
            Refusal(
                lambda: nn.BinaryCrossEntropy()(np.zeros((3, 2)), np.zeros(3), xp=xp),
                ValueError,
                r"got y of shape \(3,\), expected \(3, 2\)",
            ),
            Refusal(
                lambda: nn.BinaryCrossEntropy((1.0, 2.0))(np.zeros((3, 3)), np.zeros((3, 3)), xp=xp),
                ValueError,
                "one weight per label is needed: got 2 weights, expected 3",
            ),
        ),
    ),
    OfLoss(
        "BinaryCrossEntropy, weighted and smoothed",
        nn.BinaryCrossEntropy(2.5, 0.2),
        **binary(2.5, 0.2),
        top=lambda info: info.max / 32,
        options={"pos_weight": (1.0, 3.0), "label_smoothing": (0.0, 0.1)},
    ),
    OfLoss(
        "BinaryCrossEntropy, a weight for each label",
        nn.BinaryCrossEntropy((0.5, 1.0, 4.0)),
        **binary((0.5, 1.0, 4.0)),
        top=lambda info: info.max / 32,
    ),
    OfLoss(
        "MeanSquaredError",
        nn.MeanSquaredError(),
        **mean_of(lambda z, y: (z - y) ** 2, lambda z, y: 2 * (z - y)),
        # the squares, and their sum, are finite
        top=lambda info: math.sqrt(info.max) / 4,
        refuses=shapes(nn.MeanSquaredError()),
    ),
    OfLoss(
        "MeanAbsoluteError",
        nn.MeanAbsoluteError(),
        **mean_of(lambda z, y: abs(z - y), lambda z, y: mp.sign(z - y)),
        top=lambda info: info.max / 8,
        jumps=(0.0,),
        kinks=(Kink(0.0, 0.0), Kink(1.0, 1.0), Kink(-1.0, -1.0)),
        refuses=shapes(nn.MeanAbsoluteError()),
    ),
    OfLoss(
        "Huber",
        nn.Huber(),
        **huber(1.0),
        top=lambda info: info.max / 8,
        jumps=(-1.0, 1.0),  # of the second derivative
        kinks=(Kink(0.0, 0.0), Kink(1.0, 1.0), Kink(-1.0, -1.0)),
        options={"threshold": (0.5, 2.0)},
        bad={"threshold": numbers("> 0")},
        refuses=shapes(nn.Huber()),
    ),
    OfLoss(
        "Huber, 0.3", nn.Huber(0.3), **huber(mp.mpf(0.3)), top=lambda info: info.max / 8, jumps=(-0.3, 0.3),
        kinks=(Kink(0.3, 0.3), Kink(-0.3, -0.3)), options={"threshold": (0.5, 2.0)},
    ),
    OfLoss(
        "Poisson",
        nn.Poisson(),
        **mean_of(lambda z, y: mp.exp(z) - y * z, lambda z, y: mp.exp(z) - y),
        # the rates, and their sum, are finite
        top=lambda info: math.log(info.max) - 2.0,
        refuses=shapes(nn.Poisson()),
    ),
]  # fmt: skip
