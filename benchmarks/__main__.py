"""Measure bpxp beside its peers on this machine's CPU: ``python -m benchmarks``, or ``python -m benchmarks mlp cnn``.

Each benchmark writes NAME.json and NAME.svg into the folder of results as it goes, and README.md shows them all and
which goals are reached. A run that was broken off goes on with ``--resume``. A peer that is not installed is a line in
the table that says so. The race needs MNIST, downloaded or where BPXP_DATA_DIR says. The GPU has its own command:
``python -m benchmarks.gpu``.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import time
from pathlib import Path
from typing import Any

from benchmarks import harness, plots, report, scaling, suite
from benchmarks.machine import ROOT, comparable, machine


def main() -> None:
    """Run what was asked for."""
    arguments = parse()
    known = {benchmark.name: benchmark for benchmark in suite.benchmarks(arguments.quick)}
    if arguments.list:
        for name, benchmark in known.items():
            print(f"{name:10} {benchmark.title}: {len(benchmark.cases)} cases, {benchmark.rounds} rounds")
        print(f"scaling    {scaling.TITLE}: batch, width, depth, samples")
        return
    out: Path = arguments.out or (ROOT / "build" / "benchmarks" if arguments.quick else report.RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or [*known, "scaling"]:
        begun = time.monotonic()
        print(f"\n{name}", flush=True)
        if name == "scaling":
            run_scaling(arguments, out)
        else:
            run(known[name], arguments, out)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
        if not arguments.only:
            (out / "README.md").write_text(report.overview(out), encoding="utf-8")


def parse() -> argparse.Namespace:
    names = [*(benchmark.name for benchmark in suite.benchmarks()), "scaling"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which; all, unless said: {', '.join(names)}")
    parser.add_argument("--only", help="only the cases whose name contains this; nothing is written")
    parser.add_argument("--rounds", type=int, help="each case takes so many turns")
    parser.add_argument("--resume", action="store_true", help="go on where the results in the folder end")
    parser.add_argument("--quick", action="store_true", help="see that all of it runs; results go to build/benchmarks")
    parser.add_argument("--out", type=Path, help="folder for the results (default: benchmarks/results)")
    parser.add_argument("--list", action="store_true", help="list the benchmarks")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


def run(benchmark: suite.Benchmark, arguments: argparse.Namespace, out: Path) -> None:
    """Measure a table, write it and print it."""
    rounds = arguments.rounds or benchmark.rounds
    about = machine()
    if arguments.only:
        chosen = [case for case in benchmark.cases if arguments.only.lower() in case.name.lower()]
        rows = harness.measure(chosen, rounds=rounds)
        print(report.table(rows, benchmark.unit, benchmark.references))
        return
    measured: list[harness.Row] = []
    if arguments.resume:
        before, measured = report.load(benchmark.name, out)
        if measured and not comparable(before, about):
            print("what is there is of another machine, other versions or another bpxp: all anew")
            measured = []
        elif measured:
            about = before

    def keep(rows: list[harness.Row]) -> dict[str, Any]:
        return report.dump(
            benchmark.name,
            about,
            rows,
            out,
            title=benchmark.title,
            unit=benchmark.unit,
            references=benchmark.references,
            goals=benchmark.goals,
        )

    rows = harness.measure(list(benchmark.cases), rounds=rounds, known=measured, keep=keep)
    print("\n" + "\n\n".join(report.section(keep(rows))))
    if importlib.util.find_spec("matplotlib") and any(row.values for row in rows):
        plots.bars(benchmark.title, benchmark.unit, rows, out / f"{benchmark.name}.svg")


def run_scaling(arguments: argparse.Namespace, out: Path) -> None:
    """Measure the curves, write and print them."""
    path = out / "scaling.json"
    about = machine()
    if arguments.resume and path.exists() and comparable(json.loads(path.read_text())["machine"], about):
        print("measured already")
        return
    curves = scaling.measure(arguments.quick)
    path.write_text(json.dumps({"title": scaling.TITLE, "machine": about, "axes": curves}, indent=1) + "\n")
    print("\n" + "\n\n".join(report.scaling_tables(curves)))
    if importlib.util.find_spec("matplotlib"):
        plots.growth(curves, out / "scaling.svg")


if __name__ == "__main__":
    main()
