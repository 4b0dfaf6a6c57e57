"""Two backends in lock-step: equation by equation from the same numbers, until one computes something else."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.base import FUNCTIONS
from bpxp.backends.device import on_its_device
from bpxp.backends.dtypes import validate_dtype
from bpxp.core.checks import positive_int
from bpxp.core.tree import named_leaves, tree_map
from bpxp.core.typing import Namespace
from bpxp.network.network import Network, validate_network
from bpxp.nn.observe import Calls, Part, opaque
from bpxp.optim import Optimizer, clip_by_norm, clip_by_value
from bpxp.verify.equations.comparison import slot_names
from bpxp.verify.parity.certificate import as_a_whole
from bpxp.verify.parity.error_bounds import bounded_namespace, exact, quiet
from bpxp.verify.parity.rounding import Rounded, arithmetic, as_rounded, shares
from bpxp.verify.parity.run import Runner, Trial, forward_and_back, make_trial


@dataclass(frozen=True)
class Difference:
    """Where two backends differ.

    Attributes
    ----------
    step : int
        Counted from 1.
    part : str
        ``"layer 1 (Dense)"``, ``"loss (SoftmaxCrossEntropy)"``, ``"optimizer (Adam)"``.
    equation, line : str
        Its name, and what it says; the name of the result where the part states no equations.
    operation : str
        The first function of the namespace that differs within the equation, ``"xp.matmul"``; empty if none does by
        itself.
    place : str
        Of the optimizer's: the parameter, ``"1/W"``.
    index : tuple of int
        The entry whose difference is the largest part of its bound.
    values : tuple of float
        Of both backends.
    expected : float
        The float64 value.
    bound : float
        What the difference may be.
    """

    step: int
    part: str
    equation: str
    line: str
    operation: str
    place: str
    index: tuple[int, ...]
    values: tuple[float, float]
    expected: float
    bound: float


@dataclass(frozen=True)
class Bisection:
    """Result of `bisect`; as text it says where the two differ, or that they do not.

    Attributes
    ----------
    backends : tuple of str
    dtype : str
    steps : int
        Steps done, the one that differs included.
    compared : int
        Results that were compared.
    difference : Difference or None
        The first one.
    opaque : tuple of str
        Layers with nested parameters and no `children`: they were compared as a whole.
    """

    backends: tuple[str, str]
    dtype: str
    steps: int
    compared: int
    difference: Difference | None
    opaque: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps(asdict(self), indent=1)

    def __str__(self) -> str:
        first, second = self.backends
        found = self.difference
        if found is None:
            text = f"{first} and {second}, {self.dtype}: {self.compared} results of {self.steps} steps, none differs"
            return "\n".join([text, *as_a_whole(self.opaque)])
        at = f"{found.place}{list(found.index)}" if found.place else f"{list(found.index)}"
        gap = abs(found.values[0] - found.values[1])
        lines = [
            f"{first} and {second}, {self.dtype}, differ in step {found.step}: {found.part}, equation {found.equation}",
            *([f"  {found.line}"] if found.line else []),
            f"  at {at}: {found.values[0]:.9g} on {first}, {found.values[1]:.9g} on {second}, "
            f"{found.expected:.9g} in float64",
            f"  difference {gap:.2e}, bound {found.bound:.2e}",
        ]
        lines += [f"  first in {found.operation}"] if found.operation else []
        return "\n".join([*lines, *as_a_whole(self.opaque)])


@on_its_device
def bisect(
    net: Network,
    first: str | Backend,
    second: str | Backend,
    data: Any = None,
    /,
    *,
    steps: int = 10,
    batch_size: int = 32,
    optimizer: Optimizer | str | None = None,
    dtype: str | None = None,
    statistical: bool = True,
) -> Bisection:
    """Train on two backends in lock-step, and stop at the first equation in which they differ.

    Parameters
    ----------
    net : Network
        It is not changed.
    first, second : str or Backend
        Every equation starts on both from the numbers of the first.
    data : Dataset or pair of array_like, optional
        As for `Trainer.fit`; without it, random samples.
    steps, batch_size, optimizer : optional
        As for `bpxp.verify.certify`.
    dtype : {"float32", "float64"}, optional
        Default: the network's.
    statistical : bool, optional
        Replace the bound γ_n for the sum of n numbers by the estimate 6 √n u: TF32 in a product of 784 terms is within
        the bound, and beyond the estimate. False alarms are unlikely as long as roundings are independent.

    Returns
    -------
    Bisection

    Notes
    -----
    Steps run as they are written, not compiled: what a compiler does is for `certify`. Two numbers may differ by the
    sum of the bounds of both, see `certify`. Where an equation differs, the functions of the namespace that it calls
    are compared one by one, and the first that differs is named; operators (``a * b``) belong to no backend's
    namespace, and are seen in the equation only. One thing is the first backend's alone: pixels are scaled before the
    first layer. A layer that is made of layers and has no `children` is compared as a whole, with the bound of all its
    operations together.

    Examples
    --------
    >>> import bpxp
    >>> net = bpxp.Network([4, 3, 2], backend="numpy", seed=0)
    >>> print(bpxp.verify.bisect(net, "numpy", "numpy", steps=2))
    numpy and numpy, float32: 24 results of 2 steps, none differs
    """
    validate_network(net, "bisect(net)")
    positive_int(steps, "bisect(steps=…)")
    backends = get_backend(first), get_backend(second)
    kind, _ = (validate_dtype(dtype or net.dtype, backend) for backend in backends)
    trial = make_trial(net, data, batch_size=batch_size, optimizer=optimizer, where="bisect")
    lockstep = _Lockstep(backends, kind, statistical)
    runner = Runner(trial, backends[0], kind)
    names = (backends[0].name, backends[1].name)
    whole = opaque(trial.model, trial.params)
    difference = None
    with quiet():
        for step, host in enumerate(trial.batches(steps), 1):
            lockstep.begin(step)
            try:
                _step(trial, runner, lockstep, runner.place(host, step - 1))
            except _Parted as parted:
                difference = parted.difference
                break
    return Bisection(names, kind, step, lockstep.compared, difference, whole)


def _step(trial: Trial, runner: Runner, lockstep: _Lockstep, batch: Any) -> None:
    """Do one step on the first backend, and compare everything."""
    given = (runner.params, runner.stats, runner.key, batch)
    _, grads, stats = forward_and_back(trial, lockstep, *given, xp=runner.xp, dtype=runner.dtype)
    part = Part("optimizer", trial.optimizer)
    for equation, stage in _stages(trial.optimizer):
        *_, grads = lockstep.both(part, equation, stage, (runner.params, runner.opt, grads))
    rule = dataclasses.replace(trial.optimizer, l1=0.0, l2=0.0, clip_norm=None, clip_value=None)

    def update(params: Any, opt: Any, grads: Any, /, *, xp: Namespace) -> Any:
        return rule.update(params, grads, opt, xp=xp)

    runner.params, runner.opt = lockstep.both(part, "", update, (runner.params, runner.opt, grads))
    runner.stats = stats


def _stages(optimizer: Optimizer) -> list[tuple[str, Callable[..., Any]]]:
    """Return the stages before the rule by name, as functions of parameters, state and gradient."""
    stages: list[tuple[str, Callable[..., Any]]] = []
    if optimizer.l1 or optimizer.l2:
        stages.append(("penalised", lambda p, o, g, /, xp: (optimizer.add_penalty_gradient(p, g, xp=xp),)))
    if (norm := optimizer.clip_norm) is not None:
        stages.append(("by_norm", lambda p, o, g, /, xp: (clip_by_norm(g, norm, xp=xp),)))
    if (limit := optimizer.clip_value) is not None:
        stages.append(("by_value", lambda p, o, g, /, xp: (clip_by_value(g, limit, xp=xp),)))
    return stages


class _Parted(Exception):
    """Ends the loops: no error."""

    def __init__(self, difference: Difference) -> None:
        self.difference = difference


class _Sides:
    """A layer's cache on each side: no tuple, so a leaf of every tree."""

    def __init__(self, sides: list[Any]) -> None:
        self.sides = sides


