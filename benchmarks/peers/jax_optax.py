"""JAX with optax: value_and_grad and the update in one jitted step, its state donated; data resident on the device.

Two forms, each a case of its own: a Python loop over jitted steps, which all dispatch before the first is awaited; and
a `lax.scan` over the whole epoch, one call. The order is drawn anew each epoch, on the host.
"""

from __future__ import annotations

import argparse
import functools
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.peers.serve import Loop, options, serve
from benchmarks.peers.work import Work

LAYOUT = ("NHWC", "HWIO", "NHWC")
Params = list[tuple[jax.Array, jax.Array]]


def parameters(work: Work, seed: int) -> Params:
    """Return weights and biases, Glorot and 0."""
    shapes: list[tuple[int, ...]] = []
    channels = 1
    for filters in work.filters:
        shapes.append((3, 3, channels, filters))
        channels = filters
    shapes += pairwise(work.widths)
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    glorot = jax.nn.initializers.glorot_uniform()
    return [(glorot(key, shape), jnp.zeros(shape[-1])) for key, shape in zip(keys, shapes, strict=True)]


def logits(work: Work, params: Params, x: jax.Array) -> jax.Array:
    hidden = {"sigmoid": jax.nn.sigmoid, "relu": jax.nn.relu}[work.hidden]
    for W, b in params[: len(work.filters)]:
        x = jax.lax.conv_general_dilated(x, W, (1, 1), "SAME", dimension_numbers=LAYOUT) + b
        x = jax.nn.relu(x)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    x = x.reshape(len(x), -1)
    for W, b in params[len(work.filters) : -1]:
        x = hidden(x @ W + b)
    W, b = params[-1]
    return x @ W + b


class Optax(Loop):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        self.work, self.scan = work, arguments.scan
        self.x, self.y = (jnp.asarray(a) for a in work.floats())
        self.rule = {"sgd": optax.sgd, "adam": optax.adam}[work.optimizer](work.learning_rate)
        self.logits = jax.jit(functools.partial(logits, work))
        self.step = jax.jit(self.one_step, donate_argnums=0)
        self.steps = jax.jit(self.many_steps, donate_argnums=0)
        self.start(seed=0)

    def start(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        params = parameters(self.work, seed)
        self.state = (params, self.rule.init(params), jnp.zeros(()))

    def one_step(self, state: Any, x: jax.Array, y: jax.Array, rows: jax.Array) -> Any:
        """Return the state after one mini-batch; it ends with the sum of the losses."""

        def loss(params: Params) -> jax.Array:
            out = logits(self.work, params, x[rows])
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(out, y[rows]))

        params, opt, total = state
        value, grads = jax.value_and_grad(loss)(params)
        updates, opt = self.rule.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt, total + value * len(rows)

    def many_steps(self, state: Any, x: jax.Array, y: jax.Array, order: jax.Array) -> Any:
        return jax.lax.scan(lambda state, rows: (self.one_step(state, x, y, rows), None), state, order)[0]

    def epoch(self) -> float:
        order, batch = self.rng.permutation(len(self.x)).astype(np.int32), self.work.batch
        whole = len(order) // batch * batch
        if self.scan:
            self.state = self.steps(self.state, self.x, self.y, order[:whole].reshape(-1, batch))
        else:
            for rows in order[:whole].reshape(-1, batch):
                self.state = self.step(self.state, self.x, self.y, rows)
        if whole < len(order):
            self.state = self.step(self.state, self.x, self.y, order[whole:])
        params, opt, total = self.state
        self.state = (params, opt, jnp.zeros(()))
        return float(total) / len(order)

    def accuracy(self) -> float:
        x, y = self.work.test_floats()
        return float(np.mean(np.asarray(self.logits(self.state[0], x)).argmax(axis=1) == y))


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--scan", action="store_true", help="an epoch is one call")
    serve(Optax, parser, can=("images",))
