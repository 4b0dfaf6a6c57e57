"""Class weights as weights of samples or of their labels, and the weights that a fit trains with: their mean is 1."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from bpxp.data.validation.inputs import as_host
from bpxp.errors import InvalidValueError
from bpxp.nn.losses.weights import class_weights_to_sample_weights


def from_classes(class_weight: Any, y: np.ndarray, kind: str, n_out: int, where: str) -> np.ndarray:
    """Return the weight of the class of each sample, (n,), or for several labels that of each label, (n, n_out).

    Parameters
    ----------
    class_weight : dict, sequence or ``"balanced"``
        A weight for each of n_out classes. A single label (`kind` is ``"labels"``, n_out 1) has the classes 0 and 1. Of
        several labels each has a weight, or a pair of weights for 0 and for 1. What a dict leaves out has weight 1.
        ``"balanced"`` gives each class k that occurs the weight n/(classes n_k), in each label for itself.
    y : ndarray, (n,) or (n, n_out)
        Validated targets; soft ones get the mean of the weights, a missing label (NaN) the mean over the others.
    """
    if kind == "classes":
        table = _balanced(y, n_out) if _is_balanced(class_weight, where) else _numbers(class_weight, n_out, where)
        return np.asarray(class_weights_to_sample_weights(y, table, xp=np))
    y = np.asarray(y, np.float64).reshape(len(y), n_out)
    if _is_balanced(class_weight, where):
        pairs = [_balanced(column[~np.isnan(column)], 2) for column in y.T]
    elif n_out == 1:
        pairs = [_numbers(class_weight, 2, where)]
    else:
        entries = _entries(class_weight, n_out, where, "labels")
        pairs = [_numbers((w, w) if np.ndim(w) == 0 and not isinstance(w, dict) else w, 2, where) for w in entries]
    weight = np.stack([(1.0 - t) * off + t * on for t, (off, on) in zip(y.T, pairs, strict=True)], axis=1)
    known = ~np.isnan(weight)
    there = known.sum(axis=0)
    mean = np.where(there > 0, np.where(known, weight, 0.0).sum(axis=0) / np.maximum(there, 1), 1.0)
    weight = np.where(known, weight, mean)
    return weight[:, 0] if n_out == 1 else weight


def of_mean_one(weight: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """Return weights in a dtype, divided by their mean."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(weight.mean(dtype=np.float64))
    if not 0.0 < mean < np.inf:
        what, got = "the mean of the weights of the training data has to be a number > 0", f"{mean:g}"
        raise InvalidValueError(where, what, code="E047", got=got)
    return (weight / mean).astype(dtype)


def _is_balanced(class_weight: Any, where: str) -> bool:
    if isinstance(class_weight, str) and class_weight != "balanced":
        raise InvalidValueError(where, "unknown name", code="E048", got=repr(class_weight), expected="'balanced'")
    return isinstance(class_weight, str)


def _balanced(y: np.ndarray, classes: int) -> np.ndarray:
    """Return n/(classes n_k) of the classes that occur, 0 of the others; y are indices, soft rows, or one label."""
    if y.ndim == 2:
        counts = y.sum(axis=0, dtype=np.float64)
    elif y.dtype.kind == "f":
        counts = np.array([np.sum(1.0 - y), np.sum(y)])
    else:
        counts = np.bincount(y, minlength=classes).astype(np.float64)
    there = counts > 0
    return np.where(there, len(y) / (max(there.sum(), 1) * np.where(there, counts, 1.0)), 0.0)


def _entries(class_weight: Any, count: int, where: str, of: str = "classes") -> list[Any]:
    """Return an entry for each class or label."""
    if isinstance(class_weight, dict):
        unknown = [k for k in class_weight if k not in range(count)]
        if unknown:
            what = f"{unknown[0]!r} is none of the {of} 0..{count - 1}"
            raise InvalidValueError(where, what, code="E048", got=", ".join(map(repr, class_weight)))
        return [class_weight.get(k, 1.0) for k in range(count)]
    entries = list(class_weight) if isinstance(class_weight, Iterable) else []
    if len(entries) != count:
        fix = f"{{0: 1.0, 1: {entries[0]}}}" if len(entries) == 1 and count == 2 and of == "classes" else ""
        raise _unfit(count, np.shape(class_weight), where, of, fix)
    return entries


def _numbers(class_weight: Any, count: int, where: str) -> np.ndarray:
    """Return a weight for each class."""
    table = as_host(_entries(class_weight, count, where), where).astype(np.float64)
    if table.shape != (count,) or not (np.isfinite(table).all() and (table >= 0).all()):
        raise _unfit(count, table.shape, where)
    return table


def _unfit(count: int, shape: tuple[int, ...], where: str, of: str = "classes", fix: str = "") -> InvalidValueError:
    what = f"one finite weight >= 0 for each of {count} {of}"
    return InvalidValueError(where, what, code="E048", got=f"shape {shape}", fix=fix)
