"""The work that a benchmark asks for, the same for every peer: which network, batch, update and data.

The pictures are made, not downloaded: ten patterns of MNIST's sparsity with noise, a tenth of the labels at random, so
that there is something to learn and the gradients never vanish. A race to an accuracy takes MNIST itself.
"""

from __future__ import annotations

import functools
import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

INPUTS, CLASSES = 784, 10
IMAGE = "28x28x1"


@dataclass(frozen=True)
class Work:
    """One training task.

    Attributes
    ----------
    net : str
        "784-256-10": dense layers. "28x28x1-conv16-conv32-10": each conv is 3×3 with same padding, ReLU and 2×2 max
        pooling; then a dense layer.
    batch : int
    samples : int
        In an epoch; for "mnist" all that there are.
    optimizer : str
        "sgd", without momentum, or "adam", with β = 0.9 and 0.999, ε = 1e-8.
    learning_rate : float
    one_cycle : int
        0: the learning rate is constant. n: it rises to `learning_rate` and falls to nothing within n epochs.
    hidden : str
        "sigmoid" or "relu", after each hidden dense layer.
    data : str
        "patterns" or "mnist".
    """

    net: str = "784-256-10"
    batch: int = 64
    samples: int = 30_720
    optimizer: str = "sgd"
    learning_rate: float = 0.5
    one_cycle: int = 0
    hidden: str = "sigmoid"
    data: str = "patterns"

    @property
    def parts(self) -> list[str]:
        return self.net.split("-")

    @property
    def is_image(self) -> bool:
        return self.parts[0] == IMAGE

    @property
    def filters(self) -> list[int]:
        """Output channels of the convolutions."""
        return [int(part.removeprefix("conv")) for part in self.parts if part.startswith("conv")]

    @property
    def widths(self) -> list[int]:
        """Inputs and outputs of the dense layers, in turn."""
        dense = [int(part) for part in self.parts[1:] if part.isdigit()]
        return [self.filters[-1] * (28 // 2 ** len(self.filters)) ** 2 if self.is_image else INPUTS, *dense]

    @property
    def steps(self) -> int:
        """Updates in an epoch."""
        return -(-self.samples // self.batch)

    def quick(self) -> Work:
        """Return the same with few updates of few samples in an epoch: to see that it runs, not how fast."""
        batch = min(self.batch, 64)
        return replace(self, batch=batch, samples=min(self.samples, (2 if self.data == "patterns" else 20) * batch))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training data: x, uint8, (samples, 784) or (samples, 28, 28, 1), and y, int32, (samples,)."""
        if self.data == "mnist":
            x, y = mnist()[0]
        else:
            x, y = patterns(max(self.samples, 1024))
        return self._shaped(x[: self.samples]), y[: self.samples].astype(np.int32)

    def floats(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the training data with x in float32, between 0 and 1."""
        x, y = self.pixels()
        return scaled(x), y

    def test_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return MNIST's test set like `pixels`."""
        x, y = mnist()[1]
        return self._shaped(x), y.astype(np.int32)

    def test_floats(self) -> tuple[np.ndarray, np.ndarray]:
        """Return MNIST's test set like `floats`."""
        x, y = self.test_pixels()
        return scaled(x), y

    def _shaped(self, x: np.ndarray) -> np.ndarray:
        return x.reshape(len(x), 28, 28, 1) if self.is_image else x.reshape(len(x), INPUTS)


def in_a_file(a: np.ndarray) -> np.ndarray:
    """Return the array as a memory map of a file, which is gone with the process. POSIX only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.npy"
        np.save(path, a)
        found: np.ndarray = np.load(path, mmap_mode="c")  # PyTorch warns of what it could not write to
        return found


def scaled(x: np.ndarray) -> np.ndarray:
    """Return pixels as float32 in [0, 1], with no temporary of their size."""
    out = np.empty(x.shape, np.float32)
    return np.multiply(x, np.float32(1.0 / 255.0), out=out, casting="unsafe")


@functools.lru_cache(maxsize=1)
def patterns(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x, (samples, 784) uint8, and y, (samples,) int64."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 200, (CLASSES, INPUTS), dtype=np.uint8)
    drawn *= rng.random((CLASSES, INPUTS)) < 0.25
    y = rng.integers(0, CLASSES, samples)
    x = drawn[y]
    for i in range(0, samples, 1024):
        part = x[i : i + 1024]
        part += rng.integers(0, 50, part.shape, dtype=np.uint8) * (part > 0)
    wrong = rng.random(samples) < 0.1
    y[wrong] = rng.integers(0, CLASSES, int(wrong.sum()))
    return x, y


@functools.lru_cache(maxsize=1)
def mnist() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return MNIST's (x, y) for training and for the test."""
    import bpxp

    return [(part.x, part.y) for part in bpxp.data.mnist()]
