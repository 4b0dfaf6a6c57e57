"""Optimizers, schedules and losses compared with their equations."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from bpxp.core.tree import leaves, tree_map
from bpxp.equations import Equations
from bpxp.equations.loops import evaluate
from bpxp.errors import DerivationError
from bpxp.nn import one_hot
from bpxp.optim import Plateau, Schedule, clip_by_norm, clip_by_value
from bpxp.optim.schedules import as_schedule
from bpxp.verify.equations.comparison import Comparison, Values, axes_of, slot_names

STEPS = 3  # of an optimizer: the second is the first that remembers anything, the third the first that mixes
RATES = 64  # of a schedule
EPOCHS = (3.0, 2.0, 2.5, 2.5, 1.99, float("nan"), 4.0, 1.0, 1.0, 1.0, 0.9, 1.0, 0.5)  # what a plateau is shown


class _Leaves(NamedTuple):
    """Parameters of which one is a weight by its name."""

    W: Any
    b: Any


def compare_loss(case: Comparison, shape: tuple[int, ...] = (4, 3)) -> None:
    """Compare value, delta and the reading of a loss of logits of a shape, with and without weights of the samples.

    In the equations n runs over all positions of all samples, and w[n] is the weight of the sample.
    """
    loss, xp = case.thing, case.xp
    z, u = case.normal(0, shape), case.rng.at(1).uniform(shape)
    y = {
        "classes": u / np.sum(u, axis=-1, keepdims=True),
        "labels": u,
        "values": case.normal(2, shape),
        "counts": np.floor(4.0 * u),
    }[loss.targets]
    positions = math.prod(shape[1:-1])
    targets = [(y, case.put(y))]
    if loss.targets == "classes":
        index = np.floor(shape[-1] * case.rng.at(2).uniform(shape[:-1])).astype(np.int32)
        targets.append((one_hot(index, shape[-1], dtype=np.float64, xp=np), case.backend.asarray(index)))
    if loss.targets == "labels":
        unknown = np.where(u < 0.4, np.nan, u)
        targets.append((unknown, case.put(unknown)))

    def compute(_: Any, data: Any) -> tuple[Any, ...]:
        z, y, weight = data
        J, delta = loss(z, y, *weight, xp=xp)
        return xp.reshape(J, ()), delta, loss.activate(z, xp=xp)

    run = case.backend.compile(compute)
    for w in (case.rng.at(3).uniform(shape[:1]), np.ones(shape[0])):
        weight = () if np.all(w == 1.0) else (case.put(w),)
        for as_rows, as_given in targets:
            results = dict(zip(("J", "delta", "a"), run((), (case.put(z), as_given, weight)), strict=True))
            case.compare(loss.equations, {"z": z, "y": as_rows, "w": np.repeat(w, positions)}, results)


def compare_schedule(case: Comparison, count: int = RATES) -> None:
    """Compare the learning rates of the steps 0, 1, …; of `Plateau`, what it makes of some epochs."""
    schedule, xp = case.thing, case.xp
    state = schedule.init(case.put([0.0]), xp=xp)
    if isinstance(schedule, Plateau):
        for metric in EPOCHS:
            before = dict(zip(("best", "wait", "eta"), (case.host(a)[0] for a in state), strict=True))
            state = schedule.observe(state, case.put([metric]), xp=xp)
            after = (xp.reshape(a, ()) for a in (*state[:2], schedule.at(case.put([0.0]), state, xp=xp)))
            results = dict(zip(("best'", "wait'", "eta'"), after, strict=True))
            case.compare(schedule.equations, {**before, "metric": metric}, results)
    else:
        rates = [case.host(schedule.at(case.put([float(t)]), state, xp=xp))[0] for t in range(count)]
        case.compare(schedule.equations, _inner(schedule, count), {"eta": np.array(rates)})


def rates_of(schedule: Schedule, count: int) -> np.ndarray:
    """Return the learning rates of the first steps, as the equations of the schedule say; of `Plateau`, the first."""
    if isinstance(schedule, Plateau):
        return np.full(count, schedule.learning_rate)
    equations: Equations = schedule.equations  # type: ignore[attr-defined]
    known = {name: getattr(schedule, name) for name in axes_of(equations) if hasattr(schedule, name)}
    found = evaluate(equations, {**known, **_inner(schedule, count)}, shapes={"eta": (count,)})
    return found["eta"]


def _inner(schedule: Schedule, count: int) -> Values:
    """Return the rates of the schedule within a schedule, if there is one."""
    return {"schedule": rates_of(as_schedule(schedule.schedule), count)} if hasattr(schedule, "schedule") else {}


def compare_optimizer(case: Comparison) -> None:
    """Compare some updates: what comes before the rule, the rule for each component, and what comes after it."""
    optimizer, xp = case.thing, case.xp
    params = _Leaves(case.put(case.normal(0, (2, 2))), case.put(case.normal(1, (3,))))
    state = optimizer.init(params, xp=xp)
    rates = rates_of(as_schedule(optimizer.learning_rate), STEPS)
    acts = np.ones(7) if optimizer.decay_biases else np.array([1.0] * 4 + [0.0] * 3)
    rule: Equations = optimizer.equations
    own_decay = "weight_decay" in axes_of(rule)  # AdamW's is in its rule
    kept = slot_names(rule)
    if state.slots and len(state.slots) != len(kept):
        what = f"no equation says what each of {len(state.slots)} slots is"
        raise DerivationError(type(optimizer).__name__, what, code="E084")

    run = case.backend.compile(lambda state, gradients: optimizer.update(state[0], gradients, state[1], xp=xp))
    for step in range(STEPS):
        g = _Leaves(case.normal(2 * step + 2, (2, 2)), case.normal(2 * step + 3, (3,)))
        old = {"p": _flat(case, params), "g": _flat(case, g), "d": acts, "learning_rate": rates[step]}
        derived = case.derive(optimizer.before, old)
        case.compare(optimizer.before, {**old, **derived}, _before(case, params, g))
        slots = [_flat(case, slot) for slot in state.slots] or [np.zeros(acts.size)] * len(kept)
        average = _flat(case, state.average) if state.average else None
        params, state = run((params, state), tree_map(case.put, g))
        code = {"p'": _flat(case, params)}
        code |= dict(zip(kept, (_flat(case, slot) for slot in state.slots), strict=False))
        loops: dict[str, list[float]] = {name: [] for name in code}
        for i in range(acts.size):
            one = {name.rstrip("'"): slot[i] for name, slot in zip(kept, slots, strict=True)}
            one |= {"g": derived["c"][i], "p": (old["p"] if own_decay else derived["r"])[i]}
            one |= {"t": step + 1, "learning_rate": rates[step]}
            if own_decay:
                one["weight_decay"] = optimizer.weight_decay * acts[i]
            found = case.derive(rule, one)
            for name, values in loops.items():
                values.append(float(found[name]))
        for label, equation in rule.items():
            name = equation.target.name
            if name in code:
                case.expect(label, equation.text, code[name], np.array(loops[name]))
        if average is not None:
            new = {"pbar": average, "p'": code["p'"]}
            case.compare(optimizer.after, new, {"pbar'": _flat(case, state.average)})


def _before(case: Comparison, params: Any, g: Any) -> Values:
    """Return what the code computes before the rule, of the options that are on."""
    optimizer, xp = case.thing, case.xp
    results: Values = {}
    grads = tree_map(case.put, g)
    if optimizer.l1 or optimizer.l2:
        grads = optimizer.add_penalty_gradient(params, grads, xp=xp)
        results |= {"R": xp.reshape(optimizer.penalty(params, xp=xp), ()), "q": _flat(case, grads)}
    if optimizer.clip_norm is not None:
        grads = clip_by_norm(grads, optimizer.clip_norm, xp=xp)
        results["h"] = _flat(case, grads)
    if optimizer.clip_value is not None:
        results["c"] = _flat(case, clip_by_value(grads, optimizer.clip_value, xp=xp))
    return results


def _flat(case: Comparison, tree: Any) -> np.ndarray:
    """Return all numbers of a tree in one row, a copy on the host."""
    return np.concatenate([case.host(a).ravel() for a in leaves(tree)])
