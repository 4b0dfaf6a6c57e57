"""Training runs that diverge on purpose, at a step, a layer and a quantity that are known beforehand.

What goes wrong is a pure function of the step's number or of a sample, as real faults are, so that the same step goes
wrong again. Where the place cannot be written down, for a learning rate that is too large, `explosion` finds it with a
training loop of its own, in plain NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

import bpxp
from bpxp import nn, optim
from bpxp.core.tree import tree_map
from bpxp.data.order import epoch_order

N, BATCH, INPUTS, CLASSES = 23, 4, 5, 3
BATCHES = -(-N // BATCH)


def factor(key: Any, at: int, value: float, like: Any, xp: Any) -> Any:
    """Return `value` in the step of number `at`, 1 in the others."""
    one = xp.ones((1,), dtype=like.dtype)
    return one if key is None else xp.where(key.step == at, xp.full((1,), value, dtype=like.dtype), one)


@dataclass(frozen=True)
class Fault:
    """A layer that does nothing, but in one step multiplies what goes forward, or back, by a number."""

    at: int
    forward_by: float = 1.0
    backward_by: float = 1.0
    uses = frozenset({"key"})

    def init(self, rng, in_shape, /):
        return (), in_shape

    def forward(self, params, x, /, *, xp, key=None):
        return x * factor(key, self.at, self.forward_by, x, xp), factor(key, self.at, self.backward_by, x, xp)

    def backward(self, params, cache, dy, /, *, xp):
        return dy * cache, ()


@dataclass(frozen=True)
class FaultyDense(nn.Dense):
    """A dense layer whose weights' gradient is NaN in one step."""

    at: int = 0
    uses = frozenset({"key"})

    def forward(self, params, x, /, *, xp, key=None):
        z, cache = super().forward(params, x, xp=xp)
        return z, (cache, factor(key, self.at, np.nan, x, xp))

    def gradients(self, params, cache, dz, /, *, xp):
        grads = super().gradients(params, cache[0], dz, xp=xp)
        return grads._replace(W=grads.W * cache[1])

    def backward(self, params, cache, dz, /, *, xp):
        return xp.matmul(dz, xp.matrix_transpose(params.W)), self.gradients(params, cache, dz, xp=xp)


@dataclass(frozen=True)
class Exp(nn.Activation):
    """a = exp(z), without any care."""

    def forward(self, params, z, /, *, xp):
        a = xp.exp(z)
        return a, a

    def backward(self, params, a, da, /, *, xp):
        return da * a, ()


@dataclass(frozen=True)
class Log(nn.Activation):
    """a = log(100 + z), without any care."""

    def forward(self, params, z, /, *, xp):
        return xp.log(z + 100.0), z

    def backward(self, params, z, da, /, *, xp):
        return da / (z + 100.0), ()


@dataclass(frozen=True)
class FaultyTransform:
    """An augmentation that returns infinite numbers in one step."""

    at: int

    def __call__(self, x, y, key, /, *, xp):
        return x * factor(key, self.at, np.inf, x, xp), y


@dataclass(frozen=True)
class Spike(optim.Schedule):
    """A constant learning rate, but for one step."""

    learning_rate: float
    step: int
    spike: float

    def at(self, t, state, /, *, xp):
        usual, other = (xp.full((1,), rate, dtype=t.dtype) for rate in (self.learning_rate, self.spike))
        return xp.where(t == self.step, other, usual)


class Planted(NamedTuple):
    """A run, and where it diverges: the step of the epoch (both from 1), the layer (None: none), the quantity."""

    kind: str
    net: bpxp.Network
    optimizer: optim.Optimizer
    data: tuple[np.ndarray, np.ndarray]
    epoch: int
    step: int
    layer: int | None
    quantity: str
    samples: tuple[int, ...] | None = None  # those that are to blame, if some are
    options: dict[str, Any] = {}  # noqa: RUF012

    def fit(self, epochs: int = 6, callbacks: Any = (), **options: Any) -> Any:
        trainer = bpxp.Trainer(self.net, self.optimizer, callbacks=callbacks, progress=False)
        return trainer.fit(self.data, epochs=epochs, batch_size=BATCH, **{**self.options, **options})

    @property
    def place(self) -> tuple[Any, ...]:
        return self.epoch, self.step, self.layer, self.quantity


