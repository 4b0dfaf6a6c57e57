"""array-api-strict: an implementation of exactly the standard; for tests.

``strict`` computes on the host, ``strict:device1`` on a fake device whose arrays mix with no others,
``strict:no_float64`` on one without float64. A layer that runs here runs on any conforming library.
"""

from __future__ import annotations

from typing import Any

import array_api_strict as strict
import numpy as np

from bpxp.backends.base import Step, StepFunction, eager, namespace
from bpxp.backends.by_name import ByName
from bpxp.backends.dlpack import host_array, import_array, is_host_array
from bpxp.core.memory import Memory, host_memory
from bpxp.core.typing import Array
from bpxp.errors import DeviceMismatchError, InvalidValueError

HOST = strict.Device("CPU_DEVICE")


class StrictBackend(ByName):
    """Arrays of array-api-strict on one of its devices."""

    matmul = "float32"

    def __init__(self, device: str = "") -> None:
        self.name = f"strict:{device}" if device else "strict"
        self.device = strict.Device(device or "CPU_DEVICE")
        self.xp = namespace(strict, self.device, self)

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        if isinstance(a, type(self.xp.zeros(1))):
            if a.device != self.device:
                where, what, got = f"{self.name}.asarray", "the array is on another device", str(a.device)
                fix = "net.to(…), where the array is; or pass a NumPy array"
                raise DeviceMismatchError(where, what, code="E025", got=got, expected=str(self.device), fix=fix)
            return a if dtype is None or a.dtype == dtype else strict.astype(a, dtype)
        own = host_array(a) if is_host_array(a) else import_array(a, self, np.from_dlpack, (1, 0))
        if own.dtype == np.float16:
            own = own.astype(np.float32)  # the standard has no half precision
        array = strict.asarray(own, device=HOST)
        if dtype is not None:
            array = strict.astype(array, dtype, copy=False)
        return array.to_device(self.device)

    def to_numpy(self, a: Array, /) -> np.ndarray:
        return np.array(a.to_device(HOST))

    def compile(self, step: StepFunction, /) -> Step:
        return eager(step)

    def memory(self) -> Memory | None:
        return host_memory()

    def out_of_memory(self, error: BaseException, /) -> bool:
        return isinstance(error, MemoryError)


def check_device(device: str) -> None:
    """Raise if array-api-strict has no device of this name."""
    names = ("device1", "device2", "no_float64", "no_x64", "CPU_DEVICE")
    if device and device not in names:
        what, expected = "array-api-strict has no such device", ", ".join(names)
        raise InvalidValueError("backend", what, code="E023", got=repr(device), expected=expected)
