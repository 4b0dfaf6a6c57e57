"""The same network, data and order on two array libraries: how far do they drift apart?

The initial parameters and the order of the samples are functions of the seed, so both start from the same bits and see
the same mini-batches. Only the rounding inside the libraries' matmuls and exponentials differs.

Run:  python examples/two_backends.py [FIRST [SECOND]]        (default: numpy, and torch if installed, else strict)
      python examples/two_backends.py numpy cupy

Printed: (2 CPU cores, NumPy 2.4.6, PyTorch 2.13.0)
    <Network 64 -> 30 -> 10, SoftmaxCrossEntropy, 2,260 parameters, float32 on numpy> and torch
    before training: parameters differ by 0.0e+00
    epoch         numpy         torch  difference of the loss
        1    2.06447266    2.06447266  0.0e+00
    …
        9    0.23251194    0.23251194  0.0e+00
       10    0.20787920    0.20787920  0.0e+00
    after training: parameters differ by 9.5e-07
    numpy: test accuracy 0.9639
    torch: test accuracy 0.9639
"""

import sys

import numpy as np

import bpxp


def second_backend() -> str:
    known = bpxp.available_backends()
    return next(name for name in ("torch", "strict", "numpy") if known[name].available)


first = sys.argv[1] if len(sys.argv) > 1 else "numpy"
second = sys.argv[2] if len(sys.argv) > 2 else second_backend()

train, test = bpxp.data.digits()
nets = [bpxp.Network([64, 30, 10], backend=backend, seed=0) for backend in (first, second)]


def largest_difference() -> float:
    """Return the largest difference between the parameters of the two networks."""
    a, b = ([net.backend.to_numpy(array) for layer in net.params for array in layer] for net in nets)
    return max(float(np.max(np.abs(p - q))) for p, q in zip(a, b, strict=True))


print(f"{nets[0]!r} and {nets[1].backend.name}")
print(f"before training: parameters differ by {largest_difference():.1e}")
histories = [
    bpxp.Trainer(net, bpxp.optim.SGD(0.5), progress=False).fit(train, epochs=10, batch_size=32, validation=test)
    for net in nets
]
print(f"{'epoch':>5}  {first:>12}  {second:>12}  difference of the loss")
for a, b in zip(*histories, strict=True):
    print(f"{a['epoch']:>5}  {a['loss']:12.8f}  {b['loss']:12.8f}  {abs(a['loss'] - b['loss']):.1e}")
print(f"after training: parameters differ by {largest_difference():.1e}")
for net, history in zip(nets, histories, strict=True):
    print(f"{net.backend.name}: test accuracy {history[-1]['validation_accuracy']:.4f}")
