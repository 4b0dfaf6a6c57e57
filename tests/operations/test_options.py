"""Each option has an effect: changed alone, it changes a result. One that is ignored is found here."""

from __future__ import annotations

import dataclasses

import numpy as np
from operations.table import TABLE, over
from operations.ways import NUMPY, parameters

from bpxp.core.random import HostRandom, make_key
from bpxp.core.tree import leaves, tree_map
from bpxp.nn import Layer, Loss, Sequential
from bpxp.nn.initializers import Initializer
from bpxp.optim import Optimizer, Schedule

STEPS, RATES = 3, 40


def of_layer(record, layer):
    """What a network sees of a layer, with the activation that it names: in training, and in evaluation."""
    rng = np.random.default_rng(6)
    x = record.draw(rng, 6)
    model = Sequential((layer,))
    params, out = model.init(HostRandom(1), x.shape[1:])
    stats = model.init_stats(params)
    found = [np.array(out), *leaves(params)]
    for training in (True, False):
        context = {"training": training, "key": make_key(3) if training else None, "stats": stats}
        y, caches = model.forward(params, x, xp=NUMPY, **context)
        dx, grads = model.backward(params, caches, np.random.default_rng(7).standard_normal(y.shape), xp=NUMPY)
        found += [y, dx, *leaves(grads)]
        if training:
            moved = model.advance(tree_map(np.copy, stats), caches, xp=NUMPY)
            found += leaves(moved)
            stats = moved
    return found


def of_loss(record, loss):
    z, y = record.draw(np.random.default_rng(8), 5, 3)
    return [*loss(z, y, xp=NUMPY), loss.activate(z, xp=NUMPY)]


def of_optimizer(record, optimizer):
    """The parameters after some updates, their average, and the penalty."""
    rng = np.random.default_rng(9)
    params = parameters(rng)
    state = optimizer.init(params, xp=NUMPY)
    for _ in range(STEPS):
        params, state = optimizer.update(params, parameters(rng), state, xp=NUMPY)
    return [*leaves(params), *leaves(state.average), optimizer.penalty(params, xp=NUMPY)]


def of_schedule(record, schedule):
    """The rates of some steps, and what it makes of the metrics of some epochs."""
    state = schedule.init(np.zeros(1), xp=NUMPY)
    found = [schedule.at(np.array([float(t)]), state, xp=NUMPY) for t in range(RATES)]
    for metric in (3.0, 2.0, 1.95, 2.5, 2.5, 2.5, 2.5, 2.5):
        state = schedule.observe(state, np.array([metric]), xp=NUMPY)
        found.append(schedule.at(np.zeros(1), state, xp=NUMPY))
    return [np.array(found)]


def of_initializer(record, initializer):
    rng = HostRandom(2)
    return [initializer.draw(rng.at(0), (5, 4), fan_in=5, fan_out=4), initializer.bias(rng.at(1), (4,))]


def of_metric(record, metric):
    z, y = record.draw(np.random.default_rng(10))
    counts = metric.update(metric.init(z.shape[1], xp=NUMPY, dtype=z.dtype), z, y, None, xp=NUMPY)
    result = metric.result(counts)
    return [np.array(list(result.values()) if isinstance(result, dict) else [result])]


def results(record, thing):
    kinds = {
        Optimizer: of_optimizer,
        Schedule: of_schedule,
        Initializer: of_initializer,
        Loss: of_loss,
        Layer: of_layer,
    }
    return next((find for kind, find in kinds.items() if isinstance(thing, kind)), of_metric)(record, thing)


def equal(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@over([record for record in TABLE if any(record.options.values())])
def test_each_option_has_an_effect(record):
    plain = results(record, record.thing)
    assert equal(plain, results(record, dataclasses.replace(record.thing))), "the same options, another result"
    for what, changed in record.changed():
        assert not equal(plain, results(record, changed)), f"{what} changes nothing"
