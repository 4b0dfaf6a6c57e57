"""What reads descriptions: the configuration of a network, and all that a file says of a run."""

from __future__ import annotations

import json
import random
import tempfile
import warnings
from pathlib import Path

import numpy as np

import bpxp
from bpxp import nn
from bpxp.callbacks import Checkpoint, EarlyStopping
from bpxp.errors import BpxpWarning, CheckpointError
from bpxp.saving import format as checkpoint
from bpxp.saving import network as model_file
from bpxp.saving import registry
from bpxp.training import resume as run_file
from bpxp.training.setup import FitSetup
from fuzz.engine import Target
from fuzz.mutate import Texts, pick

NETWORKS = [
    ([2, 3, 2], {}),
    ([4, nn.Dense(3, "relu", "he"), nn.LayerNorm(), nn.Dropout(0.5), 2], {"loss": "binary_cross_entropy"}),
    ([nn.Conv2D(2, 3, activation="elu"), nn.BatchNorm(), nn.MaxPool2D(2), nn.Flatten(), 2], {"input_shape": (6, 6, 1)}),
    ([nn.AvgPool2D(2), nn.Reshape((2, 2)), nn.Flatten(), 1], {"input_shape": (4, 4, 1), "loss": "huber"}),
    (
        [nn.Conv2D(2, 1), nn.GlobalAvgPool2D(), nn.Residual(nn.Sequential((nn.Dense(2, "selu"),))), 2],
        {"input_shape": (3, 3, 1)},
    ),
    ([nn.Embedding(5, 2), nn.Flatten(), nn.LeakyReLU(0.1), 2], {"input_shape": (3,), "loss": "poisson"}),
]


class Config(Target):
    """The configuration in a file: it becomes a network, or is refused."""

    name = "config"
    allowed = (CheckpointError,)

    def __init__(self) -> None:
        nets = [bpxp.Network(layers, backend="numpy", seed=0, **options) for layers, options in NETWORKS]
        parts = [*nn.ACTIVATIONS.values(), *nn.INITIALIZERS.values(), *nn.LOSSES.values()]
        configs = [model_file.describe(net._stored()) for net in nets]
        self.shapes = [{name: a.shape for name, a in model_file.tensors_of(net.params, net.stats)} for net in nets]
        self.texts = Texts([json.dumps(thing) for thing in (*configs, *map(registry.describe, parts))])
        for value in zip(map(json.dumps, configs), self.shapes, strict=True):
            self.run(value)

    def make(self, rng: random.Random) -> tuple[str, dict]:
        i = int(rng.random() * len(self.shapes))
        return self.texts.changed(rng, i), self.shapes[i] if rng.random() < 0.9 else pick(rng, self.shapes)

    def run(self, value: tuple[str, dict]) -> None:
        text, shapes = value
        try:
            config = json.loads(text)
        except (ValueError, RecursionError):  # a number of more than 4300 digits, or nested too deeply
            return
        if not isinstance(config, dict):  # the header's reader has seen to that, and to the nesting
            return
        stored = model_file.build(shapes, config, (), "load")
        assert json.loads(json.dumps(model_file.describe(stored)))["layers"] is not None


class RunFile(Target):
    """What a file says of a run, from its place in the epoch to the states of its callbacks."""

    name = "run"
    allowed = (CheckpointError,)

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(7, 3)).astype(np.float32), np.arange(7) % 2
        self.net = bpxp.Network([3, nn.BatchNorm(), nn.Dropout(0.2), 2], backend="numpy", seed=0)
        optimizer = bpxp.optim.SGD(bpxp.optim.CosineDecay(0.1, 9), momentum=0.9)
        self.stopping = EarlyStopping("loss", patience=3)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "run.bpxp"
            callbacks = [self.stopping, Checkpoint(path, steps=2)]
            self.trainer = bpxp.Trainer(self.net, optimizer, callbacks=callbacks, progress=False)
            self.trainer.fit((x, y), epochs=2, batch_size=3)
            self.tensors, description = checkpoint.read(path)
        options = {"validation": None, "weight": None, "class_weight": None, "shuffle": True, "augment": ()}
        metrics = self.trainer.metrics
        self.work = FitSetup.of(
            self.net, optimizer, metrics, (x, y), batch_size=3, evaluate_train=False, seed=0, **options
        )
        history = self.tensors["run/history"].tobytes().decode()
        self.texts = Texts([json.dumps({**description, "history": json.loads(history)})])
        self.run((self.texts.texts[0], ()))

    def make(self, rng: random.Random) -> tuple[str, tuple[str, ...]]:
        lost = rng.random() < 0.1
        return self.texts.changed(rng), (pick(rng, list(self.tensors)),) if lost else ()

    def run(self, value: tuple[str, tuple[str, ...]]) -> None:
        text, lost = value
        try:
            description = json.loads(text)
        except (ValueError, RecursionError):
            return
        if not (isinstance(description, dict) and isinstance(description.get("network"), dict)):
            return
        tensors = {name: a.copy() for name, a in self.tensors.items() if name not in lost}
        tensors["run/history"] = np.frombuffer(json.dumps(description.pop("history", 0)).encode(), np.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BpxpWarning)
            saved = run_file.validate("run.bpxp", tensors, description, self.net)
            self.trainer.run = run_file.restore(saved, self.net, self.work)
            self.stopping.on_fit_begin(self.trainer)
            run_file.resume_callbacks(saved, self.trainer)
