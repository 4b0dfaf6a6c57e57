"""What users pass as samples becomes checked arrays on the backend, or stays on the host and is streamed from there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bpxp.backends import Array, Backend, get_backend
from bpxp.backends.base import is_host_array
from bpxp.data.dataset import Dataset
from bpxp.data.rows import Rows
from bpxp.data.validation import inputs, targets
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.metrics import Metric, default_metrics, get_metric
from bpxp.network.feed import Stream
from bpxp.nn import Loss

if TYPE_CHECKING:
    from bpxp.network.network import Network

Batch = tuple[Array, Array, Array | None]
SHARE = 0.8  # of the device's free memory: the rest is for parameters, and for what a step makes
SMALL = 64 << 20  # bytes that are not asked about


@dataclass(frozen=True, eq=False)
class Held:
    """Samples that stay on the host, in memory or in a file; checked."""

    x: Rows
    y: Rows
    weight: Rows | None
    _streams: dict[int, Stream] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: np.ndarray) -> Held:
        """Return some of the samples."""
        return Held(self.x.select(rows), self.y.select(rows), None if self.weight is None else self.weight.select(rows))

    def stream(self, backend: Backend, size: int) -> Stream:
        """Return what brings them as they stand, `size` at a time: always the same, for steps know its arrays."""
        if size not in self._streams:
            self._streams[size] = Stream(backend, self.x, self.y, self.weight, size)
        return self._streams[size]


def prepare(net: Network, data: Any, weight: Any, class_weight: Any, where: str) -> Batch:
    """Return (x, y, weight) as checked arrays on the backend, from a Dataset or a pair."""
    _check_class_weight(net, class_weight, where)
    x, y, weight = _parts(data, weight, where)
    x = inputs.as_inputs(_as_vectors(net, data, x), net.input_shape, net.backend, net.dtype, f"{where}: x")
    n_out, kind = net.output_shape[0], net.loss.targets
    y = targets.as_targets(y, kind, int(x.shape[0]), n_out, net.backend, net.dtype, f"{where}: y")
    if weight is None and class_weight is None:
        return x, y, None
    return x, y, targets.as_weights(weight, class_weight, y, n_out, net.backend, net.dtype, where)


def prepare_or_hold(net: Network, data: Any, weight: Any, class_weight: Any, where: str) -> Batch | Held:
    """Return checked samples: arrays on the backend, or what stays on the host, as asked for or for want of room."""
    _check_class_weight(net, class_weight, where)
    x, y, weight = _parts(data, weight, where)
    if not stays(net, data, x):
        return prepare(net, data, weight, class_weight, where)
    held = hold_inputs(net, data, x, f"{where}: x")
    n_out, kind, numpy = net.output_shape[0], net.loss.targets, get_backend("numpy")
    host = targets.host_targets(y, kind, len(held), n_out, net.backend, f"{where}: y")
    labels = Rows(host, np.dtype(np.int32 if host.ndim == 1 else net.dtype))
    weights: Rows | None = None
    if weight is not None or class_weight is not None:
        if not is_host_array(weight):
            weight = net.backend.to_numpy(inputs.taken(weight, net.backend, f"{where}: weight"))
        whole = host if class_weight is None else labels.read(0, len(labels))
        found = targets.as_weights(weight, class_weight, whole, n_out, numpy, net.dtype, where)
        assert found is not None
        weights = Rows(found, found.dtype)
    return Held(held, labels, weights)


def inputs_or_rows(net: Network, x: Any, where: str) -> Array | Rows:
    """Return inputs alone, as `prepare_or_hold` does: an array of the backend, or rows that stay on the host."""
    data, x = x, x.x if isinstance(x, Dataset) else x
    if stays(net, data, x):
        return hold_inputs(net, data, x, f"{where}: x")
    return inputs.as_inputs(_as_vectors(net, data, x), net.input_shape, net.backend, net.dtype, f"{where}: x")


def hold_inputs(net: Network, data: Any, x: Any, where: str) -> Rows:
    """Return inputs as rows that stay on the host, checked a few at a time."""
    host = inputs.as_host(x, where)
    sample = host.shape[1:]
    if isinstance(data, Dataset) and len(net.input_shape) == 1 and host.ndim > 2:
        sample = (math.prod(sample),)
    inputs.check_shape((*host.shape[:1], *sample), net.input_shape, where)
    rows = Rows(host, np.dtype(np.uint8 if host.dtype == np.uint8 else net.dtype), sample)
    if host.dtype.kind == "f":
        numpy = get_backend("numpy")
        if not all(inputs.all_finite(block, numpy) for block in rows.blocks()):
            raise inputs.not_finite(host, net.dtype, where)
    return rows


def stays(net: Network, data: Any, x: Any) -> bool:
    """Return whether samples stay on the host: because of `Dataset.resident`, or because the device has no room."""
    if isinstance(data, Dataset) and (data.backend is not None or data.resident is not None):
        return data.backend is None and not data.resident
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf":
        return False
    kind = np.dtype(np.uint8 if x.dtype == np.uint8 else net.dtype)
    if x.dtype == kind and x.flags.c_contiguous and getattr(net.backend, "shares_memory", False):
        return False  # it is taken as it lies there
    need = x.size * kind.itemsize
    memory = net.backend.memory() if need > SMALL and hasattr(net.backend, "memory") else None
    return memory is not None and need > SHARE * memory.free


def _check_class_weight(net: Network, class_weight: Any, where: str) -> None:
    """Raise for weights of classes where targets are no classes."""
    if class_weight is not None and net.loss.targets not in ("classes", "labels"):
        what = f"{type(net.loss).__name__} knows no classes"
        raise InvalidValueError(f"{where}: class_weight", what, code="E048", fix="weight=…, one for each sample")


def _parts(data: Any, weight: Any, where: str) -> tuple[Any, Any, Any]:
    if isinstance(data, Dataset):
        return data.x, data.y, data.weight if weight is None else weight
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return data[0], data[1], weight
    raise InvalidTypeError(
        where,
        "not a data set",
        code="E030",
        got=type(data).__name__,
        expected="a Dataset or a pair (x, y)",
        fix="pass (x, y)",
    )


def _as_vectors(net: Network, data: Any, x: Any) -> Any:
    """Return a Dataset's samples as vectors, if they are images and vectors are what the network takes."""
    if not isinstance(data, Dataset) or len(net.input_shape) != 1 or len(x.shape) <= 2:
        return x
    return x.reshape((x.shape[0], -1)) if data.backend is None else data.backend.xp.reshape(x, (x.shape[0], -1))


def as_metrics(metrics: Sequence[str | Metric] | None, loss: Loss) -> tuple[Metric, ...]:
    """Return metrics by name or object; None means those that go with the loss."""
    if metrics is None:
        return default_metrics(loss)
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        what, got = "not a list of metrics", f"{type(metrics).__name__} {metrics!r}"
        raise InvalidTypeError("metrics", what, code="E004", got=got, fix="metrics=['accuracy']")
    return tuple(get_metric(metric) for metric in metrics)
