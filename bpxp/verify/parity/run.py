"""A training run that any backend can repeat: a network, mini-batches and an optimizer, each step in two halves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.dtypes import validate_dtype
from bpxp.core.checks import positive_int
from bpxp.core.random import DIRECTION, HostRandom, make_key
from bpxp.core.tree import leaves, tree_map
from bpxp.data.order import epoch_order
from bpxp.data.validation.class_weights import of_mean_one
from bpxp.network.network import Network
from bpxp.network.parameters import own
from bpxp.network.prepare import prepare
from bpxp.network.step import Data, TrainingStep, as_floats, loss_and_gradients, mass_and_share, training
from bpxp.nn import Embedding, Loss, Sequential
from bpxp.nn.observe import Observer, Recorder, children, observed, validate_children, walk
from bpxp.optim import SGD, Optimizer, get_optimizer

Batch = tuple[np.ndarray, np.ndarray, np.ndarray | None]
MADE = 8  # mini-batches of random samples, where no data are given


@dataclass(frozen=True, eq=False)
class Trial:
    """The run as host arrays, which no backend changes."""

    model: Sequential
    loss: Loss
    optimizer: Optimizer
    params: Any  # before the first step
    stats: Any
    data: Batch  # all samples
    size: int  # samples per step
    seed: int  # of their order

    def batches(self, steps: int) -> Iterator[Batch]:
        """Yield the mini-batches of the first steps: whole ones, in the order of a fit."""
        x, y, weight = self.data
        whole = len(x) // self.size
        for step in range(steps):
            epoch, i = divmod(step, whole)
            rows = epoch_order(self.seed, epoch, len(x), self.size)[i * self.size : (i + 1) * self.size]
            yield x[rows], y[rows], None if weight is None else weight[rows]


def make_trial(net: Network, data: Any, *, batch_size: int, optimizer: Optimizer | str | None, where: str) -> Trial:
    """Return a trial of a network as it stands, on data as `Trainer.fit` takes them, or on random samples.

    Without an optimizer it is plain gradient descent, of learning rate 0.1.
    """
    size = positive_int(batch_size, f"{where}(batch_size=…)")
    given = samples(net, MADE * size) if data is None else data
    spec = net.spec.knows(pixels=False, range=None) if data is None else net.spec
    prepared = prepare(spec, net.backend, given, None, where)
    x, y = (net.backend.to_numpy(a) for a in prepared[:2])
    weight = prepared[2]
    if weight is not None:
        weight = of_mean_one(net.backend.to_numpy(weight), net.dtype, f"{where}: weight")
    params, stats = tree_map(net.backend.to_numpy, (net.params, net.stats))
    host = get_backend("numpy")
    few = as_floats(
        own(x[:2].copy(), host, net.dtype) if x.dtype.kind == "f" else x[:2], getattr(host.xp, net.dtype), xp=host.xp
    )
    key = make_key(net.seed, 0) if "key" in net.model.uses else ()
    validate_children(net.model, params, few, training(net.model, stats, key, None), xp=host.xp)
    chosen = SGD(0.1) if optimizer is None else get_optimizer(optimizer)
    return Trial(net.model, net.loss, chosen, params, stats, (x, y, weight), min(size, len(x)), net.seed)


def samples(net: Network, count: int, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Return random inputs, and targets that the loss takes."""
    rng = HostRandom(seed, (DIRECTION,))
    x = rng.at(0).normal((count, *net.input_shape))
    first = next(layer for place, layer in walk(net.model) if not children(layer, place))
    if isinstance(first, Embedding):
        x = np.floor(first.count * rng.at(0).uniform(x.shape))
    u = rng.at(1).uniform((count, *net.output_shape))
    y = {
        "classes": np.argmax(u, axis=-1),
        "labels": (u > 0.5).astype(np.float64),
        "values": rng.at(2).normal(u.shape),
        "counts": np.floor(4.0 * u),
    }[net.loss.targets]
    return x, y


