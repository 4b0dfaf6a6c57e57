"""Measure what bpxp promises, and write it down in docs/promises.md: ``nox -s promises``, an hour or more.

The tests that count something run to their full number, and write down what they counted; the speed of saving is
measured here. A promise that is broken ends with exit code 1, and the page stays as it was. With the names of some
tests, ``nox -s promises -- tests/core/test_atomic.py``, only their rows are measured anew; each row has its date. The rows of
fuzzing are written by ``nox -s fuzz -- idx 10000000 --publish``.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import bpxp

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "promises.md"
TESTS = [
    "tests/training/test_resume.py",
    "tests/training/test_interrupts.py",
    "tests/core/test_atomic.py",
    "tests/training/test_streaming.py",
    "tests/saving/test_format.py",
    "tests/data/sources/test_idx.py",
    "tests/museum/test_museum.py",
    "tests/mutation/test_mutation.py",
]
TESTS += ["tests/test_bad_input.py", "tests/test_errors.py"]
TESTS += [f"tests/operations/test_{name}.py" for name in ("table", "gradients", "fifty_digits", "extremes")]
TESTS += [f"tests/operations/test_relations{name}.py" for name in ("", "_images", "_neutral", "_state")]
TESTS += ["tests/oracles/test_four_ways.py"]
TESTS += ["tests/training/divergence/test_monitor.py"]
TESTS += ["tests/verify/parity/test_certify.py", "tests/verify/parity/test_bisect.py"]
HERE = "tests/promises/measure.py"
FUZZ = "python -m fuzz"  # has its own hours, and its own rows: see `publish`
LIBRARIES = ["numpy", "torch", "jax", "array-api-strict", "safetensors"]

TEXT = """# Promises

What bpxp guarantees, as measured. `nox -s promises` measures everything again and writes this page, or only the rows of the
given tests; `nox -s fuzz -- all 10000000 --publish` writes the rows of fuzzing. A broken promise is an error. Every test run
repeats a small sample. Times vary with the disk and the load of the machine.

Last written with bpxp {version}, Python {python}, {libraries}; {machine}.

