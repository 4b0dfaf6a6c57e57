"""What has been measured, as JSON, as Markdown tables, and as goals that are reached or not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, ratio
from benchmarks.machine import describe

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Goal:
    """What is to be reached: a case at most `limit` times a reference, or at most `limit` alone.

    Of several references the quickest counts: a peer is judged by its best form.
    """

    what: str
    case: str
    references: tuple[str, ...]
    limit: float
    unit: str = ""  # of a limit without a reference


def judge(rows: list[Row], goal: Goal) -> dict[str, Any]:
    """Return what was found of a goal: ``verdict`` is "reached", "NOT reached", or "not measured: " and the reason."""
    by_name = {row.name: row for row in rows}
    row = by_name.get(goal.case)
    measured = [by_name[name] for name in goal.references if name in by_name and by_name[name].values]
    reason = ""
    if row is None or not row.values:
        reason = f"{goal.case}: {row.error if row else 'not run'}"
    elif goal.references and not measured:
        reason = "; ".join(
            f"{name}: {by_name[name].error if name in by_name else 'not run'}" for name in goal.references
        )
    to_reach = f"≤ {goal.limit:g} {goal.unit}".strip()
    if reason:
        # To fail an accuracy or a time-out is to miss the goal; a library that is not there says nothing of it.
        missed = bool(row and row.error.startswith("only "))
        verdict = f"NOT reached: {row.error}" if row and missed else f"not measured: {reason}"
        return {"what": goal.what, "to reach": to_reach, "found": None, "against": "", "verdict": verdict}
    assert row is not None
    if not goal.references:
        found, against = row.median, ""
    else:
        quickest = min(measured, key=lambda reference: reference.median).name
        found, against = ratio(rows, goal.case, quickest) or 0.0, quickest if len(goal.references) > 1 else ""
    verdict = "reached" if found <= goal.limit else "NOT reached"
    return {"what": goal.what, "to reach": to_reach, "found": found, "against": against, "verdict": verdict}


def verdicts(judged: list[dict[str, Any]]) -> str:
    """Return the goals as a Markdown table."""
    lines = ["| goal | to reach | found | |", "|---|---:|---:|---|"]
    for goal in judged:
        found = "" if goal["found"] is None else f"{goal['found']:.3g}"
        beside = f" (× {goal['against']})" if goal["against"] else ""
        lines.append(f"| {goal['what']}{beside} | {goal['to reach']} | {found} | {goal['verdict']} |")
    return "\n".join(lines)


def table(rows: list[Row], unit: str, references: tuple[str, ...]) -> str:
    """Return a Markdown table: median, range over the rounds, ratio to each reference, and what else the peers said."""
    extras = [
        name for name in ("first loss", "peak MB", "own MB", "peak ÷ bound") if any(_said(row, name) for row in rows)
    ]
    head = ["", unit, "range", *(f"× {name}" for name in references), *extras]
    lines = [f"| {' | '.join(head)} |", "|---|" + "---:|" * (len(head) - 1)]
    for row in rows:
        if row.values:
            found = [ratio(rows, row.name, name) for name in references]
            cells = [figures(row.median), f"{figures(min(row.values))} … {figures(max(row.values))}"]
            cells += ["" if r is None else f"{r:.2f}" for r in found]
            cells += ["" if (said := _said(row, name)) is None else figures(said) for name in extras]
        else:
            cells = ["missing", row.error.replace("|", "/"), *[""] * (len(head) - 3)]
        lines.append(f"| {' | '.join([row.name, *cells])} |")
    return "\n".join(lines)


def figures(value: float) -> str:
    """Return a number with three figures that count, never with an exponent."""
    return f"{value:.3g}" if abs(value) < 1000.0 else f"{value:,.0f}"


def _said(row: Row, name: str) -> float | None:
    return next((float(found[name]) for found in row.details if found.get(name)), None)


def dump(
    name: str,
    about: dict[str, Any],
    rows: list[Row],
    out: Path,
    *,
    title: str,
    unit: str,
    references: tuple[str, ...],
    goals: tuple[Goal, ...],
) -> dict[str, Any]:
    """Write ``<name>.json`` and return what stands in it."""
    data = {"title": title, "unit": unit, "machine": about, "references": references}
    data["goals"] = [judge(rows, goal) for goal in goals]
    data["rows"] = {row.name: {"values": row.values, "error": row.error, "details": row.details} for row in rows}
    (out / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return data


def load(name: str, out: Path) -> tuple[dict[str, Any], list[Row]]:
    """Return what `dump` wrote as (machine, rows); ({}, []) if it is not there."""
    try:
        data = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, []
    return data["machine"], [Row(name, **found) for name, found in data["rows"].items()]


def section(data: dict[str, Any]) -> list[str]:
    """Return the table and the goals of what `dump` wrote."""
    rows = [Row(name, **found) for name, found in data["rows"].items()]
    found = [table(rows, data["unit"], tuple(data.get("references", ())))]
    return [*found, verdicts(data["goals"])] if data.get("goals") else found


def overview(out: Path) -> str:
    """Return all results in `out` as one Markdown page: the goals first, then every table with its picture."""
    goals: list[dict[str, Any]] = []
    parts: list[str] = []
    for path in sorted(out.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if "benchmarks" in data:  # those of the GPU are in one file
            goals += [goal for part in data["benchmarks"].values() for goal in part["goals"]]
            parts += ["## On a GPU", describe(data["machine"])]
            for part in data["benchmarks"].values():
                parts += [f"### {part['title']}", part["table"]]
            continue
        goals += data.get("goals", [])
        parts += [f"## {data['title']}", describe(data["machine"])]
        if path.with_suffix(".svg").exists():
            parts.append(f"![{data['title']}]({path.stem}.svg)")
        parts += scaling_tables(data["axes"]) if "axes" in data else section({**data, "goals": []})
    head = ["# Measurements", "Written by `python -m benchmarks`, from the JSON files beside this page."]
    return "\n\n".join([*head, *([verdicts(goals)] if goals else []), *parts]) + "\n"


def scaling_tables(curves: dict[str, Any]) -> list[str]:
    """Return a Markdown table for each axis of `benchmarks.scaling`."""
    found = []
    for name, axis in curves.items():
        lines = [f"### {name}: {axis['what']}, {axis['unit']}", ""]
        lines += ["| | " + " | ".join(str(size) for size in axis["sizes"]) + " | exponent |"]
        lines += ["|---|" + "---:|" * (len(axis["sizes"]) + 1)]
        for peer, costs in axis["curves"].items():
            cells = ["" if cost is None else figures(cost) for cost in costs]
            power = axis["exponents"][peer]
            last = axis["errors"].get(peer, "") if power is None else f"{power:.2f}"
            lines.append(f"| {peer} | {' | '.join(cells)} | {last} |")
        found.append("\n".join(lines))
    return found
