"""A convolutional network past 99.6 % on MNIST: convolution, pooling, batch normalisation and dropout.

It shows layers built by a function, `BatchNorm` after a convolution without bias, `Dropout`, and, with the argument
"augment", data augmentation: random shifts, rotations and elastic distortions in every epoch.

Run:  python examples/cnn.py [EPOCHS] [SEED] [augment]      (MNIST is downloaded once; see BPXP_DATA_DIR)

Printed: (1 of 2 CPU cores, NumPy 2.4.6; without arguments, then with "25 0 augment")
    epoch  1/15  loss 0.2934  validation loss 0.0480  validation accuracy 0.9837  128.9 s
    …
    epoch 15/15  loss 0.0071  validation loss 0.0124  validation accuracy 0.9966  125.2 s
    test accuracy: 0.9966

    epoch  1/25  loss 0.4948  validation loss 0.0507  validation accuracy 0.9827  156.1 s
    …
    epoch 25/25  loss 0.0237  validation loss 0.0097  validation accuracy 0.9967  161.5 s
    test accuracy: 0.9967
"""

import sys

import bpxp
from bpxp import nn, optim
from bpxp.data import augment

words = [word for word in sys.argv[1:] if word != "augment"]
EPOCHS, SEED = (int(word) for word in (*words, *("15", "0")[len(words) :]))
BATCH = 100


def convolution(filters: int, kernel: int, *between: nn.Layer) -> list[nn.Layer]:
    """Return a convolution, the layers `between`, batch normalisation and ReLU."""
    linear = nn.Conv2D(filters, kernel, padding="same", bias=False, activation="identity")
    return [linear, *between, nn.BatchNorm(), nn.ReLU()]


train, test = bpxp.data.mnist()
layers: list[int | nn.Layer] = [
    *convolution(24, 5, nn.MaxPool2D(2)),
    *convolution(48, 3),
    *convolution(48, 3, nn.MaxPool2D(2)),
    nn.Dropout(0.2),
    *convolution(64, 3),
    nn.Dropout(0.3),
    nn.Flatten(),
    128,
    nn.Dropout(0.4),
    10,
]
net = bpxp.Network(layers, input_shape=(28, 28, 1), hidden="relu", init="he", seed=SEED)

moves = [augment.Affine(degrees=10, scale=0.1, shear=0.1, shift=2), augment.ElasticDistortion(alpha=20.0, sigma=5.0)]
rate = optim.OneCycle(0.1, steps=EPOCHS * -(-len(train) // BATCH))
trainer = bpxp.Trainer(net, optim.SGD(rate, momentum=0.9, nesterov=True, l2=2e-4))
changes = moves if "augment" in sys.argv else []
history = trainer.fit(train, epochs=EPOCHS, batch_size=BATCH, validation=test, augment=changes)
print(f"test accuracy: {history[-1]['validation_accuracy']:.4f}")
