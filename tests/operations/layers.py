"""The table: layers, with the images and vectors that they take, and with ties where a maximum is taken."""

from __future__ import annotations

import numpy as np
from operations.record import COUNTS, Kink, OfLayer, Refusal, numbers

from bpxp import nn
from bpxp.core.random import HostRandom

IMAGES = (4, 5, 2)
PAIRS = (0, -1, 2.5, "3", (1, 2, 3), (2, 0), True)  # what no kernel, stride, dilation or window may be
PADDINGS = (-1, 1.5, "sane", ((1, 2),), ((1, -1), (0, 0)), True)


def refuses(layer, shape, text):
    """A sample that cannot pass through."""
    return Refusal(lambda: layer.init(HostRandom(0), shape), ValueError, text)


def fitting(layer, *wrong):
    return tuple(refuses(layer, shape, rf"{type(layer).__name__}.*") for shape in wrong)


def maxima(*rows):
    """One image of one channel, the dx of windows of 2 by 2 for a dy of ones."""
    return [np.array(row, dtype=float)[..., None] for row in rows]


# All equal: the first of each window; -0 is no larger than 0; and where windows overlap, a pixel gets from each.
TIES = Kink(*maxima([[1, 1, 2, 2], [1, 1, 2, 2]], [[1, 0, 1, 0], [0, 0, 0, 0]]))
ZEROS = Kink(*maxima([[-0.0, 0, 0, -0.0], [0, -0.0, -1, 0]], [[1, 0, 1, 0], [0, 0, 0, 0]]))
OVERLAP = Kink(*maxima([[3, 3, 3], [3, 3, 3], [0, 3, 3]], [[1, 1, 0], [1, 1, 0], [0, 0, 0]]))

DENSE = OfLayer(
    "Dense",
    nn.Dense(3),
    names=("DenseParams", "Layer"),
    shapes=((1,), (3,), (8,), (2, 3), (2, 1, 3)),
    options={"units": (2,), "activation": ("tanh",), "initializer": ("he", "scaled_normal")},
    bad={"units": COUNTS, "activation": ("rel", "softmax", 3, nn.ReLU), "initializer": ("hee", 3)},
    refuses=fitting(nn.Dense(3), ()),
)

CONV = OfLayer(
    "Conv2D",
    nn.Conv2D(2, (2, 3), padding="same"),
    names=("ConvParams", "ConvWeights"),
    shape=IMAGES,
    shapes=((5, 4, 1), (3, 3, 5)),
    options={
        "filters": (3,),
        "kernel": (2, (3, 3)),
        "stride": (2, (1, 2)),
        "padding": ("valid", 1, (0, 1), ((0, 1), (1, 0))),
        "dilation": (2, (1, 2)),
        "groups": (2,),
        "activation": ("tanh",),
        "initializer": ("he",),
        "bias": (False,),
    },
    bad={
        "filters": COUNTS,
        "kernel": PAIRS,
        "stride": PAIRS,
        "padding": PADDINGS,
        "dilation": PAIRS,
        "groups": COUNTS,
        "activation": ("rel",),
        "initializer": ("hee",),
    },
    refuses=(
        *fitting(nn.Conv2D(2, 3), (9,), (2, 2, 1)),
        refuses(nn.Conv2D(2, 3, groups=2), (5, 5, 3), "channels mod groups = 3 mod 2 = 1"),
        Refusal(lambda: nn.Conv2D(3, 3, groups=2), ValueError, "filters mod groups = 3 mod 2 = 1"),
    ),
)
# Every combination that goes another way: with stride 1 dx is a convolution, else it is gathered; few channels are
# copied plane by plane; a window of one pixel is a dense layer; groups have an axis of their own.
CONVS = [
    OfLayer(f"Conv2D, {name}", layer, shape=shape)
    for name, layer, shape in [
        ("with all options", nn.Conv2D(4, 2, stride=2, padding=1, dilation=(1, 2), groups=2), (4, 5, 4)),
        ("depthwise", nn.Conv2D(6, 3, groups=3), (4, 4, 3)),
        ("without biases", nn.Conv2D(2, 2, bias=False), IMAGES),
        ("one pixel", nn.Conv2D(3, 1), IMAGES),
        ("one pixel, strides", nn.Conv2D(3, 1, stride=2), (5, 4, 5)),
        ("many channels", nn.Conv2D(2, 3, padding="same"), (4, 4, 5)),
        ("overlapping strides", nn.Conv2D(2, 3, stride=2, padding=1), (5, 6, 5)),
        ("a stride that leaves pixels out", nn.Conv2D(2, 2, stride=3), (6, 5, 4)),
        ("more padding than kernel", nn.Conv2D(2, 2, padding=2), (2, 3, 2)),
        ("dilated", nn.Conv2D(2, 2, dilation=2, padding="same"), (5, 4, 4)),
        ("dilated strides", nn.Conv2D(2, 2, dilation=3, stride=2), (6, 5, 4)),
        ("the whole image", nn.Conv2D(3, (4, 5)), IMAGES),
        ("uneven padding", nn.Conv2D(2, 3, padding=((1, 0), (2, 1)), stride=(2, 1)), (4, 3, 1)),
    ]
]

