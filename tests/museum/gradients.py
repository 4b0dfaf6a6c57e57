"""Exhibits 1 to 13: the output error, the mean over the batch, biases, and derivatives at the wrong place."""

from __future__ import annotations

from typing import Any

from museum.exhibit import CROSS_ENTROPY, Exhibit, other_delta, other_gradients, own_cross_entropy

from bpxp.nn import ELU, Dense, Sigmoid, softmax
from bpxp.nn.functions import logistic
from bpxp.nn.losses import softmax_cross_entropy
from bpxp.nn.losses.regression import Regression


def slope_too_many(delta: Any, z: Any, xp: Any) -> Any:
    a = softmax(z, xp=xp)
    return delta * a * (1.0 - a)


def sum_for_mean(right: Any) -> Any:
    def scale(logits, weight, xp):
        return xp.ones((logits.shape[0], 1), dtype=logits.dtype) if weight is None else xp.expand_dims(weight, axis=1)

    return scale


def forgets_at_one(dW: Any, db: Any, x: Any, delta: Any, xp: Any) -> tuple[Any, Any]:
    return dW, db if x.shape[0] > 1 else 0.0 * db


def all_for_each(dW: Any, db: Any, x: Any, delta: Any, xp: Any) -> tuple[Any, Any]:
    return dW, 0.0 * db + xp.sum(db)


def times_outputs(right: Any) -> Any:
    def call(self, logits, y, weight=None, /, *, xp):
        value, delta = right(self, logits, y, weight, xp=xp)
        return value, delta * float(logits.shape[1])

    return call


def diagonal(z: Any, y: Any, xp: Any) -> tuple[Any, Any]:
    a = softmax(z, xp=xp)
    log_a = z - xp.max(z, axis=1, keepdims=True)
    log_a = log_a - xp.log(xp.sum(xp.exp(log_a), axis=1, keepdims=True))
    return -xp.sum(y * log_a, axis=1, keepdims=True), -y * (1.0 - a)


def twice_softmax(right: Any) -> Any:
    def call(self, logits, y, weight=None, /, *, xp):
        return right(self, softmax(logits, xp=xp), y, weight, xp=xp)

    return call


def sigmoid_of_a(right: Any) -> Any:
    def backward(self, params, a, da, /, *, xp):
        s = logistic(a, xp=xp)
        return da * s * (1.0 - s), ()

    return backward


def elu_of_a(right: Any) -> Any:
    def backward(self, params, a, da, /, *, xp):
        above = xp.astype(a > 0.0, a.dtype)
        return da * (above + (1.0 - above) * self.alpha * xp.exp(a)), ()

    return backward