class Runner:
    """A trial on one backend, in one dtype; the two halves of a step are compiled."""

    def __init__(self, trial: Trial, backend: Backend, dtype: str) -> None:
        self.trial, self.backend, self.xp = trial, backend, backend.xp
        self.dtype = validate_dtype(dtype, backend)
        self.params, self.stats = self.put((trial.params, trial.stats))
        self.opt = trial.optimizer.init(self.params, xp=self.xp)
        self.key: Any = ()
        self._gradients = backend.compile(self._forward_and_back)
        self._update = backend.compile(self._apply)

    def put(self, tree: Any) -> Any:
        """Return host arrays as device arrays of the run's own."""
        return tree_map(lambda a: own(a, self.backend, self.dtype), tree)

    def place(self, batch: Batch, step: int) -> tuple[Any, Any, Any]:
        """Copy a mini-batch to the device, and set the key of the step's random numbers."""
        if "key" in self.trial.model.uses:
            self.key = tree_map(self.backend.asarray, make_key(self.trial.seed, step))
        x, y, weight = batch
        bring = self.backend.asarray
        return (
            bring(x.copy()) if x.dtype == np.uint8 else self.put(x),
            bring(y.copy()) if y.dtype.kind == "i" else self.put(y),
            None if weight is None else self.put(weight),
        )

    def gradients(self, batch: tuple[Any, Any, Any]) -> tuple[Any, Any, dict[str, np.ndarray]]:
        """Return gradients, new running statistics and all recorded results by name, on the host."""
        _, results = self._gradients((), (self.params, self.stats, self.key, batch))
        grads, stats, found = self.host(results)
        return grads, stats, dict(zip(self._names, found, strict=True))

    def update(self, grads: Any, stats: Any) -> None:
        """Take the step, with gradients from the host."""
        self.params, self.opt, _ = self._update((self.params, self.opt, self.put(grads)), ())
        self.stats = self.put(stats)

    def host(self, tree: Any) -> Any:
        """Return a tree of arrays as copies on the host."""
        return tree_map(self.backend.to_numpy, tree)

    def _forward_and_back(self, _: tuple[()], given: Any, /) -> Any:
        recorder = Recorder()
        _, grads, stats = forward_and_back(self.trial, recorder, *given, xp=self.xp, dtype=self.dtype)
        self._names, self.passed_on = list(recorder.found), recorder.passed_on  # a traced step runs this once
        return (), (grads, stats, tuple(recorder.found.values()))

    def _apply(self, state: Any, _: tuple[()], /) -> Any:
        params, opt, grads = state
        return *self.trial.optimizer.update(params, grads, opt, xp=self.xp), grads


def whole_run(trial: Trial, backend: Backend, dtype: str, steps: int) -> list[np.ndarray]:
    """Return the parameters after so many steps of the training step itself, compiled and run as in a fit."""
    runner, xp = Runner(trial, backend, dtype), backend.xp
    columns = zip(*trial.batches(steps), strict=True)
    x, y, weight = (None if column[0] is None else np.concatenate(column) for column in columns)
    assert x is not None
    assert y is not None
    data = Data(*runner.place((x, y, weight), 0), xp.arange(trial.size, dtype=xp.int32))
    step = TrainingStep(trial.model, trial.loss, trial.optimizer, xp=xp)
    state = step.init(runner.params, runner.stats, runner.key, opt=runner.opt)
    state = state._replace(order=xp.arange(len(x), dtype=xp.int32))
    return leaves(runner.host(backend.compile(step)(state, data, count=steps).params))


def forward_and_back(
    trial: Trial, observer: Observer, params: Any, stats: Any, key: Any, batch: Any, /, *, xp: Any, dtype: str
) -> tuple[Any, Any, Any]:
    """Return loss, gradients and new statistics of one step; nothing that was given is written."""
    x, y, weight = batch
    model, loss = observed(trial.model, trial.loss, observer)
    x = as_floats(x, getattr(xp, dtype), xp=xp)
    context = training(model, stats, key, None)
    _, share = mass_and_share(x, weight, None, xp=xp)
    value, grads, caches = loss_and_gradients(model, loss, params, x, y, weight, context, share, xp=xp)
    if "stats" in model.uses:
        stats = model.advance(tree_map(lambda a: xp.astype(a, a.dtype, copy=True), stats), caches, xp=xp)
    return value, grads, stats
