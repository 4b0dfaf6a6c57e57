"""AdamW: Adam whose weight decay does not pass through the moments."""

from __future__ import annotations

from dataclasses import dataclass, field

from bpxp.core.aliases import named_arguments
from bpxp.equations import Equations
from bpxp.optim.adam import Adam


@named_arguments
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay.

    Parameters
    ----------
    learning_rate, beta1, beta2, epsilon
        As in `Adam`.
    weight_decay : float, optional
        λ; 0.01. Keyword-only.
    **options
        Keyword-only, of every rule: see `Optimizer`.

    Notes
    -----
    The decay is multiplied by the learning rate, as in torch; the paper's algorithm 2 multiplies it by the schedule
    alone. It acts on weights only (for a bias λ is 0 in the equations); torch's ``AdamW(net.parameters())`` decays
    biases too, here ``decay_biases=True``.

    References
    ----------
    I. Loshchilov, F. Hutter, *Decoupled weight decay regularization*, ICLR 2019.
    """

    weight_decay: float = field(default=0.01, kw_only=True)

    equations = Equations(
        mean="m' = beta1*m + (1 - beta1)*g",
        square="v' = beta2*v + (1 - beta2)*g^2",
        mean_corrected="mhat = m'/(1 - beta1^t)",
        square_corrected="vhat = v'/(1 - beta2^t)",
        step="p' = p - learning_rate*weight_decay*p - learning_rate*mhat/(sqrt(vhat) + epsilon)",
    )
