"""The table: initialisers, functions and metrics, beside their slow and obvious references."""

from __future__ import annotations

import math

import numpy as np
from operations.record import COUNTS, OfFunction, OfInitializer, Refusal, numbers

from bpxp import metrics, nn, optim
from bpxp.nn import functions


def refused(call, kind, text):
    return Refusal(call, kind, text)


INITIALIZERS = [
    OfInitializer("Zeros", nn.Zeros(), std=lambda fan_in, fan_out: 0.0, names=("Initializer", "INITIALIZERS")),
    OfInitializer(
        "Normal",
        nn.Normal(),
        std=lambda fan_in, fan_out: 1.0,
        bias_std=1.0,
        options={"std": (0.1,)},
        bad={"std": numbers("> 0")},
    ),
    OfInitializer("Normal of 0.1", nn.Normal(0.1), std=lambda fan_in, fan_out: 0.1, bias_std=0.1),
    OfInitializer("ScaledNormal", nn.ScaledNormal(), std=lambda fan_in, fan_out: fan_in**-0.5, bias_std=1.0),
    OfInitializer(
        "GlorotUniform", nn.GlorotUniform(), std=lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** 0.5, bounded=True
    ),
    OfInitializer("GlorotNormal", nn.GlorotNormal(), std=lambda fan_in, fan_out: (2 / (fan_in + fan_out)) ** 0.5),
    OfInitializer("LecunUniform", nn.LecunUniform(), std=lambda fan_in, fan_out: fan_in**-0.5, bounded=True),
    OfInitializer("LecunNormal", nn.LecunNormal(), std=lambda fan_in, fan_out: fan_in**-0.5),
    OfInitializer("HeUniform", nn.HeUniform(), std=lambda fan_in, fan_out: (2 / fan_in) ** 0.5, bounded=True),
    OfInitializer("HeNormal", nn.HeNormal(), std=lambda fan_in, fan_out: (2 / fan_in) ** 0.5),
    OfInitializer(
        "Orthogonal",
        nn.Orthogonal(),
        # Columns of length 1 in a space of fan_in dimensions.
        std=lambda fan_in, fan_out: max(fan_in, fan_out) ** -0.5,
        options={"gain": (2.0,)},
        bad={"gain": numbers("> 0")},
    ),
]


# --- functions; the references compute in extended precision, where overflow has the right limit

Z = np.longdouble


def sigma(z):
    e = np.exp(-np.abs(Z(z)))
    return np.where(z > 0, 1, e) / (1 + e)


