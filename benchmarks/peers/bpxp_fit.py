"""bpxp, as a user writes it: one `Trainer.fit` on arrays of the backend.

An epoch's seconds are the history's own. It ends when its loss is a number on the host: everything before it is done.
With ``--whole`` each epoch is a call of `fit` on arrays of NumPy, and its seconds are those of the whole call, with the
checks of the data and their transfer.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import bpxp
from benchmarks.peers.serve import After, options, serve
from benchmarks.peers.work import CLASSES, Work, in_a_file
from bpxp.nn import Conv2D, Flatten, MaxPool2D


class Ask(bpxp.callbacks.Callback):
    """Tell how an epoch went, and stop the fit where that is the answer."""

    def __init__(self, after: After) -> None:
        self.after = after

    def on_epoch_end(self, trainer: bpxp.Trainer, row: dict[str, Any]) -> None:
        if self.after(row["seconds"], row["loss"]):
            trainer.stop = "asked to"


class Bpxp:
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        self.work, self.pixels = work, arguments.pixels
        self.whole = getattr(arguments, "whole", False)
        self.net = self.network(arguments.backend, seed=0)
        x, y = work.pixels() if self.pixels else work.floats()
        if arguments.streamed:
            self.data: Any = bpxp.data.Dataset(in_a_file(x), y, resident=False)
        elif self.whole:
            self.data = x, y
        else:
            self.data = self.net.backend.asarray(x), self.net.backend.asarray(y)
        self.test: tuple[Any, Any] | None = None

    def network(self, backend: Any, seed: int) -> bpxp.Network:
        work = self.work
        if not work.is_image:
            return bpxp.Network(work.widths, hidden=work.hidden, pixels=True, backend=backend, seed=seed)
        layers: list[Any] = []
        for filters in work.filters:
            layers += [Conv2D(filters, 3, padding="same", activation="relu"), MaxPool2D(2)]
        return bpxp.Network([*layers, Flatten(), CLASSES], input_shape=(28, 28, 1), backend=backend, seed=seed)

    def optimizer(self) -> bpxp.optim.Optimizer:
        rule = {"sgd": bpxp.optim.SGD, "adam": bpxp.optim.Adam}[self.work.optimizer]
        steps = self.work.one_cycle * self.work.steps
        return rule(bpxp.optim.OneCycle(self.work.learning_rate, steps=steps) if steps else self.work.learning_rate)

    def start(self, seed: int) -> None:
        net, new = self.net, self.network(self.net.backend, seed)
        net.params, net.seed, net.epoch, net.opt_state = new.params, new.seed, 0, None

    def train(self, epochs: int, after: After) -> None:
        if self.whole:
            self.train_by_calls(epochs, after)
            return
        trainer = bpxp.Trainer(self.net, self.optimizer(), callbacks=[Ask(after)], progress=False)
        trainer.fit(self.data, epochs=epochs, batch_size=self.work.batch)

    def train_by_calls(self, epochs: int, after: After) -> None:
        trainer = bpxp.Trainer(self.net, self.optimizer(), progress=False)
        for _ in range(epochs):
            begun = time.perf_counter()
            history = trainer.fit(self.data, epochs=1, batch_size=self.work.batch)
            if after(time.perf_counter() - begun, history["loss"][-1]):
                return

    def accuracy(self) -> float:
        if self.test is None:
            x, y = self.work.test_pixels() if self.pixels else self.work.test_floats()
            self.test = self.net.backend.asarray(x), self.net.backend.asarray(y)
        return float(self.net.evaluate(*self.test)["accuracy"])


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--pixels", action="store_true", help="pictures as uint8, as in bpxp's own data sets")
    parser.add_argument("--streamed", action="store_true", help="from a memory-mapped file")
    parser.add_argument("--whole", action="store_true", help="a call of fit for each epoch, on arrays of NumPy")
    serve(Bpxp, parser, can=("images", "one_cycle"))
