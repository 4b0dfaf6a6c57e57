"""Rules for what users write: what each asks for, how to mend what breaks it, and the report of one call."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from bpxp.backends import Backend, available_backends, get_backend
from bpxp.backends.names import backend_names
from bpxp.backends.precision import label
from bpxp.core.random import DIRECTION, HostRandom
from bpxp.core.tree import leaves, tree_map
from bpxp.equations import Equations
from bpxp.errors import BpxpError, RuleCheckError, ShapeRuleError
from bpxp.verify.equations.check_equations import check_equations
from bpxp.verify.layer.source import broken_by
from bpxp.verify.parity.error_bounds import bounded_namespace, exact, quiet
from bpxp.verify.parity.rounding import Arithmetic, Rounded, as_rounded, shares

LINES = 4  # that an error shows of what is broken


class Rule(NamedTuple):
    """One rule; it is not looked at where one that it needs is broken."""

    name: str
    says: str
    fix: str
    needs: tuple[str, ...]
    check: Check


class Rules(list[Rule]):
    """The rules of a kind of thing; `needs` are those without which the others cannot be looked at."""

    def __init__(self, *needs: str) -> None:
        super().__init__()
        self._needs = needs

    def rule(
        self, name: str, says: str, fix: str, *, needs: tuple[str, ...] | None = None, more: tuple[str, ...] = ()
    ) -> Callable[[F], F]:
        """Make a check that of the next rule."""

        def add(check: F) -> F:
            self.append(Rule(name, says, fix, self._needs + more if needs is None else needs, check))
            return check

        return add


class Subject:
    """Something under test, and what was found so far.

    Attributes
    ----------
    thing : object
    backends : list of Backend
    seed : int
    rng : HostRandom
    note : str
        What the current rule could not check.
    broken : set of str
        The rules that were found broken.
    """

    def __init__(self, thing: Any, backends: list[Backend], seed: int) -> None:
        self.thing, self.backends, self.seed = thing, backends, seed
        self.rng = HostRandom(seed, (DIRECTION,))
        self.note = ""
        self.broken: set[str] = set()


Check = Callable[[Any], Iterator[str]]  # yields the ways in which a subject breaks a rule
F = TypeVar("F", bound=Check)


class RuleCheck(NamedTuple):
    """What was found for one rule.

    Attributes
    ----------
    rule : str
        Its name: ``"shapes"``, ``"gradient"``, …
    says : str
        What it asks for.
    broken : tuple of str
        How the rule is broken, and on which backend; empty if it is kept.
    fix : str
        How to mend it.
    note : str
        Why it was not checked, or not everywhere; empty if it was.
    """

    rule: str
    says: str
    broken: tuple[str, ...]
    fix: str
    note: str

    @property
    def kept(self) -> bool:
        """Whether nothing was found."""
        return not self.broken


def broken_rules(report: Any) -> tuple[str, ...]:
    """Return the rules that are broken."""
    return tuple(check.rule for check in report.checks if not check.kept)


def rendered(report: Any) -> str:
    """Return a report as text, a line for each rule."""
    width = max(len(check.rule) for check in report.checks)
    lines = [f"{report[0]}, on {', '.join(report.backends)}"]
    for check in report.checks:
        verdict = ("not checked" if check.note else "kept") if check.kept else "BROKEN"
        lines.append(f"  {check.rule:<{width}}  {verdict}: {check.note or check.says}")
        lines += [f"  {'':<{width}}    {found}" for found in check.broken]
        lines += [f"  {'':<{width}}    Fix: {check.fix}"] if check.broken else []
    return "\n".join([*lines, *(f"  {name}: not run: {reason}" for name, reason in report.not_run.items())])


class RuleReport(NamedTuple):
    """Result of `check_loss`, `check_metric` and `check_optimizer`; as text it is a line for each rule.

    Attributes
    ----------
    name : str
        Of the class.
    backends : tuple of str
        Where it ran.
    not_run : dict of str to str
        Backend → why it does not work here.
    checks : tuple of RuleCheck
    """

    name: str
    backends: tuple[str, ...]
    not_run: dict[str, str]
    checks: tuple[RuleCheck, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that are broken."""
        return broken_rules(self)

    def __str__(self) -> str:
        return rendered(self)


