"""A network in a file: what is written of it, and how it is built again."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bpxp import __version__
from bpxp.backends import Array, Backend, get_backend
from bpxp.core.checks import as_path
from bpxp.core.random import HostRandom
from bpxp.core.tree import named_leaves, tree_map, unflatten
from bpxp.core.typing import Params, Shape
from bpxp.errors import (
    CheckpointError,
    CheckpointFormatError,
    CheckpointSecurityError,
    InvalidTypeError,
    ParameterMemoryError,
)
from bpxp.network.network import Network
from bpxp.nn import Sequential, architecture
from bpxp.saving import format as checkpoint
from bpxp.saving import registry

OWN = ("params/", "stats/")  # what the names of a network's tensors begin with
TOO_MANY = "the layers need more numbers than the file has"
# What a foreign number may do to a constructor that is given it.
MISFITS = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


def save(net: Network, path: str | Path) -> None:
    """Write a network; see `Network.save`."""
    tensors = {name: on_host(a, net.backend) for name, a in tensors_of(net.params, net.stats)}
    checkpoint.write(path, tensors, {"network": describe(net), "written": written(net)})


def describe(net: Network) -> dict[str, Any]:
    """Return what a network is, as JSON values."""
    return {
        "layers": registry.describe(net.layers),
        "input_shape": list(net.input_shape),
        "loss": registry.describe(net.loss),
        "dtype": net.dtype,
        "seed": net.seed,
        "epoch": net.epoch,
        "steps": net.steps,
    }


def written(net: Network) -> dict[str, str]:
    """Return by what a file is written: for people, nothing depends on it."""
    return {"bpxp": __version__, "numpy": np.__version__, "backend": net.backend.name}


def load(path: str | Path, *, backend: str | Backend | None, custom: Sequence[type]) -> Network:
    """Read a network; see `Network.load`."""
    path = as_path(path, "load(path)")
    where = f"load({os.fspath(path)!r})"
    for thing in custom:
        if not isinstance(thing, type):
            got = type(thing).__name__
            raise InvalidTypeError(f"{where[:-1]}, custom=…)", "not a class", code="E004", got=got)
    with checkpoint.opened(path) as file:
        more = file.description.keys() & {"run", "replay"}  # such a file holds more than the network
        begin = OWN if more else ("",)
        shapes = {name: shape for name, (_, shape) in file.places.items() if name.startswith(begin)}
        net = build(shapes, file.description["network"], get_backend(backend), custom, where)
        tensors = file.tensors(begin)
    net._params = taken(net.params, tensors, "params", net, give=True)
    net.stats = taken(net.stats, tensors, "stats", net, give=True)
    return net


def build(
    kept: dict[str, Shape], config: dict[str, Any], backend: Backend, custom: Sequence[type], where: str
) -> Network:
    """Return the described network, if its parameters and statistics have these shapes; numbers they have none yet.

    Raises
    ------
    CheckpointFormatError
        If an entry of the description is missing or cannot be what it should be.
    CheckpointSecurityError
        If the layers would need more numbers than the file has, before they are there.
    CheckpointMismatchError
        If the tensors are not those of the layers.
    """
    try:
        for key in ("epoch", "steps"):
            if type(config[key]) is not int or not 0 <= config[key] < 2**31:
                raise TypeError(f"{key} is no number of {key}")
        # Drawing what the file has anyway would take longer than reading it.
        layers = registry.build(undrawn(config["layers"]), custom)
        options = {"input_shape": tuple(config["input_shape"]), "loss": registry.build(config["loss"], custom)}
        model, in_shape = architecture.build_model(layers, options["input_shape"], "identity", "identity", "zeros")
        shapes = _shapes(model, in_shape, sum(map(math.prod, kept.values())), where)
        checkpoint.check_shapes(kept, shapes, where)
        net: Network = _Hollow(
            layers, **options, dtype=config["dtype"], seed=config["seed"], backend=backend, init="zeros"
        )
        net.__class__ = Network
        net.model = Sequential(registry.build(config["layers"], custom))
    except CheckpointError:
        raise
    except ParameterMemoryError as error:
        raise CheckpointSecurityError(where, f"{TOO_MANY} ({error})", code="E062") from error
    except MISFITS as error:
        raise CheckpointFormatError(where, f"the file does not describe a network ({error!r})", code="E061") from error
    net.epoch = config["epoch"]
    net.key = net.key_at(config["steps"]) if net.key or config["steps"] else ()
    return net


class _Hollow(Network):
    """A network whose parameters are shapes without memory: what a file has for them goes to a place of its own."""

    def _adopt(self, tree: Any) -> Any:
        return tree_map(lambda a: np.broadcast_to(0.0, a.shape), tree)


def taken(like: Any, tensors: MutableMapping[str, np.ndarray], prefix: str, net: Network, *, give: bool = False) -> Any:
    """Return a tree in the structure of `like` from the tensors of a file, as arrays that nobody else holds.

    They are copies; or, with `give`, the tensors themselves, which are taken out of `tensors` one by one.

    Raises
    ------
    KeyError, ValueError
        If one is missing, or has another shape.
    """

    def own(name: str, like: Array) -> Array:
        a = tensors.pop(name) if give else tensors[name]
        if tuple(a.shape) != tuple(like.shape):
            raise ValueError(f"{name} is {tuple(a.shape)}, and should be {tuple(like.shape)}")
        return net.backend.asarray(a.astype(net.dtype if a.dtype.kind == "f" else np.int32, copy=not give))

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


def _shapes(model: Sequential, in_shape: Shape, size: int, where: str) -> dict[str, Shape]:
    """Return the shapes of what the layers keep, made of no more numbers than the file has."""
    params, _ = model.init(_Limited(0, (), [size], where), in_shape)
    stats = model.init_stats(params) if "stats" in model.uses else ()
    return {name: tuple(a.shape) for name, a in tensors_of(params, stats)}


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
