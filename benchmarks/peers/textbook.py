"""The plain NumPy program of the textbooks: a class with weights and biases, and mini-batches as matrices.

One class, no layers as objects: forward through the list of weights, back through it, subtract. It is in float32, works
on whole mini-batches, and writes into the arrays that it has made where that costs no word; further it does not go.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np

from benchmarks.peers.serve import Loop, options, serve
from benchmarks.peers.work import Work

EXP_MOST = np.float32(-80.0)  # beyond it float32's exp overflows


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-np.maximum(z, EXP_MOST)))


class Network:
    """A list of weights (n_in, n_out) and one of biases (n_out,)."""

    def __init__(self, widths: list[int], hidden: str, rng: np.random.Generator) -> None:
        self.hidden = hidden
        self.weights, self.biases = [], []
        for n_in, n_out in pairwise(widths):
            limit = np.sqrt(6.0 / (n_in + n_out))
            self.weights.append(rng.uniform(-limit, limit, (n_in, n_out)).astype(np.float32))
            self.biases.append(np.zeros(n_out, np.float32))

    def feedforward(self, x: np.ndarray) -> list[np.ndarray]:
        """Return the activations of every layer; the last are logits."""
        activations = [x]
        for i, (W, b) in enumerate(zip(self.weights, self.biases, strict=True)):
            z = activations[-1] @ W + b
            if i < len(self.weights) - 1:
                z = sigmoid(z) if self.hidden == "sigmoid" else np.maximum(z, np.float32(0.0))
            activations.append(z)
        return activations

    def backprop(self, x: np.ndarray, y: np.ndarray) -> tuple[float, list[np.ndarray], list[np.ndarray]]:
        """Return the mean cross-entropy and its gradients."""
        activations = self.feedforward(x)
        logits = activations[-1]
        shifted = logits - logits.max(axis=1, keepdims=True)
        exps = np.exp(shifted)
        sums = exps.sum(axis=1, keepdims=True)
        rows = np.arange(len(y))
        loss = float(np.mean(np.log(sums[:, 0]) - shifted[rows, y]))
        delta = exps / sums
        delta[rows, y] -= 1.0
        delta /= len(y)
        dW, db = [], []
        for i in reversed(range(len(self.weights))):
            a = activations[i]
            dW.insert(0, a.T @ delta)
            db.insert(0, delta.sum(axis=0))
            if i > 0:
                slope = a * (1.0 - a) if self.hidden == "sigmoid" else a > 0.0
                delta = (delta @ self.weights[i].T) * slope
        return loss, dW, db

    def update(self, x: np.ndarray, y: np.ndarray, learning_rate: float) -> float:
        """Take one step on one mini-batch and return its loss."""
        loss, dW, db = self.backprop(x, y)
        for p, g in zip(self.weights + self.biases, dW + db, strict=True):
            p -= learning_rate * g
        return loss


class Textbook(Loop):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        if work.optimizer != "sgd":
            raise SystemExit("the textbook's program knows plain gradient descent")
        self.work = work
        self.x, self.y = work.floats()
        self.start(seed=0)

    def start(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.net = Network(self.work.widths, self.work.hidden, self.rng)

    def epoch(self) -> float:
        order, batch, total = self.rng.permutation(len(self.x)), self.work.batch, 0.0
        for i in range(0, len(order), batch):
            rows = order[i : i + batch]
            total += len(rows) * self.net.update(self.x[rows], self.y[rows], self.work.learning_rate)
        return total / len(order)

    def accuracy(self) -> float:
        x, y = self.work.test_floats()
        return float(np.mean(self.net.feedforward(x)[-1].argmax(axis=1) == y))


if __name__ == "__main__":
    serve(Textbook, options(__doc__))
