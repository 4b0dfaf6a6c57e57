"""A run in a file: the network, and all that is needed to go on from the very step at which it was saved."""

from __future__ import annotations

import json
import math
import os
import reprlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Array
from bpxp.backends.precision import parse_label
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.errors import (
    CheckpointCorruptError,
    CheckpointFormatError,
    CheckpointMismatchError,
    InvalidTypeError,
    printable,
    warn,
)
from bpxp.network.network import Network
from bpxp.network.parameters import moved
from bpxp.network.step import restarted
from bpxp.nn.spec import Inputs, Spec
from bpxp.saving import format, header
from bpxp.saving.network import MISFITS, adopt, describe, known_inputs, on_host, tensors_of, written
from bpxp.training.callback import Callback, Fit
from bpxp.training.history import History
from bpxp.training.run import FitProgress, numbers, swapped
from bpxp.training.setup import FitSetup

OTHERS = ("run/history", "callbacks/")  # tensors that are no part of the training's state


class Saved(NamedTuple):
    """A run as a file holds it: validated, and of this network, but not yet restored."""

    path: str
    tensors: format.Tensors
    network: dict[str, Any]
    inputs: Inputs
    seed: int
    epoch: int
    steps: int  # that the key of the random layers has counted
    first: int
    done: int
    seconds: float
    stop: str
    plan: dict[str, Any]
    batch_size: int
    callbacks: list[tuple[str, dict[str, Any]]]
    history: History
    matmul: str  # the precision of the matrix products, which belongs to the run


# ---------------------------------------------------------------- writing


def save(trainer: Fit, path: Path, *, whole: bool = True) -> bool:
    """Write the run, or only its network as it was evaluated; return False, and write nothing, if it is not finite.

    If the file cannot be written, an OSError; the one of before is intact.
    """
    run, net = trainer.run, trainer.net
    state, (params, opt) = run.live, run.between_fits()
    own: Iterable[tuple[str, Array]] = tensors_of(params, state.stats)
    tensors = {name: on_host(a, net.backend) for name, a in own}
    if not all(map(_finite, tensors.values())):
        return False
    description = {"network": describe(net._stored()), "written": written(net.backend)}
    if whole:
        if not _finite(net.backend.to_numpy(state.loss)):
            return False
        callbacks = _states_of_callbacks(trainer, tensors)
        kept = [*named_leaves(opt, "opt"), ("run/loss", state.loss), ("run/weight", state.weight)]
        tensors |= {name: on_host(a, net.backend) for name, a in kept}
        tensors["run/history"] = _text(list(run.history))
        place = {"first": run.first, "done": run.done, "seconds": run.seconds, "stop": trainer.stop}
        description["run"] = {**place, "plan": run.plan(), "callbacks": callbacks}
    format.write(path, tensors, description)
    return True


def check_network(trainer: Fit) -> None:
    """Raise before the first step if a file cannot hold the network: a layer, or a loss, say."""
    describe(trainer.net._stored())


def check_callbacks(trainer: Fit) -> None:
    """Raise before the first step if a file cannot hold the state of a callback."""
    after = "The network is that of the file" if trainer.resumed_from else "Nothing was changed"
    for callback in trainer.callbacks:
        try:
            state = callback.state(trainer)
        except Exception:  # it may have none before the first epoch
            continue
        where, expected = f"{type(callback).__name__}.state", "a dict of JSON values and NumPy arrays, by name"
        if not isinstance(state, dict):
            raise InvalidTypeError(
                where, "no dict", code="E065", got=type(state).__name__, expected=expected, after=after
            )
        for name, value in state.items():
            try:
                if isinstance(value, np.ndarray):
                    format.plain(f"callbacks/{name}", value)
                else:
                    header.canonical({name: value})
            except (TypeError, ValueError) as error:
                what = f"{name!r} cannot be written to a file ({getattr(error, 'brief', error)})"
                raise InvalidTypeError(where, what, code="E065", expected=expected, after=after) from error


def size(run: FitProgress) -> int:
    """Return about how many bytes a run takes, without what callbacks keep."""
    arrays = leaves((run.live.params, run.live.stats, run.live.opt))
    count: int = sum(math.prod(a.shape) for a in arrays)
    return count * (8 if run.net.dtype == "float64" else 4)


