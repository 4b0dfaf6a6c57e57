"""Keras 3: `Sequential`, `compile`, one `fit`; on the backend that KERAS_BACKEND names.

Its own choice of compilation (`jit_compile="auto"`: XLA on JAX, none on torch). An epoch's seconds are those between
its first and its last moment, so that the start of the fit is not in them. Epsilon of Adam as the others have it.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import keras

from benchmarks.peers.serve import After, options, serve
from benchmarks.peers.work import CLASSES, Work


class Ask(keras.callbacks.Callback):
    def __init__(self, after: After) -> None:
        super().__init__()
        self.after = after

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.begun = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.model.stop_training = self.after(time.perf_counter() - self.begun, float(logs["loss"]))


class Keras:
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        self.work = work
        self.data = work.floats()
        self.net = self.network(seed=0)
        rule = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[work.optimizer]
        options = {"epsilon": 1e-8} if work.optimizer == "adam" else {}
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        self.net.compile(optimizer=rule(work.learning_rate, **options), loss=loss)

    def network(self, seed: int) -> keras.Sequential:
        work = self.work
        keras.utils.set_random_seed(seed)
        layers: list[Any] = [keras.Input((28, 28, 1) if work.is_image else (work.widths[0],))]
        for filters in work.filters:
            layers += [keras.layers.Conv2D(filters, 3, padding="same", activation="relu"), keras.layers.MaxPooling2D()]
        if work.is_image:
            layers.append(keras.layers.Flatten())
        layers += [keras.layers.Dense(n, activation=work.hidden) for n in work.widths[1:-1]]
        return keras.Sequential([*layers, keras.layers.Dense(CLASSES)])

    def start(self, seed: int) -> None:
        self.net.set_weights(self.network(seed).get_weights())
        for variable in self.net.optimizer.variables:
            if variable is not self.net.optimizer._learning_rate:
                variable.assign(keras.ops.zeros_like(variable))

    def train(self, epochs: int, after: After) -> None:
        x, y = self.data
        self.net.fit(x, y, batch_size=self.work.batch, epochs=epochs, shuffle=True, verbose=0, callbacks=[Ask(after)])

    def accuracy(self) -> float:
        x, y = self.work.test_floats()
        return float((self.net.predict(x, batch_size=1000, verbose=0).argmax(axis=1) == y).mean())


if __name__ == "__main__":
    serve(Keras, options(__doc__), can=("images",))
