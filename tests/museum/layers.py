"""Exhibits 14 to 22: overflow, clipped logarithms, kinks, shapes, and windows."""

from __future__ import annotations

from typing import Any

from museum.exhibit import CROSS_ENTROPY, Exhibit, own_cross_entropy

from bpxp.nn import BatchNorm, Identity, LeakyReLU, MaxPool2D, Sigmoid, pooling, window_tables
from bpxp.nn.losses import softmax_cross_entropy
from bpxp.nn.normalization import NormParams


def plain_softmax(z: Any, xp: Any) -> Any:
    e = xp.exp(z)
    return e / xp.sum(e, axis=1, keepdims=True)


def overflowing(z: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    log_total = xp.log(xp.sum(xp.exp(z), axis=1, keepdims=True))
    return log_total - xp.sum(y * z, axis=1, keepdims=True), plain_softmax(z, xp) - y


def clipped(least: float) -> Any:
    def formula(z: Any, y: Any, xp: Any) -> tuple[Any, Any]:
        a = plain_softmax(z - xp.max(z, axis=1, keepdims=True), xp)
        held = xp.maximum(a, xp.full((), least, dtype=a.dtype)) if least else a
        return -xp.sum(y * xp.log(held), axis=1, keepdims=True), a - y

    return own_cross_entropy(formula)


def naive_sigmoid(right: Any) -> Any:
    def forward(self, params, z, /, *, xp):
        a = 1.0 / (1.0 + xp.exp(-z))
        return a, a

    return forward


def narrow_mean(right: Any) -> Any:
    def mean(each, scale, xp):
        return xp.astype(right(xp.astype(each, xp.float32, copy=True), 1.0, xp) * 1.0, each.dtype)

    def weighted(each, scale, xp):
        return mean(each * scale, 1.0, xp)

    return weighted


def decides_on_a(right: Any) -> Any:
    def backward(self, params, a, da, /, *, xp):
        above = xp.astype(a >= 0.0, a.dtype)
        return da * (above + (1.0 - above) * self.slope), ()

    return backward


def wrong_beyond_vectors(right: Any) -> Any:
    def gradients(self, params, cache, dy, /, *, xp):
        grads, channels = right(self, params, cache, dy, xp=xp), dy.shape[-1]
        return NormParams(grads.gamma, xp.sum(xp.reshape(dy, (channels, -1)), axis=1) if dy.ndim > 2 else grads.beta)

    return gradients


def no_copy(right: Any) -> Any:
    def forward(self, params, z, /, *, xp):
        return z, None

    return forward


def last_wins(right: Any) -> Any:
    def largest(taps, xp):
        y, _ = right(taps, xp)
        so_far, beats = taps[0], []
        for tap in taps[1:]:
            beats.append(tap >= so_far)
            so_far = xp.maximum(so_far, tap)
        return y, tuple(beats)

    return largest


def overwrites(right: Any) -> Any:
    def gathered(rows, ways, /, *, xp):
        dx = right(rows, ways[:1], xp=xp)
        for way in ways[1:]:
            own = right(rows, [way], xp=xp)
            dx = xp.where(own != 0.0, own, dx)
        return dx

    return gathered


def first_window_only(right: Any) -> Any:
    def backward(self, params, cache, dy, /, *, xp):
        _, height, width, _ = dy.shape
        row = xp.reshape(xp.astype(xp.arange(height, dtype=xp.int32) == 0, dy.dtype), (1, -1, 1, 1))
        column = xp.reshape(xp.astype(xp.arange(width, dtype=xp.int32) == 0, dy.dtype), (1, 1, -1, 1))
        return right(self, params, cache, dy * row * column, xp=xp)

    return backward


def off_by_the_rest(right: Any) -> Any:
    def inverse_along(axis, /, *, xp):
        reach = axis.dilation * (axis.kernel - 1) + 1
        rest = (axis.n + axis.before + axis.after - reach) % axis.stride
        return right(axis._replace(before=axis.before + rest), xp=xp)

    return inverse_along


IMAGES = "images"

EXHIBITS = [
    Exhibit(
        14,
        "a",
        "The softmax exponentiates the logits without subtracting their maximum: overflow beyond 88 in float32.",
        "ahmedfgad/NumPyCNN#13",
        *CROSS_ENTROPY,
        own_cross_entropy(overflowing),
    ),
    Exhibit(
        14,
        "b",
        "The sigmoid is 1/(1 + e^-z), which overflows for large negative z.",
        "gnbaron/signature-recognition#6",
        Sigmoid,
        "forward",
        naive_sigmoid,
        training="sigmoid",
    ),
    Exhibit(
        14,
        "c",
        "A reduction accumulates in a narrower dtype than its result.",
        "chainer/chainer 9c21d20481 (float16)",
        softmax_cross_entropy,
        "weighted_mean",
        narrow_mean,
        here="bpxp has no float16: float64 is summed in float32.",
    ),
    Exhibit(
        15,
        "a",
        "The cross-entropy clips probabilities at 1e-7: a confident mistake costs at most 16.1, which contradicts the "
        "gradient.",
        "the tutorial; chainer/chainer f8c37e03bf (an epsilon that underflows in float16)",
        *CROSS_ENTROPY,
        clipped(1e-7),
    ),
    Exhibit(
        15,
        "b",
        "The cross-entropy takes the logarithm of a probability that underflows to 0.",
        "the tutorial",
        *CROSS_ENTROPY,
        clipped(0.0),
    ),
    Exhibit(
        16,
        "",
        "The derivative of LeakyReLU tests the output, a >= 0: with slope 0 it is 1 everywhere.",
        "chainer/chainer 0205876eea",
        LeakyReLU,
        "backward",
        decides_on_a,
        training="leaky",
    ),
    Exhibit(
        17,
        "",
        "A gradient is reshaped wrongly for arrays with more than two axes.",
        "chainer/chainer f03f7066b5 (HuberLoss)",
        BatchNorm,
        "gradients",
        wrong_beyond_vectors,
        here="Shown on batch normalisation, which takes images as well as vectors.",
        training=IMAGES,
    ),
    Exhibit(
        18,
        "",
        "A no-op returns the input itself, and its gradient goes wrong.",
        "chainer/chainer 7484a0d60a (F.cast to the same dtype)",
        Identity,
        "forward",
        no_copy,
        here="bpxp has no cast, so this is the identity. The output shares the input's memory.",
        training="identity",
    ),
    Exhibit(
        19,
        "",
        "At a tie in a window, another element gets the gradient than on other devices or in other libraries (or all of them do).",
        "Theano/Theano#5248, #5506; tensorflow/tensorflow#4886 (CPU against cuDNN); mni-ml/framework#22",
        pooling,
        "_largest",
        last_wins,
        here="The last wins instead of the first. Zeros after a ReLU tie all the time.",
        training=IMAGES,
    ),
    Exhibit(
        20,
        "",
        "Overlapping windows overwrite each other's gradients, = instead of +=. The test had stride = kernel.",
        "0809zheng/CS231n-assignment2019#19; FluxML/Flux.jl#1197",
        window_tables,
        "sum_of_gathers",
        overwrites,
        training="overlapping windows",
    ),
    Exhibit(
        21,
        "",
        'The gradient of max pooling is returned after the first window, by a `return` inside the loop. "The model as-is '
        'still converges."',
        "riccardoandreoni0/CNN-from-scratch#1",
        MaxPool2D,
        "backward",
        first_window_only,
        training=IMAGES,
    ),
    Exhibit(
        22,
        "",
        "In the backward pass windows are off by some pixels if stride and padding leave a remainder, (H - k + 2p) mod s != 0.",
        "PKUFlyingPig/CMU10-714#6; tensorflow/tensorflow#11092; ravin-d-27/PyDeepFlow#85; "
        "Kulbear/deep-learning-coursera#34; LLNL/lbann#1022",
        window_tables,
        "inverse_along",
        off_by_the_rest,
        training="overlapping windows",
    ),
]
