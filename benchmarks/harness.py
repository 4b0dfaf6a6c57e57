"""How bpxp is measured: every measurement in a process of its own, the peers in turn, medians and ratios.

Machines are noisy and drift: a time means little, and the ratio of two that were taken one after the other means
more. So the cases of a benchmark run in rounds, and a ratio is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("bpxp", "numpy", "array-api-compat", "torch", "jax", "scikit-learn", "cupy-cuda12x", "cupy-cuda13x")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS")


@dataclass(frozen=True)
class Case:
    """A row of a table: the arguments of `python` for a program whose last line is ``{"value": …}``."""

    name: str
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Goal:
    """What we want of a ratio: that of `case` to `reference` is at most `limit`."""

    case: str
    reference: str
    limit: float


@dataclass
class Row:
    """What was measured of a case: one value per round, or the reason why there is none."""

    name: str
    values: list[float] = field(default_factory=list)
    details: list[dict[str, Any]] = field(default_factory=list)
    error: str = ""


def run(case: Case, timeout: float) -> dict[str, Any]:
    """Run a case once; return what it printed, or ``{"error": …}``."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **dict(case.environment)}
    try:
        done = subprocess.run(
            [sys.executable, *case.arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {timeout:.0f} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def measure(cases: list[Case], *, rounds: int, timeout: float = 300.0, deadline: float | None = None) -> list[Row]:
    """Run the cases in turn, `rounds` times.

    Parameters
    ----------
    cases : list of Case
    rounds : int
    timeout : float, optional
        Seconds for one run.
    deadline : float, optional
        Of `time.monotonic`: no run begins that would end later, judging by how long the case took before.
    """
    rows = {case.name: Row(case.name) for case in cases}
    lasted: dict[str, float] = {}
    for turn in range(rounds):
        for case in cases:
            row = rows[case.name]
            left = timeout if deadline is None else min(timeout, deadline - time.monotonic())
            if row.error or left < lasted.get(case.name, 1.0):
                row.error = row.error or ("" if row.values else "no time left")
                continue
            begun = time.monotonic()
            found = run(case, left)
            lasted[case.name] = time.monotonic() - begun
            if "error" in found:
                row.error = found["error"]
            else:
                row.values.append(found["value"])
                row.details.append(found)
            print(f"{turn + 1}/{rounds} {case.name}: {found.get('error') or format(found['value'], '.4g')}", flush=True)
    return list(rows.values())


def ratio(rows: list[Row], case: str, reference: str) -> float | None:
    """Return the median of the rounds' ratios of a case to a reference; None if one of them has no values."""
    by_name = {row.name: row.values for row in rows}
    pairs = list(zip(by_name.get(case, []), by_name.get(reference, []), strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None


def machine() -> dict[str, Any]:
    """Return what the numbers depend on: processor, GPU, versions, threads."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "gpu": gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
    }


def cpu() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def gpu() -> str:
    """Return the GPU's name, memory and driver as nvidia-smi gives them; empty without one."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return "; ".join(done.stdout.strip().splitlines())


def table(rows: list[Row], unit: str, references: list[str]) -> str:
    """Return a Markdown table: the median, the range over the rounds, and the ratio to each reference."""
    lines = [f"| | {unit} | range | " + "".join(f"× {name} | " for name in references)]
    lines.append("|---|---:|---:|" + "---:|" * len(references))
    for row in rows:
        if not row.values:
            lines.append(f"| {row.name} | {row.error} | |" + " |" * len(references))
            continue
        ratios = [ratio(rows, row.name, name) for name in references]
        cells = [f"{statistics.median(row.values):.3g}", f"{min(row.values):.3g} … {max(row.values):.3g}"]
        cells += ["" if r is None else f"{r:.2f}" for r in ratios]
        lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(line.rstrip() for line in lines)


def judge(rows: list[Row], goals: list[Goal]) -> list[str]:
    """Return a line for each goal whose two cases were measured."""
    lines = []
    for goal in goals:
        found = ratio(rows, goal.case, goal.reference)
        if found is not None:
            verdict = "reached" if found <= goal.limit else "NOT reached"
            lines.append(f"- {goal.case} ≤ {goal.limit:g} × {goal.reference}: {found:.2f}, {verdict}")
    return lines


def write(
    name: str, title: str, rows: list[Row], *, unit: str, references: list[str], goals: list[Goal], out: Path
) -> None:
    """Write ``<name>.json`` and ``<name>.md`` into `out`, and print the table."""
    about = machine()
    text = f"{table(rows, unit, references)}\n"
    if verdicts := judge(rows, goals):
        text += "\n" + "\n".join(verdicts) + "\n"
    out.mkdir(parents=True, exist_ok=True)
    measured = {row.name: {"values": row.values, "error": row.error, "details": row.details} for row in rows}
    data = {"title": title, "unit": unit, "machine": about, "rows": measured}
    (out / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / f"{name}.md").write_text(f"# {title}\n\n{describe(about)}\n\n{text}", encoding="utf-8")
    print(f"\n{title}\n{text}\nwritten to {out / name}.json and .md")


def describe(about: dict[str, Any]) -> str:
    """Return the machine in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    hardware = f"{about['cpu']}, {about['cores']} cores" + (f"; {about['gpu']}" if about["gpu"] else "")
    threads = ", ".join(f"{name}={value}" for name, value in about["threads"].items())
    return f"{about['date']}. {hardware}. Python {about['python']}, {versions}." + (f" {threads}." if threads else "")


def options(description: str, rounds: int) -> argparse.ArgumentParser:
    """Return the parser of a benchmark's command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help=f"each case runs so often (default: {rounds})")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
    parser.add_argument("--only", help="only the cases whose name contains this")
    return parser


def chosen(cases: list[Case], only: str | None) -> list[Case]:
    """Return the cases that were asked for."""
    return [case for case in cases if not only or only.lower() in case.name.lower()]
