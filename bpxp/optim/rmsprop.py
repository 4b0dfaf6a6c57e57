"""RMSprop: the gradient divided by a running mean of its size."""

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
class RMSprop(Optimizer):
    """Divide each component of the gradient by the root of its running mean square.

    Parameters
    ----------
    learning_rate : float or Schedule, optional
        η; 0.01.
    alpha : float, optional
        Memory of the mean, in [0, 1); 0.99.
    epsilon : float, optional
        ε > 0; 1e-8.
    **options
        Keyword-only, of every rule: see `Optimizer`.

    Notes
    -----
    v is 0 at the start.

    ε stands outside the root, as in torch; TensorFlow and Keras have √(v + ε). The mean starts at zero and is not
    corrected, so the first steps are larger than η, by up to 1/√(1 - α).

    References
    ----------
    T. Tieleman, G. Hinton, *Lecture 6.5: RMSprop*, Coursera, 2012. A. Graves, *Generating sequences with recurrent
    neural networks*, 2013, equations 38-45 (the centred form, not offered here).
    """

    learning_rate: float | Schedule = 1e-2
    alpha: float = 0.99
    epsilon: float = 1e-8

    elementwise = True

    equations = Equations(
        mean="v' = alpha*v + (1 - alpha)*g^2",
        step="p' = p - learning_rate*g/(sqrt(v') + epsilon)",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        set_numbers(self, "alpha", low=0.0, high=1.0, high_open=True)
        set_numbers(self, "epsilon", low=0.0, low_open=True)

    def slots(self, params: Params, /, *, xp: Namespace) -> tuple[Any, ...]:
        """Return the mean of g²."""
        return (tree_map(xp.zeros_like, params),)

    def rule(
        self, p: Array, g: Array, slots: tuple[Array, ...], lr: Array, /, *, xp: Namespace
    ) -> tuple[Array, tuple[Array, ...]]:
        (v,) = slots
        square = g * g
        square *= 1.0 - self.alpha
        v *= self.alpha
        v += square
        root = xp.sqrt(v)
        root += self.epsilon
        g /= root
        g *= lr
        p -= g
        return p, (v,)