Asked = str | Backend | Sequence[str | Backend] | None
R = TypeVar("R")


def examine(
    make: Callable[[list[Backend]], Subject],
    rules: Rules,
    backends: Asked,
    kind: str,
    report: Callable[..., R],
    error: type[RuleCheckError],
) -> R:
    """Check something against the rules of its kind on every backend asked for, and return the report, or raise."""
    asked = [backends] if isinstance(backends, (str, Backend)) else backends
    chosen, not_run = _usable(backend_names(tests=True, devices=True) if asked is None else asked, every=asked is None)
    case = make(chosen)
    checks = tuple(_apply(rule, case) for rule in rules)
    name = case.thing.__name__ if isinstance(case.thing, type) else type(case.thing).__name__
    found: Any = report(name, tuple(label(backend) for backend in chosen), not_run, checks)
    if found.broken:
        raise _error(found, kind, name, error)
    return found  # type: ignore[no-any-return]


def _apply(rule: Rule, case: Subject) -> RuleCheck:
    if missing := case.broken & set(rule.needs):
        return RuleCheck(rule.name, rule.says, (), rule.fix, f"first {', '.join(sorted(missing))}")
    case.note = ""
    try:
        found = tuple(rule.check(case))
    except Exception as error:  # where the rules before ran
        found = (f"it raises {short(error)}",)
    case.broken |= {rule.name} if found else set()
    return RuleCheck(rule.name, rule.says, found, rule.fix, case.note)


def _error(report: Any, kind: str, name: str, error: type[RuleCheckError]) -> RuleCheckError:
    """Return the error with a line for each rule that is broken."""
    lines = []
    for check in report.checks:
        if not check.kept:
            more = f"; {len(check.broken) - 1} more" if len(check.broken) > 1 else ""
            lines.append(f"  {check.rule}: {check.broken[0]}{more}. Fix: {check.fix}.")
    what = f"the {kind} breaks {len(lines)} of {len(report.checks)} rules: {', '.join(report.broken)}"
    if len(lines) > LINES:
        lines[LINES:] = ["  the others: error.report"]
    code = "E085" if kind == "layer" else "E086"
    found = error(f"check_{kind}({name})", "\n".join([what, *lines]), code=code)
    found.report = report
    return found


def _usable(asked: Sequence[str | Backend], *, every: bool) -> tuple[list[Backend], dict[str, str]]:
    """Return the backends that work here, and why the others do not; one that was asked for by name must work."""
    found, not_run = [], {}
    known = available_backends() if every else {}
    for name in asked:
        library = name.partition(":")[0] if isinstance(name, str) else ""
        info = known.get(library)
        if info is not None and not info.available:
            not_run[library] = info.reason
            continue
        try:
            found.append(get_backend(name))
        except BpxpError as error:
            if not every:
                raise
            not_run[str(name)] = error.brief
    return found, not_run


# ---------------------------------------------------------------- what several kinds of things have to keep


def same(first: Any, second: Any) -> bool:
    """Return whether two trees have the same numbers."""
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(leaves(first), leaves(second), strict=True))


