"""JAX arrays: a step is traced once and compiled by XLA, with its state donated."""

from __future__ import annotations

import functools
from typing import Any

import array_api_compat
import jax
import jax.numpy as jnp
import numpy as np

from bpxp.backends.base import State, Step, StepFunction, namespace, no_such_device
from bpxp.backends.by_name import ByName
from bpxp.backends.dlpack import DLPACK_DEVICES, host_array, import_array, is_host_array
from bpxp.backends.prefetch import DEVICE_BYTES
from bpxp.core.memory import Memory, host_memory
from bpxp.core.typing import Array
from bpxp.errors import InvalidValueError

ALIGNMENT = 64  # bytes: JAX aliases host memory only at such addresses
NO_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory", "Out of memory")  # XLA raises one type for every failure


class JaxBackend(ByName):
    """JAX arrays on one device; float64 needs ``jax.config.update("jax_enable_x64", True)``."""

    matmul = "float32"

    def __init__(self, device: str = "") -> None:
        self.name = f"jax:{device}" if device else "jax"
        self.device = find_device(device)
        if self.device.platform != "cpu":
            self.prefetch_bytes = DEVICE_BYTES
        # On a GPU, JAX's default is TF32; here that has to be asked for, as with every library.
        matmul = functools.partial(jnp.matmul, precision="highest")
        # Made within the trace, index tables would be computed again for each number gathered through them; made by JAX
        # outside of it, each of their operations would be compiled.
        own = {"memo": {}, "tables": np, "fuses": True}
        self.xp = namespace(jnp, self.device, self, from_dlpack=jnp.from_dlpack, matmul=matmul, **own)

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        if is_host_array(a):
            return self._from_host(host_array(a), dtype)
        if not isinstance(a, jax.Array) or self.device not in a.devices():
            a = import_array(a, self, _from_dlpack, self._dlpack_device)  # or refused, naming both devices
        return a if dtype is None or a.dtype == dtype else a.astype(dtype)

    def _from_host(self, a: np.ndarray, dtype: Any) -> Array:
        if self.device.platform != "cpu":
            return jnp.array(a, dtype=dtype, device=self.device)
        # On the CPU `device_put` aliases aligned memory, and would see later writes to it, so it gets a copy of its
        # own. That is one copy; `jnp.array` needs memory for two.
        kind = a.dtype if dtype is None else np.dtype(dtype)
        memory = np.empty(a.size * kind.itemsize + ALIGNMENT, np.uint8)
        begin = -memory.ctypes.data % ALIGNMENT
        copy = memory[begin : begin + a.size * kind.itemsize].view(kind).reshape(a.shape)
        np.copyto(copy, a, casting="unsafe")
        return jax.device_put(copy, self.device)

    @property
    def _dlpack_device(self) -> tuple[int, int]:
        kind = {name: kind for kind, name in DLPACK_DEVICES.items()}["cuda" if self.device.platform == "gpu" else "cpu"]
        return kind, self.device.id if kind != 1 else 0

    def copied(self, a: Array, /) -> Array:
        # JAX compiles a copy for each shape, 30 ms; host memory needs none.
        return self._from_host(np.asarray(a), None) if self.device.platform == "cpu" else jnp.array(a, copy=True)

    def to_numpy(self, a: Array, /) -> np.ndarray:
        return np.array(a)

    def compile(self, step: StepFunction, /) -> Step:
        return JaxStep(step, self)

    def memory(self) -> Memory | None:
        stats = self.device.memory_stats()
        if not stats or "bytes_limit" not in stats:
            return host_memory() if self.device.platform == "cpu" else None
        # On a GPU it is XLA's pool, most of which is preallocated.
        return Memory(stats["bytes_limit"] - stats["bytes_in_use"], stats["bytes_limit"])

    def out_of_memory(self, error: BaseException, /) -> bool:
        if isinstance(error, MemoryError):
            return True
        text = str(error)
        return isinstance(error, jax.errors.JaxRuntimeError) and any(said in text for said in NO_MEMORY)


class JaxStep:
    """A step compiled by XLA, with its state donated."""

    def __init__(self, step: StepFunction, backend: JaxBackend, /) -> None:
        def repeat(state: State, data: Any, count: Array) -> State:
            return jax.lax.fori_loop(0, count, lambda _, current: step(current, data), state)

        self.step, self.backend = step, backend
        self._once = jax.jit(step, donate_argnums=0)
        # The count is an argument of the compiled loop, so that another count does not recompile. A count of 1 runs the
        # loop too: the compiler may round differently outside of it, and the bits must not depend on how steps are
        # divided among calls.
        self._many = jax.jit(repeat, donate_argnums=0)

    def __call__(self, state: State, data: Any, /, *, count: int | None = None) -> State:
        return self._once(state, data) if count is None else self._many(state, data, np.int32(count))

    def __reduce__(self) -> tuple[Any, ...]:
        return JaxStep, (self.step, self.backend)


def _from_dlpack(a: Any) -> Array:
    try:
        return jnp.from_dlpack(a)
    except jax.errors.JaxRuntimeError:  # JAX imports only compact memory: a strided view is copied on its device
        return jnp.from_dlpack(array_api_compat.array_namespace(a).asarray(a, copy=True))


def find_device(device: str) -> Any:
    """Return the JAX device called ``"cpu"``, ``"gpu"`` or ``"gpu:1"``; "" is JAX's default."""
    if not device:
        return jax.devices()[0]
    kind, _, index = device.partition(":")
    kind = {"cuda": "gpu"}.get(kind, kind)
    try:
        found = jax.devices(kind)
    except RuntimeError as error:
        platforms = sorted({d.platform for d in jax.devices()} | {"cpu"})
        what, expected = "JAX has no such platform here", " or ".join(f"jax:{p}" for p in platforms)
        raise InvalidValueError("backend", what, code="E023", got=repr(f"jax:{device}"), expected=expected) from error
    position = int(index) if index.isdigit() else 0
    if (index and not index.isdigit()) or position >= len(found):
        raise no_such_device("JAX", f"jax:{kind}:{index}", len(found), kind)
    return found[position]


def check_device(device: str) -> None:
    """Raise if JAX does not have the device."""
    find_device(device)
