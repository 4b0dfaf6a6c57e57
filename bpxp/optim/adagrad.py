"""Adagrad: the gradient divided by the root of all its past squares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import set_numbers
from bpxp.core.tree import tree_map
from bpxp.core.typing import Array, Namespace, Params
from bpxp.equations import Equations
from bpxp.optim.optimizer import Optimizer
from bpxp.optim.schedules import Schedule


@named_arguments
@dataclass(frozen=True)
class Adagrad(Optimizer):
    """A learning rate per parameter, which only falls: little for what moves often, much for what moves rarely.

    Parameters
    ----------
    learning_rate : float or Schedule, optional
        η; 0.01.
    epsilon : float, optional
        ε > 0; 1e-10.
    **options
        Keyword-only, of every rule: see `Optimizer`.

    Notes
    -----
    s is 0 at the start.

    ε stands outside the root, as in torch; Keras has √(s + ε), and starts at s = 0.1.

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, *Adaptive subgradient methods for online learning and stochastic optimization*,
    JMLR 12, 2011, figure 1 with a diagonal matrix.
    """

    learning_rate: float | Schedule = 1e-2
    epsilon: float = 1e-10

    elementwise = True

    equations = Equations(
        total="s' = s + g^2",
        step="p' = p - learning_rate*g/(sqrt(s') + epsilon)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "epsilon", low=0.0, low_open=True)

    def slots(self, params: Params, /, *, xp: Namespace) -> tuple[Any, ...]:
        """Return the sum of g²."""
        return (tree_map(xp.zeros_like, params),)

    def rule(
        self, p: Array, g: Array, slots: tuple[Array, ...], lr: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[Array, ...]]:
        (s,) = slots
        s += g * g
        root = xp.sqrt(s)
        root += self.epsilon
        g /= root
        g *= lr
        p -= g
        return p, (s,)
