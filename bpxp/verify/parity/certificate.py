"""The result of `certify`: the deviation of each quantity in each step beside its bound, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bpxp.core.atomic import write_atomically
from bpxp.core.checks import as_path
from bpxp.core.text import table


@dataclass(frozen=True)
class ParityRow:
    """One quantity of one run: an entry of each list per step.

    Attributes
    ----------
    quantity : str
        ``"0/z"``, ``"0/a"``: the outputs of layer 0 and of its activation; ``"loss/J"``; ``"0/delta"``, ∂J/∂z;
        ``"0/dW"``, a gradient; ``"0/W"``, a parameter after the step; ``"0/W m'"``, a slot of the optimizer;
        ``"1/mean'"``, a running statistic.
    largest : tuple of float
        Largest ``|backend - float64|`` of all entries.
    deviation, bound, share : tuple of float
        Of the entry that comes nearest to its bound: difference, bound, and their quotient. Above 1 the backend
        computes something else.
    blind : tuple of float
        Share of the entries whose bound is infinite: nothing is proved for these.
    estimate : tuple of float
        Largest share of the statistical estimate, which is sharper: above 1 it is unlikely, not impossible.
    """

    quantity: str
    largest: tuple[float, ...]
    deviation: tuple[float, ...]
    bound: tuple[float, ...]
    share: tuple[float, ...]
    blind: tuple[float, ...]
    estimate: tuple[float, ...]

    @property
    def step(self) -> int:
        """The step, counted from 1, whose share is the largest."""
        return max(range(len(self.share)), key=self.share.__getitem__) + 1

    @property
    def worst(self) -> float:
        """The largest share of all steps."""
        return max(self.share)


@dataclass(frozen=True)
class ParityRun:
    """One backend in one dtype.

    Attributes
    ----------
    backend, dtype, device, version : str
    operand_bits : int
        Bits of a float32 operand that a matrix product keeps, as measured: 24 in float32, 11 in TF32, 8 in
        bfloat16.
    rows : tuple of ParityRow
    drift_of_loss, drift_of_parameters : float
        How far the free run is from a free float64 run: the largest relative difference of the loss of a step; the
        largest difference of a parameter after the last step, relative to the largest parameter. No bound is stated:
        training amplifies roundings.
    whole_step : float
        How far the same steps, compiled as a fit has them, are from the two halves that were compared: the largest
        difference of a parameter after the last one, relative to the largest. 0 where nothing is fused.
    """

    backend: str
    dtype: str
    device: str
    version: str
    operand_bits: int
    rows: tuple[ParityRow, ...]
    drift_of_loss: float
    drift_of_parameters: float
    whole_step: float

    @property
    def worst(self) -> ParityRow:
        """The row with the largest share."""
        return max(self.rows, key=lambda row: row.worst)

    @property
    def ok(self) -> bool:
        """Whether every deviation is within its bound, and every quantity has an entry with a finite one."""
        return self.worst.worst <= 1.0 and not self.unseen

    @property
    def unseen(self) -> tuple[str, ...]:
        """Quantities without any finite bound in some step: nothing is proved about them."""
        return tuple(row.quantity for row in self.rows if max(row.blind) == 1.0)

    @property
    def unlikely(self) -> tuple[str, ...]:
        """Quantities beyond their statistical estimate."""
        return tuple(row.quantity for row in self.rows if max(row.estimate) > 1.0)


@dataclass(frozen=True)
class Certificate:
    """Result of `certify`; as text it is a table, with the verdict in its last lines.

    Attributes
    ----------
    network, optimizer : str
    steps, batch_size, seed : int
    runs : tuple of ParityRun
    not_run : dict of str to str
        Backend, or backend and dtype → why it did not run here.
    environment : dict
        Versions, threads, machine.
    opaque : tuple of str
        Layers with nested parameters and no `children`: they were compared as a whole, with the bounds of all their
        operations together.
    """

    network: str
    optimizer: str
    steps: int
    batch_size: int
    seed: int
    runs: tuple[ParityRun, ...]
    not_run: dict[str, str] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    opaque: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether something ran, and all that ran is within its bounds."""
        return bool(self.runs) and all(run.ok for run in self.runs)

    @property
    def verdict(self) -> str:
        """One line for each run, and for each backend that did not run."""
        lines = []
        for run in self.runs:
            worst = run.worst
            what = "within its bounds" if worst.worst <= 1.0 else "NOT WITHIN ITS BOUNDS"
            if run.unseen:
                what = f"NOT PROVED, no finite bound for {', '.join(run.unseen)}; else {what}"
            text = f"{run.backend} {run.dtype}: {what}; most, {worst.worst:.4g} of the bound, {worst.quantity}"
            if run.ok and run.unlikely:
                text += f"; beyond the statistical estimate: {', '.join(run.unlikely)}"
            if blind := max(max(row.blind) for row in run.rows):
                text += f"; up to {blind:.1%} of the entries have no finite bound"
            lines.append(text)
        lines += as_a_whole(self.opaque)
        lines += [f"{name}: not run: {reason}" for name, reason in self.not_run.items()]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return everything as JSON; a number that JSON does not have, as null."""
        return json.dumps(_plain({**asdict(self), "ok": self.ok, "verdict": self.verdict.splitlines()}), indent=1)

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file, all or nothing."""
        write_atomically(as_path(path, "save(path)"), f"{self.to_json()}\n".encode())

    def __str__(self) -> str:
        title = f"{self.network}; {self.optimizer}; {self.steps} steps of {self.batch_size} samples, seed {self.seed}"
        tables = []
        for dtype in dict.fromkeys(run.dtype for run in self.runs):
            runs = [run for run in self.runs if run.dtype == dtype]
            cells = {run: {row.quantity: _cell(row) for row in run.rows} for run in runs}
            rows = [(dtype, *(run.backend for run in runs))]
            rows += [(row.quantity, *(cells[run][row.quantity] for run in runs)) for row in runs[0].rows]
            tables.append(table(rows))
        told = [f"{run.backend} {run.dtype}: {_describe(run)}" for run in self.runs]
        return "\n".join([title, EXPLANATION, *(f"\n{one}" for one in tables), "", *told, "", self.verdict])


EXPLANATION = """deviation from float64 and rounding bound, of the entry and the step that come nearest to their bound;
each equation starts from the numbers that the backend has"""


def as_a_whole(opaque: Sequence[str]) -> list[str]:
    """Return a line for each layer that no observer can look into."""
    return [f"{title}: compared as a whole, since it has no `children`" for title in opaque]


def _cell(row: ParityRow) -> str:
    i = row.step - 1
    return f"{row.deviation[i]:.1e} of {row.bound[i]:.1e}"


def _describe(run: ParityRun) -> str:
    """Return library, device, bits of the operands, and drift."""
    bits = f", matrix products keep {run.operand_bits} bits" if run.dtype == "float32" else ""
    return (
        f"{run.version} on {run.device}{bits}; left to itself the loss drifts by {run.drift_of_loss:.1e}, "
        f"a parameter by {run.drift_of_parameters:.1e}; the whole step is {run.whole_step:.1e} from its halves"
    )


def _plain(value: Any) -> Any:
    """Return a tree without infinities and NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
