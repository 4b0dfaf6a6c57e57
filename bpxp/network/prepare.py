"""What users pass as samples: validated arrays on the backend, or samples that stay on the host and are streamed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bpxp.backends import Array, Backend, get_backend
from bpxp.backends.base import option
from bpxp.backends.dlpack import is_host_array
from bpxp.core.typing import Shape
from bpxp.data.dataset import Dataset, as_vectors
from bpxp.data.rows import Rows
from bpxp.data.validation import class_weights, inputs, targets
from bpxp.data.validation.columns import order_of
from bpxp.data.validation.ids import check_ids
from bpxp.data.validation.resolution import warn_collapsed
from bpxp.errors import InvalidTypeError, InvalidValueError
from bpxp.metrics import Metric, Outputs, default_metrics, get_metric
from bpxp.network.feed import Stream
from bpxp.network.pixels import are_pixels, check, features_of, learned, like_inputs, with_range
from bpxp.network.weighting import ROWS, check_weighting
from bpxp.nn import BinaryCrossEntropy
from bpxp.nn.spec import Spec

Batch = tuple[Array, Array, Array | None]
SHARE = 0.8  # of the device's free memory: the rest is for parameters, and for what a step makes
SMALL = 64 << 20  # bytes that are not asked about


@dataclass(frozen=True, eq=False)
class HostSamples:
    """Validated samples that stay on the host, in memory or in a file."""

    x: Rows
    y: Rows
    weight: Rows | None
    _streams: dict[int, Stream] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.x)

    def select(self, rows: np.ndarray) -> HostSamples:
        """Return some of the samples."""
        weight = None if self.weight is None else self.weight.select(rows)
        return HostSamples(self.x.select(rows), self.y.select(rows), weight)

    def stream(self, backend: Backend, size: int) -> Stream:
        """Return the stream of batches of `size`, in order: always the same, since a captured step has its arrays."""
        if size not in self._streams:
            self._streams[size] = Stream(backend, self.x, self.y, self.weight, size)
        return self._streams[size]


def count(batch: Batch | HostSamples) -> int:
    """Return the number of samples."""
    return len(batch) if isinstance(batch, HostSamples) else int(batch[0].shape[0])


def prepare(spec: Spec, backend: Backend, data: Any, weight: Any, where: str, *, fit: bool = False) -> Batch:
    """Return (x, y, weight) as validated arrays on the backend, from a Dataset or a pair.

    What is known of the inputs is compared with them, unless they are those of a `fit`, whose range becomes known.
    """
    x, y, weight = _parts(data, weight, where)
    x = _inputs(spec, backend, data, x, f"{where}: x", fit=fit, stay=False)
    y = like_inputs(spec, x, y, backend, f"{where}: y")
    n, kind = int(x.shape[0]), spec.loss.targets
    y = targets.as_targets(y, kind, n, spec.output_shape, backend, spec.dtype, f"{where}: y")
    weights = targets.as_weights(weight, n, backend, spec.dtype, f"{where}: weight")
    if weights is not None:
        check_weighting(spec, backend, y, (), where)
    return x, y, weights


def prepare_or_stream(
    spec: Spec, backend: Backend, data: Any, weight: Any, where: str, *, fit: bool = False
) -> Batch | HostSamples:
    """Return validated samples: on the backend, or on the host if asked for, or if the device has too little memory."""
    x, y, weight = _parts(data, weight, where)
    warn_collapsed(x, backend, spec.dtype, f"{where}: x")
    if not stays(spec, backend, data, x):
        return prepare(spec, backend, data, weight, where, fit=fit)
    x = _inputs(spec, backend, data, x, f"{where}: x", fit=fit, stay=True)
    y = like_inputs(spec, x, y, backend, f"{where}: y")
    host = targets.host_targets(y, spec.loss.targets, len(x), spec.output_shape, backend, spec.dtype, f"{where}: y")
    labels = Rows(host, np.dtype(np.int32 if host.ndim == len(spec.output_shape) else spec.dtype))
    if weight is not None and not is_host_array(weight):
        weight = backend.to_numpy(inputs.adopt(weight, backend, f"{where}: weight"))
    found = targets.as_weights(weight, len(x), get_backend("numpy"), spec.dtype, f"{where}: weight")
    return HostSamples(x, labels, None if found is None else Rows(found, found.dtype))


def training_weights(
    spec: Spec, backend: Backend, train: Batch | HostSamples, class_weight: Any, where: str
) -> Array | Rows | None:
    """Return the weights that a fit trains with: of sample times that of its class, with the mean 1 over the samples.

    They lie where the samples do. See `bpxp.network.step.mass_and_share` for the mean.
    """
    y, weight = (train.y, train.weight) if isinstance(train, HostSamples) else train[1:]
    if weight is None and class_weight is None:
        return None

    def host(a: Any) -> np.ndarray:
        return a.read(0, len(a)) if isinstance(a, Rows) else backend.to_numpy(a)

    total = np.ones(1) if weight is None else host(weight).astype(np.float64)
    if class_weight is not None:
        name = f"{where}: class_weight"
        own = class_weights.from_classes(class_weight, host(y), spec.loss.targets, spec.n_out, name)
        total = own * (total if own.ndim == 1 else total[:, None])
    found = class_weights.of_mean_one(total, spec.dtype, f"{where}: weight")
    return Rows(found, found.dtype) if isinstance(train, HostSamples) else backend.asarray(found)


def prepare_training(
    spec: Spec, backend: Backend, data: Any, weight: Any, where: str
) -> tuple[Batch | HostSamples, Spec]:
    """Return validated samples of a fit, and the spec with what is known of the inputs from then on."""
    batch = prepare_or_stream(spec, backend, data, weight, where, fit=True)
    x = batch.x if isinstance(batch, HostSamples) else batch[0]
    return batch, with_range(learned(spec, data, x, backend), x, backend, f"{where}: x")


def together(x: Any, y: Any) -> Any:
    """Return samples and targets as a pair, or `x`, a pair or a Dataset itself; an array alone lacks its targets."""
    alone = hasattr(x, "shape") and not isinstance(x, Dataset)
    return x if y is None and not alone else (x, y)


def descent_arguments(batch: Any, y: Any, rate: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return (data, rate, weight), given ``(x, y, rate, weight)`` or ``((x, y), rate, weight)``."""
    if y is None or isinstance(y, (tuple, list)) or getattr(y, "shape", None):
        return together(batch, y), rate, weight
    return (batch, y, weight) if rate is None else (batch, y, rate)


