"""A metric of your own against the rules of a metric: `check_metric`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.core.checks import positive_int
from bpxp.core.tree import leaves, named_leaves, tree_map
from bpxp.errors import RuleCheckError
from bpxp.nn import LOSSES, Sequential
from bpxp.nn.spec import Spec
from bpxp.training.columns import measured
from bpxp.verify.own.targets import drawn, put, validate_kind
from bpxp.verify.rules import Asked, RuleReport, Rules, Subject, examine, hashable, on_backends, same, short, source

BATCH = 12
RULES = Rules("protocol", "runs", "counters")
rule = RULES.rule


def check_metric(
    metric: Any, n_out: int = 3, /, *, targets: str = "classes", backends: Asked = None, seed: int = 0
) -> RuleReport:
    """Prove that a metric keeps every rule of a metric, on every backend that works here.

    Parameters
    ----------
    metric : Metric
        See `bpxp.metrics.Metric`.
    n_out : int, optional
        Number of outputs.
    targets : {"classes", "labels", "values", "counts"}, optional
        What it is a metric of: the `targets` of the loss.
    backends : str, Backend or sequence of them, optional
        Default: all that work here, array-api-strict with its fake device included.
    seed : int, optional
        Of logits and targets.

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
    >>> print(bpxp.verify.check_metric(bpxp.metrics.TopK(2), 4, backends=["numpy"]).broken)
    ()
    """
    positive_int(n_out, "check_metric(metric, n_out)")
    kind = validate_kind(targets, "check_metric(targets=…)")
    return examine(
        lambda chosen: MetricCase(metric, n_out, kind, chosen, seed),
        RULES,
        backends,
        "metric",
        RuleReport,
        RuleCheckError,
    )


class MetricCase(Subject):
    """A metric under test: logits (12, n_out) and targets."""

    def __init__(self, metric: Any, n_out: int, kind: str, backends: list[Backend], seed: int) -> None:
        super().__init__(metric, backends, seed)
        self.n_out, self.kind = n_out, kind
        self.z, self.y = drawn(kind, (BATCH, n_out), self.rng)
        if kind == "values":
            self.z = self.y + 0.3 * self.z
        self.alone = np.where(np.arange(BATCH) % 3 == 0, 1.0, 0.0)

    def init(self, backend: Backend, dtype: str = "float32") -> Any:
        """Return the counters at zero."""
        return self.thing.init(self.n_out, xp=backend.xp, dtype=getattr(backend.xp, dtype))

    def counts(self, *batches: Any, dtype: str = "float64") -> Any:
        """Return the counters after batches of (logits, targets, weight) on NumPy."""
        numpy = get_backend("numpy")
        counts = self.init(numpy, dtype)
        for batch in batches:
            counts = self.thing.update(counts, *put(numpy, dtype, *batch), xp=numpy.xp)
        return counts

    def result(self, *batches: Any) -> dict[str, float]:
        """Return what the metric is of batches, by name."""
        found = self.thing.result(self.counts(*batches))
        return dict(found) if isinstance(found, dict) else {"": found}

    def part(self, rows: Any, weight: np.ndarray | None = None) -> tuple[Any, ...]:
        """Return some of the samples as a batch."""
        return self.z[rows], self.y[rows], weight


def differs(first: dict[str, float], second: dict[str, float]) -> str:
    """Return which value differs and how, or an empty string."""
    for name in first:
        if name not in second or not np.isclose(first[name], second[name], rtol=1e-6, atol=1e-9, equal_nan=True):
            return f"{name + ' ' if name else ''}{first[name]:.6g}, not {second.get(name, float('nan')):.6g}"
    return ""


@rule("protocol", "an object with name, init, update and result", "write the members of bpxp.metrics.Metric", needs=())
def _protocol(case: MetricCase) -> Iterator[str]:
    metric = case.thing
    if isinstance(metric, type):
        yield f"{metric.__name__} is a class; its objects are metrics: {metric.__name__}(…)"
        return
    if not isinstance(getattr(metric, "name", None), str) or metric.name == "loss":
        yield f"its name is {getattr(metric, 'name', None)!r}, no string, or that of the loss"
    for name in ("init", "update", "result"):
        if not callable(getattr(metric, name, None)):
            yield f"there is no method {name}"


@rule(
    "hashable",
    "hyper-parameters that are frozen, hashable and no arrays",
    "@dataclass(frozen=True), with numbers, strings and tuples as fields",
    needs=("protocol",),
)
def _hashable(case: MetricCase) -> Iterator[str]:
    yield from hashable(case)


@rule("runs", "init, update and result run on NumPy", "see the error", needs=("protocol",))
def _runs(case: MetricCase) -> Iterator[str]:
    for weight in (None, case.alone):
        try:
            case.result(case.part(slice(None), weight))
        except Exception as error:
            yield f"on NumPy it raises {short(error)}"
            return


@rule(
    "counters",
    "init returns a tuple of arrays with axes, and update keeps their number, shapes and dtypes",
    "xp.zeros((1,), dtype=xp.int32) for each; keepdims=True and dtype= in xp.sum",
    needs=("protocol", "runs"),
)
def _counters(case: MetricCase) -> Iterator[str]:
    start = case.init(get_backend("numpy"))
    if not isinstance(start, tuple):
        yield f"init returns {type(start).__name__}, not a tuple of arrays"
        return
    for name, a in named_leaves(start):
        if not isinstance(a, np.ndarray) or not a.ndim:
            yield f"counter {name} is {type(a).__name__} without axes, not an array of xp"
            return
    after = case.counts(case.part(slice(None), case.alone), case.part(slice(None)), dtype="float32")
    wanted, got = ([(name, np.shape(a), np.asarray(a).dtype) for name, a in named_leaves(t)] for t in (start, after))
    if wanted != got:
        name = next((a[0] for a, b in zip(wanted, got, strict=False) if a != b), "a counter")
        yield f"update changes counter {name}: {wanted} before it, {got} after it"


@rule("result", "result returns a float, or floats by name", "float(…): not an array, nor a number of NumPy's float32")
def _result(case: MetricCase) -> Iterator[str]:
    for name, value in case.result(case.part(slice(None))).items():
        if not isinstance(name, str) or not isinstance(value, (float, int)) or isinstance(value, bool):
            yield f"{name or 'it'} is {type(value).__name__}"


@rule("inputs", "logits, targets and weights are only read", "make a new array first: a = z * 2.0, and then a += 1.0")
def _inputs(case: MetricCase) -> Iterator[str]:
    numpy = get_backend("numpy")
    given = put(numpy, "float64", *case.part(slice(None), case.alone))
    before = [np.copy(a) for a in given]
    case.thing.update(case.init(numpy, "float64"), *given, xp=numpy.xp)
    triples = zip(("logits", "y", "weight"), given, before, strict=True)
    yield from (f"update writes into {name}" for name, a, b in triples if not same(a, b))


@rule(
    "repeatable",
    "what it counts is in the counters, and nothing is kept between calls",
    "add to the arrays that update gets, and return them; no lists, no attributes",
)
def _repeatable(case: MetricCase) -> Iterator[str]:
    first = case.result(case.part(slice(None)))
    case.result(case.part(slice(3)), case.part(slice(5)))
    if found := differs(case.result(case.part(slice(None))), first):
        yield f"of the same samples it is {found} the second time"
    counts = tree_map(np.copy, case.counts(case.part(slice(None))))
    case.counts(case.part(slice(5)))
    later = case.thing.result(counts)
    if found := differs(dict(later) if isinstance(later, dict) else {"": later}, first):
        yield f"of the same counters it is {found} after another evaluation"


@rule(
    "batches",
    "in several batches it is what it is in one",
    "count right ones and all of them, and divide in result: a mean of means depends on the batches",
    more=("repeatable",),
)
def _batches(case: MetricCase) -> Iterator[str]:
    whole = case.result(case.part(slice(None)))
    for sizes in ((7, 5), (1, 1, 10)):
        ends = np.cumsum(sizes)
        parts = [case.part(slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]
        if found := differs(case.result(*parts), whole):
            yield f"in batches of {', '.join(map(str, sizes))} it is {found}"
            return


@rule(
    "padding",
    "a sample of weight 0 does not count: it fills up the last batch",
    "counted = xp.astype(weight > 0.0, xp.int32) where weight is not None, as a factor of everything that is summed",
    more=("repeatable",),
)
def _padding(case: MetricCase) -> Iterator[str]:
    rows = np.flatnonzero(case.alone)
    if found := differs(case.result(case.part(slice(None), case.alone)), case.result(case.part(rows))):
        yield f"with {BATCH - len(rows)} of {BATCH} samples of weight 0 it is {found}"
    if found := differs(case.result(case.part(slice(None), np.ones(BATCH))), case.result(case.part(slice(None)))):
        yield f"with weights of 1 it is {found}"


@rule("empty", "with nothing to count it is a number, and no error", "0/0 is 0: divide by max(count, 1)")
def _empty(case: MetricCase) -> Iterator[str]:
    with np.errstate(all="raise"):
        try:
            found = case.result(case.part(slice(None), np.zeros(BATCH)))
        except Exception as error:
            yield f"result raises {short(error)}"
            return
    if not all(np.isfinite(value) for value in found.values()):
        yield f"it is {', '.join(f'{value:g}' for value in found.values())}"


@rule(
    "direction",
    "higher_is_better, if it is declared, is what right answers have against wrong ones",
    "higher_is_better = False for an error; without it bpxp measures it",
    more=("repeatable",),
)
def _direction(case: MetricCase) -> Iterator[str]:
    said = getattr(case.thing, "higher_is_better", None)
    if said is None:
        case.note = "it declares none"
        return
    loss = next(loss for loss in LOSSES.values() if loss.targets == case.kind)
    spec = Spec(Sequential(()), loss, (case.n_out,), (case.n_out,), "float32")
    found = measured(case.thing, spec, get_backend("numpy"))
    for name, higher in found.items():
        if higher is not None and higher != bool(said):
            yield f"{name} of right answers is {'higher' if higher else 'lower'} than of wrong ones"


def _compared(case: MetricCase, *, compiled: bool) -> Iterator[str]:
    numpy = get_backend("numpy")

    def given(backend: Backend, i: int) -> tuple[Any, ...]:
        turn = slice(None, None, -1) if i else slice(None)
        counts = tree_map(backend.asarray, tree_map(np.copy, case.init(numpy)))
        return counts, *put(backend, "float32", case.z[turn], case.y[turn], case.alone[turn])

    def compute(data: Any, xp: Any) -> tuple[Any, ...]:
        counts, z, y, weight = data
        counts = case.thing.update(counts, z, y, weight, xp=xp)
        return tuple(leaves(case.thing.update(counts, z, y, None, xp=xp)))

    names = [f"counter {name}" for name, _ in named_leaves(case.init(numpy))]
    yield from on_backends(case, compute, given, names, compiled=compiled)


@rule(
    "backends",
    "every backend counts the same",
    "only functions of the Array API standard, from xp, with an explicit dtype",
    more=("inputs", "repeatable"),
)
def _backends(case: MetricCase) -> Iterator[str]:
    yield from _compared(case, compiled=False)


@rule(
    "compiled",
    "a compiled step counts the same",
    "no if, float() or NumPy on the numbers of an array: xp.where, or arithmetic with a mask",
    more=("inputs", "repeatable", "backends"),
)
def _compiled(case: MetricCase) -> Iterator[str]:
    yield from _compared(case, compiled=True)


@rule("source", "the source keeps the rules of the mathematics", "see each line", needs=("protocol",))
def _source(case: MetricCase) -> Iterator[str]:
    yield from source(case)
