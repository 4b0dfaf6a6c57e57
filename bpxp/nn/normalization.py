"""Normalisation, over the batch or over the features: mean 0 and variance 1, then a learned scale and shift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from bpxp.core.aliases import named_arguments
from bpxp.core.checks import fits_in_memory, set_numbers
from bpxp.core.random import HostRandom
from bpxp.core.typing import Array, Namespace, Shape
from bpxp.equations import Equations
from bpxp.errors import InvalidValueError
from bpxp.nn.functions import constant
from bpxp.nn.initializers import Zeros


class NormParams(NamedTuple):
    """Scale gamma and shift beta of a normalised value, or their gradients: both (channels,)."""

    gamma: Array
    beta: Array


class RunningStats(NamedTuple):
    """Running statistics of `BatchNorm`, used in evaluation: mean and variance, both (channels,)."""

    mean: Array
    var: Array


class BatchNormCache(NamedTuple):
    """What `BatchNorm` keeps.

    Attributes
    ----------
    xhat : array, like x
        The normalised input.
    scale : array, (channels,)
        1/√(variance + epsilon).
    gamma : array, (channels,)
    batch : tuple or None
        In training: mean and variance of the mini-batch, `present`, and the number m of values behind each mean, an
        array of shape (1,) where samples are absent.
    """

    xhat: Array
    scale: Array
    batch: tuple[Array, Array, Array | None, Any] | None


@named_arguments
@dataclass(frozen=True)
class BatchNorm:
    """Batch normalisation of each channel, the last axis: of feature vectors and of images.

    Parameters
    ----------
    momentum : float, optional
        Weight of the newest mini-batch in the running statistics, in (0, 1]; as PyTorch has it, one minus Keras's.
    epsilon : float, optional
        Added to the variance.

    Notes
    -----
    In the equations n runs over all values of a channel c: over the batch and, in images, over the places. m and v are
    mean and variance of the mini-batch, `mean` and `var` the running statistics. dx is the chain rule over the three
    ways from x to y, directly, through the mean and through the variance, with N values per channel:
    ∂xhat[k]/∂x[n] = s ([k = n] - 1/N - xhat[k] xhat[n]/N). The running variance takes the unbiased N/(N - 1) v, as
    PyTorch's does.

    `present` is 1, but 0 for samples that only fill up the last mini-batch: they do not count in m, v and N, and their
    term with 1/N falls away. Should one single value remain, y is beta, and the statistics stay as they are.

    Evaluation uses the running statistics in place of m and v: samples are independent of each other.

    References
    ----------
    Ioffe and Szegedy, *Batch normalization*, ICML 2015.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    uses = frozenset({"training", "stats", "present"})
    analytic = True

    equations = Equations(
        count="N = sum_n present[n]",
        mean="m[c] = (sum_n present[n]*x[n,c])/N",
        variance="v[c] = (sum_n present[n]*(x[n,c] - m[c])^2)/N",
        scale="s[c] = 1/sqrt(v[c] + epsilon)",
        normalised="xhat[n,c] = (x[n,c] - m[c])*s[c]",
        forward="y[n,c] = gamma[c]*xhat[n,c] + beta[c]",
        dgamma="dgamma[c] = sum_n dy[n,c]*xhat[n,c]",
        dbeta="dbeta[c] = sum_n dy[n,c]",
        dx="dx[n,c] = gamma[c]*s[c]*(dy[n,c] - present[n]*(dbeta[c] + xhat[n,c]*dgamma[c])/N)",
        running_mean="mean'[c] = mean[c] + [N > 1]*momentum*(m[c] - mean[c])",
        running_variance="var'[c] = var[c] + [N > 1]*momentum*(v[c]*N/(N - 1) - var[c])",
    )
    evaluation = Equations(
        scale="s[c] = 1/sqrt(var[c] + epsilon)",
        normalised="xhat[n,c] = (x[n,c] - mean[c])*s[c]",
        forward="y[n,c] = gamma[c]*xhat[n,c] + beta[c]",
        dgamma="dgamma[c] = sum_n dy[n,c]*xhat[n,c]",
        dbeta="dbeta[c] = sum_n dy[n,c]",
        dx="dx[n,c] = gamma[c]*s[c]*dy[n,c]",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "momentum", low=0.0, high=1.0, low_open=True)
        set_numbers(self, "epsilon", low=0.0, low_open=True)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[NormParams, Shape]:
        return _ones_and_zeros(rng, in_shape, "BatchNorm"), in_shape

    def init_stats(self, params: NormParams, /) -> RunningStats:
        zeros = 0.0 * params.gamma
        return RunningStats(zeros, zeros + 1.0)

    def forward(
        self,
        params: NormParams,
        x: Array,
        /,
        *,
        xp: Namespace,
        training: bool = False,
        stats: RunningStats | None = None,
        present: Array | None = None,
    ) -> tuple[Array, BatchNormCache]:
        rows = _pixel_rows(x, xp=xp)
        if training:
            mean, var, count, xhat = self._batch_statistics(rows, x, present, xp)
            batch = (mean, var, present, count)
        else:
            if stats is None:
                raise InvalidValueError(
                    "BatchNorm", "evaluation needs the running statistics", code="E015", got="stats=None"
                )
            (mean, var), batch = stats, None
            xhat = rows - _spread(mean, rows, xp=xp)
        scale = 1.0 / xp.sqrt(var + self.epsilon)
        xhat *= _spread(scale, rows, xp=xp)
        y = xhat * _spread(params.gamma, rows, xp=xp)
        y += _spread(params.beta, rows, xp=xp)
        return xp.reshape(y, x.shape), BatchNormCache(xhat, scale, batch)

    def _batch_statistics(
        self, rows: Array, x: Array, present: Array | None, xp: Namespace
    ) -> tuple[Array, Array, Array | float, Array]:
        """Return mean, biased variance, count, and x - mean: a new array, in pixel rows."""
        count: Array | float = float(math.prod(x.shape[:-1]))
        if count <= 1.0:
            what = "one value per channel has no variance"
            got = f"a training batch of shape {tuple(x.shape)}"
            expected = "at least two values per channel"
            raise InvalidValueError(
                "BatchNorm", what, code="E015", got=got, expected=expected, fix="a larger batch_size, or nn.LayerNorm()"
            )
        weight = None
        if present is not None:
            weight = _per_row(present, rows, xp=xp)
            count = xp.reshape(xp.sum(present), (1,)) * (count / x.shape[0])
        channels = x.shape[-1]
        mean = _channel_sum(rows if weight is None else rows * weight, channels, xp=xp)
        mean /= count
        centred = rows - _spread(mean, rows, xp=xp)
        squares = centred * centred
        if weight is not None:
            squares *= weight
        var = _channel_sum(squares, channels, xp=xp)
        var /= count
        return mean, var, count, centred

    def backward(
        self, params: NormParams, cache: BatchNormCache, dy: Array, /, *, xp: Namespace
    ) -> tuple[Array, NormParams]:
        grads = self.gradients(params, cache, dy, xp=xp)
        rows = xp.reshape(dy, cache.xhat.shape)
        factor = _spread(params.gamma * cache.scale, rows, xp=xp)
        if cache.batch is None:
            return xp.reshape(rows * factor, dy.shape), grads
        _, _, present, count = cache.batch
        dx = cache.xhat * _spread(grads.gamma / (-count), rows, xp=xp)
        dx -= _spread(grads.beta / count, rows, xp=xp)
        if present is not None:
            dx *= _per_row(present, rows, xp=xp)
        dx += rows
        dx *= factor
        return xp.reshape(dx, dy.shape), grads

    def gradients(self, params: NormParams, cache: BatchNormCache, dy: Array, /, *, xp: Namespace) -> NormParams:
        rows, channels = xp.reshape(dy, cache.xhat.shape), dy.shape[-1]
        return NormParams(
            _channel_sum(rows * cache.xhat, channels, xp=xp),
            _channel_sum(rows, channels, xp=xp),
        )

    def advance(self, stats: RunningStats, cache: BatchNormCache, /, *, xp: Namespace) -> RunningStats:
        if cache.batch is None:
            return stats
        batch_mean, batch_var, present, count = cache.batch
        mean, var = stats
        if present is None:
            share, unbiased = self.momentum, self.momentum * count / (count - 1.0)
        else:
            # A single value has no variance: its share is 0, and 1/0 is never taken.
            several = xp.astype(count > 1.0, count.dtype)
            share = self.momentum * several
            unbiased = share * count / xp.maximum(count - 1.0, constant(1.0, count, xp=xp))
        mean *= 1.0 - share
        mean += batch_mean * share
        var *= 1.0 - share
        var += batch_var * unbiased
        return RunningStats(mean, var)


