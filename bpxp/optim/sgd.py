"""Stochastic gradient descent, plain, with momentum, or with Nesterov's momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import set_numbers
from bpxp.core.tree import tree_map
from bpxp.core.typing import Array, Namespace, Params
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.optim.optimizer import Optimizer
from bpxp.optim.schedules import Schedule


@named_arguments
@dataclass(frozen=True)
class SGD(Optimizer):
    """Go down the gradient of one mini-batch.

    Parameters
    ----------
    learning_rate : float or Schedule, optional
        η; 0.1 (for the gradient of a mean loss).
    momentum : float, optional
        μ in [0, 1); 0 is plain descent.
    nesterov : bool, optional
        Look ahead: step along g + μ v instead of v. Needs momentum.
    **options
        Keyword-only, of every rule: see `Optimizer`.

    Notes
    -----
    v is 0 at the start; with μ = 0 it is not kept, and the step is p - η g.

    This is torch's convention (without dampening): a new learning rate acts at once. Sutskever et al. and Keras keep
    η inside the velocity, v ← μ v - η g, p ← p + v: the same for a constant η, not for a schedule.

    References
    ----------
    H. Robbins, S. Monro, *A stochastic approximation method*, 1951. B. Polyak, *Some methods of speeding up the
    convergence of iteration methods*, 1964. I. Sutskever et al., *On the importance of initialization and momentum in
    deep learning*, ICML 2013. M. Nielsen, *Neural Networks and Deep Learning*, chapter 1, equations 20 and 21.
    """

    learning_rate: float | Schedule = 0.1
    momentum: float = 0.0
    nesterov: bool = False

    elementwise = True

    equations = Equations(
        velocity="v' = momentum*v + g",
        step="p' = p - learning_rate*(v'*[not nesterov] + (g + momentum*v')*[nesterov])",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "momentum", low=0.0, high=1.0, high_open=True)
        if self.nesterov and not self.momentum:
            what = "Nesterov's step looks ahead along a velocity"
            expected = "momentum in (0, 1)"
            fix = "SGD(…, momentum=0.9, nesterov=True)"
            raise InvalidValueError("SGD(nesterov=…)", what, code="E005", got="momentum 0", expected=expected, fix=fix)

    def slots(self, params: Params, /, *, xp: Namespace) -> tuple[Any, ...]:
        """Return the velocity, if there is momentum."""
        return (tree_map(xp.zeros_like, params),) if self.momentum else ()

    def rule(
        self, p: Array, g: Array, slots: tuple[Array, ...], lr: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[Array, ...]]:
        if not slots:
            g *= lr
            p -= g
            return p, slots
        (v,) = slots
        v *= self.momentum
        v += g
        if self.nesterov:
            g += self.momentum * v
            g *= lr
            p -= g
        else:
            p -= lr * v
        return p, (v,)