| what | measured | on | by |
|---|---|---|---|
{rows}
"""
ROW = re.compile(r"\| (?P<what>.+) \| (?P<figure>.+) \| (?P<date>[\d-]{10}) \| `(?P<test>.+)` \|")


def main(names: list[str]) -> int:
    """Measure what the tests of these names promise, all of them if there are none, and write the page."""
    if unknown := set(names) - {HERE, *TESTS}:
        print(f"nothing is promised by {', '.join(sorted(unknown))}; by: {', '.join([HERE, *TESTS])}")
        return 1
    names = names or [HERE, *TESTS]
    found = list(speed()) if HERE in names else []  # first: what the tests write keeps the disk busy for a while
    if tests := [name for name in names if name != HERE]:
        found += counted(tests)
    if not all(found):
        return 1
    publish(found, lambda row: row["test"].startswith(tuple(names)))
    print(PAGE.read_text(encoding="utf-8"))
    return 0


def publish(found: list[dict[str, str]], old: Callable[[dict[str, str]], bool]) -> None:
    """Write the page with these rows, and those of the rows of the page that are not `old`."""
    lines = [line | {"date": datetime.date.today().isoformat()} for line in found]
    lines += [row for row in written() if not old(row)]
    order = [HERE, *TESTS, FUZZ]
    lines.sort(key=lambda line: next(i for i, name in enumerate(order) if line["test"].startswith(name)))
    rows = "\n".join(f"| {line['what']} | {line['figure']} | {line['date']} | `{line['test']}` |" for line in lines)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in LIBRARIES if installed(name)]
    PAGE.write_text(
        TEXT.format(
            version=bpxp.__version__,
            python=platform.python_version(),
            libraries=", ".join(versions),
            machine=f"{platform.system()}, {platform.machine()}, {len(os.sched_getaffinity(0))} core(s)",
            rows=rows,
        ),
        encoding="utf-8",
    )


def written() -> list[dict[str, str]]:
    """Return the rows of the page as it is."""
    return [row.groupdict() for row in map(ROW.fullmatch, PAGE.read_text(encoding="utf-8").splitlines()) if row]


def installed(name: str) -> bool:
    try:
        return bool(importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return False


def counted(tests: list[str]) -> Iterator[dict[str, str]]:
    """Run these tests; yield what they counted, or nothing but {} if one failed."""
    backends = [name for name, info in bpxp.available_backends().items() if info.available]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "promises.jsonl"
        told = {"BPXP_NIGHTLY": "1", "BPXP_PROMISES": str(file), "BPXP_TEST_BACKENDS": ",".join(backends)}
        line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "timeout=3000", *tests]
        if subprocess.run(line, env=os.environ | told, cwd=ROOT, check=False).returncode:
            yield {}
            return
        yield from map(json.loads, file.read_text(encoding="utf-8").splitlines())


def speed() -> Iterator[dict[str, str]]:
    """Yield what saving costs, beside writing the same bytes: the best of several times, since others use the disk too."""
    os.sync()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small, _, forced = beside(bpxp.Network([784, 30, 10], backend="numpy", seed=0), folder, 50)
        figure = f"{1e3 * min(small):.1f} ms at best, {1e3 * statistics.median(small):.1f} ms in the median of 50; "
        figure += f"writing and fsyncing the same bytes: {1e3 * min(forced):.1f} and "
        figure += f"{1e3 * statistics.median(forced):.1f} ms"
        yield {"what": "Saving 784-30-10, verified and fsynced", "figure": figure, "test": HERE}
        large, plain, forced = beside(bpxp.Network([5000, 5000], backend="numpy", init="zeros"), folder, 7)
        content = (folder / "net.bpxp").read_bytes()
        hashed = best(lambda: hashlib.sha256(content), 7)
        figure = f"{1e3 * min(large):.0f} ms at best: {min(large) / min(forced):.1f} times writing and fsyncing the "
        figure += (
            f"same bytes ({1e3 * min(forced):.0f} ms), {min(large) / min(plain):.1f} times writing them to the page "
        )
        figure += f"cache ({1e3 * min(plain):.0f} ms); SHA-256 alone takes {1e3 * hashed:.0f} ms"
        yield {"what": "Saving 100 MB, verified and fsynced", "figure": figure, "test": HERE}
        path = str(folder / "net.bpxp")
        seconds = best(lambda: bpxp.Network.load(path, backend="numpy"), 7)
        line = [sys.executable, "-c", LOADING, path]
        told = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
        grown = int(subprocess.run(line, capture_output=True, text=True, check=True, env=told).stdout)
        figure = (
            f"{1e3 * seconds:.0f} ms at best, {grown / len(content):.2f} times the file's size in memory at the peak"
        )
        yield {"what": "Loading 100 MB on NumPy, every byte verified", "figure": figure, "test": HERE}


# Prints by how many bytes the memory of a process grows, at its peak, when it loads a file.
LOADING = """
import bpxp, sys, tempfile
from fuzz.engine import fresh_peak, peak
with tempfile.NamedTemporaryFile() as file:
    bpxp.Network([2, 2], backend="numpy").save(file.name)
    bpxp.Network.load(file.name, backend="numpy")
before = fresh_peak()
net = bpxp.Network.load(sys.argv[1], backend="numpy")
print(peak() - before)
"""


def best(what: Callable[[], object], times: int) -> float:
    """Return the seconds of the fastest of several times."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        what()
        found.append(time.perf_counter() - begun)
    return min(found)


def beside(net: bpxp.Network, folder: Path, times: int) -> list[list[float]]:
    """Return the seconds of saves, of plain writes, and of plain writes that are forced to the disk, taking turns."""
    path = folder / "net.bpxp"
    net.save(path)
    raw = path.read_bytes()

    def write(force: bool) -> None:
        with open(folder / "plain", "wb") as stream:
            stream.write(raw)
            if force:
                stream.flush()
                os.fsync(stream.fileno())

    ways: list[Callable[[], None]] = [lambda: net.save(path), lambda: write(False), lambda: write(True)]
    seconds: list[list[float]] = [[], [], []]
    for _ in range(times):
        for way, found in zip(ways, seconds, strict=True):
            begun = time.perf_counter()
            way()
            found.append(time.perf_counter() - begun)
    return seconds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
