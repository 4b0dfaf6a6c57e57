"""A simulated CUDA device for the published CuPy wheel: `install` comes before ``import cupy``, see README.md.

The wheel has NVIDIA's runtime linked into it, with its symbols. In this process's memory they jump to device/*.cpp.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cudasim import compiler, elf

CHECKED = "14.2.0"  # the version of cupy-cuda13x whose symbols and kernels were looked at
HERE = Path(__file__).parent
# Of device/device.hpp.
COUNTERS = (
    "launches graph_launches h2d d2h d2d memsets mallocs syncs gemms gemms_without_workspace captures streams "
    "compiled live_bytes unknown"
).split()
# CUB and Thrust in the wheel, by their names in C++, and what stands for them.
STAND_INS = {
    "_Z17cub_device_reducePvRmS_S_iP11CUstream_stii": "sim_cub_reduce",
    "_Z27cub_device_segmented_reducePvRmS_S_iiP11CUstream_stii": "sim_cub_segmented_reduce",
    "_Z15cub_device_scanPvRmS_S_iP11CUstream_stii": "sim_cub_scan",
    "_Z36cub_device_reduce_get_workspace_sizePvS_iP11CUstream_stii": "sim_cub_workspace",
    "_Z34cub_device_scan_get_workspace_sizePvS_iP11CUstream_stii": "sim_cub_workspace",
    "_Z46cub_device_segmented_reduce_get_workspace_sizePvS_iiP11CUstream_stii": "sim_cub_segmented_workspace",
    "_Z11thrust_sortiPvPmRKSt6vectorIlSaIlEElS_": "sim_thrust_sort",
    "_Z14thrust_argsortiPmPvS0_RKSt6vectorIlSaIlEElS0_": "sim_thrust_argsort",
}
PATCHED = ("cupy_backends/cuda/api/runtime.*.so", "cupy/cuda/cub.*.so", "cupy/cuda/thrust.*.so")
BLAS = "cupy_backends/cuda/libs/cublas.*.so"


def site(pattern: str = "") -> Path:
    """Return where CuPy is installed, or the one file of it that fits a pattern."""
    spec = importlib.util.find_spec("cupy")
    assert spec is not None, "cupy is not installed"
    assert spec.origin is not None
    home = Path(spec.origin).parents[1]
    return next(home.glob(pattern)) if pattern else home


def cache(kind: str, *sources: Path) -> Path:
    """Return a folder of what was compiled by some sources, kept between runs; other sources have another one."""
    digest = hashlib.sha256(CHECKED.encode())
    for source in sorted(sources):
        digest.update(source.read_bytes())
    home = os.environ.get("CUDASIM_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(home) / "bpxp-cudasim" / f"{kind}-{digest.hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build(folder: Path) -> None:
    """Compile the device, with the names of NVIDIA's libraries that CuPy loads."""
    include = site() / "nvidia/cu13/include"
    blas = HERE / "device/cublas.cpp"
    parts = [str(path) for path in (HERE / "device").glob("*.cpp") if path != blas]
    gcc = ["g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-pthread", f"-I{include}"]
    beside = [f"-L{folder}", "-lcudasim", f"-Wl,-rpath,{folder}"]
    subprocess.run([*gcc, *parts, "-o", f"{folder}/libcudasim.so", "-ldl"], check=True)
    subprocess.run(
        [
            *gcc,
            "-x",
            "c++",
            "/dev/null",
            "-Wl,--no-as-needed",
            "-Wl,-soname,libcuda.so.1",
            *beside,
            "-o",
            f"{folder}/libcuda.so.1",
        ],
        check=True,
    )
    # The functions that CuPy links must be there; those that cublas.cpp lacks return CUBLAS_STATUS_NOT_SUPPORTED.
    wanted = {
        name for name, offset in elf.symbols(site(BLAS), elf.DYNSYM).items() if name.startswith("cublas") and not offset
    }
    text = blas.read_text()
    stubs = "".join(f'extern "C" int {name}() {{ return 15; }}\n' for name in sorted(wanted) if f"{name}(" not in text)
    (folder / "stubs.cpp").write_text(stubs)
    (folder / "cublas.map").write_text("libcublas.so.13 { global: cublas*; local: *; };\n")
    versions = [f"-Wl,--version-script={folder}/cublas.map", "-Wl,-soname,libcublas.so.13"]
    subprocess.run(
        [*gcc, str(blas), f"{folder}/stubs.cpp", *versions, *beside, "-o", f"{folder}/libcublas.so.13"], check=True
    )


def replacements(path: Path) -> dict[str, str | None]:
    """Return the functions of NVIDIA's in a library of the wheel, and what replaces each; None: nothing does."""
    found: dict[str, str | None] = {}
    for name in elf.symbols(path):
        if name in STAND_INS:
            found[name] = STAND_INS[name]
        elif name.startswith("cuda") and name[4:5].isupper():
            found[name] = name if hasattr(lib, name) else None
    return found


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def _patch(path: Path) -> None:
    base, offsets = elf.loaded_at(path), elf.symbols(path)
    for name, ours in replacements(path).items():
        if ours is None:
            text = ctypes.create_string_buffer(name.encode())
            _kept.append(text)
            code = elf.jump_with(ctypes.addressof(text), _address(lib.sim_unknown))
        else:
            code = elf.jump(_address(getattr(lib, ours)))
        elf.overwrite(base + offsets[name], code)


@ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_char_p),
    ctypes.POINTER(ctypes.c_char),
    ctypes.c_int,
)
def _compile(source: bytes, count: int, options: Any, out: Any, size: int) -> int:
    try:
        library, new = compiler.compiled(source.decode(), [o.decode() for o in options[:count]], KERNELS)
        failed, text = 0, str(library)
        _counters[COUNTERS.index("compiled")] += new
    except Exception as error:  # there is no way to raise through C++
        failed, text = 1, str(error)
    ctypes.memmove(out, text.encode()[: size - 1] + b"\0", min(len(text.encode()), size - 1) + 1)
    return failed


class _Loaded:
    """What `cuda.pathfinder` returns for a library that is loaded."""

    was_already_loaded_from_elsewhere = True

    def __init__(self, library: ctypes.CDLL) -> None:
        self._handle_uint, self.abs_path = library._handle, library._name


def install() -> None:
    """Make the functions of CUDA in the wheel's libraries those of the simulated device, in this process."""
    global lib, _counters
    if "cupy" in sys.modules:
        raise ImportError("cudasim.install() comes before import cupy")
    if (version := importlib.metadata.version("cupy-cuda13x")) != CHECKED:
        raise ImportError(f"cudasim was checked with cupy-cuda13x {CHECKED}, not with {version}")
    os.environ["CUPY_CACHE_DIR"] = str(KERNELS / "cupy")
    with open(DEVICE / "lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # several processes may be here
        if not (DEVICE / "built").exists():
            build(DEVICE)
            (DEVICE / "built").touch()
    lib = ctypes.CDLL(str(DEVICE / "libcudasim.so"), mode=ctypes.RTLD_GLOBAL)
    lib.sim_counters.restype = ctypes.POINTER(ctypes.c_ulonglong)
    lib.sim_end_trace.restype = ctypes.c_char_p
    lib.sim_leave_memory.argtypes = [ctypes.c_ulonglong]
    _counters = lib.sim_counters()
    lib.sim_set_compiler(_compile)
    ctypes.CDLL(str(DEVICE / "libcuda.so.1"), mode=ctypes.RTLD_GLOBAL)
    blas = ctypes.CDLL(str(DEVICE / "libcublas.so.13"), mode=ctypes.RTLD_GLOBAL)
    from cuda import pathfinder

    original = pathfinder.load_nvidia_dynamic_lib
    ours = {"cudart": lib, "nvrtc": lib, "cublas": blas}
    pathfinder.load_nvidia_dynamic_lib = lambda name: _Loaded(ours[name]) if name in ours else original(name)
    for pattern in PATCHED:
        _patch(site(pattern))
    lib.sim_set_order(ORDER.encode())


# ---------------------------------------------------------------- for tests


def counters() -> dict[str, int]:
    """Return how often each thing was done since the process began."""
    return dict(zip(COUNTERS, _counters[: len(COUNTERS)], strict=True))


@contextlib.contextmanager
def counting() -> Iterator[dict[str, int]]:
    """``with counting() as did: …``, and then ``did["launches"]``."""
    before, did = counters(), dict.fromkeys(COUNTERS, 0)
    yield did
    did.update({name: after - before[name] for name, after in counters().items()})


def traced(function: Callable[[], Any]) -> list[str]:
    """Return what a function has the device do, in order: ``["kernel cupy_add__float32_float32_float32", …]``."""
    lib.sim_start_trace()
    try:
        function()
    finally:
        text = lib.sim_end_trace()
    return text.decode().splitlines()


@contextlib.contextmanager
def order(name: str) -> Iterator[None]:
    """Run what streams hold ``"eager"``ly, ``"lazy"`` (when something waits for it) or in ``"random"`` order."""
    lib.sim_set_order(name.encode())
    try:
        yield
    finally:
        lib.sim_set_order(ORDER.encode())


@contextlib.contextmanager
def memory_left(size: int) -> Iterator[None]:
    """Leave so many bytes of the current device's memory."""
    lib.sim_leave_memory(size)
    try:
        yield
    finally:
        lib.sim_leave_memory(80 << 30)


def repair() -> None:
    """Forget an illegal access, after which every call fails."""
    lib.sim_repair()


lib: ctypes.CDLL
_counters: Any
_kept: list[Any] = []
ORDER = os.environ.get("CUDASIM_ORDER", "lazy")
KERNELS = cache("kernels", HERE / "compiler.py", *(HERE / "kernel").rglob("*.*h"))
DEVICE = cache("device", HERE / "__init__.py", *(HERE / "device").iterdir())
