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
from bpxp.backends.dlpack import is_host_array, library_of
from bpxp.core.typing import Shape
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
        _check_columns(a, where)
        a = a.to_numpy()
        if a.dtype.kind == "O":  # mixed dtypes; a missing value cannot be converted, and is refused below
            with contextlib.suppress(TypeError, ValueError):
                a = a.astype(np.float64)
    try:
        array = np.asarray(a)
    except ValueError as error:
        raise InvalidValueError(where, _ragged(a) or f"cannot be read as an array ({error})", code="E035") from error
    kind = array.dtype.kind
    if kind == "O" and array.ndim == 0:
        raise InvalidTypeError(where, "not an array", code="E030", got=type(a).__name__)
    if kind == "O":
        raise InvalidTypeError(where, f"dtype object; {_first_non_number(array)}", code="E031", expected="numbers")
    if kind == "c":
        raise InvalidTypeError(where, f"{array.dtype} not supported", code="E031", fix=f"pass {name}.real")
    if kind not in "biuf":
        got, fix = f"dtype {array.dtype}", "encode it as numbers"
        raise InvalidTypeError(where, "not numbers", code="E031", got=got, expected="integers or floats", fix=fix)
    return array


def adopt(a: Any, backend: Backend, where: str) -> Array:
    """Return an array of any library as one of the backend, without a copy; on another device it is an error."""
    try:
        return backend.asarray(a)
    except BpxpError as error:
        raise error.replaced(where=where) from None
    except (BufferError, TypeError) as error:
        what, got = f"{backend.name} cannot take the array", f"dtype {a.dtype} of {library_of(a)} ({error})"
        raise InvalidTypeError(where, what, code="E031", got=got, fix="convert it to float32") from error


def _check_columns(frame: Any, where: str) -> None:
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        text = str(dtype).lower()
        if not any(word in text for word in ("int", "float", "bool", "double", "decimal")):
            what, fix = f"column {name!r} is not numeric", f"x.drop(columns=[{name!r}]), or encode it"
            raise InvalidTypeError(where, what, code="E031", got=f"dtype {dtype}", expected="numbers", fix=fix)


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


def as_inputs(x: Any, in_shape: Shape, backend: Backend, dtype: str, where: str) -> Array:
    """Return x, (n, *in_shape), on the backend, in the network's dtype, every number finite; uint8 stays uint8."""
    xp, target = backend.xp, getattr(backend.xp, dtype)
    if not is_host_array(x):
        array = adopt(x, backend, where)
        check_shape(tuple(array.shape), in_shape, where)
        if array.dtype == xp.uint8:
            return array
        if not xp.isdtype(array.dtype, ("bool", "integral", "real floating")):
            got = f"dtype {array.dtype}"
            raise InvalidTypeError(where, "not real numbers", code="E031", got=got, fix="pass x.real")
        array = array if array.dtype == target else xp.astype(array, target)
        if not all_finite(array, backend):
            raise not_finite(backend.to_numpy(adopt(x, backend, where)), dtype, where)
        return array
    host = as_host(x, where)
    check_shape(host.shape, in_shape, where)
    # In C order: mini-batches are gathered quickly, and a matmul has the same bits for every layout of x.
    if host.dtype == np.uint8:
        return backend.asarray(np.ascontiguousarray(host))
    with np.errstate(over="ignore", invalid="ignore"):
        cast = host.astype(dtype, order="C", copy=False)
    if not all_finite(cast, get_backend("numpy")):
        raise not_finite(host, dtype, where)
    return backend.asarray(cast)


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


def check_shape(shape: Shape, in_shape: Shape, where: str) -> None:
    """Raise unless `shape` is (n, *in_shape) with n >= 1; the message suggests the reshape that fits."""
    got, size = f"shape {shape}", math.prod(in_shape)
    want = f"(n, {', '.join(map(str, in_shape))})"
    if shape == ():
        raise InvalidTypeError(where, "a single number", code="E030", expected=f"an array of shape {want}")
    if shape[1:] == in_shape and shape[0] > 0:
        return
    if 0 in shape:
        what = "0 samples" if shape[0] == 0 else "0 features"
        raise InvalidValueError(where, what, code="E037", got=got, expected=want)
    if len(in_shape) == 1:
        what, fix = _vectors(shape, size)
    else:
        what = "not a batch of samples of the network's input shape"
        fix = f"x.reshape({shape[0]}, {', '.join(map(str, in_shape))})" if math.prod(shape[1:]) == size else ""
        fix = fix or ("x[None]" if shape == in_shape else "")
    raise InvalidValueError(where, what, code="E036", got=got, expected=want, fix=fix)


def _vectors(shape: Shape, size: int) -> tuple[str, str]:
    """Return what is wrong with x for a network of `size` inputs, and a fix."""
    if len(shape) == 1:
        return "must be 2-D (samples, features)", "x[None, :] for one sample, x[:, None] for one feature"
    if len(shape) == 2:
        what = f"x has {shape[1]} features, the network expects {size}: in x W, axis 1 of x must be axis 0 of W"
        if shape[0] == size:
            return f"{what}; it looks transposed: x.T has shape {shape[::-1]}", "x.T"
        return what, ""
    flat = math.prod(shape[1:])
    what = f"{len(shape)}-D samples for a network of vectors"
    return what, f"x.reshape({shape[0]}, {flat}), or nn.Flatten() as the first layer" if flat == size else ""


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
        fix = "keep = np.isfinite(x).all(axis=1); x, y = x[keep], y[keep], or fill the gaps"
        return InvalidValueError(where, what, code="E038", first=f"First at {firsts['bad']}", fix=fix)
    value = float(host[tuple(firsts["large"])])
    what = f"{value:g} exceeds the {dtype} maximum {largest:.2g}"
    first = f"First at {firsts['large']}, {counts['large']} in all"
    return InvalidValueError(where, what, code="E039", first=first, fix="scale x, or Network(…, dtype='float64')")