@named_arguments
@dataclass(frozen=True)
class LayerNorm:
    """Layer normalisation of each sample (and place) over its features, the last axis: samples are independent.

    Parameters
    ----------
    epsilon : float, optional
        Added to the variance.

    Notes
    -----
    As `BatchNorm`, with means over the features c of one sample. gamma differs from feature to feature, and so stands
    within the means of dx.

    References
    ----------
    Ba, Kiros and Hinton, *Layer normalization*, 2016.
    """

    epsilon: float = 1e-5

    analytic = True

    equations = Equations(
        mean="m[n] = mean_c x[n,c]",
        variance="v[n] = mean_c (x[n,c] - m[n])^2",
        scale="s[n] = 1/sqrt(v[n] + epsilon)",
        normalised="xhat[n,c] = (x[n,c] - m[n])*s[n]",
        forward="y[n,c] = gamma[c]*xhat[n,c] + beta[c]",
        dgamma="dgamma[c] = sum_n dy[n,c]*xhat[n,c]",
        dbeta="dbeta[c] = sum_n dy[n,c]",
        dxhat="dxhat[n,c] = gamma[c]*dy[n,c]",
        dx="dx[n,c] = s[n]*(dxhat[n,c] - mean_k dxhat[n,k] - xhat[n,c]*mean_k dxhat[n,k]*xhat[n,k])",
    )

    def __post_init__(self) -> None:
        set_numbers(self, "epsilon", low=0.0, low_open=True)

    def init(self, rng: HostRandom, in_shape: Shape, /) -> tuple[NormParams, Shape]:
        return _ones_and_zeros(rng, in_shape, "LayerNorm"), in_shape

    def forward(self, params: NormParams, x: Array, /, *, xp: Namespace) -> tuple[Array, tuple[Array, Array]]:
        xhat = x - _row_mean(x, xp=xp)
        scale = _row_mean(xhat * xhat, xp=xp)
        scale += self.epsilon
        scale = 1.0 / xp.sqrt(scale)
        xhat *= scale
        y = xhat * params.gamma
        y += params.beta
        return y, (xhat, scale)

    def backward(
        self, params: NormParams, cache: tuple[Array, Array], dy: Array, /, *, xp: Namespace
    ) -> tuple[Array, NormParams]:
        xhat, scale = cache
        dx = dy * params.gamma
        along = _row_mean(dx * xhat, xp=xp)
        dx -= _row_mean(dx, xp=xp)
        dx -= xhat * along
        dx *= scale
        return dx, self.gradients(params, cache, dy, xp=xp)

    def gradients(self, params: NormParams, cache: tuple[Array, Array], dy: Array, /, *, xp: Namespace) -> NormParams:
        channels = dy.shape[-1]
        return NormParams(
            _channel_sum(_pixel_rows(dy * cache[0], xp=xp), channels, xp=xp),
            _channel_sum(_pixel_rows(dy, xp=xp), channels, xp=xp),
        )


