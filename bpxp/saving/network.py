"""A network in a file: what is written of it, and how its spec is built again."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.dtypes import validate_dtype
from bpxp.backends.precision import label
from bpxp.core.checks import as_path
from bpxp.core.random import HostRandom, normalize_seed
from bpxp.core.tree import named_leaves, tree_map, unflatten
from bpxp.core.typing import Array, Params, Shape
from bpxp.core.version import __version__
from bpxp.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointSecurityError,
    InvalidTypeError,
    ParameterMemoryError,
)
from bpxp.nn import Sequential
from bpxp.nn.spec import Inputs, Spec, specify
from bpxp.saving import format, registry

OWN = ("params/", "stats/")  # what the names of a network's tensors begin with
TOO_MANY = "the layers need more numbers than the file has"
# What a foreign number may do to a constructor that is given it.
MISFITS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class Stored(NamedTuple):
    """What a file holds of a network: also the epochs done, and the steps as far as random layers count them."""

    spec: Spec
    params: Params
    stats: Any
    seed: int
    epoch: int
    steps: int


def save(path: str | Path, stored: Stored, backend: Backend) -> None:
    """Write a network; see `Network.save`."""
    tensors = {name: on_host(a, backend) for name, a in tensors_of(stored.params, stored.stats)}
    format.write(path, tensors, {"network": describe(stored), "written": written(backend)})


def describe(stored: Stored) -> dict[str, Any]:
    """Return what a network is, as JSON values."""
    spec = stored.spec
    return {
        "layers": registry.describe(spec.model.layers),
        "input_shape": list(spec.input_shape),
        "loss": registry.describe(spec.loss),
        "dtype": spec.dtype,
        "inputs": {"pixels": spec.inputs.pixels, "range": spec.inputs.range, "features": list(spec.inputs.features)},
        "seed": stored.seed,
        "epoch": stored.epoch,
        "steps": stored.steps,
    }


def written(backend: Backend) -> dict[str, str]:
    """Return what wrote a file: for people, nothing depends on it."""
    return {"bpxp": __version__, "numpy": np.__version__, "backend": label(backend)}


def load(path: str | Path, custom: Sequence[type]) -> Stored:
    """Read a network, with its arrays on the host; see `Network.load`."""
    path = as_path(path, "load(path)")
    where = f"load({os.fspath(path)!r})"
    for thing in custom:
        if not isinstance(thing, type):
            raise InvalidTypeError(f"{where[:-1]}, custom=…)", "not a class", code="E004", got=type(thing).__name__)
    with format.opened(path) as file:
        more = file.description.keys() & {"run", "replay"}  # such a file holds more than the network
        begin = OWN if more else ("",)
        shapes = {name: shape for name, (_, shape) in file.places.items() if name.startswith(begin)}
        stored = build(shapes, file.description["network"], custom, where)
        tensors = file.tensors(begin)
    params, stats = (adopt(like, tensors, name) for like, name in ((stored.params, "params"), (stored.stats, "stats")))
    return stored._replace(params=params, stats=stats)


def build(kept: dict[str, Shape], config: dict[str, Any], custom: Sequence[type], where: str) -> Stored:
    """Return the described network, if its parameters and statistics have these shapes; without their numbers.

    Layers that need more numbers than the file has are refused before these are allocated.
    """
    try:
        for key in ("epoch", "steps"):
            if type(config[key]) is not int or not 0 <= config[key] < 2**31:
                raise TypeError(f"{key} is no number of {key}")
        validate_dtype(config["dtype"], get_backend("numpy"))
        # Without initialisers: drawing what the file has would take longer than reading it.
        layers, loss = registry.build(undrawn(config["layers"]), custom), registry.build(config["loss"], custom)
        plain = {"hidden": "identity", "output": "identity", "init": "zeros", "dtype": config["dtype"]}
        limited = _Limited(0, (), [sum(map(math.prod, kept.values()))], where)
        spec, params = specify(layers, limited, input_shape=tuple(config["input_shape"]), loss=loss, **plain)
        stats = spec.init_stats(params)
        format.check_shapes(kept, {name: tuple(a.shape) for name, a in tensors_of(params, stats)}, where)
        model = Sequential(registry.build(config["layers"], custom))
        params, stats = tree_map(lambda a: np.broadcast_to(0.0, a.shape), (params, stats))  # shapes without memory
        seed = normalize_seed(config["seed"])
        spec = replace(spec, model=model, inputs=known_inputs(spec, config))
    except CheckpointError:
        raise
    except ParameterMemoryError as error:
        raise CheckpointSecurityError(where, f"{TOO_MANY} ({error})", code="E062") from error
    except MISFITS as error:
        raise CheckpointFormatError(where, f"the file does not describe a network ({error!r})", code="E061") from error
    return Stored(spec, params, stats, seed, config["epoch"], config["steps"])


def known_inputs(spec: Spec, config: dict[str, Any]) -> Inputs:
    """Return what the description of a network says of its inputs, or raise one of `MISFITS`.

    Files of before it was said scaled uint8, and no other integers.
    """
    known = config.get("inputs")
    if known is None:
        return Inputs(False if spec.takes_ids else "uint8")
    extent, features = known["range"], tuple(known["features"])
    if extent is not None:
        low, high = extent = tuple(map(float, extent))
        if not -math.inf < low <= high < math.inf:
            raise ValueError("not a range")
    if not all(isinstance(name, (str, int)) for name in features) or len(features) not in (0, *spec.input_shape[:1]):
        raise ValueError("not the names of the columns")
    return Inputs(spec.with_pixels(known["pixels"], "pixels").inputs.pixels, extent, features)


def adopt(like: Any, tensors: MutableMapping[str, np.ndarray], prefix: str) -> Any:
    """Return a tree in the structure of `like` of the tensors of a file, which are taken out of `tensors`."""

    def own(name: str, like: Array) -> np.ndarray:
        a = tensors.pop(name)
        if tuple(a.shape) != tuple(like.shape):
            raise ValueError(f"{name} is {tuple(a.shape)}, and should be {tuple(like.shape)}")
        return a

    return unflatten(like, [own(*pair) for pair in named_leaves(like, prefix)])


def tensors_of(params: Params, stats: Any) -> Iterator[tuple[str, Array]]:
    """Yield what a file holds of a network, by name."""
    yield from named_leaves(params, "params")
    yield from named_leaves(stats, "stats")


def on_host(a: Array, backend: Backend) -> np.ndarray:
    """Return an array for writing: host memory is written from where it lies."""
    return a if isinstance(a, np.ndarray) else backend.to_numpy(a)


def undrawn(config: Any) -> Any:
    """Return a description whose initialisers are all zeros."""
    if isinstance(config, list):
        return [undrawn(part) for part in config]
    if isinstance(config, dict):
        return {key: {"type": "Zeros"} if key == "initializer" else undrawn(value) for key, value in config.items()}
    return config


@dataclass(frozen=True)
class _Limited(HostRandom):
    """Zeros in the place of random numbers, and not too many of them."""

    left: list[int] = field(default_factory=list)
    where: str = ""

    def at(self, *place: int) -> _Limited:
        return self

    def bits(self, size: int) -> np.ndarray:
        return self.zeros((size,)).astype(np.uint64)

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        self.left[0] -= math.prod(shape)
        if self.left[0] < 0:
            raise CheckpointSecurityError(self.where, TOO_MANY, code="E062", got=f"an array of shape {shape}")
        return np.zeros(shape)
