"""What takes arguments: `Network(…)`, and the command line."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import os
import random
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

import bpxp
import bpxp.backends
from bpxp import cli, nn
from bpxp.errors import BpxpError, BpxpWarning
from bpxp.saving import registry
from fuzz.engine import Target
from fuzz.mutate import pick

SIZES = [1, 2, 3, 5, 8, np.int64(4), True, False, 0, -1, 2.0, 2.5, float("nan"), 2**40, 2**63, 10**30, 10**400]
SIZES += ["3", None, (), [], [2], np.float32(2), np.array(3), np.array([2, 3]), 1 + 2j, object(), int, {}, b"3"]
ODD = [None, True, 0, 1, -1, 2.5, float("inf"), 10**400, "", "relu", "rel", "sigmoid", "softmax", "he", "huber", "hubr"]
ODD += [(), [], [[]], {}, {"a": 1}, object(), int, nn.ReLU, nn.ReLU(), nn.Zeros(), nn.Dense(2), nn.Huber(), b"relu"]
ODD += [np.array([1.0]), np.zeros((2, 2)), "a\0b", "\ud800", "x" * 3000, lambda: 0, float("nan"), frozenset(), range(3)]
LAYERS = [c for c in registry.known_classes().values() if hasattr(c, "forward") and c is not nn.Sequential]
# The names of what a layer must be given, and of what it may be.
GIVEN = {c: [f.name for f in dataclasses.fields(c) if f.default is dataclasses.MISSING] for c in LAYERS}
OPEN = {c: [f.name for f in dataclasses.fields(c) if f.default is not dataclasses.MISSING] for c in LAYERS}
PLAIN: dict[str, list[Any]] = {
    "hidden": sorted(nn.ACTIVATIONS),
    "output": sorted(nn.ACTIVATIONS),
    "loss": sorted(nn.LOSSES),
    "init": sorted(nn.INITIALIZERS),
    "dtype": ["float32", "float64"],
    "backend": ["numpy"],
    "matmul": ["float32"],
    "seed": [0, 1, 2**70, None],
    "input_shape": [(3,), (4, 4, 1), 3, (2, 3)],
}


class Made(NamedTuple):
    """A layer that is yet to be made."""

    layer: type
    options: dict[str, Any]


class Arguments(Target):
    """`Network(…)`: good arguments, and one or a few that are not."""

    name = "network"
    allowed = (BpxpError,)

    def __init__(self) -> None:
        self.run(([2, 2], {"backend": "numpy"}))

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """Leave out what takes a second: whoever asks for an unknown backend is told which ones work."""
        return mock.patch.object(bpxp.backends.names, "available_backends", return_value={})

    def make(self, rng: random.Random) -> tuple[Any, dict[str, Any]]:
        options = {name: pick(rng, values) for name, values in PLAIN.items() if rng.random() < 0.2}
        options["backend"] = "numpy"
        if rng.random() < 0.5:
            options[pick(rng, list(PLAIN))] = odd(rng, 0)
        if rng.random() < 0.03:
            return odd(rng, 0), options
        return [self._entry(rng) for _ in range(int(5 * rng.random()) + (rng.random() < 0.9))], options

    def _entry(self, rng: random.Random) -> Any:
        what = rng.random()
        if what < 0.6:
            return pick(rng, SIZES[:6])
        if what < 0.75:
            return pick(rng, SIZES)
        if what < 0.78:
            return odd(rng, 0)
        layer = pick(rng, LAYERS)
        names = GIVEN[layer] + [name for name in OPEN[layer] if rng.random() < 0.3]
        return Made(layer, {name: self._hyper(rng) for name in names})

    def _hyper(self, rng: random.Random) -> Any:
        what = rng.random()
        if what < 0.5:
            return pick(rng, [1, 2, 3, 0.1, 0.5, (2, 2), (1, 2), "valid", "same", "relu", "he"])
        return pick(rng, SIZES) if what < 0.75 else odd(rng, 0)

    def run(self, value: tuple[Any, dict[str, Any]]) -> None:
        layers, options = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BpxpWarning)
            if isinstance(layers, list):
                layers = [entry.layer(**entry.options) if isinstance(entry, Made) else entry for entry in layers]
            net = bpxp.Network(layers, **options)
        assert net.size >= 0
        assert repr(net)


def odd(rng: random.Random, depth: int) -> Any:
    """Return what nobody expects: a thing, or some of them in a list."""
    if depth < 3 and rng.random() < 0.15:
        things = [odd(rng, depth + 1) for _ in range(int(4 * rng.random()))]
        return things if rng.random() < 0.5 else tuple(things)
    return pick(rng, ODD if rng.random() < 0.6 else SIZES)


COMMANDS = "train evaluate predict backends verify replay certify bisect xray".split()
WORDS = """trian digits mnist nothing --layers --hidden --init --dtype --optimizer --learning-rate --epochs
--batch-size --seed --out --checkpoint --checkpoint-steps --resume --quiet --backend --per-class --as-is --backends
--dtypes --steps --at --matmul --data --help --version --lay --e --layers= --epochs=3 -h -1 -- - 0 1 2 -0 1.5 nan
inf -inf 1e999 64,10 64,,10 , 64,x 64,0,10 64,-3,10 64,10,10 numpy cuppy cupy:99 numpy:1 numpy,torch bfloat16 relu
rel he adam adamm sgd float32 float16 {epoch}.bpxp a.bpxp no/such/folder/x.bpxp ../x /dev/null . / ~ *
99999999999999999999 1_000 ٣ é \udc80 --é 0x10 @file =""".split()
ENOUGH = 20_000  # parameters: more would train, and not fuzz


class Line(Target):
    """The command line: read, and for ``train`` all that is built from it before the first step."""

    name = "cli"
    allowed = (BpxpError, OSError, SystemExit)  # argparse's own way to say what is wrong

    def __init__(self) -> None:
        self.parser = cli.make_parser()
        self.sink = io.StringIO()
        self.run(["train", "--epochs", "0", "--layers", "64,10"])

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Leave out what takes a thousand times as long as the mistake to find: other libraries, usage, translations."""
        patch = mock.patch.object
        with contextlib.ExitStack() as stack:
            stack.enter_context(patch(bpxp.backends.names, "available_backends", return_value={}))
            for name in ("print_usage", "print_help"):
                stack.enter_context(patch(argparse.ArgumentParser, name, lambda *_: None))
            for name in ("_", "ngettext"):
                stack.enter_context(patch(argparse, name, lambda text, *_: text))
            stack.enter_context(mock.patch.dict(os.environ, {"BPXP_BACKEND": "numpy"}))
            yield

    def make(self, rng: random.Random) -> list[str]:
        words = ["train" if rng.random() < 0.7 else pick(rng, COMMANDS)]
        for _ in range(int(8 * rng.random())):
            words.append(pick(rng, WORDS) if rng.random() < 0.95 else str(rng.getrandbits(int(70 * rng.random()) + 1)))
        if rng.random() < 0.05:
            rng.shuffle(words)
        return words

    def run(self, value: list[str]) -> None:
        self.sink.seek(0)
        self.sink.truncate()
        with contextlib.redirect_stdout(self.sink), contextlib.redirect_stderr(self.sink):
            options = self.parser.parse_args(value)
            if getattr(options, "run", None) is cli.train:
                self.built(options)

    def built(self, options: argparse.Namespace) -> None:
        """Build what ``bpxp train`` builds of its options."""
        net = cli.network(options, options.layers or [64, 10])
        bpxp.optim.get_optimizer(options.optimizer, options.learning_rate)
        path = options.checkpoint or options.resume
        if path:
            bpxp.callbacks.Checkpoint(path, steps=options.checkpoint_steps)
        cli.resuming(["train"], str(path))
        assert net.size <= ENOUGH