def _finite(a: np.ndarray) -> bool:
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(np.sum(a))) or bool(np.isfinite(a).all())


def _text(value: Any) -> np.ndarray:
    """Return JSON as bytes: numbers keep their bits, and there may be more of them than a header has room for."""
    text = json.dumps(value, default=lambda a: a.item() if hasattr(a, "item") else str(a))
    return np.frombuffer(text.encode(), np.uint8)


def _states_of_callbacks(trainer: Fit, tensors: format.Tensors) -> list[dict[str, Any]]:
    """Return the states of those that have one; their arrays go to `tensors`."""
    states: list[dict[str, Any]] = []
    for callback in trainer.callbacks:
        state = callback.state(trainer)
        if state:
            arrays = {key: a for key, a in state.items() if isinstance(a, np.ndarray)}
            tensors |= {f"callbacks/{len(states)}/{key}": a for key, a in arrays.items()}
            plain = {key: value for key, value in state.items() if key not in arrays}
            states.append({"type": type(callback).__name__, "state": plain})
    return states


# ---------------------------------------------------------------- reading


def read(path: str | Path, net: Network) -> Saved:
    """Read a run of this network, or raise; nothing is changed."""
    return validate(os.fspath(path), *format.read(path), net)


def validate(path: str, tensors: format.Tensors, description: dict[str, Any], net: Network) -> Saved:
    """Return what a file holds of a run, if it is one of this network; see `read`."""
    where = f"fit(resume={path!r})"
    if description.get("run") is None:
        what, expected = (
            "the file holds a network and no run to go on with",
            "a file that callbacks.Checkpoint(path) wrote",
        )
        fix = f"Network.load({path!r}), and a new fit"
        raise CheckpointFormatError(where, what, code="E061", expected=expected, fix=fix)
    try:
        saved = _parsed(path, tensors, description, net.spec)
    except MISFITS as error:
        what = f"the description of the run is damaged ({error!r})"
        raise CheckpointCorruptError(where, what, code="E060") from error
    apart = ("seed", "epoch", "steps", "inputs")
    here = {key: value for key, value in describe(net._stored()).items() if key not in apart}
    lines = differences(saved.network, here)
    if net.pixels != "auto":
        lines += differences(saved.inputs.pixels, net.pixels, "pixels")
    _refuse(lines, where, "the network is another")
    return saved


def _parsed(path: str, tensors: format.Tensors, description: dict[str, Any], spec: Spec) -> Saved:
    """Return the description of a run with everything of the type that it has to be of."""
    network, run, plan = description["network"], description["run"], description["run"]["plan"]
    if not (type(network["seed"]) is int and network["seed"] >= 0 and isinstance(plan, dict)):
        raise TypeError("seed, or plan")
    return Saved(
        path=path,
        tensors=tensors,
        network=network,
        inputs=known_inputs(spec, network),
        seed=network["seed"],
        epoch=_count(network, "epoch"),
        steps=_count(network, "steps"),
        first=_count(run, "first"),
        done=_count(run, "done"),
        seconds=float(run["seconds"]),
        stop=printable(str(run["stop"])),
        plan=plan,
        batch_size=_count(plan, "batch_size", least=1),
        callbacks=[(str(entry["type"]), dict(entry["state"])) for entry in run["callbacks"]],
        history=History(json.loads(tensors["run/history"].tobytes())),
        matmul=parse_label(str(description["written"]["backend"]))[1] or "float32",
    )


def _count(entries: dict[str, Any], key: str, least: int = 0) -> int:
    value = entries[key]
    if type(value) is not int or not least <= value < 2**31:
        raise TypeError(f"{key} is no count")
    return value


