"""How bpxp is measured: every peer in a process of its own, and the processes take turns.

Machines are noisy and drift: a time means little, and the ratio of two that were taken one after the other means
more. So the peers of a benchmark run in rounds, one at a time, and a ratio is the median of the rounds' ratios. A
process that can take turns stays: its libraries, data and compiled code are there, and its first turn, the warm-up,
does not count. The warm-ups run beside one another, one per core. POSIX only.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from benchmarks.machine import ROOT, cores

PAUSE = 0.1  # seconds before a turn: the threads of the one before, which wait awake for more work, have gone to sleep
ENVIRONMENT = {"PYTHONWARNINGS": "ignore", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "2"}


@dataclass(frozen=True)
class Case:
    """A row of a table: the arguments of `python` for a program that prints ``{"value": …}`` on a line.

    ``fresh``: it measures once and ends, so that each round starts it anew, with the round's number for ``{round}``.
    Otherwise it takes turns; see `benchmarks.peers.serve`.
    """

    name: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    fresh: bool = False


@dataclass
class Row:
    """What was measured of a case: one value per round, or the reason why there is none."""

    name: str
    values: list[float] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def add(self, found: dict[str, Any]) -> None:
        if "error" in found:
            self.error = found["error"]
        else:
            self.values.append(found["value"])
        self.details.append(found)


class Live:
    """The process of a case."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.process: subprocess.Popen[bytes] | None = None

    def ask(self, index: int = 0, *, turn: int = 0, timeout: float = 300.0) -> dict[str, Any]:
        """Return the next line of JSON that the case prints, or ``{"error": …}``; a process that failed is ended."""
        if self.process is None:
            self._start(turn)
        assert self.process is not None
        assert self.process.stdin is not None
        if not self.case.fresh:
            with suppress(BrokenPipeError):  # it has ended; the reason stands in its last words
                self.process.stdin.write(f"{index}\n".encode())
        line = self._line(timeout)
        if line is None:
            found: dict[str, Any] = {"error": f"not done after {timeout:.0f} s"}
        elif not line:
            found = {"error": self._last_words()}
        else:
            found = json.loads(line)
        if self.case.fresh or "error" in found:
            self.close()
        return found

    def _start(self, turn: int) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115  # a pipe that nobody reads could fill up
        self.said = b""
        self.process = subprocess.Popen(
            [sys.executable, *(argument.replace("{round}", str(turn)) for argument in self.case.arguments)],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT, **dict(self.case.environment)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            bufsize=0,
            start_new_session=True,
        )

    def _line(self, timeout: float) -> bytes | None:
        """Return the next line that begins with {, b"" at the end of the output, None if it does not come in time."""
        assert self.process is not None
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout
        while True:
            while b"\n" in self.said:
                line, self.said = self.said.split(b"\n", 1)
                if line.startswith(b"{"):
                    return line
            if not select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                return None
            more = os.read(self.process.stdout.fileno(), 1 << 16)
            if not more:
                return b""
            self.said += more

    def _last_words(self) -> str:
        assert self.process is not None
        code = self.process.wait()
        self.errors.seek(0)
        lines = [line.strip() for line in self.errors.read().decode(errors="replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else f"exit code {code}"

    def close(self) -> None:
        """End the process and all that it has started."""
        if self.process is None:
            return
        with self.process, suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.errors.close()
        self.process = None


@contextmanager
def alive(cases: list[Case]) -> Iterator[dict[str, Live]]:
    """Return a `Live` for each case, by name; whatever happens, none is left running."""
    lives = {case.name: Live(case) for case in cases}
    try:
        yield lives
    finally:
        for live in lives.values():
            live.close()


def measure(
    cases: list[Case],
    *,
    rounds: int,
    known: list[Row] | None = None,
    keep: Callable[[list[Row]], None] = lambda rows: None,
    timeout: float = 300.0,
    deadline: float | None = None,
) -> list[Row]:
    """Run the cases in turn, `rounds` times.

    Parameters
    ----------
    cases : list of Case
    rounds : int
    known : list of Row, optional
        What an earlier run has measured: the rounds go on after it, and what failed is tried again.
    keep : callable, optional
        Called with the rows after each round.
    timeout : float, optional
        Seconds for one turn.
    deadline : float, optional
        Of `time.monotonic`: no turn begins that would end later, judging by how long the case took before.
    """
    rows = [next((row for row in known or [] if row.name == case.name), Row(case.name)) for case in cases]
    for row in rows:
        row.error = ""
    todo = {row.name: row for row in rows if len(row.values) < rounds}
    lasted: dict[str, float] = {}

    def left() -> float:
        return timeout if deadline is None else min(timeout, deadline - time.monotonic())

    def turn(live: Live, row: Row, number: int, most: float) -> dict[str, Any]:
        begun = time.monotonic()
        found = live.ask(turn=number, timeout=max(1.0, most))
        lasted[row.name] = time.monotonic() - begun
        return found

    def warm(live: Live) -> None:
        row = todo[live.case.name]
        found = turn(live, row, 0, left() if deadline is None else 0.6 * left())  # the rest is for what counts
        row.error = found.get("error", "")
        print(f"warm: {row.name}: {row.error or format(found['value'], '.4g')}", flush=True)

    with alive([case for case in cases if case.name in todo]) as lives:
        with ThreadPoolExecutor(cores()) as pool:
            list(pool.map(warm, [live for live in lives.values() if not live.case.fresh]))
            lasted.clear()  # a warm-up says nothing of a turn
        for number in range(min((len(row.values) for row in todo.values()), default=0), rounds):
            for name, row in todo.items():
                if row.error or len(row.values) > number:
                    continue
                if left() < lasted.get(name, 1.0):
                    row.error = "" if row.values else "no time left"
                    continue
                time.sleep(PAUSE)
                found = turn(lives[name], row, number, left())
                row.add(found)
                said = found.get("error") or format(found["value"], ".4g")
                print(f"{number + 1}/{rounds} {name}: {said}", flush=True)
            keep(rows)
    return rows


def ratios(rows: list[Row], case: str, reference: str) -> list[float]:
    """Return the rounds' ratios of a case to a reference; none if one of them has no values."""
    by_name = {row.name: row.values for row in rows}
    return [a / b for a, b in zip(by_name.get(case, []), by_name.get(reference, []), strict=False)]


def ratio(rows: list[Row], case: str, reference: str) -> float | None:
    """Return the median of `ratios`; None if there are none."""
    found = ratios(rows, case, reference)
    return statistics.median(found) if found else None