@dataclass
class Drawn:
    """What a case has at random."""

    seed: int
    backend: Any
    rng: np.random.Generator = field(init=False)

    def __post_init__(self):
        self.rng = rng = np.random.default_rng(self.seed)
        self.x = rng.normal(size=(N, INPUTS)).astype(np.float32)
        self.y = rng.integers(0, CLASSES, N)
        self.widths = [int(n) for n in rng.integers(2, 7, int(rng.integers(1, 4)))]
        self.at = int(rng.integers(0, 4 * BATCHES))  # of a step, counted from the first
        self.sample = int(rng.integers(0, N))

    @property
    def when(self):
        return self.at // BATCHES + 1, self.at % BATCHES + 1

    def first_step_of(self, sample):
        order = epoch_order(self.seed, 0, N, BATCH)[:N]
        return 1, int(np.flatnonzero(order == sample)[0]) // BATCH + 1

    def layers(self, *more, hidden=("tanh", "sigmoid", "softplus")):
        """Return hidden layers, with some of what a network may have besides, and more at a random place."""
        found = []
        for width in self.widths:
            found.append(nn.Dense(width, str(self.rng.choice(hidden))))
            extra = [nn.Dropout(0.2), nn.LayerNorm(), nn.BatchNorm(), None, None][int(self.rng.integers(5))]
            found += [extra] if extra is not None and more and isinstance(more[0], (Fault, FaultyDense)) else []
        place = int(self.rng.integers(1, len(found) + 1))
        return [*found[:place], *more, *found[place:], nn.Dense(CLASSES, "identity")], place

    def net(self, layers, **options):
        return bpxp.Network([INPUTS, *layers], backend=self.backend, seed=self.seed, **options)

    def with_weights(self, net, weight):
        """Let all weights of layer i be weight(i)."""
        params = [tree_map(net.backend.to_numpy, own) for own in net.params]
        net.params = tuple(own._replace(W=np.full_like(own.W, weight(i))) for i, own in enumerate(params))
        return net

    def optimizer(self):
        rules = [
            optim.SGD(0.05),
            optim.SGD(0.05, momentum=0.9, average=0.9),
            optim.Adam(optim.Plateau(1e-3, patience=1)),
            optim.AdamW(optim.WarmUp(optim.Constant(1e-3), 5), clip_value=0.5),
            optim.RMSprop(1e-3, l2=1e-3),
        ]
        return rules[int(self.rng.integers(len(rules)))]

    def planted(self, kind, net, where, layer, quantity, optimizer=None, samples=None, **options):
        optimizer = optimizer or self.optimizer()
        return Planted(kind, net, optimizer, (self.x, self.y), *where, layer, quantity, samples, options)


# ---------------------------------------------------------------- the kinds


def forward(d: Drawn) -> Planted:
    layers, place = d.layers(Fault(d.at, forward_by=float(d.rng.choice([np.inf, np.nan]))))
    return d.planted("forward", d.net(layers), d.when, place, "y")


def backward(d: Drawn) -> Planted:
    layers, place = d.layers(Fault(d.at, backward_by=np.nan))
    return d.planted("backward", d.net(layers), d.when, place, "dx")


def gradient(d: Drawn) -> Planted:
    layers, place = d.layers(FaultyDense(4, at=d.at))
    return d.planted("gradient", d.net(layers), d.when, place, "dW")


def transform(d: Drawn) -> Planted:
    layers, _ = d.layers(nn.Dropout(0.1))
    return d.planted("transform", d.net(layers), d.when, None, "x", augment=[FaultyTransform(d.at)])


def weights(d: Drawn) -> Planted:
    """Weights of one layer at the end of float32; what comes to it is positive, and large enough."""
    layers, _ = d.layers(hidden=("identity", "softplus"))
    layer = int(d.rng.integers(len(layers)))
    d.x[:] = np.abs(d.x) + 2.0
    net = d.with_weights(d.net(layers), lambda i: 3e38 if i == layer else 0.9)
    return d.planted("weights", net, (1, 1), layer, "z", optim.SGD(0.1))


def exponential(d: Drawn) -> Planted:
    """One sample for which exp overflows, or log has no value, in one layer."""
    activation = [Exp(), Log()][int(d.rng.integers(2))]
    layers = [nn.Dense(width, "identity") for width in d.widths]
    place = int(d.rng.integers(len(layers)))
    layers[place] = nn.Dense(d.widths[place], activation)
    net = d.with_weights(d.net([*layers, nn.Dense(CLASSES, "identity")]), lambda i: 0.3)
    d.x *= 0.1
    d.x[d.sample] = 1e6 if isinstance(activation, Exp) else -1e6
    where = d.first_step_of(d.sample)
    return d.planted("exponential", net, where, place, "a", optim.SGD(1e-6), (d.sample,))


def sample(d: Drawn) -> Planted:
    """One sample so large that one layer, whose weights are large, goes beyond float32."""
    layers = [nn.Dense(width, "identity") for width in [*d.widths, CLASSES]]
    place = int(d.rng.integers(len(layers)))
    net = d.with_weights(d.net(layers), lambda i: 1e12 if i == place else 0.25)
    d.x *= 1e-14
    d.x[d.sample] = 1e30
    return d.planted("sample", net, d.first_step_of(d.sample), place, "z", optim.SGD(1e-30), (d.sample,))


