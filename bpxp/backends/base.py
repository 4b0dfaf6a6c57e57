"""What a backend is: a namespace of functions on one device, the way in, the way out, and `compile`.

A backend never grows an operation per mathematical function: what the mathematics needs stands in `xp`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bpxp.core.memory import Memory
from bpxp.core.typing import Array, Namespace
from bpxp.errors import DeviceMismatchError, InvalidTypeError, InvalidValueError, ShapeRuleError

State = Any
StepFunction = Callable[[State, Any], State]

# The functions of the Array API standard 2024.12. A name that is not here does not exist for the mathematics.
FUNCTIONS = """
abs acos acosh add all any argmax argmin argsort asin asinh astype atan atan2 atanh bitwise_and bitwise_invert
bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor broadcast_arrays broadcast_to can_cast ceil clip concat
conj copysign cos cosh count_nonzero cumulative_prod cumulative_sum diff divide empty_like equal exp expand_dims expm1
finfo flip floor floor_divide full_like greater greater_equal hypot iinfo imag isdtype isfinite isinf isnan less
less_equal log log10 log1p log2 logaddexp logical_and logical_not logical_or logical_xor matmul matrix_transpose max
maximum mean meshgrid min minimum moveaxis multiply negative nextafter nonzero not_equal ones_like permute_dims
positive pow prod real reciprocal remainder repeat reshape result_type roll round searchsorted sign signbit sin sinh
sort sqrt square squeeze stack std subtract sum take take_along_axis tan tanh tensordot tile tril triu trunc
unique_all unique_counts unique_inverse unique_values unstack var vecdot where zeros_like
""".split()
CREATION = "arange asarray empty eye from_dlpack full linspace ones zeros".split()
CONSTANTS = "e inf nan newaxis pi".split()
DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float32 float64 complex64 complex128".split()

# What a backend may add: a kernel that does what a function of the mathematics does, to the same bits, but faster.
# The function takes it where it is there, and is complete without it.
KERNELS = ["threefry"]

# And what it may tell. `workspace`: how many bytes the mathematics may take at a time for what it makes only to
# multiply it, or works on in place. A backend of the CPU says what a core has near it; where none is told, the
# mathematics takes more: a GPU and a compiler are better with few large pieces. `fuses`: whether a compiled step does
# several operations at once: what is gathered, and added up, is not stored in between, and it may take less memory than
# the step as it is written.
HINTS = ["workspace", "fuses"]
CACHE = 1 << 20

# And for data larger than the device. `ring(kinds, rows)`: buffers through which the samples travel, see
# `bpxp.backends.prefetch`; `piece`: how many bytes of them at a time. `shares_memory`: whether `asarray` takes an array
# of NumPy as it is, so that it costs no memory.

# And what it may keep. `memo`: a dict for what depends on shapes alone, such as tables of indices. What is made within
# a trace is not to outlive it: a namespace that traces says `tables`, too, a namespace with which they are made. Its
# arrays are constants of what is compiled.
STORES = ["memo"]
MAKERS = ["tables"]


class RuledNamespace(types.SimpleNamespace):
    """Functions that compute something else than numbers, by a rule for each; asking for another one says so.

    Parameters
    ----------
    lacking : str
        What there is no rule for.
    where : str
        The file in which one would stand, and what it would return.
    **functions
    """

    def __init__(self, lacking: str = "", where: str = "", /, **functions: Any) -> None:
        super().__init__(**functions)
        self._lacking, self._where = lacking, where

    def __getattr__(self, name: str) -> Any:
        if name in FUNCTIONS:
            fix = f"a function in {self._where}"
            raise ShapeRuleError(f"xp.{name}", self._lacking, code="E026", fix=fix)
        raise AttributeError(f"this namespace has no {name!r}")


@runtime_checkable
class Step(Protocol):
    """A compiled step: ``state = step(state, data, count=n)`` runs it n times.

    The state is given away: after the call only the returned state may be used, since its buffers may be the same. That
    one is good until the next call, for the same reason. `data` is only read.
    """

    def __call__(self, state: State, data: Any, /, *, count: int = 1) -> State: ...


@runtime_checkable
class Backend(Protocol):
    """One array library on one device.

    Attributes
    ----------
    name : str
        As `get_backend` takes it: the library, and its device unless that is the default, ``"torch:cuda:1"``.
    xp : namespace
        The functions of the Array API, see `namespace`.
    device : object
        The library's own description of the device.
    matmul : str
        Precision of the operands of matrix products, ``"float32"`` unless `bpxp.backends.precision` made it.
    """

    name: str
    xp: Namespace
    device: Any
    matmul: str

    def asarray(self, a: Any, /, *, dtype: Any = None) -> Array:
        """Bring `a` to the device. Arrays that are there already are shared, not copied."""

    def to_numpy(self, a: Array, /) -> np.ndarray:
        """Return a host copy: the only way back, and the place where host and device wait for each other."""

    def compile(self, step: StepFunction, /) -> Step:
        """Return a step with the same meaning: the only place where a step becomes fast."""

    def memory(self) -> Memory | None:
        """Return what memory the device has and can still give; None where that is not known."""

    def out_of_memory(self, error: BaseException, /) -> bool:
        """Return whether an exception says that the device has no memory left, in the library's own way."""


