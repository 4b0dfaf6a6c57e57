"""How the cost grows with batch, width, depth and samples: a curve per library, and the exponent that fits it.

An exponent is the slope of log(cost) over log(size), by least squares over the upper half of the sizes, where what
every step costs whatever its size weighs least. 1 is proportional; the arithmetic alone would be 1 in batch, depth and
samples, and nearly 2 in width.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.harness import PAUSE, Case, alive
from benchmarks.peers.work import Work
from benchmarks.suite import BPXP, PEERS, SCAN, TORCH

TITLE = "How the cost grows"
NAMES = tuple(name for name in PEERS if name in (*BPXP, TORCH, SCAN))
ROUNDS = 3


@dataclass(frozen=True)
class Axis:
    """What grows, and the work at each size."""

    name: str
    what: str
    works: tuple[tuple[int, Work], ...]
    per_epoch: bool = False  # an epoch's cost, not a step's

    @property
    def unit(self) -> str:
        return "ms per epoch" if self.per_epoch else "ms per step"


def axes(quick: bool = False) -> list[Axis]:
    """Return the four curves."""
    found = [
        Axis("batch", "784-256-10", tuple((n, Work(batch=n, samples=8192)) for n in (8, 32, 128, 512, 2048, 8192))),
        Axis("width", "784-w-w-10, batch 64", tuple((n, width(n)) for n in (32, 64, 128, 256, 512, 1024, 2048))),
        Axis("depth", "784-(128 × depth)-10, batch 64", tuple((n, depth(n)) for n in (1, 2, 4, 8, 16, 32))),
        Axis("samples", "784-256-10, batch 64", tuple((64 * n, Work(samples=64 * n)) for n in (8, 32, 128, 512)), True),
    ]
    if not quick:
        return found
    return [replace(axis, works=tuple((n, work.quick()) for n, work in axis.works[:3])) for axis in found]


def width(n: int) -> Work:
    return Work(net=f"784-{n}-{n}-10", samples=64 * max(5, 5120 // n))


def depth(n: int) -> Work:
    return Work(net="-".join(["784", *["128"] * n, "10"]), samples=64 * max(5, 160 // n), learning_rate=0.1)


def measure(quick: bool = False, deadline: float | None = None) -> dict[str, Any]:
    """Return the curves: ``{axis: {"unit", "sizes", "curves": {name: [cost, …]}, "exponents", "errors"}}``."""
    found = axes(quick)
    works = [work for axis in found for _, work in axis.works]
    given = [argument for work in works for argument in ("--work", work.to_json())]
    runs = []
    for name in NAMES:
        program, arguments, environment = PEERS[name]
        runs.append(
            Case(name, ("-m", f"benchmarks.peers.{program}", "--seconds", "0.1", *given, *arguments), environment)
        )
    curves: dict[str, Any] = {}
    with alive(runs) as lives:
        for axis in found:
            sizes = [size for size, _ in axis.works]
            costs: dict[str, list[float | None]] = {name: [] for name in NAMES}
            errors: dict[str, str] = {}
            for size, work in axis.works:
                index, scale = works.index(work), work.steps if axis.per_epoch else 1
                values: dict[str, list[float]] = {name: [] for name in NAMES}
                for turn in range(1 + (1 if quick else ROUNDS)):
                    for name, live in lives.items():
                        if name in errors:
                            continue
                        if deadline is not None and time.monotonic() > deadline:
                            errors[name] = "no time left"
                            continue
                        time.sleep(PAUSE)
                        answer = live.ask(index)
                        if "error" in answer:
                            errors[name] = answer["error"]
                        elif turn:  # the first is the warm-up
                            values[name].append(scale * answer["value"])
                for name in NAMES:
                    costs[name].append(statistics.median(values[name]) if values[name] else None)
                said = ", ".join(f"{name} {costs[name][-1]:.4g}" for name in NAMES if costs[name][-1])
                print(f"{axis.name} {size}: {said}", flush=True)
            curves[axis.name] = {
                "what": axis.what,
                "unit": axis.unit,
                "sizes": sizes,
                "curves": costs,
                "exponents": {name: exponent(sizes, costs[name]) for name in NAMES},
                "errors": errors,
            }
    return curves


def exponent(sizes: list[int], costs: list[float | None]) -> float | None:
    """Return p of cost = c·sizeᵖ over the upper half of the sizes; None unless all of these were measured."""
    upper = list(zip(sizes, costs, strict=True))[len(sizes) // 2 :]
    if len(upper) < 2 or not all(cost for _, cost in upper):
        return None
    slope, _ = np.polyfit([math.log(size) for size, _ in upper], [math.log(cost) for _, cost in upper if cost], 1)
    return float(slope)