def statistics(d: Drawn) -> Planted:
    """A sample whose square, in the variance of a batch, is beyond float32."""
    while d.first_step_of(d.sample)[1] == BATCHES:  # the last batch is short, and zeros for the others become NaN
        d.sample = (d.sample + 1) % N
    d.x[d.sample] = 1e25
    layers = [nn.Dense(width, "tanh") for width in d.widths]
    net = d.net([nn.BatchNorm(), *layers, nn.Dense(CLASSES, "identity")])
    return d.planted("statistics", net, d.first_step_of(d.sample), 0, "var of the statistics after the step")


def optimizer_state(d: Drawn) -> Planted:
    """Gradients whose squares are beyond float32, though they are not."""
    layers, _ = d.layers(Fault(d.at, backward_by=1e30), hidden=("softplus",))
    slot = "the optimizer's slot 1 of W after the step"
    return d.planted("optimizer", d.net(layers), d.when, 0, slot, optim.Adam(1e-3))


def update(d: Drawn) -> Planted:
    """A gradient that times the learning rate is beyond float32."""
    layers, _ = d.layers(Fault(d.at, backward_by=1e30), hidden=("softplus",))
    rate = Spike(1e-3, d.at, 1e20)
    return d.planted("update", d.net(layers), d.when, 0, "W after the step", optim.SGD(rate))


def explosion(d: Drawn) -> Planted:
    """A learning rate that is too large: where it ends is found by a loop of its own."""
    # Linear layers: with a bend a difference in the last bit may decide whether a unit lives, and how it all ends.
    layers = [nn.Dense(width, "identity") for width in [*d.widths, CLASSES]]
    net, y = d.net(layers, loss="mean_squared_error"), np.eye(CLASSES, dtype=np.float32)[d.y]
    rate = 10.0 ** d.rng.uniform(2.0, 6.0)
    while (found := by_hand(net, d.x, y, rate)) is None:
        rate *= 10.0
    epoch, step, layer, quantity = found
    return Planted("explosion", net, optim.SGD(rate), (d.x, y), epoch, step, layer, quantity)


def by_hand(net: bpxp.Network, x: np.ndarray, y: np.ndarray, rate: float) -> tuple[Any, ...] | None:
    """Train as `explosion` does, and return (epoch, step, layer, quantity) of the first number that is not finite."""
    params = [[np.array(net.backend.to_numpy(a)) for a in own] for own in net.params]
    rate, sums = np.float32(rate), [np.float32(0)]

    def quantities(rows):
        a, kept = x[rows], []
        for i, (W, b) in enumerate(params):
            kept.append(a)
            a = a @ W + b
            yield i, "z", a
        loss = np.mean(np.mean(np.square(a - y[rows]), axis=1))
        yield None, "loss", loss
        delta = 2 * (a - y[rows]) / np.float32(y[rows].size)
        yield None, "delta", delta
        grads = []
        for i in reversed(range(len(params))):
            grads.insert(0, (kept[i].T @ delta, delta.sum(axis=0)))
            yield i, "dW", grads[0][0]
            yield i, "db", grads[0][1]
            delta = delta @ params[i][0].T
            if i:
                yield i, "dx", delta
        for i, own in enumerate(grads):
            for name, p, g in zip("Wb", params[i], own, strict=True):
                p -= rate * g
                yield i, f"{name} after the step", p
        sums[0] += loss * np.float32(len(rows))
        yield None, "", sums[0]

    with np.errstate(all="ignore"):
        for epoch in range(6):
            order, sums[0] = epoch_order(net.seed, epoch, N, BATCH)[:N], np.float32(0)
            for step in range(BATCHES):
                for layer, name, a in quantities(order[step * BATCH : (step + 1) * BATCH]):
                    if not np.isfinite(a).all():
                        return epoch + 1, step + 1, layer, name
    return None


KINDS: dict[str, Callable[[Drawn], Planted]] = {
    f.__name__: f
    for f in (
        forward,
        backward,
        gradient,
        transform,
        weights,
        exponential,
        sample,
        statistics,
        optimizer_state,
        update,
        explosion,
    )
}
CUSTOM = (Fault, FaultyDense, FaultyTransform, Exp, Log, Spike)


def plant(seed: int, backend: Any, kind: str | None = None) -> Planted:
    """Return the case of that number: the kinds take turns."""
    return KINDS[kind or list(KINDS)[seed % len(KINDS)]](Drawn(seed, backend))
