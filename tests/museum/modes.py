"""Exhibits 23 to 27: normalisation, dropout, and memory that is shared or kept."""

from __future__ import annotations

from typing import Any

from museum.exhibit import Exhibit

from bpxp.core.random import make_key
from bpxp.core.threefry import LEVELS, level
from bpxp.core.tree import tree_map
from bpxp.nn import BatchNorm, Dense, Dropout, Mish, Sigmoid


def biased(right: Any) -> Any:
    def advance(self, stats, cache, /, *, xp):
        if cache.batch is None:
            return stats
        mean, var, present, count = cache.batch
        return right(self, stats, cache._replace(batch=(mean, var, present, 0.0 * count + 1e30)), xp=xp)

    return advance


def always_training(right: Any) -> Any:
    def forward(self, params, x, /, *, xp, training=False, stats=None, present=None):
        return right(self, params, x, xp=xp, training=True, stats=stats, present=present)

    return forward


def unscaled(right: Any) -> Any:
    def forward(self, params, x, /, *, xp, key=None):
        y, mask = right(self, params, x, xp=xp, key=key)
        if mask is None:
            return y, mask
        kept = level(1.0 - self.rate) / LEVELS
        return y * kept, mask * kept

    return forward


def never_off(right: Any) -> Any:
    def forward(self, params, x, /, *, xp, key=None):
        key = tree_map(xp.asarray, make_key(0)) if key is None else key
        return right(self, params, x, xp=xp, key=key)

    return forward


def another_mask(right: Any) -> Any:
    def backward(self, params, mask, dy, /, *, xp):
        return right(self, params, None if mask is None else xp.flip(mask, axis=0), dy, xp=xp)

    return backward


def zero_is_dropped(right: Any) -> Any:
    def forward(self, params, x, /, *, xp, key=None):
        y, mask = right(self, params, x, xp=xp, key=key)
        if mask is None:
            return y, mask
        return y, xp.astype(y != 0.0, y.dtype) * (LEVELS / level(1.0 - self.rate))

    return forward


def sigmoid_in_place(right: Any) -> Any:
    def forward(self, params, z, /, *, xp):
        a = right(self, params, z, xp=xp)[0]
        z *= 0.0
        z += a
        return z, z

    return forward


def mish_in_place(right: Any) -> Any:
    def forward(self, params, z, /, *, xp):
        a, (_, gate) = right(self, params, z, xp=xp)
        z *= 0.0
        z += a
        return z, (z, gate)

    return forward


def accumulates(right: Any) -> Any:
    sums: dict[int, Any] = {}  # with the weights themselves, so that no other array gets their number

    def gradients(self, params, x, delta, /, *, xp):
        grads = right(self, params, x, delta, xp=xp)
        if id(params.W) in sums:
            grads = tree_map(lambda a, b: a + b, grads, sums[id(params.W)][1])
        sums[id(params.W)] = params.W, tree_map(lambda a: a * 1.0, grads)
        return grads

    return gradients


EXHIBITS = [
    Exhibit(
        23,
        "",
        "The running variance of batch normalisation is biased instead of the documented unbiased one.",
        "pytorch/pytorch#3122, #77427; keras-team/keras#8982; ml-explore/mlx#3817; callummcdougall/ARENA_3.0#415",
        BatchNorm,
        "advance",
        biased,
        here="Partly a convention: PyTorch's is unbiased, and so is bpxp's.",
        training="batch norm",
    ),
    Exhibit(
        24,
        "",
        "Batch normalisation uses batch statistics in evaluation, too; a single sample has none.",
        "keras-team/keras-core#338",
        BatchNorm,
        "forward",
        always_training,
        training="batch norm",
    ),
    Exhibit(
        25,
        "a",
        "Dropout drops values without scaling the others up: the mean changes in evaluation.",
        "CSTR-Edinburgh/mlpractical#32; kaldi-asr/kaldi#3890",
        Dropout,
        "forward",
        unscaled,
        training="dropout",
    ),
    Exhibit(
        25,
        "b",
        "Dropout is active in evaluation.",
        "explosion/thinc eba713ce",
        Dropout,
        "forward",
        never_off,
        training="dropout",
    ),
    Exhibit(
        25,
        "c",
        "The backward pass of dropout uses another mask than the forward pass.",
        "explosion/thinc 699d5ec8",
        Dropout,
        "backward",
        another_mask,
        training="dropout",
    ),
    Exhibit(
        25,
        "d",
        "The mask is inferred from the output, so an input of 0 counts as dropped.",
        "luigibonati/mlcolvar#119; CSTR-Edinburgh/mlpractical#32",
        Dropout,
        "forward",
        zero_is_dropped,
        training="dropout",
    ),
    Exhibit(
        26,
        "a",
        "An activation works in place: z and a are the same array.",
        "deeplearning4j/deeplearning4j#364",
        Sigmoid,
        "forward",
        sigmoid_in_place,
        here="The sigmoid's derivative needs only a and stays right, but z, or the user's x, is overwritten.",
        training="sigmoid",
    ),
    Exhibit(
        26,
        "b",
        "The same, where the derivative needs z.",
        "deeplearning4j/deeplearning4j#364",
        Mish,
        "forward",
        mish_in_place,
        training="mish",
    ),
    Exhibit(
        27,
        "",
        "Gradients are added to those of the previous call.",
        "explosion/thinc c1fa573b",
        Dense,
        "gradients",
        accumulates,
    ),
]
