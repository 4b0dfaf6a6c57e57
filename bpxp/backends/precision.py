"""Matrix products with fewer bits: a backend whose `matmul` rounds its operands, and adds up and returns in float32.

Parameters, gradients, and all that is not a matrix product stay in float32, and the mathematics does not know of it.
It belongs to the run and not to the model: a saved network does not tell how its products were computed.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import types
from collections.abc import Callable

from bpxp.backends.base import Backend
from bpxp.core.typing import Array, Namespace
from bpxp.errors import InvalidValueError, suggestion

Product = Callable[[Array, Array], Array]

# With u the largest relative error of a rounded operand, a product is wrong by 2u of what the magnitudes of its terms
# add up to, at most, beside what float32 is wrong by.
ROUNDOFF = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8, "float16": 2.0**-11}


def with_products(backend: Backend, precision: str, where: str = "matmul") -> Backend:
    """Return a backend that computes matrix products of float32 arrays with operands of another precision.

    Parameters
    ----------
    backend : Backend
    precision : {"float32", "tf32", "bfloat16", "float16"}
        ``"float32"`` returns `backend` itself: products are not rounded unless asked for, on any device.
    where : str, optional
        For the message.

    Returns
    -------
    Backend
        A copy called ``"torch+bfloat16"``, say. Arrays of both are the same arrays.

    Raises
    ------
    InvalidValueError
        If there is no such precision, or the array library has none such on its device.
    """
    library, _, known = backend.name.partition("+")
    if precision == known or (precision == "float32" and not known):
        return backend
    if known:
        raise InvalidValueError(where, "two precisions", code="E024", got=f"{precision!r} and backend {backend.name!r}")
    if precision not in ROUNDOFF:
        raise InvalidValueError(
            where,
            f"unknown precision {precision!r}",
            code="E024",
            expected=", ".join(ROUNDOFF),
            first=suggestion(precision, ROUNDOFF),
        )
    own = copy.copy(backend)
    own.name = f"{backend.name}+{precision}"
    plain, float32 = backend.xp.matmul, backend.xp.float32
    product = _product(library.partition(":")[0], backend, precision, where)
    if precision == "float16":
        product = _within_range(product, backend.xp)

    def matmul(a: Array, b: Array, /) -> Array:
        return product(a, b) if a.dtype == float32 and b.dtype == float32 else plain(a, b)

    own.xp = types.SimpleNamespace(**{**vars(backend.xp), "matmul": matmul})
    return own


def _product(library: str, backend: Backend, precision: str, where: str) -> Product:
    name = f"bpxp.backends.{library}.matmul"
    known = importlib.import_module(name).products(backend) if importlib.util.find_spec(name) else {}
    if precision not in known:
        raise InvalidValueError(
            where,
            f"{library} has no matrix product of float32 in {precision} on device {backend.device}",
            code="E024",
            expected=" or ".join(["float32", *known]),
        )
    product: Product = known[precision]
    return product


def _within_range(product: Product, xp: Namespace) -> Product:
    """Let operands be scaled to at most 1 and the result back: float16 ends at 65504, and at 6e-8 below."""

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