EXHIBITS = [
    Exhibit(
        1,
        "",
        "The output error is (a - y) σ'(z), the gradient of the squared error, while the reported loss is the "
        "cross-entropy. It still falls; saturated units hardly learn.",
        "the README of the tutorial that bpxp starts from: it derives a - y, and codes a - y times σ'",
        *CROSS_ENTROPY,
        other_delta(slope_too_many),
    ),
    Exhibit(
        2,
        "",
        "Gradients of the weights are summed over the batch, those of the biases averaged.",
        "the article of the same tutorial",
        Dense,
        "gradients",
        other_gradients(lambda dW, db, x, delta, xp: (dW * float(x.shape[0]), db)),
    ),
    Exhibit(
        3,
        "a",
        "The gradient lacks the 1/N of the mean over the batch.",
        "hunkim/DeepLearningZeroToAll#173; SkalskiP/ILearnDeepLearning.py#29",
        *CROSS_ENTROPY,
        other_delta(lambda delta, z, xp: delta * float(z.shape[0])),
    ),
    Exhibit(
        3,
        "b",
        "The gradient is divided by N twice.",
        "heyxhh/nnet-numpy#1; SkalskiP/ILearnDeepLearning.py#29",
        *CROSS_ENTROPY,
        other_delta(lambda delta, z, xp: delta / float(z.shape[0])),
    ),
    Exhibit(
        3,
        "c",
        "Loss and gradient are sums instead of the documented means: they are consistent, and both N times too large.",
        "Open-Deep-ML/DML-OpenProblem#54 (2/n against 1/n)",
        softmax_cross_entropy,
        "sample_weights",
        sum_for_mean,
        here="No gradient check can see it: the gradient matches the loss.",
    ),
    Exhibit(
        4,
        "a",
        "The mean divides by the configured batch size, not the size of the batch: wrong for a short last batch.",
        "deeplearning4j/deeplearning4j#364 (mean over the wrong axis)",
        *CROSS_ENTROPY,
        other_delta(lambda delta, z, xp: delta * (z.shape[0] / 32.0)),
        here="The configured size is 32. bpxp's trainer pads the last mini-batch, so that all have one size.",
    ),
    Exhibit(
        4,
        "b",
        "Biases are not updated when the batch is a single sample.",
        "deeplearning4j/deeplearning4j#364, #1452",
        Dense,
        "gradients",
        other_gradients(forgets_at_one),
    ),
    Exhibit(
        5,
        "",
        "The bias gradient is the mean of the output errors, which are already divided by N.",
        "kvfrans/notes#5",
        Dense,
        "gradients",
        other_gradients(lambda dW, db, x, delta, xp: (dW, db / float(x.shape[0]))),
    ),
    Exhibit(
        6,
        "",
        "The bias gradient is also summed over the outputs: every bias gets the same.",
        "rasbt/stat453-deep-learning-ss21#5",
        Dense,
        "gradients",
        other_gradients(all_for_each),
    ),
    Exhibit(
        7,
        "",
        "The bias gradient is the row sum of the weight gradient.",
        "rust0258/Deeplearning.ai-Natural-Language-Processing-Specialization#62, #64",
        Dense,
        "gradients",
        other_gradients(lambda dW, db, x, delta, xp: (dW, xp.sum(dW, axis=0))),
    ),
    Exhibit(
        8,
        "",
        "The bias gradient is right only for a batch of one.",
        "mlpack/mlpack#3679 (the layer had no test)",
        Dense,
        "gradients",
        other_gradients(lambda dW, db, x, delta, xp: (dW, delta[0, :] * 1.0)),
        here="Only the first sample is counted.",
    ),
    Exhibit(
        9,
        "",
        "The bias gradient keeps the batch axis, so b = b - g broadcasts the vector b to a matrix.",
        "jimfleming/differentiation#1",
        Dense,
        "gradients",
        other_gradients(lambda dW, db, x, delta, xp: (dW, delta * 1.0)),
        here="bpxp's optimizers compare the shapes, and refuse it.",
    ),
    Exhibit(
        10,
        "",
        "The loss is a mean over the outputs, its gradient a sum: k times too large with k outputs.",
        "scikit-learn/scikit-learn#8349 (since 2017; MLPRegressor with solver='lbfgs')",
        Regression,
        "__call__",
        times_outputs,
        training="squared error",
    ),
    Exhibit(
        11,
        "",
        "Only the diagonal a (1 - a) of the softmax's Jacobian is used.",
        "deeplearning4j/libnd4j#440; neuroph/neuroph#37; explosion/thinc 56f02723",
        *CROSS_ENTROPY,
        own_cross_entropy(diagonal),
    ),
    Exhibit(
        12,
        "a",
        "The gradient of the softmax is twice as large as it should be.",
        "markroxor/fromscratchtoml#65",
        *CROSS_ENTROPY,
        other_delta(lambda delta, z, xp: delta * 2.0),
    ),
    Exhibit(
        12,
        "b",
        "The softmax is applied twice: by the network and by the loss.",
        "jorgenkg/python-neural-network#6",
        *CROSS_ENTROPY,
        twice_softmax,
    ),
    Exhibit(
        13,
        "a",
        "The derivative of the sigmoid is taken at a instead of z: σ(a) (1 - σ(a)).",
        "jorgenkg/python-neural-network#6; ddbourgin/numpy-ml 405af64",
        Sigmoid,
        "backward",
        sigmoid_of_a,
        training="sigmoid",
    ),
    Exhibit(
        13,
        "b",
        "The derivative of ELU is taken at a instead of z: α e^a.",
        "ddbourgin/numpy-ml 3cc1a35",
        ELU,
        "backward",
        elu_of_a,
        training="elu",
    ),
]
