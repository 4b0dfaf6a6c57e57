"""Validation of y and weights: arrays that the loss takes, or an error that names the first bad entry.

Everything is checked on the host before the first step: array libraries wrap, clamp or zero a label that is out of
range, each in its own way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from bpxp.backends import Array, Backend
from bpxp.backends.dlpack import is_host_array
from bpxp.core.typing import Shape
from bpxp.data.validation.inputs import BLOCK, adopt, as_host
from bpxp.data.validation.rearrange import called
from bpxp.errors import InvalidTypeError, InvalidValueError, warn


def as_targets(y: Any, kind: str, samples: int, out: Shape, backend: Backend, dtype: str, where: str) -> Array:
    """Return y on the backend: int32 class indices (n, …), or (n, …, n_out) in the network's dtype.

    `kind` is what the loss takes: ``"classes"``, ``"labels"``, ``"values"`` or ``"counts"``; see `bpxp.nn.Loss`. `out`
    is the shape of the network's output for a sample: (n_out,), or (…, n_out) at several positions.
    """
    host = host_targets(y, kind, samples, out, backend, dtype, where)
    return backend.asarray(host if host.ndim == len(out) else host.astype(dtype))


def host_targets(y: Any, kind: str, samples: int, out: Shape, backend: Backend, dtype: str, where: str) -> np.ndarray:
    """Return validated y on the host: int32 class indices (n, …), or (n, …, n_out) as given, in the dtype's range."""
    name = called(y, "y")
    if not is_host_array(y):
        y = backend.to_numpy(adopt(y, backend, where))
    if _is_text(y):
        expected, fix = "class indices 0 … n-1", "names, y = np.unique(y, return_inverse=True)"
        raise InvalidTypeError(where, "text labels", code="E043", expected=expected, fix=fix)
    host = as_host(y, where)
    if host.ndim == 0:
        raise InvalidTypeError(where, "a single number", code="E030", expected=f"{samples} targets")
    if len(host) != samples:
        raise InvalidValueError(where, f"{samples} samples but {len(host)} labels", code="E040")
    column = (*out[:-1], 1)
    if kind == "classes" and host.shape[1:] in (out[:-1], column) and out != column:
        return _class_indices(host, out[-1], len(out), where, name)
    return _rows(host, kind, out, dtype, where, name)


def _is_text(y: Any) -> bool:
    sample = y if isinstance(y, np.ndarray) else np.asarray(y[:1] if isinstance(y, (list, tuple)) else y)
    objects = sample.dtype.kind == "O" and sample.size > 0  # a column of a data frame
    return sample.dtype.kind in "US" or (objects and isinstance(sample.flat[0], str))


def _class_indices(host: np.ndarray, classes: int, axes: int, where: str, name: str) -> np.ndarray:
    """Return labels as int32, with so many axes, each in 0 … classes - 1."""
    if host.ndim > axes:
        pick = ":, " * (axes - 1) + ":, 0"
        warn(where, f"y is a column vector of shape {host.shape}; using y[{pick}]", code="W001")
        host = host[..., 0]
    if host.dtype.kind == "f":
        bad = np.argwhere(np.isnan(host))
        if bad.size:
            first = f"First at {bad[0].tolist()}"
            raise InvalidValueError(where, f"{len(bad)} NaN labels", code="E045", first=first)
        bad = np.argwhere(host != np.floor(host))
        if bad.size:
            first = f"y{bad[0].tolist()} = {host[tuple(bad[0])]:g}, {len(bad)} in all"
            raise InvalidTypeError(where, "integer class ids are expected", code="E042", first=first)
    bad = np.argwhere((host < 0) | (host >= classes))
    if bad.size:
        what = f"y{bad[0].tolist()} = {host[tuple(bad[0])]:g}, but {classes} classes need 0..{classes - 1}"
        first = f"{len(bad)} of {host.size} labels are out of range"
        fix = f"Labels 1..n? Use {name} - 1" if host.min() == 1 and host.max() == classes else ""
        raise InvalidValueError(where, what, code="E041", first=first, fix=fix)
    return host.astype(np.int32)