def without_targets(spec: Spec, x: Any) -> Any:
    """Return the samples of a pair (x, y); other samples, also two of them in a tuple, as they are."""
    if isinstance(x, tuple) and len(x) == 2:
        shape = tuple(getattr(x[0], "shape", None) or np.shape(x[0]))
        if shape and shape != spec.input_shape and math.prod(shape[1:]) == math.prod(spec.input_shape):
            return x[0]
    return x


def check_padding(
    spec: Spec,
    backend: Backend,
    batch: Batch | HostSamples,
    size: int,
    metrics: tuple[Metric, ...],
    where: str,
    *,
    weighted: bool = False,
) -> None:
    """Raise if samples are going to have weights, as padding at least, that the loss or a metric ignores."""
    weight = batch.weight if isinstance(batch, HostSamples) else batch[2]
    if weighted or weight is not None or count(batch) % min(size, count(batch)):
        few = min(ROWS, count(batch))
        y = backend.asarray(batch.y.read(0, few)) if isinstance(batch, HostSamples) else batch[1][:few, ...]
        check_weighting(spec, backend, y, metrics, where)


def inputs_or_rows(spec: Spec, backend: Backend, x: Any, where: str) -> Array | Rows:
    """Return inputs alone, as `prepare_or_stream` does: an array of the backend, or rows on the host."""
    x = without_targets(spec, x)
    data, x = x, x.x if isinstance(x, Dataset) else x
    return _inputs(spec, backend, data, x, f"{where}: x", stay=stays(spec, backend, data, x))


def _inputs(
    spec: Spec, backend: Backend, data: Any, x: Any, where: str, *, stay: bool, fit: bool = False
) -> Array | Rows:
    """Return validated inputs: an array of the backend or, if they `stay`, rows on the host, validated in blocks.

    Samples of several axes become vectors, if vectors are what the network takes.
    """
    host = is_host_array(x)
    raw = inputs.as_host(x, where) if host else inputs.adopt(x, backend, where)
    place = get_backend("numpy") if host else backend
    order = order_of(features_of(data), spec.inputs.features, where)
    if order is not None:
        raw = place.xp.take(raw, place.asarray(np.asarray(order)), axis=1)
    inputs.check_shape(tuple(raw.shape), spec.input_shape, where, x)
    pixels, integers = are_pixels(spec, data, raw, place), inputs.are_integers(raw, place)
    found: Array | Rows
    if stay:
        found = inputs.as_rows(raw, spec.input_shape, spec.dtype, where, pixels=pixels)
    else:
        raw = raw if tuple(raw.shape[1:]) == spec.input_shape else as_vectors(raw, place)
        found = inputs.as_inputs(raw, backend, spec.dtype, where, pixels=pixels)
    if spec.ids:
        check_ids(found, spec.ids, backend, where)
    if not (fit and spec.inputs.range is None):
        check(spec, found, backend, where, integers=integers)
    return found


