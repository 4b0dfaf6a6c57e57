"""Train from a memory-mapped file that is never loaded as a whole.

Mini-batches are gathered from the file (double-buffered prefetch) while the device works. The file holds pictures of
digits, enlarged, shifted and noisy, and may be as large as the disk. ``resident=False`` streams it; by default bpxp
streams only what does not fit into the device. The results are bit-identical to those of data on the device.

Run:  python examples/streamed.py [SAMPLES]        (default: 100,000, a file of 78 MB)

Printed: (2 CPU cores, NumPy 2.4.6, OPENBLAS_NUM_THREADS=1, on a busy machine)
    x.npy: 78 MB
    streamed: 99,322 samples per second, loss 0.072786, test accuracy 0.9694
    on the device: 109,604 samples per second, loss 0.072786, test accuracy 0.9694
    memory of a fit: streamed 9.0 MB, on the device 80.1 MB
    the same loss, to the last bit
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

import bpxp

samples = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
train, test = bpxp.data.digits()


def enlarged(digits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the 8x8 pictures as 28x28, at random places, with noise."""
    large = rng.integers(0, 40, (len(digits), 28, 28), dtype=np.uint8)
    shown = np.kron(digits.reshape(-1, 8, 8), np.ones((3, 3), np.uint8))
    for picture, digit, (row, column) in zip(large, shown, rng.integers(0, 5, (len(digits), 2)), strict=True):
        place = picture[row : row + 24, column : column + 24]
        np.maximum(place, digit, out=place)
    return large.reshape(len(digits), 784)


with tempfile.TemporaryDirectory() as folder:
    rng = np.random.default_rng(0)
    path = Path(folder) / "x.npy"
    x = np.lib.format.open_memmap(path, "w+", np.uint8, (samples, 784))
    which = rng.integers(0, len(train), samples)
    for begin in range(0, samples, 5000):  # block by block
        part = which[begin : begin + 5000]
        x[begin : begin + 5000] = enlarged(train.x[part], rng)
    x.flush()
    y = train.y[which]

    mapped = np.load(path, mmap_mode="r")
    print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB")
    held_out = enlarged(test.x, rng), test.y
    found = {}
    for resident in (False, True):
        data = bpxp.data.Dataset(mapped, y, name="enlarged digits", resident=resident)
        net = bpxp.Network([784, 100, 10], hidden="relu", pixels=True, seed=0)
        trainer = bpxp.Trainer(net, bpxp.optim.SGD(0.1), progress=False)
        history = trainer.fit(data, epochs=2, batch_size=64, validation=held_out)
        last = history[-1]
        found[resident] = last["loss"], last["validation_accuracy"]
        how = "on the device" if resident else "streamed"
        print(f"{how}: {samples / last['seconds']:,.0f} samples per second, loss {last['loss']:.6f}, ", end="")
        print(f"test accuracy {last['validation_accuracy']:.4f}")
    costs = (bpxp.preflight(net, batch_size=64, samples=samples, pixels=True, resident=r) for r in (False, True))
    streamed, whole = (f"{c.peak_bytes / 1e6:.1f} MB" for c in costs)
    print(f"memory of a fit: streamed {streamed}, on the device {whole}")
    print("the same loss, to the last bit" if found[True] == found[False] else "the results differ")
