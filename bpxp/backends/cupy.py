"""CuPy on a CUDA device: ``cupy``, or ``cupy:1`` for the second device."""

from __future__ import annotations

from typing import Any

import array_api_compat.cupy as compat
import cupy
import numpy as np

from bpxp.backends.base import (
    CREATION,
    Array,
    State,
    Step,
    StepFunction,
    foreign,
    host,
    is_host_array,
    namespace,
    no_such_device,
)


def _on(device: Any, function: Any) -> Any:
    """Make a creation function create on `device`: CuPy itself heeds only its current device."""

    def create(*args: Any, **kwargs: Any) -> Array:
        with device:
            return function(*args, **kwargs)

    return create


class CupyBackend:
    """CuPy arrays on one device."""

    def __init__(self, device: str = "") -> None:
        self.name = f"cupy:{device}" if device else "cupy"
        self.device = cupy.cuda.Device(int(device or 0))
        created = {name: _on(self.device, getattr(compat, name)) for name in CREATION}
        self.xp = namespace(compat, None, memo={}, **created)

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        with self.device:
            if is_host_array(a):
                return cupy.asarray(host(a), dtype=dtype)
            if isinstance(a, cupy.ndarray) and a.device == self.device:
                return cupy.asarray(a, dtype=dtype)
            own = foreign(a, self, cupy.from_dlpack, (2, self.device.id))
            return cupy.asarray(own, dtype=dtype)

    def to_numpy(self, a: Array, /) -> np.ndarray:
        back: np.ndarray = cupy.asnumpy(a)
        return back

    def compile(self, step: StepFunction, /) -> Step:
        def run(state: State, data: Any, /, *, count: int = 1) -> State:
            with self.device:
                for _ in range(count):
                    state = step(state, data)
            return state

        return run


def check_device(device: str) -> None:
    """Raise if `device` is not the number of a CUDA device that answers."""
    count = cupy.cuda.runtime.getDeviceCount()  # raises CUDARuntimeError without a driver or a device
    if device and (not device.isdigit() or int(device) >= count):
        raise no_such_device("CuPy", f"cupy:{device}", count, "CUDA")
