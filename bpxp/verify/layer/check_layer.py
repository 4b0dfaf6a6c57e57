"""One call that checks a layer of your own against every rule that the layers of bpxp keep, and says how to mend it."""

from __future__ import annotations

from typing import Any, NamedTuple

from bpxp.backends import Backend
from bpxp.core.checks import positive_int
from bpxp.core.typing import Shape
from bpxp.errors import LayerCheckError
from bpxp.nn.architecture import validate_shape
from bpxp.verify.layer.case import Case
from bpxp.verify.layer.rules import RULES
from bpxp.verify.rules import Asked, RuleCheck, broken_rules, examine, rendered


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
        return broken_rules(self)

    def __str__(self) -> str:
        return rendered(self)


def check_layer(
    layer: Any,
    in_shape: int | Shape,
    /,
    *,
    x: Any = None,
    batch: int = 5,
    backends: Asked = None,
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
    shape = validate_shape(in_shape, "check_layer(layer, in_shape)", "in_shape")
    positive_int(batch, "check_layer(batch=…)")

    def make(chosen: list[Backend]) -> Case:
        return Case(layer, shape, chosen, x, batch, seed)

    return examine(make, RULES, backends, "layer", LayerReport, LayerCheckError)
