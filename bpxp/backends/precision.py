"""Reduced precision of matrix products: a backend whose `matmul` rounds its operands, and accumulates in float32.

Parameters, gradients, and everything but matrix products stay in float32; the mathematics is the same code. The
precision belongs to the run and not to the model: loading a network does not bring it back.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
from collections.abc import Callable

from bpxp.backends.base import Backend, BackendNamespace
from bpxp.core.aliases import suggestion
from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError

Matmul = Callable[[Array, Array], Array]

# The unit roundoff u of an operand: the error of a product is at most 2u times the sum of the magnitudes of its terms,
# beside the error of float32.
ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def label(backend: Backend) -> str:
    """Return name and precision of a backend as users write them: ``"torch:cuda+tf32"``."""
    return backend.name if backend.matmul == "float32" else f"{backend.name}+{backend.matmul}"


def parse_label(text: str) -> tuple[str, str | None]:
    """Return name and precision of what `label` wrote, or a user; None if there is no precision in it."""
    name, plus, matmul = text.partition("+")
    return name, matmul if plus else None


def with_matmul(backend: Backend, precision: str, where: str = "matmul") -> Backend:
    """Return a copy of a backend that computes matrix products of float32 arrays with operands of another precision.

    Arrays of both are the same arrays. A precision that the array library does not have on the device is an error.
    """
    if precision == backend.matmul:
        return backend
    if backend.matmul != "float32":
        got = f"{precision!r} and backend {label(backend)!r}"
        raise InvalidValueError(where, "two precisions", code="E024", got=got)
    if precision not in ROUNDOFF:
        what, expected = f"unknown precision {precision!r}", ", ".join(ROUNDOFF)
        raise InvalidValueError(where, what, code="E024", expected=expected, first=suggestion(precision, ROUNDOFF))
    own = copy.copy(backend)
    own.matmul = precision
    plain, float32 = backend.xp.matmul, backend.xp.float32
    product = _rounding_matmul(backend, precision, where)
    if precision == "float16":
        product = _within_range(product, backend.xp)

    def matmul(a: Array, b: Array, /) -> Array:
        return product(a, b) if a.dtype == float32 and b.dtype == float32 else plain(a, b)

    own.xp = BackendNamespace(own, **{**vars(backend.xp), "matmul": matmul})
    return own


def _rounding_matmul(backend: Backend, precision: str, where: str) -> Matmul:
    library = backend.name.partition(":")[0]
    name = f"bpxp.backends.{library}.matmul"
    known = importlib.import_module(name).rounding_matmuls(backend) if importlib.util.find_spec(name) else {}
    if precision not in known:
        what = f"{library} has no matrix product of float32 in {precision} on device {backend.device}"
        raise InvalidValueError(where, what, code="E024", expected=" or ".join(["float32", *known]))
    product: Matmul = known[precision]
    return product


def _within_range(product: Matmul, xp: Namespace) -> Matmul:
    """Scale the operands to at most 1 and the result back: the range of float16 is 6e-8 to 65504."""

    def scaled(a: Array) -> tuple[Array, Array]:
        least = xp.full((1,), float(xp.finfo(a.dtype).smallest_normal), dtype=a.dtype)
        top = xp.maximum(xp.max(xp.abs(a), axis=tuple(range(a.ndim)), keepdims=True), least)
        return a / top, top

    def matmul(a: Array, b: Array) -> Array:
        (a, top_a), (b, top_b) = scaled(a), scaled(b)
        result = product(a, b)
        result *= top_a
        result *= top_b
        return result

    return matmul
