"""One training step and one evaluation step: pure functions that draw their own mini-batch from the data set.

A step maps (state, data) to the next state. What changes is an array in the state, so that a compiled step never
needs another compilation; nothing is copied to the host until the caller asks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bpxp.core.typing import Array, Namespace, Params
from bpxp.nn.functions import constant
from bpxp.nn.losses import Loss
from bpxp.nn.sequential import Sequential
from bpxp.optim.optimizer import Optimizer, OptState

PIXEL = 1.0 / 255.0  # unsigned bytes are pixels: 255 is white
AUGMENTATION = 2**14 - 2  # the place of its random numbers: no layer has this number


class Data(NamedTuple):
    """A data set on the device; a step only reads it.

    Attributes
    ----------
    x : array, (n, *in_shape)
        In the network's dtype; uint8 are pixels, scaled to [0, 1] batch by batch: other bytes are converted before.
    y : array, (n, …) or (n, …, n_out)
        Targets.
    weight : array, (n,) or (n, n_out), or None
        Weight of each sample, or of each label of each sample. In training their mean is 1: see `mass_and_share`.
    batch_index : array, (batch,), int32
        0, 1, … batch - 1: the places within a mini-batch.
    """

    x: Array
    y: Array
    weight: Array | None
    batch_index: Array


class State(NamedTuple):
    """What a training step changes.

    Attributes
    ----------
    params : tree
    opt : OptState
    stats : tree
        Running statistics of the layers that have some; () without such layers.
    key : Key or ()
        Of the step's random numbers; () without random layers and augmentation.
    order : array, int32
        The epoch's permutation of the samples, padded with zeros to whole mini-batches.
    position : array, (1,), int32
        Where in `order` the next mini-batch begins.
    loss, weight : array, (1,)
        Σ w_n J_n and Σ w_n over the samples seen in this epoch.
    """

    params: Params
    opt: OptState
    stats: Any
    key: Any
    order: Array
    position: Array
    loss: Array
    weight: Array


@dataclass(frozen=True)
class TrainingStep:
    """Gather a mini-batch, go forward, go backward, update.

    It has two halves: a data-parallel run sums the gradients between them. `augment` are
    functions (x, y, key, xp=) -> (x, y) that transform the mini-batch; see `bpxp.data.augment`.

    Where the data set comes in parts (see `bpxp.network.feed`), `samples` is how many there are in all. The rows of
    `data` are then in the order of the epoch already, and after the last of them the first is used again.
    """

    model: Sequential
    loss: Loss
    optimizer: Optimizer
    augment: tuple[Callable[..., tuple[Array, Array]], ...] = ()
    samples: int | None = None
    xp: Namespace = field(kw_only=True, compare=False, repr=False)

    def init(self, params: Params, stats: Any = (), key: Any = (), /, *, opt: OptState | None = None) -> State:
        """Return the state before an epoch: without the order of its samples, which is the epoch's.

        Parameters
        ----------
        params, stats, key
            The network's; () for a model that has none.
        opt : OptState, optional
            Default: that of an optimizer before its first update.
        """
        xp = self.xp
        opt = self.optimizer.init(params, xp=xp) if opt is None else opt
        none = xp.zeros((1,), dtype=xp.int32)
        return restarted(State(params, opt, stats, key, none, none, opt.learning_rate, opt.learning_rate), xp=xp)

    def __call__(self, state: State, data: Data, /) -> State:
        state, grads = self.gradients(state, data)
        return self.apply(state, grads)

    def gradients(self, state: State, data: Data, /) -> tuple[State, Params]:
        """Return the gradients of the mean of w_n J_n over the next mini-batch, and the state moved on."""
        xp = self.xp
        x, y, weight, present = self.batch(state, data)
        context = training(self.model, state.stats, state.key, present)
        mass, share = mass_and_share(x, weight, present, xp=xp)
        value, grads, caches = loss_and_gradients(
            self.model, self.loss, state.params, x, y, weight, context, share, xp=xp
        )
        stats, key = advance(self.model, state.stats, state.key, caches, xp=xp)
        position, loss, total = state.position, state.loss, state.weight
        position += data.batch_index.shape[0]
        value *= mass
        total += mass
        loss += value
        return state._replace(stats=stats, key=key, position=position, loss=loss, weight=total), grads

    def batch(self, state: State, data: Data, /) -> tuple[Array, Array, Array | None, Array | None]:
        """Return the next mini-batch as the first layer and the loss take it, as (x, y, weight, present)."""
        xp = self.xp
        place = state.position + data.batch_index
        rows = xp.take(state.order, place) if self.samples is None else place % data.x.shape[0]
        x, y, weight, present = gather(data, rows, place, self.samples, dtype=state.loss.dtype, xp=xp)
        for i, transform in enumerate(self.augment):
            x, y = transform(x, y, state.key.at(AUGMENTATION, i), xp=xp)
        return x, y, weight, present

    def apply(self, state: State, grads: Params, /) -> State:
        """Return the state after the update; parameters, gradients and optimizer state are written in place."""
        params, opt = self.optimizer.update(state.params, grads, state.opt, xp=self.xp)
        return state._replace(params=params, opt=opt)


class Sums(NamedTuple):
    """What an evaluation step changes: the place in the data, the weighted sums, and those of the metrics."""

    position: Array
    loss: Array
    weight: Array
    metrics: tuple[Any, ...]


@dataclass(frozen=True)
class EvaluationStep:
    """Gather the next samples in order, go forward, and add to the sums of the loss and of the metrics.

    `samples` as in `TrainingStep`.
    """

    model: Sequential
    loss: Loss
    metrics: tuple[Any, ...]
    samples: int | None = None
    xp: Namespace = field(kw_only=True, compare=False, repr=False)

    def __call__(self, sums: Sums, data: tuple[Params, Any, Data], /) -> Sums:
        xp, (params, stats, samples) = self.xp, data
        place = sums.position + samples.batch_index
        if self.samples is None:
            rows = xp.minimum(place, constant(samples.x.shape[0] - 1, place, xp=xp))
        else:
            rows = place % samples.x.shape[0]
        x, y, weight, _ = gather(samples, rows, place, self.samples, dtype=sums.loss.dtype, xp=xp)
        logits, _ = self.model.forward(params, x, xp=xp, **evaluation(self.model, stats))
        value, _ = self.loss(logits, y, weight, xp=xp)
        metrics = tuple(
            metric.update(own, logits, y, weight, xp=xp) for metric, own in zip(self.metrics, sums.metrics, strict=True)
        )
        mass = float(x.shape[0]) if weight is None else xp.sum(weight)
        position, loss, total = sums[:3]
        position += samples.batch_index.shape[0]
        loss += value * mass
        total += mass
        return Sums(position, loss, total, metrics)


@dataclass(frozen=True)
class ForwardStep:
    """Logits of samples, from (params, stats, x): nothing is learned and nothing changes."""

    model: Sequential
    dtype: str
    xp: Namespace = field(kw_only=True, compare=False, repr=False)

    def __call__(self, state: tuple[()], data: tuple[Params, Any, Array], /) -> Array:
        params, stats, x = data
        x = as_floats(x, getattr(self.xp, self.dtype), xp=self.xp)
        return self.model.forward(params, x, xp=self.xp, **evaluation(self.model, stats))[0]


@dataclass(frozen=True)
class GradientStep:
    """Mean loss and gradients of one given mini-batch, from (params, stats, key, (x, y, weight))."""

    model: Sequential
    loss: Loss
    dtype: str
    xp: Namespace = field(kw_only=True, compare=False, repr=False)

    def __call__(self, state: tuple[()], data: Any, /) -> tuple[Array, Params]:
        params, stats, key, (x, y, weight) = data
        x = as_floats(x, getattr(self.xp, self.dtype), xp=self.xp)
        context = training(self.model, stats, key, None)
        return loss_and_gradients(self.model, self.loss, params, x, y, weight, context, xp=self.xp)[:2]


@dataclass(frozen=True)
class DescentStep:
    """One update from one given mini-batch (x, y, weight), of (params, opt, stats, key)."""

    model: Sequential
    loss: Loss
    optimizer: Optimizer
    xp: Namespace = field(compare=False, repr=False)

    def __call__(self, state: tuple[Params, OptState, Any, Any], batch: tuple[Array, Array, Array | None], /) -> Any:
        (params, opt, stats, key), (x, y, weight), xp = state, batch, self.xp
        x = as_floats(x, opt.learning_rate.dtype, xp=xp)
        context = training(self.model, stats, key, None)
        _, grads, caches = loss_and_gradients(self.model, self.loss, params, x, y, weight, context, xp=xp)
        stats, key = advance(self.model, stats, key, caches, xp=xp)
        return *self.optimizer.update(params, grads, opt, xp=xp), stats, key


def restarted(state: State, done: int = 0, /, *, xp: Namespace) -> State:
    """Return the state at the beginning of an epoch, or after `done` of its samples: its place and its sums."""
    kind = state.opt.learning_rate.dtype
    loss, weight = xp.zeros((1,), dtype=kind), xp.zeros((1,), dtype=kind)
    return state._replace(position=xp.full((1,), done, dtype=xp.int32), loss=loss, weight=weight)


def loss_and_gradients(
    model: Sequential,
    loss: Loss,
    params: Params,
    x: Array,
    y: Array,
    weight: Array | None,
    context: Mapping[str, Any],
    share: Array | None = None,
    /,
    *,
    xp: Namespace,
) -> tuple[Array, Params, Any]:
    """Return the weighted mean loss, shape (1,), its gradients in the structure of `params`, and the layers' caches.

    With `share` the gradients are those of the loss times this number: see `mass_and_share`.
    """
    logits, caches = model.forward(params, x, xp=xp, **context)
    value, delta = loss(logits, y, weight, xp=xp)
    if share is not None:
        delta = delta * share
    return value, model.gradients(params, caches, delta, xp=xp), caches


def mass_and_share(
    x: Array, weight: Array | None, present: Array | None, /, *, xp: Namespace
) -> tuple[Array | float, Array | None]:
    """Return Σ w_n of a mini-batch, and the factor Σ w_n/N of its gradients, N samples without padding; None for 1.

    A loss is a weighted mean, Σ w_n J_n/Σ w_n: it forgets how much its mini-batch weighs among the others. With weights
    whose mean over the training set is 1, the factor makes it Σ w_n J_n/N, and the gradients of the mini-batches of an
    epoch add up to that of the whole: a sample of weight 2 counts as two wherever it falls.
    """
    if weight is None:
        return float(x.shape[0]), None
    mass = xp.sum(weight)
    if weight.ndim == 2:
        mass /= weight.shape[1]
    if weight is present:
        return mass, None
    return mass, mass / (float(x.shape[0]) if present is None else xp.sum(present))


def training(model: Sequential, stats: Any, key: Any, present: Array | None) -> dict[str, Any]:
    """Return what the layers of `model` use, beside x, in a training step: nothing, for most networks."""
    return _used(model, {"training": True, "stats": stats, "key": key or None, "present": present})


def evaluation(model: Sequential, stats: Any) -> dict[str, Any]:
    """Return what the layers of `model` use when nothing is learned: no randomness, and the running statistics."""
    return _used(model, {"training": False, "stats": stats, "key": None, "present": None})


def _used(model: Sequential, offered: dict[str, Any]) -> dict[str, Any]:
    return {name: offered[name] for name in model.uses}


def advance(model: Sequential, stats: Any, key: Any, caches: Any, /, *, xp: Namespace) -> tuple[Any, Any]:
    """Return statistics and key after a training step; both are donated."""
    if "stats" in model.uses:
        stats = model.advance(stats, caches, xp=xp)
    if key:
        step = key.step
        step += 1
        key = key._replace(step=step)
    return stats, key


def as_floats(x: Array, dtype: Any, /, *, xp: Namespace) -> Array:
    """Return x in the network's dtype; unsigned bytes are pixels and become numbers in [0, 1]."""
    if x.dtype != xp.uint8:
        return x
    x = xp.astype(x, dtype)
    x *= PIXEL
    return x


def gather(
    data: Data, rows: Array, place: Array, samples: int | None, /, *, dtype: Any, xp: Namespace
) -> tuple[Array, Array, Array | None, Array | None]:
    """Return the samples `rows` as (x, y, weight, present); one whose place is past the end has weight 0.

    `samples` is where that end is; None: where the data end.

    The last mini-batch of an epoch is short where the batch size does not divide n: it is padded with samples of weight
    0, so that every step has the same shapes.
    """
    x = as_floats(xp.take(data.x, rows, axis=0), dtype, xp=xp)
    y = xp.take(data.y, rows, axis=0)
    weight = None if data.weight is None else xp.take(data.weight, rows, axis=0)
    n = data.x.shape[0] if samples is None else samples
    if n % data.batch_index.shape[0] == 0:
        return x, y, weight, None
    present = xp.astype(place < n, dtype)
    if weight is None:
        return x, y, present, present
    return x, y, weight * (present if weight.ndim == 1 else xp.expand_dims(present, axis=1)), present
