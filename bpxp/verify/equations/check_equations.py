"""Compare what a layer, activation, loss, schedule, optimizer or network computes with the equations beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bpxp.backends.device import on_its_device
from bpxp.backends.dtypes import has_float64
from bpxp.core.random import HostRandom
from bpxp.core.typing import Shape
from bpxp.equations import Equations
from bpxp.errors import BpxpError, InvalidTypeError
from bpxp.network.network import Network
from bpxp.nn import Layer, Loss, Sequential
from bpxp.nn.observe import Part, observed_children, walk
from bpxp.nn.sequential import activation_of
from bpxp.optim import Optimizer, Schedule
from bpxp.verify.equations.comparison import Comparison, DerivationReport, EquationCheck
from bpxp.verify.equations.layers import compare_layer
from bpxp.verify.equations.optimizers_and_losses import compare_loss, compare_optimizer, compare_schedule
from bpxp.verify.equations.small_inputs import small

LARGE = 4096  # inputs times outputs, beyond which loops take too long


@on_its_device
def check_equations(
    thing: Any,
    x: Any = None,
    /,
    *,
    given: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    backend: str | None = None,
    seed: int = 0,
    rtol: float = 1e-12,
) -> DerivationReport:
    """Run the equations of a thing as slow loops, and compare with its code, in float64.

    Parameters
    ----------
    thing : Layer, Activation, Loss, Optimizer, Schedule or Network
        With an attribute `equations`; of a network, or of layers in a row, each part that has them.
    x : tuple of int, or array, optional
        For a layer the shape (batch, …) of a random input, or the input. Keep it small: loops are slow. Without it, a
        small copy of the layer gets an input that fits. For a loss the shape of the logits, (4, 3) without it. For a
        schedule ``(count,)``: the steps from 0 on.
    given : mapping, optional
        Values of further names in the equations. A name that is neither given nor computed is an attribute of the
        thing: a hyper-parameter.
    context : mapping, optional
        What `forward` of a layer is given besides x: ``training``, ``key``, ``stats``, ``present``. Without it, what
        a training step gives, one with an absent sample, and evaluation: a layer that computes something else then
        states it in `evaluation`.
    backend : str or None, optional
        As for `Network`.
    seed : int, optional
        Of parameters, inputs and incoming gradients.
    rtol : float, optional
        Allowed error, relative to the largest entry of the array.

    Returns
    -------
    DerivationReport

    Raises
    ------
    DerivationError
        Names the equation, the first wrong entry, and both values. Also if a result of the code has no equation.
    EquationError
        An equation is not in the notation, or cannot be evaluated.
    BackendNotUsableError
        The backend has no float64.

    Notes
    -----
    The names that the code's arguments and results have in the equations: a layer maps x to the left side of its
    equation ``forward``, an activation z to a; the gradient that comes in is ``d`` and the name of the output, or
    ``delta``; a parameter's gradient is ``d`` and its name. A layer of windows has before, the padding above and on
    the left. Dropout has m, the mask, and p. A residual block has F and D, the output of its branch and the
    derivative of that. A loss has z, y, w, J, delta, and a for what `activate` returns. A rule has p, g, t, and a
    primed name for each new value, in the order of its slots; see `bpxp.optim.Optimizer` for what comes before and
    after it. A schedule has eta.

    Where an array has more axes than its equation has indices, the first index stands for all the leading ones; where
    a sample has fewer, axes of length 1 stand before its own.

    Examples
    --------
    >>> import bpxp
    >>> print(bpxp.verify.check_equations(bpxp.nn.Dense(2)))  # doctest: +SKIP
    z[n,j] = sum_i x[n,i]*W[i,j] + b[j]   1.1e-16
    dW[i,j] = sum_n x[n,i]*delta[n,j]     1.2e-16
    db[j] = sum_n delta[n,j]              0.0e+00
    dx[n,i] = sum_j delta[n,j]*W[i,j]     8.9e-17
    """
    if isinstance(thing, (Network, Sequential)):
        return _check_parts(thing, x, backend, seed, rtol)
    if not isinstance(getattr(thing, "equations", None), Equations):
        raise InvalidTypeError(
            "check_equations", "no equations", code="E084", got=repr(thing), expected="an attribute `equations`"
        )
    if x is None and isinstance(thing, Layer):
        thing, x = small(thing)
    case = Comparison(thing, given or {}, backend, seed, rtol)
    if isinstance(thing, Optimizer):
        compare_optimizer(case)
    elif isinstance(thing, Schedule):
        compare_schedule(case, *(x or ()))
    elif isinstance(thing, Loss):
        compare_loss(case, x or (4, 3))
    else:
        compare_layer(case, x, None if context is None else dict(context))
    return case.report()


def _check_parts(whole: Network | Sequential, x: Any, backend: Any, seed: int, rtol: float) -> DerivationReport:
    """Check each different part of a network, or of layers in a row, once."""
    if isinstance(whole, Network):
        backend = backend or (whole.backend if has_float64(whole.backend) else "numpy")
        each = [*_parts(whole.model, whole.input_shape), ("loss", whole.loss, None)]
    else:
        shape = x if x is None or isinstance(x, tuple) else x.shape
        each = [*_parts(whole, None if shape is None else tuple(shape[1:]))]
    places: dict[Any, list[str]] = {}
    inputs: dict[Any, Any] = {}
    unchecked = []
    for place, thing, in_shape in each:
        if not isinstance(getattr(thing, "equations", None), Equations):
            unchecked.append(f"{place} {type(thing).__name__}, which states no equations")
            continue
        if isinstance(thing, Layer):
            thing, x = small(thing, in_shape)
            if not _takes(thing, x):
                unchecked.append(f"{place} {type(thing).__name__}, which takes no small input")
                continue
        key = thing, x if isinstance(x, tuple) else None
        inputs[key] = x
        places.setdefault(key, []).append(place)
    checks: list[EquationCheck] = []
    for (thing, _), where in places.items():
        found = check_equations(thing, inputs[thing, _], backend=backend, seed=seed, rtol=rtol)
        name = f"{', '.join(where)} {type(thing).__name__}"
        checks += [check._replace(of=", ".join(filter(None, (name, check.of)))) for check in found.checks]
    return DerivationReport(tuple(checks), tuple(unchecked))


def _parts(model: Sequential, in_shape: Shape | None) -> Iterator[tuple[str, Any, Shape | None]]:
    """Yield (place, thing, shape of a sample) of each layer and activation, at every depth."""
    shapes = _InputShapes()
    if in_shape is not None:
        observed_children(model, shapes).init(HostRandom(0), in_shape)
    for place, layer in walk(model):
        if not isinstance(layer, Sequential):
            yield place, layer, shapes.found.get(place)
        activation = activation_of(layer)
        if activation is not None:
            yield place, activation, None


class _InputShapes:
    """An observer of `init`: the shape of a sample that each layer gets."""

    def __init__(self) -> None:
        self.found: dict[str, Shape] = {}

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Any, context: Mapping[str, Any]) -> Any:
        self.found[part.place] = args[1]
        return part.thing.init(*args)


def _takes(layer: Any, x: Any) -> bool:
    """Return whether the layer takes a small input, and its loops are short."""
    in_shape = (x if isinstance(x, tuple) else x.shape)[1:]
    try:
        _, out_shape = layer.init(HostRandom(0), tuple(in_shape))
    except BpxpError:
        return False
    return bool(math.prod(in_shape) * math.prod(out_shape) <= LARGE)
