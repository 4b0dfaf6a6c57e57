"""One call that checks a layer of your own against every rule that the layers of bpxp keep, and says how to mend it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from bpxp.backends import Backend, available_backends, get_backend
from bpxp.backends.names import backend_names
from bpxp.backends.precision import label
from bpxp.core.checks import positive_int
from bpxp.core.typing import Shape
from bpxp.errors import BpxpError, LayerCheckError
from bpxp.nn.architecture import validate_shape
from bpxp.verify.layer.case import Case
from bpxp.verify.layer.rules import RULES, Rule

LINES = 4  # that an error shows of what is broken


class RuleCheck(NamedTuple):
    """What was found for one rule.

    Attributes
    ----------
    rule : str
        Its name: ``"shapes"``, ``"gradient"``, …
    says : str
        What it asks for.
    broken : tuple of str
        How the layer breaks it, and on which backend; empty if it keeps it.
    fix : str
        How to mend the layer.
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


class LayerReport(NamedTuple):
    """Result of `check_layer`; as text it is a line for each rule.

    Attributes
    ----------
    layer : str
    backends : tuple of str
        Where it ran.
    not_run : dict of str to str
        Backend → why it does not work here.
    checks : tuple of RuleCheck
    """

    layer: str
    backends: tuple[str, ...]
    not_run: dict[str, str]
    checks: tuple[RuleCheck, ...]

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that the layer breaks."""
        return tuple(check.rule for check in self.checks if not check.kept)

    def __str__(self) -> str:
        width = max(len(check.rule) for check in self.checks)
        lines = [f"{self.layer}, on {', '.join(self.backends)}"]
        for check in self.checks:
            verdict = ("not checked" if check.note else "kept") if check.kept else "BROKEN"
            lines.append(f"  {check.rule:<{width}}  {verdict}: {check.note or check.says}")
            lines += [f"  {'':<{width}}    {found}" for found in check.broken]
            lines += [f"  {'':<{width}}    Fix: {check.fix}"] if check.broken else []
        return "\n".join([*lines, *(f"  {name}: not run: {reason}" for name, reason in self.not_run.items())])


def check_layer(
    layer: Any,
    in_shape: int | Shape,
    /,
    *,
    x: Any = None,
    batch: int = 5,
    backends: str | Backend | Sequence[str | Backend] | None = None,
    seed: int = 0,
) -> LayerReport:
    r"""Prove that a layer keeps every rule of a layer, on every backend that works here.

    Parameters
    ----------
    layer : Layer
        An object with `init`, `forward` and `backward`; see `bpxp.nn.Layer`.
    in_shape : int or tuple of int
        Shape of one sample. Keep it small: derivatives are measured entry by entry.
    x : array_like, (batch, \*in_shape), optional
        Samples, where random normal numbers would not do.
    batch : int, optional
        Number of samples, at least 2.
    backends : str, Backend or sequence of them, optional
        Default: all that work here, array-api-strict with its fake device included.
    seed : int, optional
        Of parameters, samples and incoming gradients.

    Returns
    -------
    LayerReport
        If every rule is kept.

    Raises
    ------
    LayerCheckError
        Names each rule that is broken, where, and how to mend it; its `report` has everything.

    Examples
    --------
    >>> import bpxp
    >>> print(bpxp.verify.check_layer(bpxp.nn.Dense(3), 4, backends=["numpy"]).broken)
    ()
    """
    asked = [backends] if isinstance(backends, (str, Backend)) else backends
    chosen, not_run = _usable(backend_names(tests=True, devices=True) if asked is None else asked, every=asked is None)
    shape = validate_shape(in_shape, "check_layer(layer, in_shape)", "in_shape")
    positive_int(batch, "check_layer(batch=…)")
    case = Case(layer, shape, chosen, x, batch, seed)
    checks = [_apply(rule, case) for rule in RULES]
    name = type(layer).__name__ if not isinstance(layer, type) else layer.__name__
    report = LayerReport(name, tuple(label(backend) for backend in chosen), not_run, tuple(checks))
    if report.broken:
        raise _broken(report)
    return report


def _apply(rule: Rule, case: Case) -> RuleCheck:
    if missing := case.broken & set(rule.needs):
        return RuleCheck(rule.name, rule.says, (), rule.fix, f"first {', '.join(sorted(missing))}")
    case.note = ""
    found = tuple(rule.check(case))
    case.broken |= {rule.name} if found else set()
    return RuleCheck(rule.name, rule.says, found, rule.fix, case.note)


def _broken(report: LayerReport) -> LayerCheckError:
    """Return the error with a line for each rule that is broken."""
    lines = []
    for check in report.checks:
        if not check.kept:
            more = f"; {len(check.broken) - 1} more" if len(check.broken) > 1 else ""
            lines.append(f"  {check.rule}: {check.broken[0]}{more}. Fix: {check.fix}.")
    what = f"the layer breaks {len(lines)} of {len(report.checks)} rules: {', '.join(report.broken)}"
    if len(lines) > LINES:
        lines[LINES:] = ["  the others: error.report"]
    error = LayerCheckError(f"check_layer({report.layer})", "\n".join([what, *lines]), code="E085")
    error.report = report
    return error


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
