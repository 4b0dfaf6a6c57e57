"""The compiler of the simulated device: CUDA C++ as CuPy generates it becomes a shared library, by g++."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

HEADERS = Path(__file__).parent / "kernel"
FLAGS = "-w -x c++ -std=c++17 -O1 -fPIC -shared -ffp-contract=off -fno-strict-aliasing".split()
SHARED = re.compile(r"extern\s+__shared__\s+([^;\[]+?)\s+(\w+)\s*\[\s*\]\s*;")  # of a size given at the launch
KERNEL = re.compile(r"__global__\s+(?:__launch_bounds__\([^)]*\)\s*)?void\s+(\w+)\s*\(")
ELEMENTWISE, BARRIERS, FLUSHES = 1, 2, 4  # as in device/kernels.cpp


def translated(source: str, options: list[str]) -> str:
    """Return C++ of the host: the kernels, a function for each that launches it, and what they need."""
    traits = (
        ELEMENTWISE * ("CUPY_FOR(" in source)
        | BARRIERS * ("__syncthreads" in source or "cub::" in source)
        | FLUSHES * ("-ftz=true" in options and "double" not in source)  # float32 alone is flushed to zero
    )
    source = SHARED.sub(r"\1* \2 = (\1*)sim_context->dynamic;", source)
    launchers = "\n".join(f"SIM_KERNEL({name})" for name in sorted(set(KERNEL.findall(source))))
    return f'#include "cuda.h"\n{source}\n{launchers}\nextern "C" int sim_traits = {traits};\n'


def compiled(source: str, options: list[str], cache: Path) -> tuple[Path, bool]:
    """Return the library of some kernels, and whether it was made just now.

    Beside it lie what CuPy wrote (``.cu``) and its options, for the real NVRTC; see nvrtc.py.

    Raises
    ------
    RuntimeError
        With what g++ says.
    """
    name = hashlib.sha256("\0".join([source, *options]).encode()).hexdigest()[:24]
    library = cache / f"{name}.so"
    if library.exists():
        return library, False
    own = cache / f"{name}.{os.getpid()}.so"  # several processes may compile the same kernel
    passed = [option for option in options if option.startswith(("-I", "-D"))]
    command = ["g++", *FLAGS, f"-I{HEADERS}", *passed, "-", "-o", str(own)]
    run = subprocess.run(command, input=translated(source, options), capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr)
    (cache / f"{name}.options").write_text("\n".join(options))
    (cache / f"{name}.cu").write_text(source)
    own.replace(library)
    return library, True
