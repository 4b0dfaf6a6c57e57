"""The protocol of a backend: a namespace of functions on one device, the way in, the way out, and `compile`.

A backend never grows a method per mathematical function: what the mathematics needs is in `xp`. What a namespace and a
backend may have beside it is in `NamespaceOptions` and `BackendOptions`.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bpxp.core.memory import Memory
from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError, ShapeRuleError

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

CACHE = 1 << 20  # bytes of cache of a CPU core, about


class NamespaceOptions:
    """What a namespace may have beside the standard, and the defaults where it does not.

    Attributes
    ----------
    threefry : callable or None
        ``threefry(key0, key1, counter0, counter1)``: a kernel with the bits of `bpxp.core.threefry.threefry`.
    memo : dict or None
        A cache for tables that depend on shapes alone, such as indices. None: they are made at each call.
    tables : namespace or None
        In which tables are made; None is the namespace itself. A namespace that traces names one that does not: arrays
        made within a trace must not outlive it.
    workspace : int or None
        Bytes that the mathematics may use at a time for intermediate arrays: on a CPU what stays in a core's cache.
        None is for devices and compilers that are better with few large arrays.
    fuses : bool
        Whether a compiled step fuses operations, so that what is gathered and then summed is not stored in between.
    """

    threefry: Callable[..., tuple[Array, Array]] | None = None
    memo: dict[Any, Any] | None = None
    tables: Namespace | None = None
    workspace: int | None = None
    fuses: bool = False


class BackendOptions:
    """What a backend may have beside the members of `Backend`, and the defaults where it does not; see `option`.

    Attributes
    ----------
    here : callable or None
        ``here()`` is a context in which operators compute on the backend's device, see `bpxp.backends.device`. None:
        they do anyway. The rest is about data sets larger than the device's memory.
    prefetch : callable or None
        ``prefetch(kinds, rows)`` returns a double buffer for samples larger than the device's memory, see
        `bpxp.backends.prefetch`. None: `asarray` copies each half.
    prefetch_bytes : int
        Size of a half.
    shares_memory : bool
        Whether `asarray` takes an array of NumPy as it is, so that it needs no memory.
    reuses_state : bool
        Whether a compiled step returns its state in buffers that its next call writes, whatever state that is given.
    copied : callable or None
        ``copied(a)`` returns a copy of an array on its device. None: ``xp.asarray(a, copy=True)``.
    """

    here: Callable[[], Any] | None = None
    prefetch: Callable[..., Any] | None = None
    prefetch_bytes: int = 4 << 20
    shares_memory: bool = False
    reuses_state: bool = False
    copied: Callable[..., Any] | None = None


def options(kind: type) -> list[str]:
    """Return the names in `NamespaceOptions` or `BackendOptions`."""
    return list(kind.__annotations__)


class RuledNamespace(types.SimpleNamespace):
    """A namespace that computes something else than numbers, by a rule for each function; others raise an error.

    Parameters
    ----------
    lacking : str
        What the rule would say.
    where : str
        The file that needs the rule, and what the rule returns.
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

    The state is donated: the result may alias its buffers, so only the returned state may be used after the call, and
    that one until the next call. `data` is only read.
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
        """Return `a` as an array on the device. Arrays that are there already are shared, not copied."""

    def to_numpy(self, a: Array, /) -> np.ndarray:
        """Return a copy on the host: the only way back, and the only place where the host waits for the device."""

    def compile(self, step: StepFunction, /) -> Step:
        """Return a step with the same meaning: the only place where a step becomes fast."""

    def memory(self) -> Memory | None:
        """Return the device's memory, in total and free; None where that is not known."""

    def out_of_memory(self, error: BaseException, /) -> bool:
        """Return whether an exception of the library means that the device is out of memory."""


MEMBERS = [*Backend.__annotations__, *(name for name in vars(Backend) if not name.startswith("_"))]


def missing_members(thing: Any) -> list[str]:
    """Return the members of the protocol that an object lacks."""
    return [name for name in MEMBERS if not hasattr(thing, name)]


def option(backend: Backend, name: str) -> Any:
    """Return an optional member of a backend, or its default in `BackendOptions`."""
    return getattr(backend, name, getattr(BackendOptions, name))


class BackendNamespace(types.SimpleNamespace):
    """The functions of a backend, its `owner`: pickled as an attribute of it."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any, /, **functions: Any) -> None:
        super().__init__(**functions)
        self.owner = owner

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.owner, "xp")


def namespace(library: Any, device: Any, owner: Any = None, /, **amended: Any) -> Namespace:
    """Collect the standard's names from `library` into a namespace that the backend owns.

    Parameters
    ----------
    library : module
        An Array API namespace.
    device : object or None
        The default device of its creation functions, since the mathematics names none. None leaves them as they are.
    owner : Backend, optional
    **amended
        Functions that replace or add to those of the library: the one place to amend it.
    """
    names = [*FUNCTIONS, *CONSTANTS, *DTYPES]
    found = {name: getattr(library, name) for name in names if hasattr(library, name)}
    created = {name: getattr(library, name) for name in CREATION}
    if device is not None:
        created = {name: functools.partial(function, device=device) for name, function in created.items()}
    return BackendNamespace(owner, **{**found, **created, **amended})


def eager(step: StepFunction, /) -> Step:
    """Return a step that is run as it is, `count` times."""
    return functools.partial(_repeated, step)


def _repeated(step: StepFunction, state: State, data: Any, /, *, count: int = 1) -> State:
    for _ in range(count):
        state = step(state, data)
    return state


class NoDevice(RuntimeError):
    """There is no device of the kind that a library computes on; so nothing is wrong with the library."""


def no_such_device(library: str, asked: str, count: int, kind: str = "") -> InvalidValueError:
    """Return the error for a device that does not exist: ``"torch has 1 CUDA device (0)"``."""
    family, _, _ = asked.rpartition(":")
    devices = f"{count} {kind} device".replace("  ", " ") + ("s" if count != 1 else "")
    what = f"{library} has {devices} ({'0' if count == 1 else f'0..{count - 1}'})"
    return InvalidValueError("backend", what, code="E023", got=repr(asked), fix=f"backend='{family}:0'")
