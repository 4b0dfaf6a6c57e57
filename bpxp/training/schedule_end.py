"""A warning where the learning rate reaches its end long before the fit: most often epochs were written for steps."""

from __future__ import annotations

from bpxp.backends import get_backend
from bpxp.errors import warn
from bpxp.optim import Optimizer
from bpxp.optim.schedules import Constant, CosineDecay, OneCycle, WarmUp, as_schedule
from bpxp.training.run import FitProgress

VANISHED = 1e-4  # of the first rate after a warm-up: nothing more is learned


def warn_early_end(optimizer: Optimizer, run: FitProgress, last_epoch: int) -> None:
    """Warn if the schedule will have ended, or its rate vanished, for half of the fit that begins or is resumed."""
    schedule = inner = as_schedule(optimizer.learning_rate)
    before = 0
    while isinstance(inner, WarmUp):
        before += inner.steps
        inner = as_schedule(inner.schedule)
    batches, steps = run.batches, last_epoch * run.batches - run.steps
    if steps < 2 or isinstance(inner, Constant):
        return
    done = int(run.net.backend.to_numpy(run.live.opt.t)[0])
    middle = done + steps // 2
    if isinstance(inner, (CosineDecay, OneCycle)):
        length = before + inner.steps
        if length <= middle:
            what = f"the schedule ends with step {length}, the fit with step {done + steps}"
            fix = f"{type(inner).__name__}(…, steps={steps - before}), as many steps as the fit: an epoch has {batches}"
            warn("fit(epochs=…)", what, code="W011", fix=fix)
        return
    xp = get_backend("numpy").xp
    state = schedule.init(xp.zeros((1,), dtype=xp.float64), xp=xp)
    first, now = (float(schedule.at(xp.full((1,), t, dtype=xp.float64), state, xp=xp)[0]) for t in (before, middle))
    if now <= VANISHED * first:
        what = f"the learning rate has fallen from {first:.3g} to {now:.3g} when half of the fit is done"
        fix = f"a slower decay: a schedule counts steps, an epoch has {batches}, the fit {steps}"
        warn("fit(epochs=…)", what, code="W011", fix=fix)
