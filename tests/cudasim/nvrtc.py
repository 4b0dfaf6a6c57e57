"""Compile every kernel that CuPy generated for the simulated device with the real NVRTC: ``python -m cudasim.nvrtc``.

NVRTC needs no GPU. Beside each ``.cu`` lies the list of its options; ``.compiled`` marks those that were done before.
"""

from __future__ import annotations

import ctypes
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cudasim


def compiled(library: ctypes.CDLL, source: Path) -> str:
    """Compile one source and return what NVRTC says against it; empty if nothing."""
    mark = source.with_suffix(".compiled")
    if mark.exists():
        return ""
    options = source.with_suffix(".options").read_bytes().split(b"\n")
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.nvrtcCreateProgram(ctypes.byref(program), source.read_bytes(), source.name.encode(), 0, None, None)
    failed = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    if not failed:
        mark.touch()
        return ""
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    return f"{source}\n{log.value.decode()}"


def main() -> int:
    folder = cudasim.site() / "nvidia/cu13/lib"
    ctypes.CDLL(str(next(folder.glob("libnvrtc-builtins.so.*"))), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libnvrtc.so.13"))
    sources = sorted(cudasim.KERNELS.glob("*.cu"))
    with ThreadPoolExecutor(2) as threads:
        problems = [text for text in threads.map(lambda source: compiled(library, source), sources) if text]
    print(*problems, f"NVRTC compiled {len(sources) - len(problems)} of {len(sources)} kernels", sep="\n")
    return bool(problems) or not sources


if __name__ == "__main__":
    sys.exit(main())
