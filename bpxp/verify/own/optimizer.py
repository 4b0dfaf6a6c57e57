"""An optimizer of your own against the rules of an optimizer: `check_optimizer`."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.precision import label
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.errors import RuleCheckError
from bpxp.optim import Optimizer, OptState, Schedule
from bpxp.optim.blocking import update_leaves
from bpxp.verify.rules import Asked, RuleReport, Rules, Subject, equations, examine, hashable, same, short, source

STEPS, LONG = 4, 60  # updates
RTOL = 1e-4  # of float32 after these updates, relative to the largest parameter
RULES = Rules("protocol", "runs", "state")
rule = RULES.rule


class Leaves(NamedTuple):
    """Parameters of which one is a weight by its name."""

    W: Any
    b: Any


def check_optimizer(optimizer: Any, /, *, backends: Asked = None, seed: int = 0) -> RuleReport:
    """Prove that an optimizer keeps every rule of an optimizer, on every backend that works here.

    Parameters
    ----------
    optimizer : Optimizer
        See `bpxp.optim.Optimizer`.
    backends : str, Backend or sequence of them, optional
        Default: all that work here, array-api-strict with its fake device included.
    seed : int, optional
        Of parameters and gradients.

    Returns
    -------
    RuleReport
        If every rule is kept.

    Raises
    ------
    RuleCheckError
        Names each rule that is broken, where, and how to mend it; its `report` has everything.

    Examples
    --------
    >>> import bpxp
    >>> print(bpxp.verify.check_optimizer(bpxp.optim.Adam(0.1), backends=["numpy"]).broken)
    ()
    """
    return examine(
        lambda chosen: OptimizerCase(optimizer, chosen, seed), RULES, backends, "optimizer", RuleReport, RuleCheckError
    )


class OptimizerCase(Subject):
    """An optimizer under test: parameters of two layers, and a gradient for each update."""

    def __init__(self, optimizer: Any, backends: list[Backend], seed: int) -> None:
        super().__init__(optimizer, backends, seed)
        self.params = tuple(Leaves(self.rng.at(i, 0).normal((4, 3)), self.rng.at(i, 1).normal((3,))) for i in range(2))

    def grads(self, step: int, like: Any = None) -> Any:
        """Return the gradient of an update."""
        draws = iter(range(100))
        like = self.params if like is None else like
        return tree_map(lambda p: self.rng.at(9, step, next(draws)).normal(p.shape), like)

    def put(self, backend: Backend, dtype: str, tree: Any) -> Any:
        """Return a tree as new arrays on a backend."""
        return tree_map(lambda a: backend.asarray(np.array(a, dtype=dtype)), tree)

    def begin(self, backend: Backend, dtype: str, params: Any = None, optimizer: Any = None) -> tuple[Any, OptState]:
        """Return parameters and state before the first update."""
        own = self.put(backend, dtype, self.params if params is None else params)
        return own, (optimizer or self.thing).init(own, xp=backend.xp)

    def updated(
        self, params: Any, state: Any, steps: range, backend: Backend, dtype: str = "float64", optimizer: Any = None
    ) -> tuple[Any, Any]:
        """Return parameters and state after some updates."""
        for step in steps:
            grads = self.put(backend, dtype, self.grads(step, params))
            params, state = (optimizer or self.thing).update(params, grads, state, xp=backend.xp)
        return params, state

    def run(self, steps: int = STEPS, dtype: str = "float64", optimizer: Any = None) -> tuple[Any, Any]:
        """Return parameters and state after the first updates on NumPy."""
        numpy = get_backend("numpy")
        params, state = self.begin(numpy, dtype, optimizer=optimizer)
        return self.updated(params, state, range(steps), numpy, dtype, optimizer)


@rule("protocol", "an object of a class that inherits from Optimizer, with a rule", "def rule(…)", needs=())
def _protocol(case: OptimizerCase) -> Iterator[str]:
    if isinstance(case.thing, type):
        yield f"{case.thing.__name__} is a class; its objects are optimizers: {case.thing.__name__}(…)"
    elif not isinstance(case.thing, Optimizer):
        yield f"{type(case.thing).__name__} does not inherit from bpxp.optim.Optimizer"


@rule(
    "hashable",
    "hyper-parameters that are frozen, hashable and no arrays",
    "@dataclass(frozen=True), with numbers and tuples as fields; what changes is an array in the slots",
    needs=("protocol",),
)
def _hashable(case: OptimizerCase) -> Iterator[str]:
    yield from hashable(case)


@rule("runs", "init and update run on NumPy", "see the error", needs=("protocol",))
def _runs(case: OptimizerCase) -> Iterator[str]:
    try:
        found = case.run()
    except Exception as error:
        yield f"on NumPy it raises {short(error)}"
        return
    if not isinstance(found[1], OptState):
        yield f"update returns a state that is {type(found[1]).__name__}, not OptState"


@rule(
    "state",
    "the state is arrays with axes, and update keeps its structure, shapes and dtypes, and those of the parameters",
    "xp.zeros_like(p) in slots, Python numbers as factors: never np.float64",
    needs=("protocol", "runs"),
)
def _state(case: OptimizerCase) -> Iterator[str]:
    numpy = get_backend("numpy")
    params, start = case.begin(numpy, "float32")
    for name, a in named_leaves(start):
        if not isinstance(a, np.ndarray) or not a.ndim:
            yield f"{name} of the state is {type(a).__name__} without axes, not an array of xp"
            return
    before = [(name, np.shape(a), np.asarray(a).dtype) for name, a in named_leaves((params, start))]
    after = case.updated(params, start, range(STEPS), numpy, "float32")
    found = [(name, np.shape(a), getattr(a, "dtype", type(a).__name__)) for name, a in named_leaves(after)]
    if before != found:
        pairs = [(a, b) for a, b in zip(before, found, strict=False) if a != b]
        was, now = pairs[0] if pairs else (f"{len(before)} arrays", f"{len(found)}")
        yield f"it was {was} and is {now} after {STEPS} updates of float32"
    if int(after[1].t[0]) != STEPS:
        yield f"t is {int(after[1].t[0])} after {STEPS} updates"


@rule(
    "memory",
    "init reads the parameters, and the state shares memory with nothing",
    "xp.astype(p, p.dtype, copy=True), where a slot begins as the parameter",
)
def _memory(case: OptimizerCase) -> Iterator[str]:
    params, state = case.begin(get_backend("numpy"), "float64")
    if not same(params, case.params):
        yield "init writes into the parameters"
    for when, (own, kept) in (("init", (params, state)), ("an update", case.run(1))):
        others = [(f"parameter {name}", a) for name, a in named_leaves(own)]
        for name, a in named_leaves(kept):
            if sharing := next((what for what, b in others if np.shares_memory(a, b)), ""):
                yield f"after {when} {name} of the state shares memory with {sharing}"
                return
            others.append((name, a))


@rule(
    "factors",
    "rule only reads what all leaves share: the learning rate, and what factors returns",
    "lr = lr * 0.5: a new array; lr *= 0.5 would write into the state",
)
def _factors(case: OptimizerCase) -> Iterator[str]:
    optimizer, numpy = case.thing, get_backend("numpy")
    lr, t = np.full((1,), 0.25), np.ones((1,), np.int32)
    shared = optimizer.factors(lr, t, xp=numpy.xp)
    arrays = [a for a in leaves((lr, t, shared)) if isinstance(a, np.ndarray)]
    before = [np.copy(a) for a in arrays]
    params = case.put(numpy, "float64", case.params)
    slots = optimizer.init(params, xp=numpy.xp).slots

    def rule(p: Any, g: Any, own: Any) -> Any:
        return optimizer.rule(p, g, own, shared, xp=numpy.xp)

    update_leaves(rule, params, case.grads(0), slots, elementwise=False, where="check_optimizer", xp=numpy.xp)
    if not same(tuple(arrays), tuple(before)):
        yield "rule writes into its factors, which the next leaf reads"


@rule(
    "repeatable",
    "an update is a function of parameters, gradients and state: nothing is counted or kept elsewhere",
    "count in the state: t in factors(lr, t), or an array in slots",
)
def _repeatable(case: OptimizerCase) -> Iterator[str]:
    first = case.run()
    case.run(LONG)
    if not same(first, case.run()):
        yield f"the same {STEPS} updates give other parameters after {LONG} further calls"


@rule(
    "resumed",
    "from a copy of parameters and state it goes on to the same bits, also a copy of the optimizer",
    "keep in slots what the next update needs",
    more=("repeatable",),
)
def _resumed(case: OptimizerCase) -> Iterator[str]:
    fresh, numpy = copy.deepcopy(case.thing), get_backend("numpy")
    half = tree_map(np.copy, case.run(STEPS // 2))
    case.run(3)
    resumed = case.updated(half[0], half[1], range(STEPS // 2, STEPS), numpy, optimizer=fresh)
    if not same(case.run(), resumed):
        yield f"{STEPS // 2} updates, a copy, and {STEPS - STEPS // 2} more are not {STEPS} updates"


@rule(
    "leaves",
    "what happens to one leaf does not depend on the others, but for the norm of clip_norm",
    "rule sees one leaf; what all share is made in factors",
    more=("repeatable", "factors"),
)
def _leaves(case: OptimizerCase) -> Iterator[str]:
    if case.thing.clip_norm is not None:
        case.note = "clip_norm takes the norm over all leaves"
        return
    numpy = get_backend("numpy")

    def after(tree: Any, grads: Any) -> Any:
        params, state = case.begin(numpy, "float64", tree)
        for _ in range(2):
            params, state = case.thing.update(params, case.put(numpy, "float64", grads), state, xp=numpy.xp)
        return params

    grads = case.grads(0)
    both = after(case.params, grads)
    alone = tuple(after((p,), (g,))[0] for p, g in zip(case.params, grads, strict=True))
    if not same(both, alone):
        yield "a layer updated alone is not what it is beside another one"


@rule(
    "rate",
    "the learning rate is that of the state: with 0 no parameter moves",
    "use the argument lr, or what factors makes of it: self.learning_rate may be a schedule",
    more=("repeatable",),
)
def _rate(case: OptimizerCase) -> Iterator[str]:
    if isinstance(case.thing.learning_rate, Schedule):
        case.note = "it has a schedule"
        return
    numpy = get_backend("numpy")
    params, state = case.begin(numpy, "float64")
    state = state._replace(learning_rate=np.zeros_like(state.learning_rate))
    params, state = case.updated(params, state, range(2), numpy)
    if not np.allclose(np.concatenate([a.ravel() for a in leaves(params)]), _flat(case.params), rtol=1e-12, atol=0.0):
        yield "parameters move where the state's learning rate is 0"


@rule("downhill", "the first update goes downhill: g · (p' - p) < 0", "p -= …: the sign", more=("rate",))
def _downhill(case: OptimizerCase) -> Iterator[str]:
    moved = _flat(case.run(1)[0]) - _flat(case.params)
    if case.thing.l1 or case.thing.l2 or case.thing.weight_decay:
        case.note = "penalties and decay have a direction of their own"
    elif not float(np.sum(moved * _flat(case.grads(0)))) < 0.0:
        yield "the first update goes uphill, or nowhere"


@rule(
    "elementwise",
    "where it says elementwise = True, rule acts on each number by itself",
    "elementwise = False: large leaves come a block of rows at a time",
    more=("repeatable", "factors"),
)
def _elementwise(case: OptimizerCase) -> Iterator[str]:
    optimizer, numpy = case.thing, get_backend("numpy")
    if not optimizer.elementwise:
        case.note = "it does not say so"
        return
    W, dW = case.params[0].W, case.grads(0)[0].W
    results = []
    for params, grads in (((W,), (dW,)), (tuple(W[:, None]), tuple(dW[:, None]))):  # whole, and row by row
        begun, state = case.begin(numpy, "float64", params)
        shared = optimizer.factors(np.full((1,), 0.25), np.ones((1,), np.int32), xp=numpy.xp)

        def rule(p: Any, g: Any, slots: Any, shared: Any = shared) -> Any:
            return optimizer.rule(p, g, slots, shared, xp=numpy.xp)

        own = case.put(numpy, "float64", grads)
        new, _ = update_leaves(rule, begun, own, state.slots, elementwise=False, where="rule", xp=numpy.xp)
        results.append(_flat(new))
    if not same(*results):
        yield "row by row it gives other parameters than of the whole leaf"


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.asarray(a).ravel() for a in leaves(tree)])


def _compared(case: OptimizerCase, *, compiled: bool) -> Iterator[str]:
    expected = _flat(case.run()[0])
    for backend in case.backends:

        def step(state: Any, grads: Any, xp: Any = backend.xp) -> Any:
            return case.thing.update(state[0], grads, state[1], xp=xp)

        run = backend.compile(step) if compiled else step
        try:
            state = case.begin(backend, "float32")
            for i in range(STEPS):
                state = run(state, case.put(backend, "float32", case.grads(i)))
            found = _flat(tree_map(backend.to_numpy, state[0]))
        except Exception as error:
            yield f"{label(backend)}: {short(error)}"
            continue
        far = float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))
        if not far <= RTOL:
            yield f"{label(backend)}: after {STEPS} updates a parameter of float32 is {far:.1e} from that of float64"


@rule(
    "backends",
    "every backend computes it in float32",
    "only functions of the Array API standard, from xp, with an explicit dtype",
    more=("repeatable",),
)
def _backends(case: OptimizerCase) -> Iterator[str]:
    yield from _compared(case, compiled=False)


@rule(
    "compiled",
    "a compiled step computes the same",
    "no if, float() or NumPy on the numbers of an array; what changes is an array in the state",
    more=("repeatable", "backends"),
)
def _compiled(case: OptimizerCase) -> Iterator[str]:
    yield from _compared(case, compiled=True)


@rule("source", "the source keeps the rules of the mathematics", "see each line", needs=("protocol",))
def _source(case: OptimizerCase) -> Iterator[str]:
    yield from source(case)


@rule(
    "equations",
    "the equations, if there are any, are what the code computes",
    "correct the line or the code; see bpxp.verify.check_equations for the names",
)
def _equations(case: OptimizerCase) -> Iterator[str]:
    yield from equations(case)
