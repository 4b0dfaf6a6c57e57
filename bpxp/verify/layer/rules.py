"""The rules of a layer: what each asks for, how to mend a layer that breaks it, and the check that finds out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bpxp.verify.layer import checks
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
        checks.protocol,
        (),
    ),
    Rule(
        "hashable",
        "hyper-parameters that are frozen, hashable and no arrays",
        "@dataclass(frozen=True), with numbers, strings and tuples as fields; arrays belong into init's parameters",
        checks.hashable,
        ("protocol",),
    ),
    Rule(
        "init",
        "init returns host parameters in a tuple and the output's shape, a function of rng's place alone",
        "a NamedTuple of float64 NumPy arrays, drawn with rng.at(0), rng.at(1), …",
        checks.init,
        ("protocol",),
    ),
    Rule("runs", "forward and backward run on NumPy", "see the error", checks.runs, ("protocol", "init")),
    Rule(
        "shapes",
        "y as init says, dx like x, gradients like the parameters, for any batch",
        "return (dx, Params(dW, …)) with a field for each parameter; sum over the batch, not over a fixed size",
        checks.shapes,
    ),
    Rule(
        "inputs",
        "parameters, x, dy and the cache are only read",
        "make a new array first: a = x * 2.0, and then a += 1.0",
        checks.only_read,
    ),
    Rule(
        "memory",
        "a parameter's gradient shares memory with nothing",
        "xp.astype(g, g.dtype, copy=True): the update writes into gradients",
        checks.own_memory,
        ("protocol", "init", "runs", "shapes"),
    ),
    Rule(
        "repeatable",
        "the same arguments give the same bits",
        "random numbers come from a key: uses = frozenset({'key'}), and bpxp.core.threefry.bernoulli",
        checks.repeatable,
    ),
    Rule(
        "samples",
        "no sample influences another, or the layer uses `present`",
        "uses = frozenset({'present'}), and weights of 0 for absent samples: they fill up the last mini-batch",
        checks.samples,
        ("protocol", "init", "runs", "shapes", "repeatable"),
    ),
    Rule(
        "dtype",
        "results have the dtype of what was given",
        "Python numbers, or xp.full((), value, dtype=x.dtype): never np.float64",
        checks.kept_dtype,
    ),
    Rule(
        "gradients",
        "gradients(), if there is one, is the second half of backward()",
        "let backward call self.gradients",
        checks.two_ways,
    ),
    Rule(
        "children",
        "children, if there are any, are in the places of their parameters, and with_children replaces them",
        "params[i] for self.children[i]; dataclasses.replace in with_children; see bpxp.nn.Layer",
        checks.children,
    ),
    Rule(
        "backends",
        "every backend computes it, to within the rounding of float32",
        "only functions of the Array API standard, from xp, with an explicit dtype",
        checks.everywhere,
        ("protocol", "init", "runs", "shapes", "inputs", "dtype", "repeatable"),
    ),
    Rule(
        "compiled",
        "a compiled step computes the same",
        "no if, float() or NumPy on the numbers of an array: xp.where, or arithmetic with a mask",
        checks.compiled,
        ("protocol", "init", "runs", "shapes", "inputs", "dtype", "repeatable", "backends"),
    ),
    Rule(
        "gradient",
        "backward is the derivative of forward",
        "derive it again: the message names the entry, both values and their ratio",
        checks.gradient,
        ("protocol", "init", "runs", "shapes", "inputs", "dtype", "repeatable", "gradients"),
    ),
    Rule("source", "the source keeps the rules of the mathematics", "see each line", checks.source, ("protocol",)),
    Rule(
        "equations",
        "the equations, if there are any, are what the code computes",
        "correct the line or the code; see bpxp.verify.check_equations for the names",
        checks.equations,
    ),
)
