"""The convolutional work that every peer does: two convolutions with pooling and a dense layer, on 28×28×1 pictures.

16 filters 3×3, same padding, ReLU, 2×2 max pooling; 32 filters likewise; 10 outputs. Batch 64, float32, plain SGD.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable

import numpy as np

from benchmarks.peers import workload

SAMPLES, SIDE, CLASSES, BATCH, LEARNING_RATE = 3_200, 28, workload.CLASSES, workload.BATCH, 0.05
FILTERS = (16, 32)
STEPS = SAMPLES // BATCH


def pictures(pixels: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return x, (samples, 28, 28, 1), float32 in [0, 1] or uint8, and y, (samples,) int32."""
    x, y = workload.pictures() if pixels else workload.floats()
    return x[:SAMPLES].reshape(SAMPLES, SIDE, SIDE, 1), y[:SAMPLES].astype(np.int32)


def report(epoch: Callable[[], float], epochs: int) -> None:
    """As `workload.report`, with the number of steps of this work."""
    epoch()
    seconds, loss = [], 0.0
    for _ in range(epochs):
        begun = time.perf_counter()
        loss = epoch()
        seconds.append(time.perf_counter() - begun)
    tell([1e3 * s / STEPS for s in seconds], loss)


def tell(values: list[float], loss: float) -> None:
    """Print milliseconds per step as the harness reads them."""
    print(json.dumps({"value": statistics.median(values), "epochs": values, "loss": loss}))
