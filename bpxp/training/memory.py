"""Whether a fit has room in the device's memory: asked before its first step, and told in figures where it has not."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from bpxp.core.tree import leaves
from bpxp.errors import BpxpError, DeviceMemoryError, warn
from bpxp.network.network import Network
from bpxp.network.prepare import Held
from bpxp.training.setup import Work, count

if TYPE_CHECKING:
    from bpxp.network.preflight import Costs

BLOW_UP = 1000  # a step makes fewer numbers than so many for each of its samples' own, and a few for each parameter
MARGIN = 0.75  # of the free memory: what is freed on the way leaves gaps, too small for what comes next


class Room:
    """What a fit needs beside what is there already, and what there is.

    Parameters
    ----------
    net : Network
        Before the fit has taken anything.
    work : Work
    keeps : bool
        Whether the state is kept once more, for the doctor.

    Attributes
    ----------
    keeps : bool
        False, too, after a `check` that found room for all but that.
    """

    def __init__(self, net: Network, work: Work, *, keeps: bool) -> None:
        self.net, self.work, self.keeps = net, work, keeps
        self.memory = net.backend.memory()

    def check(self) -> None:
        """Estimate the memory, if it could be too little, before anything of it is taken.

        Raises
        ------
        DeviceMemoryError
            If the device does not have it. The estimate is that of the step as it is written: where a compiler may make
            do with less, it is a warning.

        Warns
        -----
        BpxpWarning
            If the device has it, but others have taken of it.
        """
        if self.memory is None or self._is_plenty():
            return
        needed = self.needed(self.work.size)
        if needed is None or needed <= self.memory.free:
            return
        if self.keeps and self._kept(self._costs(self.work.size)) >= needed - self.memory.free:
            self.keeps = False  # that the fit goes on is worth more than to know, if it should diverge, where
            return
        if needed > self.memory.total and not getattr(self.net.backend.xp, "fuses", False):
            raise self.error("Nothing was changed")
        what = f"a step needs about {gib(needed)}, {gib(self.memory.free)} of {gib(self.memory.total)} are free"
        warn(f"fit(batch_size={self.work.size})", what, code="W008", fix=self._fix(self.largest()))

    def _is_plenty(self) -> bool:
        """Return whether there is so much memory that an estimate is not worth its milliseconds."""
        assert self.memory is not None
        numbers = self.work.size * (BLOW_UP * math.prod(self.net.input_shape) + 4 * self.net.size)
        return 8 * (numbers + 16 * self.net.size) < self.memory.free

    def needed(self, batch: int) -> int | None:
        """Return the bytes that a fit with this batch size takes at its peak; None if nobody knows."""
        net, work = self.net, self.work
        try:
            costs = self._costs(batch)
        except Exception:  # a layer of the user's own may ask for numbers
            return None
        own = sum(math.prod(a.shape) for a in leaves((net.params, net.stats))) * np.dtype(net.dtype).itemsize
        fresh = net.opt_state is None or net.optimizer != work.step.optimizer
        kept = self._kept(costs) if self.keeps else 0
        return costs.peak_bytes - costs.resident_bytes + (costs.state_bytes - own if fresh else 0) + kept

    def _kept(self, costs: Costs) -> int:
        """Return the bytes of the device that a copy of the state on the host takes."""
        return costs.state_bytes if getattr(self.net.backend, "shares_memory", False) else 0

    def _costs(self, batch: int) -> Costs:
        from bpxp.network.preflight import step_costs  # not imported by those who have plenty

        net, work = self.net, self.work
        if isinstance(work.train, Held):
            weight, pixels = work.train.weight, work.train.x.dtype == np.uint8
        else:
            x, _, weight = work.train
            pixels = x.dtype == net.xp.uint8
        n = max(count(work.train), batch)
        return step_costs(net, batch, n, work.step.optimizer, pixels, weight is not None, work.step.augment)

    def largest(self) -> int | None:
        """Return the largest batch size that would fit, 0 if none does; None if nobody knows."""
        if self.memory is None or self.needed(1) is None:
            return None
        low, high = 0, self.work.size
        while low < high:
            batch = (low + high + 1) // 2
            needed = self.needed(batch)
            if needed is not None and needed <= MARGIN * self.memory.free:
                low = batch
            else:
                high = batch - 1
        return low

    def error(self, after: str, cause: BaseException | None = None) -> DeviceMemoryError:
        """Return the error that says how much was needed, and what would fit."""
        needed, largest, memory = self.needed(self.work.size), self.largest(), self.memory
        if largest == self.work.size:  # the estimate says it would fit: somebody else took it, or there are only pieces
            largest = max(1, largest // 2) if largest > 1 else 0
        got = [f"about {gib(needed)} needed"] if needed is not None else []
        got += [] if memory is None else [f"{gib(memory.free)} of {gib(memory.total)} free"]
        error = DeviceMemoryError(
            f"fit(batch_size={self.work.size}) on {self.net.backend.name}",
            "the device has too little memory",
            code="E053",
            got=", ".join(got),
            first=f"The library says: {short(cause)}" if cause else "",
            fix=self._fix(largest),
            after=after,
        )
        error.needed, error.largest_batch = needed, largest
        if memory is not None:
            error.free, error.total = memory
        return error

    def _fix(self, largest: int | None) -> str:
        if largest == 0:
            return "a smaller network, an optimizer that remembers less, or samples that stay on the host"
        size = f"batch_size={largest}, the largest that fits by the estimate" if largest else "a smaller batch_size"
        return f"{size}; Dataset(x, y, resident=False) keeps the samples on the host"


@contextmanager
def explained(
    net: Network,
    explain: Callable[[BaseException], DeviceMemoryError],
    own: Callable[[BaseException], bool] = lambda error: False,
) -> Iterator[None]:
    """Raise what `explain` returns in the place of the library's error that its device has no memory left.

    An error of the user's `own` stays as it is.
    """
    try:
        yield
    except BpxpError:
        raise
    except Exception as error:
        if own(error) or not net.backend.out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # what they hold is memory, too
        raise explain(error) from error


def of_the_samples(net: Network, cause: BaseException) -> DeviceMemoryError:
    """Return the error for samples that the device could not take."""
    memory = net.backend.memory()
    error = DeviceMemoryError(
        f"fit on {net.backend.name}",
        "the device has too little memory for the samples",
        code="E053",
        got="" if memory is None else f"{gib(memory.free)} of {gib(memory.total)} free",
        first=f"The library says: {short(cause)}",
        fix="Dataset(x, y, resident=False) keeps them on the host",
    )
    if memory is not None:
        error.free, error.total = memory
    return error


def gib(n: int) -> str:
    """Return ``"1.25 GiB"``."""
    return f"{n / 2**30:.3g} GiB" if n >= 2**29 else f"{n / 2**20:.3g} MiB"


def short(error: BaseException) -> str:
    """Return the beginning of what an error says, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else f"{text[:160]}…"