class _Result(NamedTuple):
    """A result: its equation, its parameter, and its value on each side."""

    equation: str
    line: str
    place: str
    sides: list[Any]


class _Lockstep:
    """An observer that computes everything on each side: on both backends, and in float64 with the bounds.

    A container calls its children on the first side, where each of them is compared by itself. On the other sides they
    return what they returned there, so that what remains is the container's own arithmetic.
    """

    def __init__(self, backends: tuple[Backend, Backend], dtype: str, statistical: bool) -> None:
        self.backends, self.dtype = backends, dtype
        # Where both have the same arithmetic, one bound is that of either.
        self.rules = list(dict.fromkeys(arithmetic(backend, dtype, statistical) for backend in backends))
        self.namespaces = [*(backend.xp for backend in backends), *map(bounded_namespace, self.rules)]
        self.compared = 0
        self._replayed: Iterator[Any] | None = None
        self.begin(1)

    def begin(self, step: int) -> None:
        """Begin a step."""
        self.step, self._calls = step, Calls()
        self._answers: list[tuple[str, Any]] = []  # method and result of each child of the container that is running

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call on every side, compare, and return the first side's result."""
        if self._replayed is not None:
            return next(self._replayed)
        part = self._calls(part, method)
        names = list(context)

        def run(*given: Any, xp: Namespace) -> Any:
            own = dict(zip(names, given[len(args) :], strict=True))
            return getattr(part.thing, method)(*given[: len(args)], xp=xp, **own)

        given = (*args, *context.values())
        outer, self._answers = self._answers, []
        first = run(*(self._on(0, a) for a in given), xp=self.namespaces[0])
        answers, self._answers = self._answers, outer
        done = [first, *self._everywhere(run, given, self.namespaces, answers, first=1)]
        by_side = [part.results(method, one) for one in done]
        results = [_Result(*part.equation(name), "", [side[name] for side in by_side]) for name in by_side[0]]
        self._compare(part, results, lambda namespaces: self._everywhere(run, given, namespaces, answers))
        result = (first[0], _Sides([one[1] for one in done])) if method == "forward" else first
        self._answers.append(
            (method, self._on(0, result) if method != "forward" else (self._on(0, first[0]), result[1]))
        )
        return result

    def both(self, part: Part, equation: str, run: Callable[..., Any], given: tuple[Any, ...]) -> Any:
        """Do a part of an update on every side, compare, and return the first side's result."""
        done = self._everywhere(run, given, self.namespaces)
        by_side = [_leaves(part, equation, one) for one in done]
        results = [_Result(*name, [side[name] for side in by_side]) for name in by_side[0]]
        self._compare(part, results, lambda namespaces: self._everywhere(run, given, namespaces))
        return done[0]

    def _everywhere(
        self,
        run: Callable[..., Any],
        given: tuple[Any, ...],
        namespaces: list[Namespace],
        answers: Iterable[tuple[str, Any]] = (),
        first: int = 0,
    ) -> list[Any]:
        done = []
        for side in range(first, len(namespaces)):
            self._replayed = iter([self._answer(side, *answer) for answer in answers])
            done.append(run(*(self._on(side, a) for a in given), xp=namespaces[side]))
        self._replayed = None
        return done

    def _answer(self, side: int, method: str, result: Any) -> Any:
        return tuple(self._on(side, a) for a in result) if method == "forward" else self._on(side, result)

    def _on(self, side: int, tree: Any) -> Any:
        """Return the first backend's arrays on one of the sides, as copies that may be written."""
        if isinstance(tree, _Sides):
            return tree.sides[side]
        source = self.backends[0]
        if side > 1:
            return exact(tree, source, self.rules[side - 2])
        return tree_map(lambda a: self.backends[side].asarray(source.to_numpy(a)) if hasattr(a, "shape") else a, tree)

    def _compare(self, part: Part, results: list[_Result], again: Callable[[list[Namespace]], Any]) -> None:
        """Raise where the two differ by more than their bounds, with the first function that does so."""
        for result in results:
            both = [backend.to_numpy(a) for backend, a in zip(self.backends, result.sides[:2], strict=True)]
            if not both[0].size:
                continue
            self.compared += 1
            exactly = [as_rounded(a, rules) for a, rules in zip(result.sides[2:], self.rules, strict=True)]
            share, index, values, expected, bound = _nearest([*both, *exactly])
            if not share <= 1.0:
                where = (part.title, result.equation, result.line, self._operation(again), result.place)
                raise _Parted(Difference(self.step, *where, index, values, expected, bound))

    def _operation(self, again: Callable[[list[Namespace]], Any]) -> str:
        """Run everything again, and return the first function of the namespace whose results differ."""
        logs: list[list[tuple[str, Any]]] = [[] for _ in self.namespaces]
        to_host = [backend.to_numpy for backend in self.backends]
        keep: list[Callable[[Any], Any]] = [*to_host, *(lambda a: a for _ in self.rules)]
        again([_logged(*own) for own in zip(self.namespaces, logs, keep, strict=True)])
        for calls in zip(*logs, strict=False):
            if len({name for name, _ in calls}) > 1 or not all(hasattr(a, "shape") for _, a in calls):
                return ""  # the sides call different functions: nothing to compare
            sides = [a for _, a in calls]
            numbers = isinstance(sides[2], Rounded) and sides[2].dtype.kind == "f" and sides[2].size
            if numbers and len({a.shape for a in sides}) == 1 and not _nearest(sides)[0] <= 1.0:
                return f"xp.{calls[0][0]}"
        return ""