POOL_OPTIONS = {"pool": (2, (2, 3)), "stride": (3, (1, 2)), "padding": (0, "same", (0, 1))}
POOL_BAD = {"pool": PAIRS, "stride": PAIRS, "padding": (*PADDINGS, 2)}
POOLS = [
    OfLayer(
        "MaxPool2D",
        nn.MaxPool2D(3, stride=2, padding=1),
        shape=IMAGES,
        shapes=((7, 6, 1), (3, 3, 3)),
        options=POOL_OPTIONS,
        bad=POOL_BAD,
        refuses=fitting(nn.MaxPool2D(3), (9,), (2, 2, 1)),
    ),
    OfLayer("MaxPool2D, side by side", nn.MaxPool2D(2), shape=(4, 5, 2), shapes=((4, 4, 1),), kinks=(TIES, ZEROS)),
    OfLayer("MaxPool2D, overlapping", nn.MaxPool2D(2, stride=1), shape=(3, 4, 1), kinks=(OVERLAP,)),
    OfLayer("MaxPool2D, gaps", nn.MaxPool2D((1, 2), stride=(2, 3)), shape=(5, 6, 2)),
    OfLayer(
        "AvgPool2D",
        nn.AvgPool2D(3, stride=2, padding=1),
        shape=IMAGES,
        shapes=((7, 6, 1), (3, 3, 3)),
        options=POOL_OPTIONS,
        bad=POOL_BAD,
        refuses=fitting(nn.AvgPool2D(3), (9,), (2, 2, 1)),
    ),
    OfLayer("AvgPool2D, side by side", nn.AvgPool2D(2), shape=(4, 5, 2)),
    OfLayer("AvgPool2D, overlapping", nn.AvgPool2D((2, 3), stride=1), shape=(3, 4, 1)),
    OfLayer(
        "GlobalAvgPool2D",
        nn.GlobalAvgPool2D(),
        shape=(2, 3, 2),
        shapes=((1, 1, 1),),
        refuses=fitting(nn.GlobalAvgPool2D(), (9,)),
    ),
]

SHAPES = [
    OfLayer("Flatten", nn.Flatten(), shape=(2, 3, 2), shapes=((4,), (2, 2))),
    OfLayer(
        "Reshape",
        nn.Reshape((2, 3, 2)),
        shape=(3, 4),
        shapes=((12,),),
        options={"shape": ((12,), (2, 6), (-1, 4))},
        bad={"shape": ((), (0,), (-1, -1), (2.5,), "12", None)},
        refuses=fitting(nn.Reshape((2, 3, 2)), (5,)) + fitting(nn.Reshape((-1, 3)), (5,)),
    ),
]

SHARE = (*numbers(">= 0"), 1.5)
OTHERS = [
    OfLayer(
        "BatchNorm",
        nn.BatchNorm(),
        least=2,
        names=("NormParams", "RunningStats"),
        shapes=((1,), (3, 2), (2, 3, 2)),
        options={"momentum": (0.5, 1.0), "epsilon": (0.3,)},
        bad={"momentum": (*SHARE, 0.0), "epsilon": numbers("> 0")},
        refuses=fitting(nn.BatchNorm(), ()),
    ),
    OfLayer(
        "LayerNorm",
        nn.LayerNorm(),
        shapes=((2,), (3, 4), (2, 3, 4)),
        options={"epsilon": (0.3,)},
        bad={"epsilon": numbers("> 0")},
        refuses=fitting(nn.LayerNorm(), ()),
    ),
    OfLayer(
        "Dropout",
        nn.Dropout(0.3),
        shapes=((1,), (8,), (2, 3, 2)),
        options={"rate": (0.0, 0.5)},
        bad={"rate": (*SHARE, 1.0)},
    ),
    OfLayer(
        "Embedding",
        nn.Embedding(4, 2),
        names=("EmbeddingParams",),
        shape=(3,),
        whole=4,
        options={"count": (5,), "dim": (3,), "initializer": ("zeros",)},
        bad={"count": (*COUNTS, 2**24 + 1), "dim": COUNTS, "initializer": ("hee",)},
    ),
    OfLayer(
        "Residual",
        nn.Residual([nn.Dense(3, "tanh"), nn.Dense(4)]),
        options={"branch": (nn.Dense(4), [nn.Dense(4, "tanh"), nn.Dense(4)])},
        bad={"branch": ([], "Dense", [nn.Dense], nn.Dense, [3])},
        refuses=(refuses(nn.Residual(nn.Dense(3)), (4,), r"y = x \+ branch\(x\) does not add up"),),
    ),
    OfLayer(
        "Residual, around what uses everything",
        nn.Residual([nn.Dense(3, "silu"), nn.BatchNorm(), nn.Dropout(0.4), nn.Dense(4)]),
        least=2,
    ),
    OfLayer(
        "Sequential",
        nn.Sequential((nn.Dense(3, "sigmoid"), nn.Dense(2))),
        options={"layers": ((nn.Dense(3), nn.Dense(2)), (nn.Dense(2),))},
    ),
    OfLayer(
        "Sequential, with everything",
        nn.Sequential(
            (
                nn.Conv2D(4, 3, padding="same", activation="tanh"),
                nn.BatchNorm(),
                nn.AvgPool2D(2),
                nn.Residual([nn.Conv2D(4, 3, padding="same"), nn.LayerNorm()]),
                nn.Flatten(),
                nn.Dropout(0.2),
                nn.Dense(3, "softplus"),
            )
        ),
        shape=(4, 4, 1),
    ),
]

LAYERS = [DENSE, CONV, *CONVS, *POOLS, *SHAPES, *OTHERS]
