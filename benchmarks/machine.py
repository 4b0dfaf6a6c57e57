"""What the numbers depend on: processor, GPU, versions, threads, the source, and what else the machine was doing."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = (
    "numpy",
    "array-api-compat",
    "torch",
    "jax",
    "jaxlib",
    "optax",
    "scikit-learn",
    "keras",
    "thinc",
    "cupy-cuda12x",
    "cupy-cuda13x",
)
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "XLA_FLAGS", "NVIDIA_TF32_OVERRIDE")


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.date.today().isoformat(),
        "revision": revision(),
        "source": revision("HEAD:bpxp"),
        "cpu": cpu(),
        "cores": cores(),
        "gpu": gpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "threads": {name: os.environ[name] for name in THREADS if name in os.environ},
        "load": round(os.getloadavg()[0], 2),
    }


def comparable(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether measurements may stand in one table."""
    keys = ("source", "cpu", "cores", "gpu", "python", "versions", "threads")
    return all(one.get(key) == other.get(key) for key in keys)


def describe(about: dict[str, Any]) -> str:
    """Return the machine in one paragraph."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    hardware = f"{about['cpu']}, {about['cores']} cores" + (f"; {about['gpu']}" if about["gpu"] else "")
    threads = ", ".join(f"{name}={value}" for name, value in about["threads"].items()) or "each library's own choice"
    text = f"{about['date']}. {hardware}. Python {about['python']}, {versions}. Threads: {threads}."
    if about.get("revision"):
        text += f" Revision {about['revision']}."
    if "load" in about:
        text += f" Load before: {about['load']}."
    return text


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def gpu() -> str:
    """Return name, memory and driver of the GPUs; "" without one that nvidia-smi knows."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return "; ".join(output(query).splitlines())


def revision(what: str = "HEAD") -> str:
    """Return the commit that is measured, with a + if bpxp's files have changed since; "" outside a repository."""
    commit = output(["git", "rev-parse", "--short", what])
    return commit + ("+" if commit and output(["git", "status", "--porcelain", "--", "bpxp"]) else "")


def output(command: list[str]) -> str:
    """Return what a program prints, or "" if it cannot be run."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
