"""A network in a file: what is written of it, and how it is built again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bpxp import checkpoint, registry
from bpxp.backends import Array, Backend, get_backend
from bpxp.errors import CheckpointFormatError, message
from bpxp.network import Network
from bpxp.parameters import own
from bpxp.tree import named_leaves, unflatten


def save(net: Network, path: str | Path) -> None:
    """Write a network; see `Network.save`."""
    config = {
        "layers": registry.describe(net.layers),
        "input_shape": list(net.input_shape),
        "loss": registry.describe(net.loss),
        "dtype": net.dtype,
        "seed": net.seed,
        "epoch": net.epoch,
        "steps": net.steps,
    }
    checkpoint.write(path, {name: net.backend.to_numpy(a) for name, a in tensors_of(net)}, config)


def load(path: str | Path, *, backend: str | Backend | None, custom: Sequence[type]) -> Network:
    """Read a network; see `Network.load`."""
    where = f"load({os.fspath(path)!r})"
    tensors, config = checkpoint.read(path)
    net = build(config, get_backend(backend), custom, where)
    checkpoint.check_tensors(tensors, {name: tuple(a.shape) for name, a in tensors_of(net)}, where)
    values = [own(tensors[name], net.backend, net.dtype) for name, _ in tensors_of(net)]
    net.params, net.stats = unflatten((net.params, net.stats), values)
    net.epoch = config["epoch"]
    net.key = net.key_at(config["steps"]) if net.key or config["steps"] else ()
    return net


def build(config: dict[str, Any], backend: Backend, custom: Sequence[type], where: str) -> Network:
    """Return a network of the described layers, its parameters all zero.

    Raises
    ------
    CheckpointFormatError
        If an entry is missing or cannot be what it should be.
    """
    try:
        for key in ("epoch", "steps"):
            if not isinstance(config[key], int):
                raise TypeError(f"{key} is no int")
        return Network(
            registry.build(config["layers"], custom),
            input_shape=tuple(config["input_shape"]),
            loss=registry.build(config["loss"], custom),
            dtype=config["dtype"],
            seed=config["seed"],
            backend=backend,
            init="zeros",
        )
    except CheckpointFormatError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointFormatError(message(where, f"the file does not describe a network ({error!r})")) from error


def tensors_of(net: Network) -> Iterator[tuple[str, Array]]:
    """Yield what a file holds, by name."""
    yield from named_leaves(net.params, "params")
    yield from named_leaves(net.stats, "stats")
