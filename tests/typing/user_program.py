"""A user's program, typed: `mypy --strict` and `pyright` accept it, and a test runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import bpxp
from bpxp import callbacks, nn, optim
from bpxp.nn import Layer, Loss


class ScaleParams(NamedTuple):
    """One factor for each feature."""

    W: Any


@dataclass(frozen=True)
class Scale:
    """A custom layer: each feature times its factor."""

    def init(self, rng: Any, in_shape: tuple[int, ...], /) -> tuple[ScaleParams, tuple[int, ...]]:
        return ScaleParams(rng.zeros(in_shape) + 1.0), in_shape

    def forward(self, params: ScaleParams, x: Any, /, *, xp: Any) -> tuple[Any, Any]:
        return x * params.W, x

    def backward(self, params: ScaleParams, x: Any, dy: Any, /, *, xp: Any) -> tuple[Any, ScaleParams]:
        return dy * params.W, ScaleParams(xp.sum(dy * x, axis=0))


@dataclass(frozen=True)
class Noise:
    """A layer that asks for more than x."""

    uses = frozenset({"training"})

    def init(self, rng: Any, in_shape: tuple[int, ...], /) -> tuple[tuple[()], tuple[int, ...]]:
        return (), in_shape

    def forward(self, params: tuple[()], x: Any, /, *, xp: Any, training: bool = False) -> tuple[Any, None]:
        return (x * 1.5 if training else x * 1.0), None

    def backward(self, params: tuple[()], cache: None, dy: Any, /, *, xp: Any) -> tuple[Any, tuple[()]]:
        return dy * 1.5, ()


@dataclass(frozen=True)
class Quartic:
    """A custom loss."""

    power: int = 4
    targets = "values"

    def __call__(self, logits: Any, y: Any, weight: Any = None, /, *, xp: Any) -> tuple[Any, Any]:
        difference = (logits - y) / logits.shape[0]
        return xp.sum(difference**4, axis=(0, 1), keepdims=True)[0], 4.0 * difference**3 / logits.shape[0]

    def activate(self, logits: Any, /, *, xp: Any) -> Any:
        return logits * 1.0


@dataclass(frozen=True)
class SignDescent(optim.Optimizer):
    """A custom optimizer."""

    learning_rate: float | optim.Schedule = 0.01

    def rule(self, p: Any, g: Any, slots: tuple[Any, ...], lr: Any, /, *, xp: Any) -> tuple[Any, tuple[Any, ...]]:
        p -= lr * xp.sign(g)
        return p, slots


class Steps(callbacks.Callback):
    """A custom callback."""

    epochs = 0

    def on_epoch_end(self, trainer: bpxp.Trainer, row: dict[str, Any]) -> None:
        self.epochs += 1


def networks() -> list[bpxp.Network]:
    """Return networks, described in every way."""
    layers: list[int | Layer] = [nn.Dense(8, "relu"), nn.Residual(nn.Sequential((nn.Dense(8), nn.Tanh()))), 2]
    loss: Loss = nn.SoftmaxCrossEntropy(label_smoothing=0.1)
    return [
        bpxp.Network([64, 30, 10]),
        bpxp.Network([64, nn.Dense(30, "relu"), 10]),
        bpxp.Network([64, nn.Dense(30, activation=nn.ReLU(), initializer="he"), nn.Dropout(0.2), 10], hidden="relu"),
        bpxp.Network([nn.Sequential((nn.Dense(3),)), nn.BatchNorm(), nn.ReLU(), Scale(), Noise(), 2], input_shape=5),
        bpxp.Network(layers, input_shape=(4,), loss=loss, dtype="float64", backend="numpy", seed=0),
        bpxp.Network((4, 3, 2), hidden=nn.Tanh(), output="identity", loss="mean_squared_error", init=nn.HeNormal()),
        bpxp.Network([3, Scale(), 2], loss=Quartic()),
        bpxp.Network(
            [nn.Conv2D(8, 3, activation="relu"), nn.MaxPool2D(2), nn.Flatten(), 10],
            input_shape=(28, 28, 1),
            seed=np.random.default_rng(0),
        ),
        bpxp.Network(
            [nn.Embedding(5, 4), nn.LayerNorm(), nn.Flatten(), nn.Reshape((4, 6)), nn.Flatten(), 2], input_shape=6
        ),
    ]


def train(folder: str) -> dict[str, Any]:
    """Train as the README does."""
    train, test = bpxp.data.digits()
    net = bpxp.Network([64, nn.Dense(30, "relu"), 10], backend="numpy", seed=0)
    own = Steps()
    trainer = bpxp.Trainer(
        net,
        optim.Adam(optim.CosineDecay(1e-3, 100), l2=1e-4, clip_norm=1.0),
        callbacks=[own, callbacks.EarlyStopping(patience=3), callbacks.CSVLog(f"{folder}/log.csv")],
        progress=False,
    )
    history = trainer.fit(train, epochs=1, batch_size=64, validation=test)
    x, y = train.x.reshape(-1, 64), train.y
    bpxp.Trainer(net, SignDescent(1e-3), progress=False).fit((x, y), epochs=1, validation=(x[:50], y[:50]))
    bpxp.Trainer(net, "momentum", metrics=["accuracy", bpxp.metrics.TopK(3)], progress=False).fit(train, epochs=1)
    loss, grads = net.loss_and_gradients(test.x[:5].reshape(5, 64), test.y[:5])
    net.gradient_descent((test.x[:5].reshape(5, 64), test.y[:5]), learning_rate=0.5)
    net.save(f"{folder}/digits.bpxp")
    again = bpxp.Network.load(f"{folder}/digits.bpxp", backend="numpy")
    bpxp.verify.check_gradients(bpxp.Network([4, 3, 2], dtype="float64"), np.ones((3, 4)), np.array([0, 1, 1]))
    assert own.epochs == 1
    assert grads[0].W.shape == (64, 30)
    print(history["loss"], float(loss), again.predict(test.x[:2].reshape(2, 64)))
    return net.evaluate(test)