def short(error: BaseException) -> str:
    """Return an exception in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def hashable(case: Subject) -> Iterator[str]:
    """Yield in which ways hyper-parameters are not frozen, hashable, and without arrays."""
    thing = case.thing
    try:
        again = copy.copy(thing)
        if hash(again) != hash(thing) or again != thing:
            yield "one of the same hyper-parameters is not equal to it: each would be compiled anew"
    except TypeError as error:
        yield f"it has no hash ({error})"
    if dataclasses.is_dataclass(thing) and not getattr(thing, "__dataclass_params__").frozen:  # noqa: B009  it is not declared
        yield "its hyper-parameters can be changed"
    for name, value in getattr(thing, "__dict__", {}).items():
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            yield f"it holds an array, {name}"


def source(case: Subject) -> Iterator[str]:
    """Yield the lines that break the rules of the mathematics."""
    found = broken_by(case.thing)
    if found is None:
        case.note = "there is no source to read"
    else:
        yield from found


def equations(case: Subject, *given: Any) -> Iterator[str]:
    """Yield the equation that is not what the code computes."""
    if not isinstance(getattr(case.thing, "equations", None), Equations):
        case.note = "it states no equations"
        return
    try:
        check_equations(case.thing, *given, seed=case.seed, backend="numpy")
    except BpxpError as error:
        yield short(error)


def beyond(
    compute: Callable[..., Sequence[Any]], arrays: Sequence[Any], names: Sequence[str], got: Sequence[np.ndarray]
) -> list[tuple[str, float]]:
    """Return the results that are beyond the error bound of float32, and by what factor.

    ``compute(arrays, xp)`` returns the results. Where a function has no rounding rule, a fixed tolerance takes the
    place of the bound.
    """
    rules = Arithmetic("float32")
    with quiet():
        try:
            results = compute([exact(a, get_backend("numpy"), rules) for a in arrays], bounded_namespace(rules))
            expected = [as_rounded(a, rules) for a in results]
        except (ShapeRuleError, AttributeError, TypeError):
            results = compute([tree_map(_widened, a) for a in arrays], get_backend("numpy").xp)
            expected = [Rounded(a, 1e-5 * (float(np.max(np.abs(a), initial=0.0)) or 1.0), rules) for a in results]
    largest = [float(np.max(shares(a, b.v, b.bound)[2], initial=0.0)) for a, b in zip(got, expected, strict=True)]
    return [(name, share) for name, share in zip(names, largest, strict=True) if not share <= 1.0]


def _widened(a: Any) -> Any:
    return a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a


def _on_host(backend: Backend, names: Sequence[str], results: Sequence[Any]) -> list[np.ndarray]:
    """Return results as NumPy arrays; one that is no array of the backend raises."""
    kind = type(backend.xp.zeros((1,), dtype=backend.xp.float32))
    for name, a in zip(names, results, strict=True):
        if not isinstance(a, (kind, np.generic)):
            what = f"{type(a).__module__}.{type(a).__name__}"
            raise TypeError(f"{name} is of {what}, no array of the backend: NumPy instead of xp?")
    return [backend.to_numpy(a) for a in results]


def on_backends(
    case: Subject,
    compute: Callable[..., Sequence[Any]],
    given: Callable[[Backend, int], Sequence[Any]],
    names: Sequence[str],
    *,
    compiled: bool,
) -> Iterator[str]:
    """Yield where a backend is farther from float64 than rounding can bring it, in a step as it is, or `compiled`.

    ``given(backend, i)`` returns the i-th arrays: a step is captured with the first and proved with the second.
    """
    numpy = get_backend("numpy")
    for backend in case.backends:

        def step(_: tuple[()], data: Any, xp: Any = backend.xp) -> Any:
            return (), tuple(compute(data, xp))

        run = backend.compile(step) if compiled else step
        for i in (0, 1, 0) if compiled else (0,):
            try:
                found = _on_host(backend, names, run((), given(backend, i))[1])
            except Exception as error:
                yield f"{label(backend)}: {short(error)}"
                break
            wrong = beyond(compute, given(numpy, i), names, found)
            if compiled and wrong:
                which = ", ".join(name for name, _ in wrong)
                yield f"{label(backend)}: {which} differ from what the step as it is written computes"
                break
            for name, share in wrong:
                yield f"{label(backend)}: {name} is {share:.3g} times as far from float64 as rounding can bring it"
