"""Adam: a step per parameter, of the size of the learning rate, by running means of g and g²."""

from __future__ import annotations

import math
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
class Adam(Optimizer):
    """Adaptive moment estimation.

    Parameters
    ----------
    learning_rate : float or Schedule, optional
        η; 0.001.
    beta1, beta2 : float, optional
        Memory of the two means, in [0, 1); 0.9 and 0.999.
    epsilon : float, optional
        ε > 0; 1e-8.
    **options
        Keyword-only, of every rule: see `Optimizer`.

    Notes
    -----
    m and v are 0 at the start, and t = 1, 2, … is the number of the update.

    ε stands outside the root and beside the *corrected* v̂, as in algorithm 1 of the paper and in torch. Others differ,
    visibly so where |g| is of the order of ε: the paper's section 2 and TensorFlow have "ε̂", beside the uncorrected
    √v; some codes put ε inside the root.

    1 - βᵗ is computed as -expm1(t log β), with log β in double precision: in float32 neither a rounded β nor the
    subtraction from 1 can spoil it (1 - 0.999 would be wrong by 1e-5).

    References
    ----------
    D. Kingma, J. Ba, *Adam: a method for stochastic optimization*, ICLR 2015, algorithm 1.
    """

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    elementwise = True

    equations = Equations(
        mean="m' = beta1*m + (1 - beta1)*g",
        square="v' = beta2*v + (1 - beta2)*g^2",
        mean_corrected="mhat = m'/(1 - beta1^t)",
        square_corrected="vhat = v'/(1 - beta2^t)",
        step="p' = p - learning_rate*mhat/(sqrt(vhat) + epsilon)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "beta1", "beta2", low=0.0, high=1.0, high_open=True)
        set_numbers(self, "epsilon", low=0.0, low_open=True)

    def slots(self, params: Params, /, *, xp: Namespace) -> tuple[Any, ...]:
        """Return the means of g and of g²."""
        return tree_map(xp.zeros_like, params), tree_map(xp.zeros_like, params)

    def factors(self, lr: Array, t: Array, /, *, xp: Namespace) -> tuple[Array, Array]:
        """Return η / (1 - β₁ᵗ) and 1 / √(1 - β₂ᵗ)."""
        time = xp.astype(t, lr.dtype)
        return lr / one_minus_power(self.beta1, time, xp), 1.0 / xp.sqrt(one_minus_power(self.beta2, time, xp))

    def rule(
        self, p: Array, g: Array, slots: tuple[Array, ...], factors: tuple[Array, Array], /, *, xp: Namespace
    ) -> tuple[Array, tuple[Array, ...]]:
        m, v = slots
        step, correction = factors
        # g is used up: first as (1 - β₁) g, then as (1 - β₂) g², so that neither mean costs a temporary.
        g *= 1.0 - self.beta1
        m *= self.beta1
        m += g
        g *= g
        g *= (1.0 - self.beta2) / (1.0 - self.beta1) ** 2
        v *= self.beta2
        v += g
        root = xp.sqrt(v)
        root *= correction
        root += self.epsilon
        change = m / root
        change *= step
        p -= change
        return p, (m, v)


def one_minus_power(beta: float, t: Array, xp: Namespace) -> Array:
    """Return 1 - βᵗ for t >= 1, shape (1,), to a few roundings also where βᵗ is close to 1."""
    if beta == 0.0:
        return xp.ones((1,), dtype=t.dtype)
    return -xp.expm1(t * math.log(beta))
