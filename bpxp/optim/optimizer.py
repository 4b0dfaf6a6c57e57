"""The order of an update, the same for every rule: penalise, clip, schedule, decay, rule, average.

An optimizer is a frozen dataclass of hyper-parameters; whatever changes from step to step is an array in its state.
`update` owns parameters, gradients and state: it writes into them and returns them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

from bpxp.core.checks import set_numbers
from bpxp.core.tree import leaves, tree_map, unflatten
from bpxp.core.typing import Array, Namespace, Params
from bpxp.equations import Equations
from bpxp.optim.blocking import update_leaves
from bpxp.optim.clipping import clip_by_norm, clip_by_value
from bpxp.optim.schedules import Constant, Schedule, ScheduleState, as_schedule


class OptState(NamedTuple):
    """The state of an optimizer.

    Attributes
    ----------
    t : array, (1,), int32
        Updates done.
    learning_rate : array, (1,)
        Of the last update; before the first, of the first. With a constant rate this array is the rate: overwrite it,
        and the next update uses it, without a new compilation. With a schedule it is written anew at each update.
    slots : tuple of trees
        One tree of the parameters' structure per quantity that the rule keeps (velocity, second moment, …).
    schedule : tuple of arrays
        The state of the schedule.
    average : tree or ()
        The moving average of the parameters, if asked for.
    """

    t: Array
    learning_rate: Array
    slots: tuple[Any, ...]
    schedule: ScheduleState
    average: Any


@dataclass(frozen=True)
class Optimizer:
    """Base of the update rules; a subclass adds `rule`, and where it needs them `slots` and `factors`.

    Parameters
    ----------
    learning_rate : float or Schedule
        η > 0, or a function of the step.
    l1, l2 : float, optional
        The objective is the mean loss plus ``l1 Σ|W| + l2/2 ΣW²``; its gradient is added to the loss's.
    weight_decay : float, optional
        λ of the decoupled decay, W ← W - η λ W before the rule: not seen by clipping, moments or velocities.
    decay_biases : bool, optional
        Penalties and decay act on weights, the leaves whose field name starts with "W". True: on every leaf.
    clip_norm, clip_value : float or None, optional
        Upper bound of the gradient's norm over all leaves, and of the absolute value of each component.
    average : float or None, optional
        β in (0, 1): `OptState.average` follows the parameters as ā ← β ā + (1 - β) p, from the initial ones on.

    Notes
    -----
    One update is, in this order: gradient of the penalties, clipping by norm, by value, learning rate of step t,
    decoupled decay, the rule, average, t ← t + 1. An option that is off costs nothing.

    A subclass whose rule acts on each number by itself declares ``elementwise = True``: it may then get a large leaf a
    block of rows at a time (see `bpxp.optim.blocking`). A subclass with a `rule` of its own has to declare it again.

    In the equations i runs over all parameters, and d[i] is 1 for those on which penalties and decay act. `before`
    is what precedes the rule, which then takes c in place of g and r in place of p; `after` is what follows. A
    bound of None is infinite. R is the value of `penalty`.
    """

    before = Equations(
        penalty="R = sum_i d[i]*(l1*abs(p[i]) + l2/2*p[i]^2)",
        penalised="q[i] = g[i] + d[i]*(l1*sign(p[i]) + l2*p[i])",
        norm="L = sqrt(sum_i q[i]^2)",
        by_norm="h[i] = q[i]/max(1, L/clip_norm)",
        by_value="c[i] = min(max(h[i], -clip_value), clip_value)",
        decayed="r[i] = p[i] - d[i]*learning_rate*weight_decay*p[i]",
    )
    after = Equations(
        average="pbar'[i] = average*pbar[i] + (1 - average)*p'[i]",
    )

    elementwise = False

    learning_rate: float | Schedule
    _: KW_ONLY
    l1: float = 0.0
    l2: float = 0.0
    weight_decay: float = 0.0
    decay_biases: bool = False
    clip_norm: float | None = None
    clip_value: float | None = None
    average: float | None = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "rule" in vars(cls) and "elementwise" not in vars(cls):
            cls.elementwise = False

    def __post_init__(self) -> None:
        if not isinstance(self.learning_rate, Schedule):
            set_numbers(self, "learning_rate", low=0.0, low_open=True)
        set_numbers(self, "l1", "l2", "weight_decay", low=0.0)
        for name in ("clip_norm", "clip_value"):
            if getattr(self, name) is not None:
                set_numbers(self, name, low=0.0, low_open=True)
        if self.average is not None:
            set_numbers(self, "average", low=0.0, high=1.0, low_open=True, high_open=True)

    def slots(self, params: Params, /, *, xp: Namespace) -> tuple[Any, ...]:
        """Return the initial slots: a tuple of trees like `params`. Most simple rules keep none."""
        return ()

    def factors(self, lr: Array, t: Array, /, *, xp: Namespace) -> Any:
        """Return what the rule needs and all leaves share, once per update t = 1, 2, …: the learning rate alone.

        Parameters
        ----------
        lr : array, (1,)
            Only to be read: it is the state's.
        t : array, (1,), int32
            Number of this update.
        """
        return lr

    def rule(
        self, p: Array, g: Array, slots: tuple[Array, ...], factors: Any, /, *, xp: Namespace
    ) -> tuple[Array, tuple[Array, ...]]:
        """Return the new parameter and slots of one leaf, written in place; the gradient may be overwritten."""
        raise NotImplementedError

    def init(self, params: Params, /, *, xp: Namespace) -> OptState:
        """Return the state before the first update.

        Parameters
        ----------
        params : tree of arrays
            On the device; only read. Leaves have at least one axis, and one dtype.
        xp : namespace
            Of the backend.
        """
        flat = leaves(params)
        dtype = flat[0].dtype if flat else xp.float32
        like = xp.zeros((1,), dtype=dtype)
        schedule = as_schedule(self.learning_rate)
        memory = schedule.init(like, xp=xp)
        learning_rate = xp.zeros((1,), dtype=dtype)
        learning_rate += schedule.at(like, memory, xp=xp)
        # An explicit copy: the average must share no buffer with the parameters.
        average = () if self.average is None else tree_map(lambda p: xp.astype(p, p.dtype, copy=True), params)
        return OptState(xp.zeros((1,), dtype=xp.int32), learning_rate, self.slots(params, xp=xp), memory, average)

    def update(self, params: Params, grads: Params, state: OptState, /, *, xp: Namespace) -> tuple[Params, OptState]:
        """Do one step: return the new parameters and the new state.

        All three arguments are donated: their buffers are written, and after the call only the results may be used.

        Raises
        ------
        InvalidValueError
            If a gradient does not have its parameter's shape (it would be broadcast).
        """
        if self.l1 or self.l2:
            grads = self.add_penalty_gradient(params, grads, xp=xp)
        if self.clip_norm is not None:
            grads = clip_by_norm(grads, self.clip_norm, xp=xp)
        if self.clip_value is not None:
            grads = clip_by_value(grads, self.clip_value, xp=xp)
        t, lr = state.t, self._learning_rate(state, xp)
        if self.weight_decay:
            params = self._decay(params, lr)
        t += 1
        params, slots = self._apply_rule(params, grads, state.slots, self.factors(lr, t, xp=xp), xp)
        average = state.average if self.average is None else tree_map(self._follow, state.average, params)
        return params, OptState(t, lr, slots, state.schedule, average)

    def observe(self, state: OptState, metric: Array, /, *, xp: Namespace) -> OptState:
        """Pass the metric of an epoch to the schedule, shape (1,), lower is better; only `Plateau` uses it.

        The state is donated, as in `update`.
        """
        seen = as_schedule(self.learning_rate).observe(state.schedule, metric, xp=xp)
        return state._replace(schedule=tree_map(_overwrite, state.schedule, seen))

    def penalty(self, params: Params, /, *, xp: Namespace) -> Array:
        """Return l1 Σ|W| + l2/2 ΣW², shape (1,): what the gradient of `add_penalty_gradient` is the gradient of."""
        flat = leaves(params)
        value = xp.zeros((1,), dtype=flat[0].dtype if flat else xp.float32)
        for p, decayed in zip(flat, self._decayed(params), strict=True):
            if decayed and self.l1:
                value += self.l1 * xp.sum(xp.abs(p))
            if decayed and self.l2:
                value += (0.5 * self.l2) * xp.sum(xp.square(p))
        return value

    def add_penalty_gradient(self, params: Params, grads: Params, /, xp: Namespace) -> Params:
        """Write ∂penalty/∂params = l1 sign(W) + l2 W on top of `grads`, and return it; sign(0) = 0."""
        gs = leaves(grads)
        for i, (p, decayed) in enumerate(zip(leaves(params), self._decayed(params), strict=True)):
            if decayed:
                g = gs[i]
                if self.l2:
                    g += self.l2 * p
                if self.l1:
                    g += self.l1 * (xp.astype(p > 0.0, p.dtype) - xp.astype(p < 0.0, p.dtype))
                gs[i] = g
        return unflatten(grads, gs)

    def _decayed(self, params: Params) -> Iterator[bool]:
        """Yield for each leaf whether penalties and decay act on it."""
        return (self.decay_biases or is_weight for is_weight in weights(params))

    def _learning_rate(self, state: OptState, xp: Namespace) -> Array:
        lr = state.learning_rate
        schedule = self.learning_rate
        if not isinstance(schedule, Schedule) or isinstance(schedule, Constant):
            return lr
        return _overwrite(lr, schedule.at(xp.astype(state.t, lr.dtype), state.schedule, xp=xp))

    def _decay(self, params: Params, lr: Array) -> Params:
        rate = lr * self.weight_decay
        ps = leaves(params)
        for i, decayed in enumerate(self._decayed(params)):
            if decayed:
                # p *= 1 - rate would round 1 - rate: in float32 a rate of 1e-6 would be wrong by some percent.
                p = ps[i]
                p -= rate * p
                ps[i] = p
        return unflatten(params, ps)

    def _apply_rule(
        self, params: Params, grads: Params, slots: tuple[Any, ...], factors: Any, xp: Namespace
    ) -> tuple[Params, tuple[Any, ...]]:
        def rule(p: Array, g: Array, own: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
            return self.rule(p, g, own, factors, xp=xp)

        where = f"{type(self).__name__}.update"
        return update_leaves(rule, params, grads, slots, elementwise=self.elementwise, where=where, xp=xp)

    def _follow(self, mean: Array, p: Array) -> Array:
        assert self.average is not None
        mean *= self.average
        mean += (1.0 - self.average) * p
        return mean


def _overwrite(a: Array, value: Array) -> Array:
    """Write `value` into the buffer of `a` (finite), so that its address stays good: ``a[...] = value`` for JAX too."""
    if value is a:
        return a
    a *= 0
    a += value
    return a


def weights(tree: Any, /) -> Iterator[bool]:
    """Yield for each leaf whether it is a weight: its field's name starts with "W"."""
    names = getattr(tree, "_fields", ("",) * len(tree))
    for name, child in zip(names, tree, strict=True):
        if isinstance(child, tuple):
            yield from weights(child)
        else:
            yield name.startswith("W")