def stays(spec: Spec, backend: Backend, data: Any, x: Any) -> bool:
    """Return whether samples stay on the host: because of `Dataset.resident`, or because the device has no room."""
    if isinstance(data, Dataset) and (data.backend is not None or data.resident is not None):
        return data.backend is None and not data.resident
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biuf" or x.dtype.isbuiltin == 2:  # float8_e5m2, say
        return False
    kind = np.dtype(np.uint8 if are_pixels(spec, data, x, get_backend("numpy")) else spec.dtype)
    if x.dtype == kind and x.flags.c_contiguous and option(backend, "shares_memory"):
        return False  # it is used without a copy
    need = x.size * kind.itemsize
    memory = backend.memory() if need > SMALL else None
    return memory is not None and need > SHARE * memory.free


def check_class_weight(spec: Spec, class_weight: Any, where: str) -> None:
    """Raise for weights of classes where the loss knows none, or does not take those of several labels."""
    loss, positions, what = type(spec.loss).__name__, len(spec.output_shape) > 1, ""
    if positions:
        what = "a sample has several classes"
    elif spec.loss.targets not in ("classes", "labels"):
        what = f"{loss} knows no classes"
    elif spec.loss.targets == "labels" and spec.n_out > 1 and not isinstance(spec.loss, BinaryCrossEntropy):
        what = f"{loss} takes no weights of labels"
    if class_weight is not None and what:
        raise InvalidValueError(f"{where}: class_weight", what, code="E048", fix="weight=…, one for each sample")


def _parts(data: Any, weight: Any, where: str) -> tuple[Any, Any, Any]:
    if isinstance(data, Dataset):
        return data.x, data.y, data.weight if weight is None else weight
    if isinstance(data, (tuple, list)) and len(data) == 2:
        return data[0], data[1], weight
    expected, got = "a Dataset or a pair (x, y)", type(data).__name__
    raise InvalidTypeError(where, "not a data set", code="E030", got=got, expected=expected, fix="pass (x, y)")


def as_metrics(metrics: Sequence[str | Metric] | None, spec: Spec) -> tuple[Metric, ...]:
    """Return metrics by name or object, fitted to the outputs; None means those that go with the loss."""
    if metrics is None:
        metrics = default_metrics(spec.loss)
    if isinstance(metrics, str) or not isinstance(metrics, Sequence):
        what, got = "not a list of metrics", f"{type(metrics).__name__} {metrics!r}"
        raise InvalidTypeError("metrics", what, code="E004", got=got, fix="metrics=['accuracy']")
    outputs = outputs_of(spec)
    found = tuple(fitted(get_metric(metric), outputs) for metric in metrics)
    if wrong := next((metric for metric in found if not isinstance(metric.name, str)), None):
        what = f"the name of {type(wrong).__name__} is no string"
        raise InvalidTypeError("metrics", what, code="E004", got=repr(wrong.name), fix='name = "error", in its class')
    names = ["loss", *(metric.name for metric in found)]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), ""):
        what = "two columns of the same name"
        raise InvalidValueError("metrics", what, code="E005", got=", ".join(names), first=f"{twice!r} twice")
    return found


def weighed_metrics(
    metrics: Sequence[str | Metric] | None, spec: Spec, backend: Backend, batch: Batch | HostSamples, size: int
) -> tuple[Metric, ...]:
    """Return the metrics of an evaluation, which take the weights of its samples into account, as the loss does."""
    found = as_metrics(metrics, spec)
    check_padding(spec, backend, batch, size, found, "evaluate")
    return found


def outputs_of(spec: Spec) -> Outputs:
    """Return what the outputs mean to a metric: a sigmoid's are labels to it, also if the loss takes real numbers."""
    targets = spec.loss.targets
    half = 0.5 if targets == "values" and spec.probabilities else 0.0
    kind = "labels" if half else targets if targets in ("classes", "labels") else "values"
    return Outputs(kind, spec.n_out, half, type(spec.loss).__name__)


def fitted(metric: Metric, outputs: Outputs) -> Metric:
    """Return a metric for what the outputs mean, or raise; one that does not say what it fits is taken as it is."""
    fit = getattr(metric, "fitted", None)
    return metric if fit is None else fit(outputs)


def transforms(augment: Any, in_shape: Shape, where: str) -> tuple[Any, ...]:
    """Return the transforms of `augment` as a training step takes them; their modules are imported only for some."""
    if isinstance(augment, (tuple, list)) and not augment:
        return ()
    from bpxp.data.augment.compose import arranged

    return arranged(augment, in_shape, where)
