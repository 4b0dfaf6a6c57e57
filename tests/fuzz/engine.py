"""The loop: inputs by the thousand, each of which may raise what is documented, and take its second and its memory."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

BATCH = 1000  # inputs that one seed makes
TICK = 0.5  # seconds of CPU time; an input that is on its way at two ticks in a row takes too long
GROWTH = 50 << 20  # bytes of resident memory


class Target(Protocol):
    """What is fuzzed.

    Attributes
    ----------
    name : str
    allowed : tuple of type
        The documented exceptions.
    """

    name: str
    allowed: tuple[type[BaseException], ...]

    def make(self, rng: random.Random) -> Any:
        """Return an input."""

    def run(self, value: Any) -> None:
        """Read it, and check what comes out."""

    def around(self) -> contextlib.AbstractContextManager[Any]:
        """Return what holds while it runs."""
        return contextlib.nullcontext()


class TakesTooLong(BaseException):
    """Nothing in the program catches this one."""


@dataclass
class Report:
    """What came out.

    Attributes
    ----------
    inputs, accepted : int
    seconds : float
        Of CPU time.
    growth : int
        Of the resident memory at its peak, in bytes.
    findings : list of (batch, input, error)
    """

    name: str
    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    growth: int = 0
    findings: list[tuple[str, Any, BaseException]] = field(default_factory=list)

    def __str__(self) -> str:
        hangs = sum(isinstance(error, TakesTooLong) for *_, error in self.findings)
        return (
            f"{self.inputs:,} inputs, {self.inputs - self.accepted:,} refused, "
            f"{len(self.findings) - hangs} undocumented exceptions, {hangs} hangs, "
            f"{self.growth / 2**20:.0f} MiB more memory at the peak"
        )


def fuzz(target: Target, *, count: float = float("inf"), seconds: float = float("inf"), seed: int = 0) -> Report:
    """Give a target so many inputs, or for so many seconds: with the same seed the same ones. Ctrl-C ends it sooner."""
    report = Report(target.name)
    begun, wall, before = time.process_time(), time.monotonic(), fresh_peak()
    with target.around(), contextlib.suppress(KeyboardInterrupt):
        for i in itertools.count():
            if report.inputs >= count or time.monotonic() - wall >= seconds or len(report.findings) > 20:
                break
            batch(target, seed, i, report)
            report.growth = peak() - before
            if report.growth > GROWTH:
                value, size = largest(target, seed, i)
                report.findings.append((f"{seed}/{i}", value, MemoryError(f"{size:,} bytes")))
                break
    report.seconds = time.process_time() - begun
    return report


def batch(target: Target, seed: int, i: int, report: Report) -> None:
    """Give the target a thousand inputs."""
    make, run, allowed = target.make, target.run, target.allowed
    rng = random.Random(f"{target.name}/{seed}/{i}")
    with watched() as watch:
        for _ in range(BATCH):
            value = make(rng)
            watch.turn += 1
            try:
                run(value)
                report.accepted += 1
            except allowed:
                pass
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                report.findings.append((f"{seed}/{i}", value, error))
    report.inputs += BATCH


class Watch:
    """Counts inputs, and looks every now and then whether the count has moved."""

    def __init__(self) -> None:
        self.turn, self.seen = 0, -1

    def look(self, *signal_and_frame: Any) -> None:
        if self.turn == self.seen:
            self.turn += 1
            raise TakesTooLong(f"more than {TICK} seconds of CPU time")
        self.seen = self.turn


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    """End what takes too long: by CPU time, so that a busy machine is no hang."""
    watch = Watch()
    old = signal.signal(signal.SIGPROF, watch.look)
    signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
    try:
        yield watch
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, old)


def fresh_peak() -> int:
    """Forget how much memory the process has had before, and return what it has now, in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return peak()


def peak() -> int:
    """Return the largest resident memory that this process has had, in bytes."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):  # not Linux; and what a process has had before it became this one counts, too
        import resource  # POSIX

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def largest(target: Target, seed: int, i: int) -> tuple[Any, int]:
    """Return the input of a batch that takes the most memory, and how much."""
    found: tuple[Any, int] = (None, 0)
    rng = random.Random(f"{target.name}/{seed}/{i}")
    tracemalloc.start()
    try:
        for _ in range(BATCH):
            value = target.make(rng)
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            with contextlib.suppress(Exception, *target.allowed):
                target.run(value)
            size = tracemalloc.get_traced_memory()[1] - before
            found = max(found, (value, size), key=lambda pair: pair[1])
    finally:
        tracemalloc.stop()
    return found