def shares(z):
    e = np.exp(Z(z) - np.max(z, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def tails(u):
    tail = np.array([math.erfc(v / math.sqrt(2.0)) / 2 for v in u.ravel()]).reshape(u.shape)
    return tail, np.exp(-(Z(u) ** 2) / 2) / np.sqrt(2 * np.pi)


def values(rng):
    return (3.0 * rng.standard_normal((4, 5)),)


def positive_values(rng):
    return (np.abs(values(rng)[0]),)


def jacobian(a):
    return np.stack([np.diag(row) - np.outer(row, row) for row in Z(a)])


def weights_of(y, w):
    return w[y] if y.ndim == 1 else y @ w


def shortened(*grads, limit=1.5):
    norm = np.sqrt(sum(np.sum(Z(g) ** 2) for g in grads))
    return tuple(g * (limit / max(norm, limit)) for g in grads)


def two(rng):
    return rng.standard_normal((3, 2)), rng.standard_normal(3)


def by_name(get, wrong, near, type_of_wrong=3):
    """A function that looks a name up: an unknown one is answered with the nearest."""
    return (
        refused(lambda: get(wrong), ValueError, f"unknown name: got '{wrong}'.*Did you mean '{near}'"),
        refused(lambda: get(type_of_wrong), TypeError, "neither a name nor"),
    )


FUNCTIONS = [
    OfFunction("softmax", nn.softmax, draw=values, call=lambda xp, z: nn.softmax(z, xp=xp), reference=shares),
    OfFunction(
        "log_softmax",
        nn.log_softmax,
        draw=values,
        call=lambda xp, z: nn.log_softmax(z, xp=xp),
        reference=lambda z: np.log(shares(z)),
    ),
    OfFunction(
        "softmax_jacobian",
        nn.softmax_jacobian,
        draw=lambda rng: (shares(values(rng)[0]).astype(float),),
        call=lambda xp, a: nn.softmax_jacobian(a, xp=xp),
        reference=jacobian,
    ),
    OfFunction(
        "one_hot",
        nn.one_hot,
        draw=lambda rng: (np.array([2, 0, 1, 3, 9], np.int32), np.zeros(1)),
        call=lambda xp, y, like: nn.one_hot(y, 4, dtype=like.dtype, xp=xp),
        reference=lambda y, like: np.vstack([np.eye(4), np.zeros(4)])[[2, 0, 1, 3, 4]],
    ),
    OfFunction(
        "class_weights_to_sample_weights",
        nn.class_weights_to_sample_weights,
        draw=lambda rng: (np.array([0, 2, 1, 2], np.uint8), np.array([1.0, 2.0, 4.0])),
        call=lambda xp, y, w: nn.class_weights_to_sample_weights(y, w, xp=xp),
        reference=weights_of,
    ),
    OfFunction(
        "class_weights_to_sample_weights, soft rows",
        nn.class_weights_to_sample_weights,
        draw=lambda rng: (np.array([[1.0, 0.0, 0.0], [0.5, 0.25, 0.25]]), np.array([1.0, 2.0, 4.0])),
        call=lambda xp, y, w: nn.class_weights_to_sample_weights(y, w, xp=xp),
        reference=weights_of,
    ),
    OfFunction("get_activation", nn.get_activation, refuses=by_name(nn.get_activation, "rel", "relu")),
    OfFunction("get_loss", nn.get_loss, refuses=by_name(nn.get_loss, "poison", "poisson")),
    OfFunction("get_initializer", nn.get_initializer, refuses=by_name(nn.get_initializer, "glorott", "glorot")),
    OfFunction("get_optimizer", optim.get_optimizer, refuses=by_name(optim.get_optimizer, "adma", "adam")),
    OfFunction("get_metric", metrics.get_metric, refuses=by_name(metrics.get_metric, "acuracy", "accuracy")),
    OfFunction(
        "clip_by_norm",
        optim.clip_by_norm,
        draw=two,
        call=lambda xp, *grads: optim.clip_by_norm(tuple(1.0 * g for g in grads), 1.5, xp=xp),
        reference=shortened,
    ),
    OfFunction(
        "clip_by_norm, a short one",
        optim.clip_by_norm,
        draw=two,
        call=lambda xp, *grads: optim.clip_by_norm(tuple(1.0 * g for g in grads), 99.0, xp=xp),
        reference=lambda *grads: grads,
    ),
    OfFunction(
        "clip_by_value",
        optim.clip_by_value,
        draw=two,
        call=lambda xp, *grads: optim.clip_by_value(grads, 0.5, xp=xp),
        reference=lambda *grads: tuple(np.clip(g, -0.5, 0.5) for g in grads),
    ),
    OfFunction(
        "constant",
        functions.constant,
        draw=lambda rng: (np.zeros(1),),
        call=lambda xp, z: functions.constant(0.1, z, xp=xp),
        reference=lambda z: np.array(0.1),
    ),
    OfFunction(
        "positive",
        functions.positive,
        draw=lambda rng: (np.array([1.0, 0.0, -0.0, -2.0]),),
        call=lambda xp, z: functions.positive(z, xp=xp),
        reference=lambda z: np.array([1.0, 0.0, 0.0, 0.0]),
    ),
    OfFunction(
        "sign",
        functions.sign,
        draw=lambda rng: (np.array([1.0, 0.0, -0.0, -2.0]),),
        call=lambda xp, z: functions.sign(z, xp=xp),
        reference=np.sign,
    ),
    OfFunction(
        "decay",
        functions.decay,
        draw=values,
        call=lambda xp, z: functions.decay(z, xp=xp),
        reference=lambda z: np.exp(-np.abs(Z(z))),
    ),
    OfFunction(
        "logistic", functions.logistic, draw=values, call=lambda xp, z: functions.logistic(z, xp=xp), reference=sigma
    ),
    OfFunction(
        "logistic_pair",
        functions.logistic_pair,
        draw=values,
        call=lambda xp, z: functions.logistic_pair(z, xp=xp),
        reference=lambda z: (sigma(z), sigma(-z)),
    ),
    OfFunction(
        "softplus",
        functions.softplus,
        draw=values,
        call=lambda xp, z: functions.softplus(z, xp=xp),
        reference=lambda z: np.log1p(np.exp(Z(z))),
    ),
    OfFunction(
        "logistic_numerators",
        functions.logistic_numerators,
        draw=values,
        call=lambda xp, z: functions.logistic_numerators(z, functions.decay(z, xp=xp), xp=xp),
        reference=lambda z: tuple(s * (1 + np.exp(-np.abs(Z(z)))) for s in (sigma(z), sigma(-z))),
    ),
    OfFunction(
        "softplus_pair",
        functions.softplus_pair,
        draw=values,
        call=lambda xp, z: functions.softplus_pair(z, functions.decay(z, xp=xp), xp=xp),
        reference=lambda z: (np.log1p(np.exp(Z(z))), np.log1p(np.exp(-Z(z)))),
    ),
    OfFunction(
        "tanh_softplus",
        functions.tanh_softplus,
        draw=values,
        call=lambda xp, z: functions.tanh_softplus(z, xp=xp),
        reference=lambda z: np.tanh(np.log1p(np.exp(Z(z)))),
    ),
    OfFunction(
        "normal_tail",
        functions.normal_tail,
        draw=positive_values,
        call=lambda xp, u: functions.normal_tail(u, xp=xp),
        reference=tails,
    ),
    OfFunction(
        "polynomial",
        functions.polynomial,
        draw=values,
        call=lambda xp, u: functions.polynomial((1.0, -2.0, 0.0, 3.0), u),
        reference=lambda u: 1 - 2 * Z(u) + 3 * Z(u) ** 3,
    ),
    OfFunction(
        "class_indices",
        metrics.class_indices,
        draw=lambda rng: (np.eye(4)[[2, 0, 3]],),
        call=lambda xp, y: metrics.class_indices(y, xp=xp),
        reference=lambda y: np.array([2, 0, 3], np.int32),
    ),
    OfFunction(
        "default_metrics",
        metrics.default_metrics,
        call=lambda xp: tuple(
            np.array(len(metrics.default_metrics(loss))) for loss in (nn.SoftmaxCrossEntropy(), nn.BinaryCrossEntropy())
        ),
        draw=lambda rng: (),
        reference=lambda: (1, 2),
    ),
]


# --- metrics


def of_classes(rng):
    return rng.standard_normal((40, 6)), rng.integers(0, 6, 40).astype(np.int32)


def of_labels(rng):
    y = (rng.random((40, 6)) < 0.4).astype(float)
    y[rng.random(y.shape) < 0.2] = np.nan
    return rng.standard_normal((40, 6)), y


def measured(metric):
    """Counts of a batch; `result` makes the share of them on the host."""

    def call(xp, z, y):
        return metric.update(metric.init(z.shape[1], xp=xp, dtype=z.dtype), z, y, None, xp=xp)

    return call


def metric(name, thing, draw, counts, **more):
    return OfFunction(name, thing, draw=draw, call=measured(thing), reference=counts, **more)


def top(k):
    def counts(z, y):
        better = np.sum(z > z[np.arange(len(y)), y][:, None], axis=1)
        return [int(np.sum(better < k))], [len(y)]

    return counts


def confusion(guess, truth):
    return (
        np.sum(guess & truth, axis=0),
        np.sum(guess & ~truth, axis=0),
        np.sum(~guess & truth, axis=0),
    )


def of_each_class(z, y):
    return confusion(np.arange(6) == z.argmax(1)[:, None], np.arange(6) == y[:, None])


def of_each_label(z, y):
    known = ~np.isnan(y)
    return confusion((z > 0) & known, (y > 0.5) & known)


def right_labels(z, y):
    known = ~np.isnan(y)
    return np.sum(((z > 0) == (y > 0.5)) & known, axis=0), np.sum(known, axis=0)


def right_samples(z, y):
    known = ~np.isnan(y)
    counted = known.any(axis=1)
    return [np.sum((((z > 0) == (y > 0.5)) | ~known).all(axis=1) & counted)], [np.sum(counted)]


METRICS = [
    metric("Accuracy", metrics.Accuracy(), of_classes, top(1), names=("Metric", "METRICS", "Outputs", "Counts")),
    metric("TopK", metrics.TopK(3), of_classes, top(3), options={"k": (1, 2)}, bad={"k": COUNTS}),
    metric("PrecisionRecallF1", metrics.PrecisionRecallF1(), of_classes, of_each_class, options={"per_class": (True,)}),
    metric("BinaryAccuracy", metrics.BinaryAccuracy(), of_labels, right_labels),
    metric(
        "ExactMatch",
        metrics.ExactMatch(),
        of_labels,
        right_samples,
        refuses=(
            refused(
                lambda: measured(metrics.ExactMatch())(np, np.zeros((3, 2)), np.zeros(3)),
                ValueError,
                "one column for each output",
            ),
        ),
    ),
    metric("MultiLabelF1", metrics.MultiLabelF1(), of_labels, of_each_label),
]