def _refuse(lines: list[str], where: str, what: str) -> None:
    if lines:
        fix = "the same arguments; or Network.load(path), and a new fit from its parameters"
        raise CheckpointMismatchError(where, f"{what}: {'; '.join(lines)}", code="E064", fix=fix)


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Return what differs between a description in a file and one of now, a line for each.

    Entries that the file does not have are new in this version, and initialisers have done their work: both are left
    out.
    """
    if isinstance(there, dict) and isinstance(here, dict) and there.get("type") == here.get("type"):
        keys = there.keys() & here.keys() - {"type", "initializer"}
        each = (differences(there[key], here[key], f"{name}.{key}" if name else key) for key in keys)
        return sorted(line for lines in each for line in lines)
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{name}[{i}]")]
    return [] if there == here else [f"{name} is {_short(there)} in the file, {_short(here)} here"]


def _short(value: Any) -> str:
    value = value.get("type", value) if isinstance(value, dict) else value
    text = printable(value) if isinstance(value, str) else reprlib.repr(value)  # however deep a file nests its lists
    return text if len(text) < 40 else f"{text[:20]}…"


def restore(saved: Saved, net: Network, setup: FitSetup) -> FitProgress:
    """Put what was saved into the network, and return the progress of the fit.

    If this fit is not the one that was saved, or the file is damaged, a CheckpointError; nothing is changed then.
    """
    where = f"fit(resume={saved.path!r})"
    _refuse(differences(saved.plan, setup.plan()), where, "the run was begun otherwise")
    if saved.matmul != net.backend.matmul:
        _warn(f"matrix products were of {saved.matmul}, and are of {net.backend.matmul} now: not the same bits", saved)
    optimizer = setup.step.optimizer
    kept = {name: a for name, a in saved.tensors.items() if not name.startswith(OTHERS)}
    like = optimizer.init(net.params, xp=net.xp)
    sums = [("run/loss", like.learning_rate), ("run/weight", like.learning_rate)]
    expected = [*tensors_of(net.params, net.stats), *named_leaves(like, "opt"), *sums]
    shapes = {name: a.shape for name, a in kept.items()}
    format.check_shapes(shapes, {name: tuple(a.shape) for name, a in expected}, where)
    if saved.done >= setup.batches or saved.first > saved.epoch:
        raise CheckpointCorruptError(where, "the place of the run is none", code="E060", got=f"step {saved.done}")

    def given(like: Any, name: str) -> Any:
        return tree_map(lambda a: moved(a, net.backend, net.dtype), adopt(like, saved.tensors, name))

    loss, weight = (given(a, name) for name, a in sums)
    params, opt = swapped(given(net.params, "params"), given(like, "opt"))
    stats = given(net.stats, "stats")
    net.seed, net.epoch = saved.seed, saved.epoch
    net._learn(setup.spec)
    key = net._key_at(saved.steps) if net.key or saved.steps or setup.step.augment else ()
    state = restarted(setup.step.init(params, stats, key, opt=opt), saved.done * setup.size, xp=net.xp)
    state = state._replace(loss=loss, weight=weight)
    net._held.put(numbers(state, optimizer))
    place = (saved.first, setup.plan, saved.history, saved.done, saved.seconds)
    return FitProgress(net, state, optimizer, setup.size, setup.batches, *place)


def resume_callbacks(saved: Saved, trainer: Fit) -> None:
    """Give each callback the state that one of its type had, in their order; warn where one has no other."""
    waiting = [callback for callback in trainer.callbacks if callback.state(trainer)]
    for i, (kind, state) in enumerate(saved.callbacks):
        own: Callback | None = next((c for c in waiting if type(c).__name__ == kind), None)
        if own is None:
            _warn(f"{kind} was there when the run was saved, and is not now", saved)
            continue
        waiting.remove(own)
        begin = f"callbacks/{i}/"
        arrays = {name.removeprefix(begin): a for name, a in saved.tensors.items() if name.startswith(begin)}
        try:
            own.resume(trainer, {**state, **arrays})
        except MISFITS as error:
            what = f"{kind} cannot go on from what the file has for it ({error!r})"
            where, after = f"fit(resume={saved.path!r})", "The network is that of the file"
            raise CheckpointCorruptError(where, what, code="E060", after=after) from error
    for callback in waiting:
        _warn(f"{type(callback).__name__} was not there when the run was saved, and begins anew", saved)


def _warn(text: str, saved: Saved) -> None:
    warn(f"fit(resume={saved.path!r})", text, code="W004")
