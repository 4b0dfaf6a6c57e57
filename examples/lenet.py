"""A small convolutional network like LeNet-5, past 99.2 % on MNIST.

It shows `Conv2D` and `MaxPool2D`, the shape ledger, and a one-cycle learning rate. Two convolutions with 5 by 5
kernels, each followed by pooling, and two dense layers; ReLU instead of LeNet-5's tanh. No augmentation, no dropout.

Run:  python examples/lenet.py [EPOCHS] [SEED]      (MNIST is downloaded once; see BPXP_DATA_DIR)

Printed: (1 of 2 CPU cores, NumPy 2.4.6)
    117,078 parameters, float32, backend numpy; per sample 2.6 MFLOP forward, 4.76 MFLOP backward, 29.2 kB kept for it
    epoch  1/12  loss 0.2621  validation loss 0.0999  validation accuracy 0.9658  35.2 s
    …
    epoch 12/12  loss 0.0010  validation loss 0.0221  validation accuracy 0.9930  44.5 s
    test accuracy: 0.9930
"""

import sys

import bpxp
from bpxp import nn, optim

EPOCHS, SEED = (int(word) for word in (*sys.argv[1:], *("12", "0")[len(sys.argv) - 1 :]))
BATCH = 100

train, test = bpxp.data.mnist()
layers: list[int | nn.Layer] = [
    nn.Conv2D(12, 5, padding="same"),
    nn.MaxPool2D(2),
    nn.Conv2D(32, 5),
    nn.MaxPool2D(2),
    nn.Flatten(),
    120,
    84,
    10,
]
net = bpxp.Network(layers, input_shape=(28, 28, 1), hidden="relu", init="he", seed=SEED)
print(net.summary())

rate = optim.OneCycle(0.1, steps=EPOCHS * -(-len(train) // BATCH))
trainer = bpxp.Trainer(net, optim.SGD(rate, momentum=0.9, nesterov=True, l2=1e-4))
history = trainer.fit(train, epochs=EPOCHS, batch_size=BATCH, validation=test)
print(f"test accuracy: {history[-1]['validation_accuracy']:.4f}")
