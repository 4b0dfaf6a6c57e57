"""Precision X-ray: the true relative error of every delta and every gradient, by a float64 shadow of chosen steps.

A bound says how wrong a number can be; the shadow says how wrong it is. It starts from the parameters of that moment,
exact in float64, and computes the whole step by itself.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.device import on_its_device
from bpxp.core.atomic import write_atomically
from bpxp.core.checks import as_path, positive_int
from bpxp.core.text import table
from bpxp.core.tree import tree_map
from bpxp.errors import InvalidValueError
from bpxp.network.network import Network, validate_network
from bpxp.nn.observe import Recorder, opaque
from bpxp.optim import Optimizer
from bpxp.verify.parity.certificate import as_a_whole
from bpxp.verify.parity.run import Batch, Runner, Trial, forward_and_back, make_trial


class PrecisionRow(NamedTuple):
    """One quantity in one step.

    Attributes
    ----------
    step : int
        Counted from 1.
    quantity : str
        ``"loss/J"``, ``"1/delta"``, ``"1/dW"``, …: layer and name.
    relative : float
        ‖found - true‖/‖true‖, by the root of the sum of squares of all entries.
    worst : float
        Largest error of an entry, relative to the largest entry.
    lost : float
        Share of the entries with a wrong sign, or 0 where they should not be.
    """

    step: int
    quantity: str
    relative: float
    worst: float
    lost: float


@dataclass(frozen=True)
class PrecisionReport:
    """Result of `xray`; as text it is a table.

    Attributes
    ----------
    backend, dtype : str
    rows : tuple of PrecisionRow
    opaque : tuple of str
        Layers with nested parameters and no `children`: they were compared as a whole.
    """

    backend: str
    dtype: str
    rows: tuple[PrecisionRow, ...]
    opaque: tuple[str, ...] = ()

    @property
    def worst(self) -> PrecisionRow:
        """The row with the largest relative error."""
        return max(self.rows, key=lambda row: row.relative)

    def to_json(self) -> str:
        """Return everything as JSON."""
        return json.dumps({**asdict(self), "rows": [row._asdict() for row in self.rows]}, indent=1)

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file, all or nothing."""
        write_atomically(as_path(path, "save(path)"), f"{self.to_json()}\n".encode())

    def __str__(self) -> str:
        """Return a row for each quantity, and a column for each step: relative error, and that of the worst entry."""
        steps = list(dict.fromkeys(row.step for row in self.rows))
        by_place = {(row.quantity, row.step): row for row in self.rows}
        rows: list[tuple[str, ...]] = [("relative error", *(f"step {step}" for step in steps), "worst entry", "lost")]
        for quantity in dict.fromkeys(row.quantity for row in self.rows):
            own = [by_place[quantity, step] for step in steps]
            last = (f"{max(row.worst for row in own):.1e}", f"{max(row.lost for row in own):.1%}")
            rows.append((quantity, *(f"{row.relative:.1e}" for row in own), *last))
        title = f"{self.backend}, {self.dtype}, beside a float64 shadow"
        return "\n".join([title, table(rows), *as_a_whole(self.opaque)])


@on_its_device
def xray(
    net: Network,
    data: Any = None,
    /,
    *,
    backend: str | Backend | None = None,
    matmul: str | None = None,
    steps: Sequence[int] = (1, 10, 100),
    batch_size: int = 32,
    optimizer: Optimizer | str | None = None,
    everything: bool = False,
) -> PrecisionReport:
    """Train, and compare each delta and each gradient of some steps with a float64 shadow.

    Parameters
    ----------
    net : Network
        It is not changed.
    data : Dataset or pair of array_like, optional
        As for `Trainer.fit`; without it, random samples.
    backend : str or Backend, optional
        Default: the network's.
    matmul : {"float32", "tf32", "bfloat16", "float16"}, optional
        Precision of the operands of matrix products, where the backend has it.
    steps : sequence of int, optional
        Which, counted from 1.
    batch_size, optimizer : optional
        As for `bpxp.verify.certify`.
    everything : bool, optional
        Also the output of each layer and activation, and dx.

    Returns
    -------
    PrecisionReport

    Examples
    --------
    >>> import bpxp
    >>> net = bpxp.Network([4, 3, 2], backend="numpy", seed=0)
    >>> report = bpxp.verify.xray(net, steps=(1, 5), batch_size=8)
    >>> report.worst.relative < 1e-5
    True
    """
    validate_network(net, "xray(net)")
    if not steps:
        raise InvalidValueError("xray(steps=…)", "no step", code="E002", got=repr(steps), expected="(1, 10, 100)")
    wanted = {positive_int(step, "xray(steps=…)") for step in steps}
    chosen = get_backend(net.backend if backend is None else backend, matmul=matmul)
    trial = make_trial(net, data, batch_size=batch_size, optimizer=optimizer, where="xray")
    runner, rows = Runner(trial, chosen, net.dtype), []
    for step, host in enumerate(trial.batches(max(wanted)), 1):
        batch = runner.place(host, step - 1)
        shadow = _shadow(trial, runner, host) if step in wanted else Recorder()
        grads, stats, found = runner.gradients(batch)
        for quantity in {**shadow.found, **shadow.passed_on}:
            here, there = runner.passed_on.get(quantity, quantity), shadow.passed_on.get(quantity, quantity)
            if here == there != quantity:
                continue  # the row of a child
            name = quantity.rpartition("/")[2]
            if everything or name == "J" or name == "delta" or (name.startswith("d") and name not in ("dx", "dz")):
                rows.append(_row(step, quantity, found[here], shadow.found[there]))
        runner.update(grads, stats)
    return PrecisionReport(chosen.name, net.dtype, tuple(rows), opaque(trial.model, trial.params))


def _shadow(trial: Trial, runner: Runner, batch: Batch) -> Recorder:
    """Record all results of a step in float64, from the state of the runner."""

    def widened(a: Any) -> Any:
        if a is None or isinstance(a, int):
            return a
        host = a if isinstance(a, np.ndarray) else runner.backend.to_numpy(a)
        return host.astype(np.float64) if host.dtype.kind == "f" else host

    given = tree_map(widened, (runner.params, runner.stats, runner.key, batch))
    recorder = Recorder()
    forward_and_back(trial, recorder, *given, xp=get_backend("numpy").xp, dtype="float64")
    return recorder


def _row(step: int, quantity: str, found: np.ndarray, true: np.ndarray) -> PrecisionRow:
    found = found.astype(np.float64)
    error = np.abs(found - true)
    size, largest = float(np.sqrt(np.sum(true * true))), float(np.max(np.abs(true), initial=0.0))
    lost = float(np.mean(np.sign(found) != np.sign(true))) if true.size else 0.0
    relative = float(np.sqrt(np.sum(error * error))) / (size or 1.0)
    return PrecisionRow(step, quantity, relative, float(np.max(error, initial=0.0)) / (largest or 1.0), lost)
