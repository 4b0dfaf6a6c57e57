"""How much disk a package takes with all that it must have beside it, in MB, as it is installed here.

Extras are not counted. bpxp itself may run from its source: then its files are those of the folder, and its needs those
of pyproject.toml.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def parts(name: str) -> tuple[float, list[str]]:
    """Return the MB of a package's own files, and its requirements."""
    try:
        found = importlib.metadata.distribution(name)
        if name == "bpxp" and not any(str(file).startswith("bpxp/") for file in found.files or []):
            raise importlib.metadata.PackageNotFoundError  # an editable install: its files lie elsewhere
        files = [Path(str(found.locate_file(file))) for file in found.files or []]
        needs = found.requires or []
    except importlib.metadata.PackageNotFoundError:
        if name != "bpxp":
            raise
        files = [file for file in (ROOT / "bpxp").rglob("*") if "__pycache__" not in file.parts]
        needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return sum(file.stat().st_size for file in files if file.is_file()) / 1e6, needs


def closure(name: str) -> dict[str, float]:
    """Return the MB of a package and of everything that it needs."""
    sizes: dict[str, float] = {}
    waiting = [name]
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in sizes:
            continue
        sizes[name], needs = parts(name)
        for line in needs:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                waiting.append(need.name)
    return sizes


if __name__ == "__main__":
    sizes = closure(sys.argv[1])
    own = next(iter(sizes.values()))
    print(json.dumps({"value": sum(sizes.values()), "own MB": own, "parts": sizes}))
