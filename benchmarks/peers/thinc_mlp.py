"""Thinc: chain of layers, `begin_update`, `backprop(Yh - Y)`, `finish_update`, as its own introduction trains MNIST.

Its softmax layer goes with that gradient of the cross-entropy; the loss itself is computed beside it, as the others do.
Mini-batches by `ops.multibatch`, shuffled. No moving averages of the parameters, which are its default.
"""

from __future__ import annotations

import argparse

import numpy as np
from thinc.api import SGD, Adam, Model, Relu, Sigmoid, Softmax, chain, fix_random_seed, glorot_uniform_init

from benchmarks.peers.serve import Loop, options, serve
from benchmarks.peers.work import CLASSES, Work


class Thinc(Loop):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        self.work = work
        self.x, y = work.floats()
        self.y = np.eye(CLASSES, dtype=np.float32)[y]
        self.start(seed=0)

    def start(self, seed: int) -> None:
        fix_random_seed(seed)
        hidden = {"sigmoid": Sigmoid, "relu": Relu}[self.work.hidden]
        layers: list[Model] = [hidden(n, init_W=glorot_uniform_init) for n in self.work.widths[1:-1]]
        self.net = chain(*layers, Softmax(CLASSES, init_W=glorot_uniform_init))
        self.net.initialize(X=self.x[:5], Y=self.y[:5])
        rule = {"sgd": SGD, "adam": Adam}[self.work.optimizer]
        self.optimizer = rule(self.work.learning_rate, L2=0.0, grad_clip=0.0, use_averages=False)

    def epoch(self) -> float:
        total, ops = 0.0, self.net.ops
        for x, y in ops.multibatch(self.work.batch, self.x, self.y, shuffle=True):
            guess, backprop = self.net.begin_update(x)
            total -= float(np.log(np.sum(guess * y, axis=1)).sum())
            backprop((guess - y) / len(x))
            self.net.finish_update(self.optimizer)
        return total / len(self.x)

    def accuracy(self) -> float:
        x, y = self.work.test_floats()
        return float(np.mean(self.net.predict(x).argmax(axis=1) == y))


if __name__ == "__main__":
    serve(Thinc, options(__doc__))