def namespace(library: Any, device: Any, **amended: Any) -> Namespace:
    """Collect the standard's names from `library` into a namespace that the backend owns.

    Parameters
    ----------
    library : module
        An Array API namespace.
    device : object or None
        Where its creation functions create, unless told otherwise: the mathematics never names a device. None leaves
        them as they are.
    **amended
        Functions that replace those of the library, in this one place.
    """
    names = [*FUNCTIONS, *CONSTANTS, *DTYPES]
    found = {name: getattr(library, name) for name in names if hasattr(library, name)}
    created = {name: getattr(library, name) for name in CREATION}
    if device is not None:
        created = {name: functools.partial(function, device=device) for name, function in created.items()}
    return types.SimpleNamespace(**{**found, **created, **amended})


def eager(step: StepFunction, /) -> Step:
    """Compile by doing nothing: run the step `count` times."""

    def run(state: State, data: Any, /, *, count: int = 1) -> State:
        for _ in range(count):
            state = step(state, data)
        return state

    return run


# DLPack's numbers for the kinds of device, https://dmlc.github.io/dlpack/latest/c_api.html
DLPACK_DEVICES = {1: "cpu", 2: "cuda", 3: "cpu (pinned)", 10: "rocm", 13: "cuda (managed)"}


def device_name(a: Any) -> str:
    """Return ``"cuda:0 (cupy)"`` for an array of any library."""
    kind, index = (int(part) for part in a.__dlpack_device__())
    return _place(kind, index, type(a).__module__.split(".")[0])


def _place(kind: int, index: int, library: str) -> str:
    name = DLPACK_DEVICES.get(kind, f"device kind {kind}")
    return f"{name}{f':{index}' if kind != 1 else ''} ({library})"


def _home(a: Any) -> str:
    """Return the name of the backend on which an array is, as far as the array tells."""
    library = type(a).__module__.split(".")[0].removesuffix("lib")  # JAX's arrays are of jaxlib
    kind, index = (int(part) for part in a.__dlpack_device__())
    if kind == 1:
        return library
    family = {"torch": "torch:cuda", "jax": "jax:gpu"}.get(library, library)
    return f"{family}:{index}"


def is_host_array(a: Any) -> bool:
    """Return whether `a` is something that NumPy reads: not an array of another library on a device."""
    return isinstance(a, np.ndarray) or not hasattr(a, "__dlpack_device__")


def host(a: Any) -> np.ndarray:
    """Return what NumPy reads `a` as, in this machine's byte order: the other libraries know no other."""
    array = np.asarray(a)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def foreign(a: Any, backend: Backend, from_dlpack: Callable[[Any], Array], own: tuple[int, int]) -> Array:
    """Take an array of another library without a copy, by DLPack.

    Parameters
    ----------
    a : array
        An object with `__dlpack__` and `__dlpack_device__`.
    backend : Backend
        Where it shall go.
    from_dlpack : callable
        The library's importer.
    own : tuple of int
        DLPack's (kind, index) of the backend's device.

    Raises
    ------
    DeviceMismatchError
        If the array lives elsewhere: a copy between devices is the caller's decision.
    InvalidTypeError
        If the array takes part in another library's automatic differentiation.
    """
    if getattr(a, "requires_grad", False):
        raise InvalidTypeError(
            f"{backend.name}.asarray",
            "the tensor records gradients, bpxp derives its own",
            code="E034",
            got="requires_grad=True",
            fix="pass x.detach()",
        )
    kind, index = (int(part) for part in a.__dlpack_device__())
    if (kind, index) != own:
        raise DeviceMismatchError(
            f"{backend.name}.asarray",
            "the array is on another device",
            code="E025",
            got=device_name(a),
            expected=_place(*own, backend.name),
            fix=f"net.to({_home(a)!r}), or pass a NumPy array",
        )
    return from_dlpack(a)


def no_such_device(library: str, asked: str, count: int, kind: str = "") -> InvalidValueError:
    """Return the error that says how many devices of a kind there are: ``"torch has 1 CUDA device (0)"``."""
    family, _, _ = asked.rpartition(":")
    devices = f"{count} {kind} device".replace("  ", " ") + ("s" if count != 1 else "")
    return InvalidValueError(
        "backend",
        f"{library} has {devices} ({'0' if count == 1 else f'0..{count - 1}'})",
        code="E023",
        got=repr(asked),
        fix=f"backend='{family}:0'",
    )
