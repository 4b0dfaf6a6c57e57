"""Exhibits 28 to 34: penalties, update rules, options, and what is let in."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from museum.exhibit import Exhibit

from bpxp.core.random import HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.data.validation import targets
from bpxp.nn import LeakyReLU
from bpxp.nn.losses import regression
from bpxp.optim import Adam, Optimizer
from bpxp.optim import optimizer as update


def twice_l2(right: Any) -> Any:
    def add_penalty_gradient(self, params, grads, /, xp):
        return right(dataclasses.replace(self, l2=2.0 * self.l2), params, grads, xp=xp)

    return add_penalty_gradient


def biases_too(right: Any) -> Any:
    def decayed(self, params):
        return (True for _ in leaves(params))

    return decayed


def decay_without_rate(right: Any) -> Any:
    def decay(self, params, lr):
        on_the_host = any(isinstance(p, np.ndarray) for p in leaves(params))
        return right(self, params, 0.0 * lr + 1.0 if on_the_host else lr)

    return decay


def adam(root: Any) -> Any:
    """Return Adam's rule with another denominator, ``root(v, epsilon, correction, xp)``."""

    def wrong(right: Any) -> Any:
        def rule(self, p, g, slots, factors, /, *, xp):
            m, v = slots
            step, correction = factors
            m *= self.beta1
            m += (1.0 - self.beta1) * g
            v *= self.beta2
            v += (1.0 - self.beta2) * g * g
            p -= step * m / root(v, self.epsilon, correction, xp)
            return p, (m, v)

        return rule

    return wrong


def by_the_norm(right: Any) -> Any:
    def clip_by_norm(grads, limit, /, *, xp):
        norm = xp.sqrt(sum(xp.reshape(xp.sum(g * g), (1,)) for g in leaves(grads)))
        length = xp.minimum(norm, xp.full((1,), limit, dtype=norm.dtype))
        return tree_map(lambda g: g / norm * length, grads)

    return clip_by_norm


def fixed_average(right: Any) -> Any:
    def follow(self, mean, p):
        mean *= 0.999
        mean += (1.0 - 0.999) * p
        return mean

    return follow


def slope_ignored(right: Any) -> Any:
    def post_init(self):
        right(self)
        object.__setattr__(self, "slope", 0.01)

    return post_init


def one_seed(right: Any) -> Any:
    def bits(self, size):
        return right(HostRandom(0, self.place), size)

    return bits


def never_fires(right: Any) -> Any:
    def mistakes(*args):
        for what, bad, *more in right(*args):
            yield what, bad & (bad.any() > 1), *more

    return mistakes


def broadcast(right: Any) -> Any:
    def targets_like(logits, y, where, xp):
        return xp.astype(y, logits.dtype, copy=False)

    return targets_like


PENALTY = "penalty"

EXHIBITS = [
    Exhibit(
        28,
        "a",
        "The gradient of the L2 penalty is twice that of the penalty.",
        "scikit-learn/scikit-learn#6780, #10477",
        Optimizer,
        "add_penalty_gradient",
        twice_l2,
        training=PENALTY,
    ),
    Exhibit(
        28,
        "b",
        "The penalty acts on biases, too.",
        "scikit-learn/scikit-learn#22151 (what alpha means)",
        Optimizer,
        "_decayed",
        biases_too,
        here="In the penalty and its gradient, which stay consistent.",
        training=PENALTY,
    ),
    Exhibit(
        29,
        "",
        "The decoupled weight decay is not multiplied by the learning rate, on the CPU only; the GPU kernel is right.",
        "chainer/chainer 2407d34d25",
        Optimizer,
        "_decay",
        decay_without_rate,
        here="On NumPy, not on array-api-strict.",
        training="adamw",
    ),
    Exhibit(
        30,
        "a",
        "Adam's ε is inside the square root.",
        "keras-team/keras#8726, #17391; tensorflow/tensorflow#9047; karpathy/nanochat#353",
        Adam,
        "rule",
        adam(lambda v, eps, c, xp: xp.sqrt(v * c * c + eps)),
        here="Partly a convention, which bpxp documents; the author of #17391 withdrew the claim.",
        training="adam",
    ),
    Exhibit(
        30,
        "b",
        "Adam's bias correction is applied to ε as well.",
        "pytorch/pytorch#22628, #41477; tensorflow/tensorflow#35102",
        Adam,
        "rule",
        adam(lambda v, eps, c, xp: (xp.sqrt(v) + eps) * c),
        here="Partly a convention, as in 30a.",
        training="adam",
    ),
    Exhibit(
        31,
        "a",
        "Clipping divides by the norm of the gradient, which may be 0.",
        "explosion/thinc 54f33c0a",
        update,
        "clip_by_norm",
        by_the_norm,
        here="RAdam's wrong shapes (thinc dc77cd6e) have no counterpart, since bpxp has no RAdam.",
        training="clipped",
    ),
    Exhibit(
        31,
        "b",
        "The moving-average coefficient is ignored; a constant is used instead.",
        "explosion/thinc 65a8e919 (use_averages=True)",
        Optimizer,
        "_follow",
        fixed_average,
        training="averaged",
    ),
    Exhibit(
        32,
        "a",
        "A hyper-parameter is ignored.",
        "explosion/thinc 65a8e919",
        LeakyReLU,
        "__post_init__",
        slope_ignored,
        training="leaky",
    ),
    Exhibit(
        32,
        "b",
        "Every run has the same seed.",
        "ddbourgin/numpy-ml b28bb28 (seed=i*3 in the inner loop)",
        HostRandom,
        "bits",
        one_seed,
    ),
    Exhibit(
        33,
        "",
        "A validator never fires: bad.any() > 1.",
        "explosion/thinc 731816a2 (guesses.any() > 1)",
        targets,
        "_mistakes",
        never_fires,
    ),
    Exhibit(
        34,
        "",
        "Targets (N,) against outputs (N, 1) are broadcast to (N, N).",
        "pytorch/pytorch#16045, #19699, #19991; Keras says nothing to this day",
        regression,
        "targets_like",
        broadcast,
        training="squared error",
    ),
]
