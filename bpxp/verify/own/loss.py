"""A loss of your own against the rules of a loss: `check_loss`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.core.checks import positive_int
from bpxp.errors import RuleCheckError
from bpxp.verify.own.targets import KINDS, drawn, put
from bpxp.verify.rules import (
    Asked,
    RuleReport,
    Rules,
    Subject,
    equations,
    examine,
    hashable,
    on_backends,
    same,
    short,
    source,
)

BATCH, STEP, RELATIVE, ABSOLUTE = 5, 1e-6, 1e-5, 1e-8
RULES = Rules("protocol", "runs", "shapes")
rule = RULES.rule


def check_loss(loss: Any, n_out: int = 3, /, *, y: Any = None, backends: Asked = None, seed: int = 0) -> RuleReport:
    """Prove that a loss keeps every rule of a loss, on every backend that works here.

    Parameters
    ----------
    loss : Loss
        See `bpxp.nn.Loss`.
    n_out : int, optional
        Number of outputs.
    y : array_like, optional
        Five targets, where random ones of ``loss.targets`` would not do.
    backends : str, Backend or sequence of them, optional
        Default: all that work here, array-api-strict with its fake device included.
    seed : int, optional
        Of logits, targets and weights.

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
    >>> print(bpxp.verify.check_loss(bpxp.nn.Huber(), backends=["numpy"]).broken)
    ()
    """
    positive_int(n_out, "check_loss(loss, n_out)")
    return examine(
        lambda chosen: LossCase(loss, n_out, y, chosen, seed), RULES, backends, "loss", RuleReport, RuleCheckError
    )


class LossCase(Subject):
    """A loss under test: float64 logits (5, n_out), targets, and weights."""

    def __init__(self, loss: Any, n_out: int, y: Any, backends: list[Backend], seed: int) -> None:
        super().__init__(loss, backends, seed)
        self.n_out, self.kind = n_out, getattr(loss, "targets", "values")
        self.z, targets = drawn(self.kind, (BATCH, n_out), self.rng)
        self.y = targets if y is None else np.resize(np.asarray(y), (BATCH, *np.shape(y)[1:]))
        self.weight = self.rng.at(3).uniform((BATCH,), 0.2, 2.0)

    def __call__(self, z: Any, y: Any, weight: Any = None, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
        """Return J and delta on NumPy, of copies."""
        numpy = get_backend("numpy")
        value, delta = self.thing(*put(numpy, dtype, z, y, weight), xp=numpy.xp)
        return value, delta

    def each(self) -> tuple[np.ndarray, np.ndarray]:
        """Return J and delta of each sample alone: (5, 1) and (5, n_out)."""
        pairs = [self(self.z[n : n + 1], self.y[n : n + 1]) for n in range(BATCH)]
        return np.stack([value for value, _ in pairs]), np.concatenate([delta for _, delta in pairs])


@rule("protocol", "an object with targets, __call__ and activate", "write the members of bpxp.nn.Loss", needs=())
def _protocol(case: LossCase) -> Iterator[str]:
    if isinstance(case.thing, type):
        yield f"{case.thing.__name__} is a class; its objects are losses: {case.thing.__name__}(…)"
        return
    if getattr(case.thing, "targets", None) not in KINDS:
        yield f"targets is {getattr(case.thing, 'targets', None)!r}, not one of {', '.join(KINDS)}"
    for name in ("__call__", "activate"):
        if not callable(getattr(case.thing, name, None)):
            yield f"there is no method {name}"


@rule(
    "hashable",
    "hyper-parameters that are frozen, hashable and no arrays",
    "@dataclass(frozen=True), with numbers, strings and tuples as fields",
    needs=("protocol",),
)
def _hashable(case: LossCase) -> Iterator[str]:
    yield from hashable(case)


@rule("runs", "it runs on NumPy, with weights and without", "see the error", needs=("protocol",))
def _runs(case: LossCase) -> Iterator[str]:
    for weight in (None, case.weight):
        try:
            numpy = get_backend("numpy")
            found = case.thing(*put(numpy, "float64", case.z, case.y, weight), xp=numpy.xp)
            case.thing.activate(*put(numpy, "float64", case.z), xp=numpy.xp)
        except Exception as error:
            yield f"on NumPy it raises {short(error)}"
            return
        if not (isinstance(found, tuple) and len(found) == 2 and all(isinstance(a, np.ndarray) for a in found)):
            yield "it returns no pair of arrays (J, delta)"
            return


@rule(
    "shapes",
    "J is (1,), delta and what activate returns are like the logits, for any batch",
    "xp.sum(each, axis=0, keepdims=True) for J; keep every axis of delta",
    needs=("protocol", "runs"),
)
def _shapes(case: LossCase) -> Iterator[str]:
    numpy = get_backend("numpy")
    for n in (1, 2, BATCH):
        value, delta = case(case.z[:n], case.y[:n])
        if value.shape != (1,):
            yield f"J is {value.shape} for {n} samples"
        if delta.shape != case.z[:n].shape:
            yield f"delta is {delta.shape}, the logits are {case.z[:n].shape}"
        read = case.thing.activate(*put(numpy, "float64", case.z[:n]), xp=numpy.xp)
        if read.shape != case.z[:n].shape:
            yield f"activate returns {read.shape}, the logits are {case.z[:n].shape}"


@rule("dtype", "results have the dtype of the logits", "Python numbers, or dtype=logits.dtype: never np.float64")
def _dtype(case: LossCase) -> Iterator[str]:
    numpy = get_backend("numpy")
    read = case.thing.activate(*put(numpy, "float32", case.z), xp=numpy.xp)
    for weight in (None, case.weight):
        for name, a in zip(("J", "delta", "activate"), (*case(case.z, case.y, weight, "float32"), read), strict=True):
            if a.dtype != np.float32:
                yield f"{name} is {a.dtype} where everything that was given is float32"
                return


@rule("inputs", "logits, targets and weights are only read", "make a new array first: a = z * 2.0, and then a += 1.0")
def _inputs(case: LossCase) -> Iterator[str]:
    numpy = get_backend("numpy")
    given = put(numpy, "float64", case.z, case.y, case.weight)
    before = [np.copy(a) for a in given]
    case.thing(*given, xp=numpy.xp)
    triples = zip(("logits", "y", "weight"), given, before, strict=True)
    yield from (f"it writes into {name}" for name, a, b in triples if not same(a, b))
    logits = np.copy(case.z)
    case.thing.activate(logits, xp=numpy.xp)
    if not same(logits, case.z):
        yield "activate writes into the logits"


@rule("memory", "results share memory with nothing", "xp.astype(a, a.dtype, copy=True): delta is written by the layers")
def _memory(case: LossCase) -> Iterator[str]:
    numpy = get_backend("numpy")
    given = put(numpy, "float64", case.z, case.y, case.weight)
    value, delta = case.thing(*given, xp=numpy.xp)
    read = case.thing.activate(given[0], xp=numpy.xp)
    others = dict(zip(("the logits", "y", "weight"), given, strict=True))
    for name, a in (("J", value), ("delta", delta), ("what activate returns", read)):
        if sharing := next((what for what, b in others.items() if np.shares_memory(a, b)), ""):
            yield f"{name} shares memory with {sharing}"
        others[name] = a


@rule(
    "repeatable", "the same arguments give the same bits", "no random numbers, and nothing that is kept between calls"
)
def _repeatable(case: LossCase) -> Iterator[str]:
    first = case(case.z, case.y, case.weight)
    for _ in range(20):
        case(case.z[:2], case.y[:2])
    if not same(first, case(case.z, case.y, case.weight)):
        yield "it differs the second time"


@rule(
    "targets", "targets of another shape are refused, never broadcast", "if y.shape != logits.shape: raise ValueError"
)
def _targets(case: LossCase) -> Iterator[str]:
    if case.y.ndim != 2:
        case.note = "class indices have the shape of the samples"
        return
    z, y = case.z[:, :1], case.y[:, :1]
    try:
        value, delta = case(z, y[:, 0])
    except Exception:  # it is refused
        return
    right = case(z, y)
    if value.shape != (1,) or not np.allclose(value, right[0]) or not np.allclose(delta, right[1]):
        yield f"y of shape {y[:, 0].shape} against logits of shape {z.shape} gives another loss than y[:, None]"


@rule(
    "mean",
    "J is the mean over the samples, and delta its derivative: that of a sample alone, divided by the batch",
    "divide by logits.shape[0], or by the sum of the weights",
    more=("repeatable",),
)
def _mean(case: LossCase) -> Iterator[str]:
    (values, deltas), (value, delta) = case.each(), case(case.z, case.y)
    if not np.allclose(value, values.mean(axis=0), rtol=1e-9):
        yield f"J of {BATCH} samples is {value[0]:.6g}, the mean of each alone {values.mean():.6g}"
    if not np.allclose(delta, deltas / BATCH, rtol=1e-9, atol=1e-12):
        yield f"delta of {BATCH} samples is not that of each alone, divided by {BATCH}"


@rule(
    "weights",
    "J = sum(w J_n)/sum(w), and delta likewise; weights of 1 change nothing, and a batch of weight 0 has J = 0",
    "share = weight/xp.maximum(xp.sum(weight), tiny): J = sum(share*J_n), delta_n *= share_n",
    more=("repeatable", "mean"),
)
def _weights(case: LossCase) -> Iterator[str]:
    values, deltas = case.each()
    one = np.zeros(BATCH)
    one[1] = 2.0
    for what, weight in (("random weights", case.weight), ("one sample alone", one), ("weights of 1", np.ones(BATCH))):
        share = (weight / weight.sum())[:, None]
        value, delta = case(case.z, case.y, weight)
        if not np.allclose(value, np.sum(share * values, axis=0), rtol=1e-9):
            yield f"{what}: J is {value[0]:.6g}, sum(w J_n)/sum(w) is {np.sum(share * values):.6g}"
        elif not np.allclose(delta, share * deltas, rtol=1e-9, atol=1e-12):
            yield f"{what}: delta is not weighted as J is"
    value, delta = case(case.z, case.y, np.zeros(BATCH))
    if value[0] != 0.0 or np.any(delta != 0.0):
        yield f"a batch of weight 0, which is padding alone, has J = {value[0]:g}"


@rule(
    "positions",
    "with logits (batch, time, n_out) a sample has the mean over its positions as its loss",
    "sum over the last axis, and take the mean over the others",
    more=("mean", "weights"),
)
def _positions(case: LossCase) -> Iterator[str]:
    z, y = drawn(case.kind, (BATCH, 2, case.n_out), case.rng.at(4))
    try:
        value, delta = case(z, y, case.weight)
    except Exception as error:
        case.note = f"it takes no logits of several positions ({short(error)[:80]})"
        return
    rows, weight = (BATCH * 2, case.n_out), np.repeat(case.weight, 2)
    flat, flat_delta = case(z.reshape(rows), y.reshape(rows[:1] + y.shape[2:]), weight)
    if value.shape != (1,) or not np.allclose(value, flat, rtol=1e-9):
        yield f"J is {value}, the mean over all positions {flat}"
    elif not np.allclose(delta.reshape(rows), flat_delta, rtol=1e-9, atol=1e-12):
        yield "delta is not that of each position"


@rule(
    "rows",
    "of class indices, and of the same classes as one-hot rows, it is the same",
    "nn.one_hot(y, n_out, dtype=logits.dtype, xp=xp) where y.ndim == logits.ndim - 1",
    more=("mean",),
)
def _rows(case: LossCase) -> Iterator[str]:
    if case.kind != "classes" or case.y.ndim != 1:
        case.note = "its targets are rows"
        return
    try:
        found = case(case.z, np.eye(case.n_out)[case.y])
    except Exception as error:
        case.note = f"it takes indices alone, so mixup cannot be used ({short(error)[:80]})"
        return
    if not all(np.allclose(a, b, rtol=1e-9) for a, b in zip(found, case(case.z, case.y), strict=True)):
        yield "one-hot rows give another loss than the indices"


@rule(
    "gradient",
    "delta is the derivative of J",
    "derive it again: the message names the entry, both values and their ratio",
    more=("inputs", "repeatable"),
)
def _gradient(case: LossCase) -> Iterator[str]:
    for weight in (None, case.weight):
        value, delta = case(case.z, case.y, weight)
        if not np.all(np.isfinite(value)):
            case.note = "J is not finite for these targets: pass y="
            return
        for n, k in np.ndindex(case.z.shape):
            ends = []
            for sign in (1.0, -1.0):
                z = case.z.copy()
                z[n, k] += sign * STEP
                ends.append(sign * float((case(z, case.y, weight)[0] - value)[0]) / STEP)
            middle, got = sum(ends) / 2, float(delta[n, k])
            allowed = RELATIVE * max(abs(middle), abs(got)) + ABSOLUTE
            if abs(got - middle) > allowed and not min(ends) - allowed <= got <= max(ends) + allowed:
                ratio = f", {got / middle:.3g} times as much" if middle else ""
                how = "" if weight is None else " with weights"
                yield f"delta[{n}, {k}]{how} is {got:.6g}, the difference quotient {middle:.6g}{ratio}"
                return


def _compared(case: LossCase, *, compiled: bool) -> Iterator[str]:
    def given(backend: Backend, i: int) -> tuple[Any, ...]:
        turn = slice(None, None, -1) if i else slice(None)
        return put(backend, "float32", case.z[turn], case.y[turn], case.weight[turn])

    def compute(data: Any, xp: Any) -> tuple[Any, ...]:
        z, y, weight = data
        return *case.thing(z, y, weight, xp=xp), *case.thing(z, y, xp=xp), case.thing.activate(z, xp=xp)

    names = ("J with weights", "delta with weights", "J", "delta", "activate")
    yield from on_backends(case, compute, given, names, compiled=compiled)


@rule(
    "backends",
    "every backend computes it, to within the rounding of float32",
    "only functions of the Array API standard, from xp, with an explicit dtype",
    more=("inputs", "dtype", "repeatable"),
)
def _backends(case: LossCase) -> Iterator[str]:
    yield from _compared(case, compiled=False)


@rule(
    "compiled",
    "a compiled step computes the same",
    "no if, float() or NumPy on the numbers of an array: xp.where, or arithmetic with a mask",
    more=("inputs", "dtype", "repeatable", "backends"),
)
def _compiled(case: LossCase) -> Iterator[str]:
    yield from _compared(case, compiled=True)


@rule("source", "the source keeps the rules of the mathematics", "see each line", needs=("protocol",))
def _source(case: LossCase) -> Iterator[str]:
    yield from source(case)


@rule(
    "equations",
    "the equations, if there are any, are what the code computes",
    "correct the line or the code; see bpxp.verify.check_equations for the names",
)
def _equations(case: LossCase) -> Iterator[str]:
    yield from equations(case)
