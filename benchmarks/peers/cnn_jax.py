"""The convolutional workload in plain JAX: lax.conv_general_dilated, value_and_grad, jit with donation."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import cnn_workload, workload

LAYOUT = ("NHWC", "HWIO", "NHWC")


def logits(params: Any, x: jax.Array) -> jax.Array:
    for W, b in params[:-1]:
        x = jax.lax.conv_general_dilated(x, W, (1, 1), "SAME", dimension_numbers=LAYOUT) + b
        x = jnp.maximum(x, 0.0)
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
    W, b = params[-1]
    return x.reshape(len(x), -1) @ W + b


def loss(params: Any, x: jax.Array, y: jax.Array) -> jax.Array:
    each = jax.nn.log_softmax(logits(params, x))
    return -jnp.mean(jnp.take_along_axis(each, y[:, None], axis=1))


@functools.partial(jax.jit, donate_argnums=(0, 1))
def step(params: Any, total: jax.Array, x: jax.Array, y: jax.Array, rows: jax.Array) -> Any:
    value, grads = jax.value_and_grad(loss)(params, x[rows], y[rows])
    return jax.tree.map(lambda p, g: p - cnn_workload.LEARNING_RATE * g, params, grads), total + value


def main() -> None:
    arguments = workload.options().parse_args()
    x, y = (jnp.asarray(a) for a in cnn_workload.pictures())
    key = iter(jax.random.split(jax.random.key(0), 3))
    shapes, channels = [], 1
    for filters in cnn_workload.FILTERS:
        shapes.append((3, 3, channels, filters))
        channels = filters
    shapes.append((channels * (cnn_workload.SIDE // 4) ** 2, cnn_workload.CLASSES))
    params = [(jax.nn.initializers.glorot_uniform()(next(key), s), jnp.zeros(s[-1])) for s in shapes]
    rng = np.random.default_rng(0)

    def epoch() -> float:
        nonlocal params
        total = jnp.zeros(())
        for rows in rng.permutation(cnn_workload.SAMPLES).astype(np.int32).reshape(-1, cnn_workload.BATCH):
            params, total = step(params, total, x, y, rows)
        return float(total) / cnn_workload.STEPS

    cnn_workload.report(epoch, arguments.epochs)


if __name__ == "__main__":
    main()
