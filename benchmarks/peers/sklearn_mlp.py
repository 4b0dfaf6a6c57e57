"""scikit-learn: `MLPClassifier`, an epoch by `partial_fit`, whose input is not checked again for NaN (assume_finite).

What it checks beside that each time is some milliseconds of an epoch. Without momentum, L2 and early stopping, as the
others. It computes in the dtype of x, float32.
"""

from __future__ import annotations

import argparse

import sklearn
from sklearn.neural_network import MLPClassifier

from benchmarks.peers.serve import Loop, options, serve
from benchmarks.peers.work import CLASSES, Work


class Sklearn(Loop):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        sklearn.set_config(assume_finite=True)
        self.work = work
        self.x, self.y = work.floats()
        self.start(seed=0)

    def start(self, seed: int) -> None:
        self.net = MLPClassifier(
            hidden_layer_sizes=self.work.widths[1:-1],
            activation={"sigmoid": "logistic", "relu": "relu"}[self.work.hidden],
            solver=self.work.optimizer,
            learning_rate_init=self.work.learning_rate,
            momentum=0.0,
            nesterovs_momentum=False,
            alpha=0.0,
            batch_size=self.work.batch,
            shuffle=True,
            random_state=seed,
        )

    def epoch(self) -> float:
        self.net.partial_fit(self.x, self.y, classes=range(CLASSES))
        return float(self.net.loss_)

    def accuracy(self) -> float:
        return float(self.net.score(*self.work.test_floats()))


if __name__ == "__main__":
    serve(Sklearn, options(__doc__))
