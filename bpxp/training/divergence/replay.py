"""The replay bundle: all that one training step depends on, in a file, and the step repeated on NumPy in float64.

It is written where a run has diverged: the step can then be seen without the data set, the device or the hours before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpxp import optim
from bpxp.backends import get_backend
from bpxp.core.random import make_key
from bpxp.core.text import table
from bpxp.core.tree import named_leaves, tree_map
from bpxp.errors import CheckpointCorruptError, CheckpointError, CheckpointFormatError, printable
from bpxp.network.network import Network
from bpxp.network.summary import layer_name
from bpxp.optim import Optimizer
from bpxp.saving import format, registry
from bpxp.saving.network import MISFITS, OWN, adopt, build, describe, written
from bpxp.training.divergence.trace import Batch, Quantity, Tracer, first_bad


class Bundle(NamedTuple):
    """One training step of a network.

    Attributes
    ----------
    tensors : dict of str to ndarray
        ``params/…``, ``stats/…``, ``opt/…`` as they were before the step; ``batch/x``, ``y``, ``weight`` and
        ``present`` as the first layer and the loss took them; ``replay/samples``, their indices in the data set.
    description : dict
        As in a checkpoint; under ``replay`` the optimizer and the place of the step.
    """

    tensors: format.Tensors
    description: dict[str, Any]

    def write(self, path: str | Path) -> None:
        """Write it to a file in the format of a checkpoint, all or nothing; see `bpxp.saving.format.write`."""
        format.write(path, self.tensors, self.description)

    @staticmethod
    def read(path: str | Path) -> Bundle:
        """Read a file that `write` wrote; every byte is checked, see `bpxp.saving.format.read`."""
        tensors, description = format.read(path)
        if not isinstance(description.get("replay"), dict):
            what, expected = "the file holds no step to do again", "a file that a diverged fit wrote"
            raise CheckpointFormatError(f"replay({os.fspath(path)!r})", what, code="E061", expected=expected)
        return Bundle(tensors, description)


def pack(
    net: Network,
    optimizer: Optimizer,
    trees: Sequence[tuple[str, Any]],
    batch: Batch,
    samples: np.ndarray,
    seen: Sequence[Quantity],
    place: dict[str, Any],
) -> Bundle:
    """Return the bundle of the step at a place, from where the network stood before it.

    `trees` are parameters, statistics and optimizer state, each with the beginning of its tensors' names.
    """
    host = net.backend.to_numpy
    tensors = {name: host(a) for prefix, tree in trees for name, a in named_leaves(tree, prefix)}
    tensors |= {f"batch/{name}": host(a) for name, a in zip(Batch._fields, batch, strict=True) if a is not None}
    tensors["replay/samples"] = np.asarray(samples, np.int64)
    tensors["replay/seen"] = np.frombuffer(json.dumps(list(map(list, seen))).encode(), np.uint8)
    replay = {**place, "optimizer": registry.describe(optimizer, other=lambda thing: type(thing).__name__)}
    description = {"network": describe(net._stored()), "written": written(net.backend), "replay": replay}
    return Bundle(tensors, description)


class Replay(NamedTuple):
    """A step done again; as text it is a table.

    Attributes
    ----------
    epoch, step : int
        Which it was, counted from 1.
    dtype : str
        Of the run.
    seen : list of Quantity
        What every quantity was, in the dtype of the run.
    exact : list of Quantity
        The same on NumPy in float64.
    layers : list of str
        Names of the network's layers.
    """

    epoch: int
    step: int
    dtype: str
    seen: list[Quantity]
    exact: list[Quantity]
    layers: list[str]

    def __str__(self) -> str:
        rows = [("", self.dtype, "not finite", "float64", "not finite")]
        exact: dict[Any, list[Quantity]] = {}
        for q in self.exact:
            exact.setdefault((q.layer, q.name), []).append(q)  # a layer may be called several times
        for q in self.seen:
            beside = exact[q.layer, q.name].pop(0)
            rows.append((q.place, f"{q.largest:.5g}", _bad(q), f"{beside.largest:.5g}", _bad(beside)))
        title = f"epoch {self.epoch}, step {self.step}; of each quantity the largest magnitude that is finite"
        layers = (f"layer {i}: {name}" for i, name in enumerate(self.layers))
        verdicts = f"in {self.dtype} {_verdict(self.seen)}", f"in float64 {_verdict(self.exact)}"
        return "\n".join([title, *layers, table(rows), *verdicts])

    def __repr__(self) -> str:
        return str(self)


def _bad(q: Quantity) -> str:
    return f"{q.bad:,} of {q.size:,}" if q.bad else ""


def _verdict(seen: list[Quantity]) -> str:
    q = first_bad(seen)
    return "all is finite" if q is None else f"{q.place} is the first that is not finite: {_bad(q)} numbers"


def replay(path: str | Path | Bundle, *, custom: Iterable[type] = ()) -> Replay:
    """Repeat a diverged step on NumPy in float64, and return every quantity of it with its value in the run.

    Parameters
    ----------
    path : path or Bundle
        What a fit wrote when it diverged; or the `bundle` of the `DivergenceError`.
    custom : iterable of type, optional
        Classes of layers, losses or optimizers of your own that the step has.

    Returns
    -------
    Replay
        Print it.

    Raises
    ------
    OSError
        If there is no such file, or it cannot be read.
    CheckpointError
        If it is no such file, or damaged.
    """
    bundle = path if isinstance(path, Bundle) else Bundle.read(path)
    where = "replay" if isinstance(path, Bundle) else f"replay({os.fspath(path)!r})"
    try:
        return _replay(bundle, tuple(custom), where)
    except CheckpointError:
        raise
    except MISFITS as error:
        text = f"the description of the step is damaged ({error!r})"
        raise CheckpointCorruptError(where, text, code="E060") from error


def _replay(bundle: Bundle, custom: tuple[type, ...], where: str) -> Replay:
    tensors, (config, about) = bundle.tensors, (bundle.description[key] for key in ("network", "replay"))
    own = {name: a.shape for name, a in tensors.items() if name.startswith(OWN)}
    stored, xp = build(own, {**config, "dtype": "float64"}, custom, where), get_backend("numpy").xp

    def exactly(like: Any, prefix: str) -> Any:
        found = adopt(like, dict(tensors), prefix)
        return tree_map(lambda a: np.array(a, np.float64 if a.dtype.kind == "f" else np.int32), found)

    params, stats = exactly(stored.params, "params"), exactly(stored.stats, "stats")
    key = tree_map(xp.asarray, make_key(stored.seed, stored.steps)) if "key" in stored.spec.uses or stored.steps else ()
    rules = [rule for rule in map(optim.__dict__.get, optim.__all__) if isinstance(rule, type)]
    optimizer = registry.build(about["optimizer"], (*rules, *custom))
    opt = exactly(optimizer.init(params, xp=xp), "opt")
    parts = {name: tensors.get(f"batch/{name}") for name in Batch._fields}
    batch = Batch(*(None if a is None else a.astype("f8") if a.dtype.kind == "f" else a for a in parts.values()))
    tracer = Tracer(stored.spec.model, stored.spec.loss, optimizer, xp=xp, to_numpy=np.asarray)
    exact = tracer.run(params, opt, stats, key, batch)
    stored_seen = json.loads(tensors["replay/seen"].tobytes())
    seen = [Quantity._make(tuple(a) if isinstance(a, list) else a for a in fields) for fields in stored_seen]
    names = [layer_name(layer) for layer in stored.spec.model.layers]
    return Replay(int(about["epoch"]), int(about["step"]), printable(str(config["dtype"])), seen, exact, names)
