"""The set-up of a fit: a training step of another kind comes in where the fit makes its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import bpxp
from bpxp import optim
from bpxp.core.tree import leaves, tree_map
from bpxp.network.step import TrainingStep

X = np.linspace(-1.0, 1.0, 60, dtype=np.float32).reshape(20, 3)
Y = np.arange(20) % 2


@dataclass(frozen=True)
class SumOfTwo(TrainingStep):
    """What a data-parallel run does between the halves of a step: here two workers with the same mini-batch."""

    def __call__(self, state, data, /):
        state, grads = self.gradients(state, data)
        return self.apply(state, tree_map(lambda g: g + g, grads))


def fitted(backend, rate, make_step=TrainingStep, **options):
    net = bpxp.Network([3, 4, 2], backend=backend, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(rate), progress=False)
    trainer._make_step = make_step
    trainer.fit((X, Y), epochs=6, batch_size=6, **options)
    return [backend.to_numpy(a) for a in leaves(net.params)]


def test_a_fit_can_be_handed_another_step(backend):
    doubled, plain = fitted(backend, 0.125, SumOfTwo), fitted(backend, 0.25)
    assert all(map(np.array_equal, doubled, plain))  # a factor of two is exact
    assert not np.array_equal(doubled[0], fitted(backend, 0.125)[0])