def _rows(host: np.ndarray, kind: str, out: Shape, dtype: str, where: str, name: str) -> np.ndarray:
    """Check targets with as many numbers per sample as the network has outputs."""
    if host.shape[1:] != out:
        raise _misshapen(host, kind, out, where, name)
    largest = float(np.finfo(dtype).max)
    found: dict[str, tuple[int, list[int]]] = {}  # count and first index of each kind
    for begin in range(0, len(host), rows := max(1, BLOCK // math.prod(out))):
        for what, bad in _mistakes(host[begin : begin + rows].astype(np.float64), kind, largest):
            if bad.any():
                row, *column = (int(i) for i in np.argwhere(bad)[0])
                count, first = found.get(what, (0, [begin + row, *column]))
                found[what] = count + int(bad.sum()), first
    if found:
        what = min(found, key=MISTAKES.index)
        raise _mistaken(host, what, *found[what], dtype, where)
    return host


def _misshapen(host: np.ndarray, kind: str, out: Shape, where: str, name: str) -> InvalidValueError:
    """Return the error for targets of another shape than the outputs, with the likeliest cause as its fix."""
    each, fix, expected = math.prod(host.shape[1:]), "", str((*out,)).replace("(", "(n, ", 1).replace(",)", ")")
    if each == math.prod(out):
        what = f"y has shape {host.shape}, the predictions {(len(host), *out)}"
        return InvalidValueError(where, what, code="E044", fix=f"{name}.reshape{(-1, *out)}")
    outputs = f"{out[-1]} outputs"
    if len(out) > 1:
        outputs += f" at each of {' · '.join(map(str, out[:-1]))} positions"
        if kind == "classes":
            expected = f"{expected.rpartition(',')[0]}) or {expected}"
        if kind == "classes" and each == math.prod(out[:-1]):
            fix = f"{name}.reshape{(-1, *out[:-1])}"
        elif each in (1, out[-1]):
            fix = "nn.Flatten() before the last dense layer, if a sample has one answer"
    elif kind == "labels" and host.ndim == 1:
        fix = "one column of 0/1 per label; for one class per sample use loss='softmax_cross_entropy'"
    what = f"y has shape {host.shape}, the network has {outputs}"
    return InvalidValueError(where, what, code="E044", expected=expected, fix=fix)


MISTAKES = NAN, INFINITE, OUTSIDE, NEGATIVE, SUM, LARGE = (
    "NaN",
    "infinite",
    "outside [0, 1]",
    "negative",
    "sum",
    "large",
)


def _mistakes(values: np.ndarray, kind: str, largest: float) -> Iterator[tuple[str, np.ndarray]]:
    """Yield, for each kind of mistake, where the targets are invalid for a loss of this kind."""
    if kind != "labels":  # for labels NaN means missing
        yield NAN, np.isnan(values)
    yield INFINITE, np.isinf(values)
    yield LARGE, np.isfinite(values) & (np.abs(values) > largest)
    if kind in ("classes", "labels"):
        yield OUTSIDE, (values < 0.0) | (values > 1.0)
    if kind == "counts":
        yield NEGATIVE, values < 0.0
    if kind == "classes":
        with np.errstate(invalid="ignore"):
            yield SUM, np.abs(values.sum(axis=-1) - 1.0) > 1e-3


def _mistaken(host: np.ndarray, what: str, count: int, first: list[int], dtype: str, where: str) -> InvalidValueError:
    if what == SUM:
        what = f"row {', '.join(map(str, first))} sums to {host[tuple(first)].astype(np.float64).sum():g}"
        expected, fix = "one-hot or soft rows that sum to 1", "for independent labels use loss='binary_cross_entropy'"
        return InvalidValueError(where, what, code="E046", expected=expected, first=f"{count} such rows", fix=fix)
    value = float(host[tuple(first)])
    if what == LARGE:
        what = f"{value:g} exceeds the {dtype} maximum {np.finfo(dtype).max:.2g}"
        fix = "scale y, or Network(…, dtype='float64')"
        return InvalidValueError(where, what, code="E039", first=f"First at {first}, {count} in all", fix=fix)
    code = "E045" if what in (NAN, INFINITE) else "E046"
    return InvalidValueError(where, f"{count} values are {what}", code=code, first=f"First at {first}: {value:g}")


def warn_single_class(y: np.ndarray, where: str) -> None:
    """Warn if all labels are the same class."""
    if y.dtype.kind in "iu" and y.size > 1 and (y == y.flat[0]).all():
        warn(where, f"all {y.size} labels are class {int(y.flat[0])}", code="W002")


def as_weights(weight: Any, n: int, backend: Backend, dtype: str, where: str) -> Array | None:
    """Return one weight per sample on the backend, or None without weights."""
    if weight is None:
        return None
    return backend.asarray(
        _in_dtype(_sample_weights(weight, n, backend, where), dtype, where, called(weight, "weight"))
    )


def _sample_weights(weight: Any, n: int, backend: Backend, where: str) -> np.ndarray:
    if not is_host_array(weight):
        weight = backend.to_numpy(adopt(weight, backend, where))
    host = as_host(weight, where)
    if host.shape != (n,):
        raise InvalidValueError(where, f"{n} samples", code="E047", got=f"shape {host.shape}", expected=f"({n},)")
    bad = np.flatnonzero(~(host >= 0) | np.isinf(host))
    if bad.size:
        first = f"weight[{bad[0]}] = {host[bad[0]]:g}, {bad.size} in all"
        raise InvalidValueError(where, "weights are finite and >= 0", code="E047", first=first)
    if not host.any():
        raise InvalidValueError(where, "all weights are zero", code="E047", expected="at least one > 0")
    return host.astype(np.float64)


def _in_dtype(weights: np.ndarray, dtype: str, where: str, name: str) -> np.ndarray:
    """Return weights in the network's dtype; their sum, by which the loss is divided, must be a normal number."""
    with np.errstate(over="ignore", under="ignore"):
        cast = weights.astype(dtype)
        whole = float(cast.sum(dtype=dtype))
    if not np.finfo(dtype).smallest_normal <= whole < np.inf:
        what = f"the sum of the weights has to be a normal number in {dtype}"
        fix = f"{name} / np.mean(weight)" if weights.any() else "a class weight > 0 for a class of the data"
        raise InvalidValueError(where, what, code="E047", got=f"{float(weights.sum()):g}", fix=fix)
    return cast
