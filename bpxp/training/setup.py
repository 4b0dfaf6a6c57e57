"""The set-up of a fit: validated data, the feed that brings them, the training step, and what describes both."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bpxp.core.random import SPLIT, HostRandom
from bpxp.core.typing import Array
from bpxp.data.fingerprint import fingerprint
from bpxp.data.order import epoch_order, usable_batch_size
from bpxp.data.rows import OneHot, Rows
from bpxp.data.validation.targets import warn_single_class
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.metrics import Metric
from bpxp.network.feed import Feed, Resident, Stream
from bpxp.network.network import Network
from bpxp.network.prepare import (
    Batch,
    HostSamples,
    check_class_weight,
    check_padding,
    count,
    prepare_or_stream,
    prepare_training,
    training_weights,
    transforms,
)
from bpxp.network.step import Data, TrainingStep
from bpxp.nn.losses.softmax_cross_entropy import one_hot
from bpxp.nn.spec import Spec
from bpxp.optim import Optimizer
from bpxp.saving import registry
from bpxp.training.run import FitProgress, swapped


@dataclass(frozen=True, eq=False)
class FitSetup:
    """What does not change during a fit."""

    step: TrainingStep  # not yet compiled
    feed: Feed  # brings the samples to the step
    train: Batch | HostSamples  # as they are evaluated: x, y and weight
    weight: Array | Rows | None  # that the steps take: with those of the classes, and of mean 1
    held_out: Batch | HostSamples | None
    rows: np.ndarray | None  # of `train` in the data set, where some samples were set aside for validation
    size: int  # samples per step
    batches: int  # steps per epoch
    shuffle: bool
    evaluate_train: bool
    spec: Spec  # of the network, with what is known of the inputs from now on
    plan: Callable[[], dict[str, Any]]  # what has to be the same when the run is continued, as JSON values

    @staticmethod
    def of(
        net: Network,
        optimizer: Optimizer,
        metrics: tuple[Metric, ...],
        data: Any,
        *,
        batch_size: int | None,
        validation: Any,
        weight: Any,
        class_weight: Any,
        shuffle: bool,
        augment: Sequence[Any],
        evaluate_train: bool,
        seed: int,
        spec: Spec | None = None,
        make_step: Callable[..., TrainingStep] = TrainingStep,
    ) -> FitSetup:
        """Check the arguments of `Trainer.fit`, and bring the data to the backend.

        `spec` is the network's, default, or that of the run to resume. `make_step` takes what `TrainingStep` takes: a
        step of another kind, that of a data-parallel run say, comes in here.
        """
        check_class_weight(net.spec, class_weight, "fit")
        train, spec = prepare_training(spec or net.spec, net.backend, data, weight, "fit")
        held_out: Batch | HostSamples | None = None
        rows: np.ndarray | None = None
        if isinstance(validation, (float, np.floating)):
            rows, aside = split(count(train), float(validation), seed)
            train, held_out = select(net, train, rows), select(net, train, aside)
            _check_mass(net, held_out)
        elif validation is not None:
            held_out = prepare_or_stream(spec, net.backend, validation, None, "fit: validation")
        warn_single_class(train.y.a if isinstance(train, HostSamples) else net.backend.to_numpy(train[1]), "fit: y")
        n = count(train)
        size = min(32, n) if batch_size is None else usable_batch_size(batch_size, n, "fit(batch_size=…)")
        check_padding(net.spec, net.backend, train, size, (), "fit", weighted=class_weight is not None)
        for part in (train if evaluate_train else None, held_out):
            if part is not None:
                check_padding(net.spec, net.backend, part, net._chunk, metrics, "fit")
        chain = transforms(augment, net.input_shape, "fit(augment=…)")
        weights = training_weights(net.spec, net.backend, train, class_weight, "fit")
        feed = training_feed(net, chain, train, weights, size)
        step = make_step(net.model, net.loss, optimizer, chain, feed.samples, xp=net.xp)
        sizes = {"batch_size": size, "samples": n}
        choices = {"shuffle": bool(shuffle), "evaluate_train": bool(evaluate_train)}
        choices["class_weight"] = class_weight is not None
        options = {"optimizer": optimizer, "augment": step.augment, "metrics": metrics, **sizes, **choices}

        @functools.cache
        def plan() -> dict[str, Any]:
            described = {name: registry.describe(value, other=_name) for name, value in options.items()}
            return {
                **described,
                "contents": contents(net, train, weights),
                "validation_contents": contents(net, held_out),
            }

        batches = -(-n // size)
        return FitSetup(
            step, feed, train, weights, held_out, rows, size, batches, bool(shuffle), bool(evaluate_train), spec, plan
        )

    @property
    def evaluated(self) -> list[str]:
        """What the names of the columns begin with that an evaluation writes."""
        parts = {"train_": self.evaluate_train, "validation_": self.held_out is not None}
        return [begin for begin, is_evaluated in parts.items() if is_evaluated]

    def order(self, seed: int, epoch: int) -> np.ndarray:
        """Return the order of the samples in an epoch."""
        return epoch_order(seed, epoch, count(self.train), self.size, shuffle=self.shuffle)

    def samples(self, seed: int, epoch: int, step: int) -> np.ndarray:
        """Return which samples of the data set a step takes, both counted from 0."""
        begin = step * self.size
        places = self.order(seed, epoch)[begin : min(begin + self.size, count(self.train))]
        return places if self.rows is None else self.rows[places]

    def begin(self, net: Network) -> FitProgress:
        """Return the progress of a fit that begins where the network stands."""
        net._learn(self.spec)
        now, optimizer = net._held.lend(), self.step.optimizer
        params, opt = now.params, None
        if now.optimizer == optimizer and now.opt is not None:
            params, opt = swapped(params, now.opt)
        key = now.key or (net._key_at(0) if self.step.augment else ())
        state = self.step.init(params, now.stats, key, opt=opt)
        return FitProgress(net, state, optimizer, self.size, self.batches, first=net.epoch, plan=self.plan)


def validate_epochs(epochs: Any) -> None:
    """Raise unless `epochs` is an int >= 0."""
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)):
        raise InvalidTypeError("fit(epochs=…)", "not an int", code="E001", got=f"{type(epochs).__name__} {epochs!r}")
    if epochs < 0:
        raise InvalidValueError("fit(epochs=…)", "must be >= 0", code="E002", got=str(epochs), expected=">= 0")


def training_feed(net: Network, chain: tuple[Any, ...], train: Batch | HostSamples, weight: Any, size: int) -> Feed:
    """Return the feed of the training samples: classes become one-hot rows where a transform mixes targets."""
    xp, classes = net.xp, net.spec.n_out
    mixed = any(getattr(transform, "mixes", False) for transform in chain)
    if isinstance(train, HostSamples):
        rows = train.y
        if mixed and rows.a.ndim == len(net.output_shape):
            rows = OneHot(rows.a, np.dtype(net.dtype), net.output_shape, rows.index)
        return Stream(net.backend, train.x, rows, weight, size)
    x, y, _ = train
    if mixed and y.ndim == len(net.output_shape):
        y = one_hot(y, classes, dtype=getattr(xp, net.dtype), xp=xp)
    return Resident(net.backend, Data(x, y, weight, xp.arange(size, dtype=xp.int32)))


def split(n: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Set a fraction of n samples aside, at random, and return the numbers of the others and theirs."""
    held = round(n * fraction) if 0.0 < fraction < 1.0 else 0
    if not 0 < held < n:
        what = f"a split of {n} samples leaves {held} for validation"
        expected = "a fraction in (0, 1) that leaves samples on both sides"
        raise InvalidValueError("fit(validation=…)", what, code="E050", got=repr(fraction), expected=expected)
    order = HostRandom(seed, (SPLIT,)).permutation(n)
    return order[held:], order[:held]


