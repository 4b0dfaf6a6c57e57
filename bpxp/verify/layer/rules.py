"""The rules of a layer: what each asks for, what is to be done about it, and who finds it broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bpxp.verify.layer import checks as layer_rules
from bpxp.verify.layer.case import Case


class Rule(NamedTuple):
    """One rule; it is not looked at where one that it needs is broken."""

    name: str
    says: str
    fix: str
    check: Callable[[Case], Iterator[str]]
    needs: tuple[str, ...] = ("protocol", "init", "runs")


RULES = (
    Rule(
        "protocol",
        "an object with init, forward and backward",
        "write the methods of bpxp.nn.Layer",
        layer_rules.protocol,
        (),
    ),
    Rule(
        "hashable",
        "hyper-parameters that are frozen, hashable and no arrays",
        "@dataclass(frozen=True), with numbers, strings and tuples as fields; arrays belong into init's parameters",
        layer_rules.hashable,
        ("protocol",),
    ),
    Rule(
        "init",
        "init returns host parameters in a tuple and the output's shape, a function of rng's place alone",
        "a NamedTuple of float64 NumPy arrays, drawn with rng.at(0), rng.at(1), …",
        layer_rules.init,
        ("protocol",),
    ),
    Rule("runs", "forward and backward run on NumPy", "see the error", layer_rules.runs, ("protocol", "init")),
    Rule(
        "shapes",
        "y as init says, dx like x, gradients like the parameters, for any batch",
        "return (dx, Params(dW, …)) with a field for each parameter; sum over the batch, not over a fixed size",
        layer_rules.shapes,
    ),
    Rule(
        "inputs",
        "parameters, x, dy and the cache are only read",
        "make a new array first: a = x * 2.0, and then a += 1.0",
        layer_rules.only_read,
    ),
    Rule(
        "memory",
        "a parameter's gradient shares memory with nothing",
        "xp.astype(g, g.dtype, copy=True): the update writes into gradients",
        layer_rules.own_memory,
        ("protocol", "init", "runs", "shapes"),
    ),
    Rule(
        "repeatable",
        "the same arguments give the same bits",
        "random numbers come from a key: uses = frozenset({'key'}), and bpxp.core.threefry.bernoulli",
        layer_rules.repeatable,
    ),
    Rule(
        "samples",
        "no sample influences another, or the layer uses `present`",
        "uses = frozenset({'present'}), and weights of 0 for absent samples: they fill up the last mini-batch",
        layer_rules.samples,
        ("protocol", "init", "runs", "shapes", "repeatable"),
    ),
    Rule(
        "dtype",
        "results have the dtype of what was given",
        "Python numbers, or xp.full((), value, dtype=x.dtype): never np.float64",
        layer_rules.kept_dtype,
    ),
    Rule(
        "gradients",
        "gradients(), if there is one, is the second half of backward()",
        "let backward call self.gradients",
        layer_rules.two_ways,
    ),
    Rule(
        "backends",
        "every backend computes it, to within the rounding of float32",
        "only functions of the Array API standard, from xp, with an explicit dtype",
        layer_rules.everywhere,
        ("protocol", "init", "runs", "shapes", "inputs", "dtype", "repeatable"),
    ),
    Rule(
        "compiled",
        "a compiled step computes the same",
        "no if, float() or NumPy on the numbers of an array: xp.where, or arithmetic with a mask",
        layer_rules.compiled,
        ("protocol", "init", "runs", "shapes", "inputs", "dtype", "repeatable", "backends"),
    ),
    Rule(
        "gradient",
        "backward is the derivative of forward",
        "derive it again: the message names the entry, both values and their ratio",
        layer_rules.gradient,
        ("protocol", "init", "runs", "shapes", "inputs", "dtype", "repeatable", "gradients"),
    ),
    Rule("source", "the source keeps the rules of the mathematics", "see each line", layer_rules.source, ("protocol",)),
    Rule(
        "equations",
        "the equations, if there are any, are what the code computes",
        "correct the line or the code; see bpxp.verify.check_equations for the names",
        layer_rules.equations,
    ),
)
