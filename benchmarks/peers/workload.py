"""The work that every peer does: 784-256-10 with sigmoids, batch 64, plain SGD, on 60,000 pictures.

The pictures are made, not downloaded: ten patterns of MNIST's sparsity with noise, a tenth of the labels at random, so
that there is something to learn and the gradients never vanish.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

SAMPLES, INPUTS, HIDDEN, CLASSES = 60_000, 784, 256, 10
BATCH, LEARNING_RATE = 64, 0.5
STEPS = -(-SAMPLES // BATCH)


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Return x, (60000, 784) uint8, and y, (60000,) int64."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 200, (CLASSES, INPUTS), dtype=np.uint8)
    patterns *= rng.random((CLASSES, INPUTS)) < 0.25
    y = rng.integers(0, CLASSES, SAMPLES)
    x = patterns[y]
    x += rng.integers(0, 50, x.shape, dtype=np.uint8) * (x > 0)
    wrong = rng.random(SAMPLES) < 0.1
    y[wrong] = rng.integers(0, CLASSES, int(wrong.sum()))
    return x, y


def floats() -> tuple[np.ndarray, np.ndarray]:
    """Return x, float32 in [0, 1], and y."""
    x, y = pictures()
    return x.astype(np.float32) / np.float32(255.0), y


def options() -> argparse.ArgumentParser:
    """Return the parser of a peer's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=3, help="measured, after one that is not")
    return parser


def report(epoch: Callable[[], float], epochs: int) -> None:
    """Run an epoch once to warm up and `epochs` times on the clock; print milliseconds per step.

    `epoch` returns the mean loss, and waits until the device has done its work.
    """
    epoch()
    seconds, loss = [], 0.0
    for _ in range(epochs):
        begun = time.perf_counter()
        loss = epoch()
        seconds.append(time.perf_counter() - begun)
    values = [1e3 * s / STEPS for s in seconds]
    print(json.dumps({"value": statistics.median(values), "epochs": values, "loss": loss}))