def select(net: Network, batch: Batch | HostSamples, rows: np.ndarray) -> Batch | HostSamples:
    """Return some of the samples."""
    if isinstance(batch, HostSamples):
        return batch.select(rows)
    index = net.backend.asarray(rows)
    x, y, weight = (None if a is None else net.xp.take(a, index, axis=0) for a in batch)
    return x, y, weight


def _check_mass(net: Network, held_out: Batch | HostSamples) -> None:
    """Raise if no sample that was set aside for validation has a weight: their mean loss would be 0/0."""
    weight = held_out.weight if isinstance(held_out, HostSamples) else held_out[2]
    if weight is None:
        return
    host = weight.read(0, len(weight)) if isinstance(weight, Rows) else net.backend.to_numpy(weight)
    if not host.any():
        what, fix = "all weights of the samples set aside are zero", "validation=(x, y)"
        raise InvalidValueError("fit(validation=…)", what, code="E047", fix=fix)


def contents(net: Network, batch: Batch | HostSamples | None, weights: Any = None) -> dict[str, str | None] | None:
    """Return digests of the samples, the targets and the weights, or the given ones: enough to notice other data."""
    if batch is None:
        return None
    x, y, weight = (batch.x, batch.y, batch.weight) if isinstance(batch, HostSamples) else batch
    weight = weight if weights is None else weights
    found = {"x": fingerprint(x, net.backend)}
    others = {"y": y, "weight": weight}
    return found | {n: None if a is None else fingerprint(a, net.backend, whole=None) for n, a in others.items()}


def _name(thing: Any) -> str:
    """Return a name for something of the user's own: it is compared, and never looked up."""
    return str(getattr(thing, "__qualname__", type(thing).__qualname__))
