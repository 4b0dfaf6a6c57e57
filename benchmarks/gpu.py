"""The GPU lane: test and measure bpxp on this machine's GPU, in under eight minutes, with one command.

``python -m benchmarks.gpu --out DIR`` from the repository's root. It installs nothing. It needs Python ≥ 3.11 with
numpy, array-api-compat, pytest and hypothesis, and CuPy or a CUDA build of PyTorch (both: both are tested); some tests
need mpmath, mparray, array-api-strict, array-api-extra, pandas, polars or safetensors. bpxp itself need not be
installed.

It writes DIR/gpu.json and DIR/gpu.md: the hardware, the versions, what the tests said on each backend, the benchmarks
of `benchmarks.suite_gpu` and which goals are reached. The races need MNIST; ``--data DIR`` says where it lies. Exit
codes: 0 all passed, 1 a test failed or a backend is missing, 2 no GPU that answers. ``--skip tests`` and ``--skip
benchmarks`` split it; ``--backends numpy,torch --quick`` rehearses it on a machine without a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bpxp
from benchmarks import harness, report, suite_gpu
from benchmarks.machine import ROOT, describe, machine
from benchmarks.suite import Benchmark
from bpxp.errors import BpxpError

GPU_BACKENDS = "cupy,torch:cuda"


def main() -> int:
    """Run the lane and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    parser.add_argument("--backends", default=GPU_BACKENDS, help=f"default: {GPU_BACKENDS}")
    parser.add_argument("--minutes", type=float, default=7.5, help="all of it ends by then (default: 7.5)")
    parser.add_argument("--data", type=Path, help="folder with MNIST, as BPXP_DATA_DIR")
    parser.add_argument("--skip", choices=["tests", "benchmarks"], help="leave one part out")
    parser.add_argument("--quick", action="store_true", help="see that the benchmarks run, whatever they say")
    arguments = parser.parse_args()
    if arguments.data:
        os.environ["BPXP_DATA_DIR"] = str(arguments.data.resolve())
    deadline = time.monotonic() + 60.0 * arguments.minutes
    working, missing = probe(arguments.backends.split(","))
    if not working:
        print("\nNo GPU: none of the backends works here, so nothing was tested or measured.")
        return 2
    arguments.out.mkdir(parents=True, exist_ok=True)
    lane: dict[str, Any] = {"machine": {**machine(), "devices": devices(working)}, "missing": missing}
    # The tests may take two thirds of the time; the benchmarks get what is left.
    share = (deadline - time.monotonic()) * 2.0 / 3.0 / len(working)
    lane["tests"] = {name: run_tests(name, share) for name in working if arguments.skip != "tests"}
    keep(lane, arguments.out)  # what is known by now is not lost, whatever happens next
    lane["benchmarks"] = {}
    todo = [] if arguments.skip == "benchmarks" else suite_gpu.benchmarks(working, arguments.quick)
    for i, benchmark in enumerate(todo):
        share = (deadline - time.monotonic()) / (len(todo) - i)
        lane["benchmarks"][benchmark.name] = run_benchmark(benchmark, time.monotonic() + share)
        keep(lane, arguments.out)
    print(markdown(lane))
    passed = all(result["exit code"] == 0 for result in lane["tests"].values())
    return 0 if passed and not missing else 1


def probe(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the backends that compute here, and why each of the others does not."""
    working, missing = [], {}
    for name in names:
        try:
            bpxp.get_backend(name)
        except BpxpError as error:
            missing[name] = str(error.__cause__ or error)
            print(f"{name}: does not work here: {missing[name]}")
        else:
            working.append(name)
            print(f"{name}: works")
    return working, missing


def devices(names: list[str]) -> dict[str, str]:
    """Return what each library calls its device: a machine may have no nvidia-smi."""
    found = {}
    for name in names:
        device = bpxp.get_backend(name).device
        if name.startswith("cupy"):
            import cupy

            found[name] = cupy.cuda.runtime.getDeviceProperties(device.id)["name"].decode()
        elif name.startswith("torch:cuda"):
            import torch

            found[name] = torch.cuda.get_device_name(device)
        else:
            found[name] = getattr(device, "device_kind", str(device))
    return found


def run_tests(name: str, seconds: float) -> dict[str, Any]:
    """Run every test that has a backend on this one, in a process of its own."""
    # No configuration file: the plugins that ours asks for need not be installed here.
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", ".", "--import-mode=importlib"]
    command += ["-p", "no:cacheprovider", "-W", "error", "-q", "--tb=short", "--maxfail=20", "tests"]
    command += ["--continue-on-collection-errors"]  # a missing package costs the tests that need it, and is told
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(4, os.cpu_count() or 1))]  # CuPy and JAX compile a lot, on the host
    # The tests of examples and of the command line start programs that import bpxp from here, and tests share modules.
    paths = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "BPXP_TEST_BACKENDS": name,
        "BPXP_TEST_ONLY_BACKENDS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    print(f"\ntests on {name}, at most {seconds:.0f} s", flush=True)
    begun = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
        code = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the workers of pytest-xdist
        output, _ = process.communicate()
        output += f"\nended after {seconds:.0f} s"
        code = 124
    print(output[-4000:], flush=True)
    return {
        "exit code": code,
        "summary": re.sub(r"=+", "", output.strip().splitlines()[-1]).strip() if output.strip() else "",
        "failures": re.findall(r"^(?:FAILED|ERROR) .*", output, re.MULTILINE),
        "seconds": round(time.monotonic() - begun, 1),
        "output": output[-20_000:],
    }


def run_benchmark(benchmark: Benchmark, deadline: float) -> dict[str, Any]:
    """Measure what there is time for."""
    print(f"\n{benchmark.title}", flush=True)
    rows = harness.measure(list(benchmark.cases), rounds=benchmark.rounds, timeout=120.0, deadline=deadline)
    return {
        "title": benchmark.title,
        "unit": benchmark.unit,
        "goals": [report.judge(rows, goal) for goal in benchmark.goals],
        "rows": {row.name: {"values": row.values, "error": row.error, "details": row.details} for row in rows},
        "table": report.table(rows, benchmark.unit, benchmark.references),
    }


def markdown(lane: dict[str, Any]) -> str:
    """Return the whole lane as one page."""
    about = lane["machine"]
    lines = ["# bpxp on a GPU", "", describe(about), ""]
    lines += [f"- {name}: {device}" for name, device in about["devices"].items()]
    lines += [f"- {name}: does not work here: {reason}" for name, reason in lane["missing"].items()]
    if lane["tests"]:
        lines += ["", "| tests on | result | seconds |", "|---|---|---:|"]
    for name, result in lane["tests"].items():
        lines.append(f"| {name} | {result['summary']} | {result['seconds']} |")
    lines.append("")
    lines += [f"- {name}: {failure}" for name, result in lane["tests"].items() for failure in result["failures"]]
    for benchmark in lane.get("benchmarks", {}).values():
        lines += ["", f"## {benchmark['title']}", "", benchmark["table"]]
        if benchmark["goals"]:
            lines += ["", report.verdicts(benchmark["goals"])]
    return "\n".join(lines) + "\n"


def keep(lane: dict[str, Any], out: Path) -> None:
    """Write what is known."""
    (out / "gpu.json").write_text(json.dumps(lane, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "gpu.md").write_text(markdown(lane), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