def _ones_and_zeros(rng: HostRandom, in_shape: Shape, where: str) -> NormParams:
    if not in_shape:
        raise InvalidValueError(where, "a sample needs a last axis, its channels", code="E014", got="shape ()")
    fits_in_memory(2 * in_shape[-1], where)
    zeros = Zeros().bias(rng, in_shape[-1:])
    return NormParams(zeros + 1.0, zeros)


# Images are normalised as rows of pixels, (batch·height, width·channels). NumPy's loops then
# run over width·channels numbers instead of over a few, and sums over a batch are twice to seven times as fast.


def _pixel_rows(x: Array, /, *, xp: Namespace) -> Array:
    """Return x as a matrix whose rows hold the channels one or several times."""
    return xp.reshape(x, (-1, math.prod(x.shape[max(1, len(x.shape) - 2) :])))


def _spread(v: Array, rows: Array, /, *, xp: Namespace) -> Array:
    """Return (channels,) values repeated to the width of the pixel rows."""
    times = rows.shape[1] // v.shape[0]
    return v if times == 1 else xp.tile(v, (times,))


def _per_row(present: Array, rows: Array, /, *, xp: Namespace) -> Array:
    """Return (batch,) values as a column with one entry for each of the rows."""
    batch = present.shape[0]
    column = xp.broadcast_to(xp.reshape(present, (batch, 1)), (batch, rows.shape[0] // batch))
    return xp.reshape(column, (rows.shape[0], 1))


def _channel_sum(rows: Array, channels: int, /, *, xp: Namespace) -> Array:
    """Return Σ_n of each channel, (channels,): a new array."""
    total = xp.sum(rows, axis=0)
    return total if rows.shape[1] == channels else xp.sum(xp.reshape(total, (-1, channels)), axis=0)


def _row_mean(x: Array, /, *, xp: Namespace) -> Array:
    """Return the mean over the last axis, which stays with length 1: a new array."""
    total = xp.sum(x, axis=-1, keepdims=True)
    total *= 1.0 / x.shape[-1]
    return total
