"""Validation of x: an array of the network's backend, or an error that says what to write instead.

Accepted: nested lists, NumPy arrays of any layout and byte order, memory maps, data frames of numbers, and arrays of
any library that supports DLPack, on the network's device. The array is never written.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from bpxp.backends import Array, Backend, get_backend
from bpxp.backends.dlpack import library_of
from bpxp.core.typing import Shape
from bpxp.data.rows import Rows
from bpxp.data.validation.columns import check_columns
from bpxp.data.validation.rearrange import called, rearranged, vectors
from bpxp.errors import BpxpError, InvalidTypeError, InvalidValueError

BLOCK = 1 << 20  # numbers validated at a time: the array may be larger than memory


def as_host(a: Any, where: str) -> np.ndarray:
    """Return `a` as a NumPy array of real numbers; anything else is refused, with what to write instead."""
    name = where.rpartition(": ")[2]  # "y" of "fit: y"
    name = name if name.isidentifier() else "x"
    if a is None:
        raise InvalidTypeError(where, "is missing", code="E030", got="None", expected="an array")
    if hasattr(a, "__next__"):
        what, got, fix = "can be read only once", type(a).__name__, f"{name} = np.stack(list({name}))"
        raise InvalidTypeError(where, what, code="E030", got=got, expected="an array", fix=fix)
    if hasattr(a, "collect_schema") and hasattr(a, "collect"):
        what, got, fix = "has not been computed yet", type(a).__name__, f"pass {name}.collect()"
        raise InvalidTypeError(where, what, code="E030", got=got, fix=fix)
    if hasattr(a, "tocsr") and hasattr(a, "toarray"):
        got, fix = f"{library_of(a)}.sparse {type(a).__name__}", f"pass {name}.toarray()"
        raise InvalidTypeError(where, "sparse", code="E032", got=got, expected="a dense array", fix=fix)
    if np.ma.isMaskedArray(a):
        if np.ma.is_masked(a):
            got = f"{int(np.ma.getmaskarray(a).sum())} of {a.size} masked"
            fix = f"pass {name}.filled(value), or drop the rows"
            raise InvalidTypeError(where, "has masked values", code="E033", got=got, fix=fix)
        a = a.data
    if hasattr(a, "columns") and hasattr(a, "to_numpy"):
        check_columns(a, where)
        a = a.to_numpy()
        if a.dtype.kind == "O":  # mixed dtypes; a missing value cannot be converted, and is refused below
            with contextlib.suppress(TypeError, ValueError):
                a = a.astype(np.float64)
    try:
        array = np.asarray(a)
    except ValueError as error:
        raise InvalidValueError(where, _ragged(a) or f"cannot be read as an array ({error})", code="E035") from error
    except TypeError as error:  # arrays on a GPU refuse to become NumPy's
        what, fix = f"cannot be read as an array ({error})", f"{name} = xp.stack({name}), with xp of their library"
        raise InvalidTypeError(where, what, code="E030", got=type(a).__name__, fix=fix) from error
    if array.dtype.type.__module__ == "ml_dtypes":  # bfloat16 and float8 of JAX: float32 holds each of their numbers
        array = array.astype(np.float32)
    kind = array.dtype.kind
    if kind == "O" and array.ndim == 0:
        raise InvalidTypeError(where, "not an array", code="E030", got=type(a).__name__)
    if kind == "O":
        raise InvalidTypeError(where, f"dtype object; {_first_non_number(array)}", code="E031", expected="numbers")
    if kind == "c":
        fix = f"pass {name}.real" if hasattr(a, "real") else f"pass np.real({name})"
        raise InvalidTypeError(where, f"{array.dtype} not supported", code="E031", fix=fix)
    if kind not in "biuf":
        got, fix = f"dtype {array.dtype}", "encode it as numbers"
        raise InvalidTypeError(where, "not numbers", code="E031", got=got, expected="integers or floats", fix=fix)
    return array


def adopt(a: Any, backend: Backend, where: str) -> Array:
    """Return an array of any library as one of the backend; on another device it is an error.

    It is not copied, unless it is of bfloat16 or float8, which not every library has: float32 holds each number.
    """
    if str(a.dtype).rpartition(".")[2].startswith(("bfloat16", "float8")):
        a = a.float() if hasattr(a, "float") else a.astype("float32")
    try:
        return backend.asarray(a)
    except BpxpError as error:
        raise error.replaced(where=where) from None
    except (BufferError, TypeError) as error:
        what, got = f"{backend.name} cannot take the array", f"dtype {a.dtype} of {library_of(a)} ({error})"
        raise InvalidTypeError(where, what, code="E031", got=got, fix="convert it to float32") from error


def _ragged(a: Any) -> str:
    """Say which row differs in length from the first; an empty string if none does."""
    try:
        lengths = [len(row) for row in a]
    except TypeError:
        return "the rows are not all sequences of numbers"
    for i, length in enumerate(lengths):
        if length != lengths[0]:
            return f"ragged: row {i} has {length} value{'s' * (length != 1)}, row 0 has {lengths[0]}"
    return ""


def _first_non_number(array: np.ndarray) -> str:
    for index, value in np.ndenumerate(array):
        if not isinstance(value, (int, float, np.bool_, np.number)):
            return f"first non-number at {list(index)}: {type(value).__name__} {str(value)[:40]!r}"
    return "all values are Python numbers, convert them with x.astype(float)"


def as_inputs(x: Array, backend: Backend, dtype: str, where: str, *, pixels: bool) -> Array:
    """Return x, an array of NumPy or of the backend, on the backend: pixels as uint8, else in `dtype`, all finite."""
    xp, target = backend.xp, getattr(backend.xp, dtype)
    if not isinstance(x, np.ndarray):
        if not xp.isdtype(x.dtype, ("bool", "integral", "real floating")):
            got = f"dtype {x.dtype}"
            raise InvalidTypeError(where, "not real numbers", code="E031", got=got, fix="pass x.real")
        if pixels:
            return x if x.dtype == xp.uint8 else _as_bytes(x, xp.astype(x, target), backend, where)
        array = x if x.dtype == target else xp.astype(x, target)
        if not all_finite(array, backend):
            raise not_finite(backend.to_numpy(x), dtype, where)
        return array
    # In C order: mini-batches are gathered quickly, and a matmul has the same bits for every layout of x.
    if pixels:
        host = x if x.dtype == np.uint8 else _as_bytes(x, x, get_backend("numpy"), where)
        return backend.asarray(np.ascontiguousarray(host))
    with np.errstate(over="ignore", invalid="ignore"):
        cast = x.astype(dtype, order="C", copy=False)
    if not all_finite(cast, get_backend("numpy")):
        raise not_finite(x, dtype, where)
    return backend.asarray(cast)


def as_rows(host: np.ndarray, in_shape: Shape, dtype: str, where: str, *, pixels: bool) -> Rows:
    """Return a host array as rows of the same, converted when they are read: it may be a file larger than memory."""
    rows = Rows(host, np.dtype(np.uint8 if pixels else dtype), in_shape)
    numpy = get_backend("numpy")
    if pixels and host.dtype != np.uint8:
        for block in Rows(host, host.dtype).blocks():
            check_pixels(extent(block, numpy), where)
    elif host.dtype.kind == "f" and not all(all_finite(block, numpy) for block in rows.blocks()):
        raise not_finite(host, dtype, where)
    return rows


def are_integers(x: Array, backend: Backend) -> bool:
    """Return whether an array of NumPy, or of the backend, has a dtype of integers."""
    return x.dtype.kind in "iu" if isinstance(x, np.ndarray) else bool(backend.xp.isdtype(x.dtype, "integral"))


def _as_bytes(x: Array, numbers: Array, backend: Backend, where: str) -> Array:
    """Return integers as uint8; `numbers` are the same in a dtype that has a minimum."""
    check_pixels(extent(numbers, backend), where)
    return backend.xp.astype(x, backend.xp.uint8)


def check_pixels(found: tuple[float, float], where: str) -> None:
    """Raise unless integers from the first to the second can be pixels."""
    if found[0] < 0 or found[1] > 255:
        got, expected = f"{found[0]:g} … {found[1]:g}", "pixels, 0 … 255"
        fix = "net.pixels = False, or (x // 257).astype('uint8') for pixels of 16 bits"
        what = "integers that are no pixels of 8 bits"
        raise InvalidValueError(where, what, code="E002", got=got, expected=expected, fix=fix)


def extent(array: Array, backend: Backend) -> tuple[float, float]:
    """Return the smallest and the largest number of a finite array."""
    if isinstance(array, np.ndarray):  # both of a block while it is in the cache
        rows = max(1, BLOCK // 4 * len(array) // array.size)
        if rows >= len(array):
            return float(array.min()), float(array.max())
        parts = [extent(array[i : i + rows], backend) for i in range(0, len(array), rows)]
        return min(low for low, _ in parts), max(high for _, high in parts)
    xp = backend.xp
    low, high = (float(backend.to_numpy(a)) for a in (xp.min(array), xp.max(array)))
    return low, high


def all_finite(array: Array, backend: Backend) -> bool:
    """Return whether no number is NaN or infinite.

    The sum of finite numbers is finite unless it overflows; only then each is tested, since that needs a mask of the
    array's size.
    """
    xp = backend.xp
    with np.errstate(over="ignore", invalid="ignore"):
        if math.isfinite(float(backend.to_numpy(xp.sum(array)))):
            return True
    return bool(backend.to_numpy(xp.all(xp.isfinite(array))))


def check_shape(shape: Shape, in_shape: Shape, where: str, x: Any) -> None:
    """Raise unless `shape`, that of x, is (n, *in_shape) with n >= 1; the message has the line that makes it so."""
    got, size = f"shape {shape}", math.prod(in_shape)
    want = f"(n, {', '.join(map(str, in_shape))})"
    if shape == ():
        raise InvalidTypeError(where, "a single number", code="E030", expected=f"an array of shape {want}")
    flat = len(in_shape) == 1 and len(shape) > 2 and math.prod(shape[1:]) == size
    if (shape[1:] == in_shape or flat) and shape[0] > 0:
        return
    if 0 in shape:
        what = "0 samples" if shape[0] == 0 else "0 features"
        raise InvalidValueError(where, what, code="E037", got=got, expected=want)
    name = called(x, "x")
    if len(in_shape) == 1:
        what, fix = vectors(shape, size, name)
    else:
        what = "not a batch of samples of the network's input shape"
        fix = rearranged(shape, in_shape, name, "torch" if library_of(x) == "torch" else "np")
    raise InvalidValueError(where, what, code="E036", got=got, expected=want, fix=fix)


def not_finite(host: np.ndarray, dtype: str, where: str) -> InvalidValueError:
    """Return the error for NaN, infinities, and numbers beyond the dtype's range."""
    largest = float(np.finfo(dtype).max)
    counts = {"nan": 0, "inf": 0, "large": 0}
    firsts: dict[str, list[int]] = {}
    for begin in range(0, len(host), rows := max(1, BLOCK * len(host) // max(1, host.size))):
        values = host[begin : begin + rows]
        values = values.astype(np.promote_types(values.dtype, np.float64), copy=False)
        nan, inf = np.isnan(values), np.isinf(values)
        for name, bad in (("nan", nan), ("inf", inf), ("bad", nan | inf), ("large", np.abs(values) > largest)):
            if bad.any():
                row, *rest = (int(i) for i in np.argwhere(bad)[0])
                firsts.setdefault(name, [begin + row, *rest])
                counts[name] = counts.get(name, 0) + int(bad.sum())
    if "bad" in firsts:
        what = f"{counts['nan']} NaN and {counts['inf']} inf"
        each = "" if host.ndim == 2 else ".reshape(len(x), -1)"
        alone = where.startswith(("predict", "logits"))  # without targets, which lose the same rows
        kept = "x = np.asarray(x)[keep]" if alone else "x, y = (np.asarray(a)[keep] for a in (x, y))"
        fix = f"keep = np.isfinite(x){each}.all(axis=1); {kept}, or fill the gaps"
        return InvalidValueError(where, what, code="E038", first=f"First at {firsts['bad']}", fix=fix)
    value = float(host[tuple(firsts["large"])])
    what = f"{value:g} exceeds the {dtype} maximum {largest:.2g}"
    first = f"First at {firsts['large']}, {counts['large']} in all"
    return InvalidValueError(where, what, code="E039", first=first, fix="scale x, or Network(…, dtype='float64')")
