"""The textbook's network, 784-30-10, trained on MNIST with one line per mini-batch.

It shows `Loader` and `Network.gradient_descent`: softmax with categorical cross-entropy on top of sigmoid hidden
units, 30 epochs of mini-batches of 10. First with weights from N(0, 1), as in the textbook, then with the default
(Glorot, "Xavier") initialisation, which starts where sigmoids are steep and needs a smaller learning rate.

Run:  python examples/textbook.py            (MNIST is downloaded once; see BPXP_DATA_DIR)

Printed: (2 CPU cores, NumPy 2.4.6)
    init='normal', learning rate 0.5
    epoch  1: 91.54% of the test images right
    …
    epoch 30: 94.97% of the test images right
    peak: 95.55%
    init='glorot_uniform', learning rate 0.1
    epoch  1: 93.42% of the test images right
    …
    epoch 30: 96.55% of the test images right
    peak: 96.66%
"""

import bpxp

train, test = bpxp.data.mnist()


def learn(init: str, learning_rate: float) -> None:
    net = bpxp.Network([784, 30, 10], init=init, seed=0)
    batches = bpxp.data.Loader(train, batch_size=10, seed=0)  # images of uint8: scaled to 0 … 1
    peak = 0.0
    print(f"init={init!r}, learning rate {learning_rate}")
    for epoch in range(1, 31):
        for x, y in batches:
            net.gradient_descent((x, y), learning_rate=learning_rate)
        accuracy = net.evaluate(test)["accuracy"]
        peak = max(peak, accuracy)
        print(f"epoch {epoch:2}: {accuracy:.2%} of the test images right", flush=True)
    print(f"peak: {peak:.2%}\n")


learn(init="normal", learning_rate=0.5)
learn(init="glorot_uniform", learning_rate=0.1)