def _nearest(sides: list[Any]) -> tuple[float, tuple[int, ...], tuple[float, float], float, float]:
    """Return share, index, values, float64 value and bound of the entry with the largest share of its bound."""
    a, b, first, second = sides[0], sides[1], sides[2], sides[-1]
    _, bound, share = shares(a, b, first.bound + second.bound)
    i = int(np.argmax(share))
    index = tuple(int(n) for n in np.unravel_index(i, a.shape))
    values = float(a[index]), float(b[index])
    return float(share.flat[i]), index, values, float(first.v[index]), float(bound.flat[i])


def _leaves(part: Part, equation: str, done: Any) -> dict[tuple[str, str, str], Any]:
    """Return (equation, line, parameter) → array of what a part of an update returned."""
    if equation:
        before = part.thing.before
        return {(equation, before[equation].text, name): a for name, a in named_leaves(done[-1])}
    params, opt = done
    kept = slot_names(part.thing.equations)
    found = {("learning rate", "", ""): opt.learning_rate}
    for i, slot in enumerate(opt.slots):
        label = part.equation(kept[i]) if i < len(kept) else (f"slot {i}", "")
        found |= {(*label, name): a for name, a in named_leaves(slot)}
    found |= {(*part.equation("p'"), name): a for name, a in named_leaves(params)}
    after = ("average", part.thing.after["average"].text)
    return found | {(*after, name): a for name, a in named_leaves(opt.average)}


def _logged(xp: Namespace, log: list[tuple[str, Any]], keep: Callable[[Any], Any]) -> Namespace:
    """Return the namespace with functions that log copies of their results: later code may write into these."""

    def writing(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            if hasattr(result, "shape"):
                log.append((name, keep(result)))
            return result

        return call

    own = {name: writing(name, f) if name in FUNCTIONS and callable(f) else f for name, f in vars(xp).items()}
    return types.SimpleNamespace(**own)
