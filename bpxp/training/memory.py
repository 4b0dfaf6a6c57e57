"""Peak device memory of a fit, estimated before its first step; an error with the figures where it is too little."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from bpxp.backends.base import option
from bpxp.backends.precision import label
from bpxp.core.tree import leaves
from bpxp.errors import NOTHING_CHANGED, BpxpError, DeviceMemoryError, warn
from bpxp.network.network import Network
from bpxp.network.prepare import HostSamples, count
from bpxp.training.setup import FitSetup

if TYPE_CHECKING:
    from bpxp.network.preflight import Costs

BLOW_UP = 1000  # a step makes fewer numbers than this for each number of its samples, and a few for each parameter
MARGIN = 0.75  # of the free memory: the rest is lost to fragmentation


class MemoryEstimate:
    """How much device memory a fit needs at its peak, and how much is free, before the fit has allocated anything.

    `keeps` says whether a copy of the state is kept, to find where a fit diverged; `check` makes it False where there
    is memory for all but that.
    """

    def __init__(self, net: Network, setup: FitSetup, *, keeps: bool) -> None:
        self.net, self.setup, self.keeps = net, setup, keeps
        self.memory = net.backend.memory()

    def check(self) -> None:
        """Estimate the memory, if it could be too little: raise if the device does not have it, warn if it is in use.

        The estimate is that of the step as it is written: where a compiler may make do with less, it is a warning.
        """
        if self.memory is None or self._is_plenty():
            return
        needed = self.needed(self.setup.size)
        if needed is None or needed <= self.memory.free:
            return
        if self.keeps and self._kept(self._costs(self.setup.size)) >= needed - self.memory.free:
            self.keeps = False  # the fit matters more than finding where it diverges, if it does
            return
        if needed > self.memory.total and not getattr(self.net.backend.xp, "fuses", False):
            raise self.error(NOTHING_CHANGED)
        what = f"a step needs about {gib(needed)}, {gib(self.memory.free)} of {gib(self.memory.total)} are free"
        warn(f"fit(batch_size={self.setup.size})", what, code="W008", fix=self._fix(self.largest()))

    def _is_plenty(self) -> bool:
        """Return whether memory is so plentiful that an estimate is not worth its milliseconds."""
        assert self.memory is not None
        numbers = self.setup.size * (BLOW_UP * math.prod(self.net.input_shape) + 4 * self.net.size)
        return 8 * (numbers + 16 * self.net.size) < self.memory.free

    def needed(self, batch: int) -> int | None:
        """Return the bytes that a fit with this batch size takes at its peak; None if it is not known."""
        net, setup = self.net, self.setup
        try:
            costs = self._costs(batch)
        except Exception:  # a custom layer may ask for numbers
            return None
        now = net._held.now
        own = sum(math.prod(a.shape) for a in leaves((now.params, now.stats))) * np.dtype(net.dtype).itemsize
        fresh = now.opt is None or now.optimizer != setup.step.optimizer
        kept = self._kept(costs) if self.keeps else 0
        # The state beside the arrays that the network holds meanwhile.
        return costs.peak_bytes - costs.resident_bytes + (costs.state_bytes if fresh else own) + kept

    def _kept(self, costs: Costs) -> int:
        """Return the bytes of the device that a copy of the state on the host takes."""
        return costs.state_bytes if option(self.net.backend, "shares_memory") else 0

    def _costs(self, batch: int) -> Costs:
        from bpxp.network.preflight import step_costs  # imported only where memory is short

        net, setup = self.net, self.setup
        if isinstance(setup.train, HostSamples):
            pixels = setup.train.x.dtype == np.uint8
        else:
            pixels = setup.train[0].dtype == net.xp.uint8
        n = max(count(setup.train), batch)
        weights = 0 if setup.weight is None else math.prod(setup.weight.shape[1:])
        return step_costs(net, batch, n, setup.step.optimizer, pixels, weights, setup.step.augment)

    def largest(self) -> int | None:
        """Return the largest batch size that would fit, 0 if none does; None if it is not known."""
        if self.memory is None or self.needed(1) is None:
            return None
        low, high = 0, self.setup.size
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
        needed, largest, memory = self.needed(self.setup.size), self.largest(), self.memory
        if largest == self.setup.size:  # the estimate says it would fit: others took it, or it is fragmented
            largest = max(1, largest // 2) if largest > 1 else 0
        got = [f"about {gib(needed)} needed"] if needed is not None else []
        got += [] if memory is None else [f"{gib(memory.free)} of {gib(memory.total)} free"]
        error = DeviceMemoryError(
            f"fit(batch_size={self.setup.size}) on {label(self.net.backend)}",
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


def no_memory_for_samples(net: Network, cause: BaseException) -> DeviceMemoryError:
    """Return the error for samples that the device could not take."""
    memory = net.backend.memory()
    what, first = "the device has too little memory for the samples", f"The library says: {short(cause)}"
    got = "" if memory is None else f"{gib(memory.free)} of {gib(memory.total)} free"
    fix = "Dataset(x, y, resident=False) keeps them on the host"
    error = DeviceMemoryError(f"fit on {label(net.backend)}", what, code="E053", got=got, first=first, fix=fix)
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
