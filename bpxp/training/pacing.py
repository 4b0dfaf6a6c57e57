"""How many steps at a time: as many as progress, pauses and a prompt Ctrl-C allow."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator

from bpxp.training.run import FitProgress

MOMENT = 0.2  # seconds: how long the host may run ahead of the device, and so how soon Ctrl-C is heard
MARKS = 20  # places in an epoch where progress can be shown


def next_mark(done: int, batches: int, every: Iterable[int], epoch: int, marks: int = MARKS) -> int:
    """Return the next step of the epoch at which to pause: to show progress, or because a callback asked for it.

    `done` of `batches` steps of the epoch are done. Progress is shown at `marks` places of an epoch; callbacks ask for
    a pause `every` so many steps, counted from the network's first epoch on.
    """
    marks = min(marks, batches)
    i = done * marks // batches + 1
    mark = i * batches // marks
    if mark == done:  # rounded down to where we are
        mark = (i + 1) * batches // marks
    total = epoch * batches + done
    return min([mark, *(done + n - total % n for n in every)])


class Pace:
    """How many steps to launch before the next synchronisation of host and device.

    A device works asynchronously: without synchronisation an interrupt would be heard only when all launched steps are
    done. A short epoch needs none.
    """

    def __init__(self) -> None:
        self.most = 1
        self.begin()

    def begin(self) -> None:
        """Restart the clock."""
        self._launched, self._since = 0, time.perf_counter()

    @property
    def left(self) -> int:
        """Steps to launch before the next synchronisation."""
        return self.most - self._launched

    def launched(self, count: int, run: FitProgress) -> None:
        """Count launched steps, and synchronise if it is time."""
        self._launched += count
        if self._launched < self.most:
            return
        run.net.backend.to_numpy(run.live.position)
        seconds = max(time.perf_counter() - self._since, 1e-9)
        # The first step compiles: the pace is found again from below.
        self.most = max(1, min(int(self._launched * MOMENT / seconds), 4 * self.most))
        self.begin()


def chunks(run: FitProgress, pace: Pace, every: Collection[int], marks: int = MARKS) -> Iterator[int]:
    """Yield how many steps to do next until the epoch ends, from the state of `run` each time.

    A call of a compiled step has an overhead of about 0.1 ms: without progress to show, `marks` is 1.
    """
    pace.begin()
    while run.done < run.batches:
        mark = next_mark(run.done, run.batches, every, run.net.epoch, marks)
        count = min(mark - run.done, pace.left)
        yield count
        pace.launched(count, run)
