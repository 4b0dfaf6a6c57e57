"""The trainer: epochs over shuffled mini-batches, evaluation after each, and the history of it all."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from bpxp.backends import Array
from bpxp.callbacks import Callback, Progress
from bpxp.data.order import epoch_order, usable_batch_size
from bpxp.errors import DivergenceError, FitInProgressError, InvalidTypeError, InvalidValueError, message
from bpxp.history import History, flat
from bpxp.metrics import Metric
from bpxp.network import Network, checked_metrics
from bpxp.nn.layer import Params
from bpxp.nn.losses.softmax_cross_entropy import one_hot
from bpxp.optim import Optimizer, OptState, get_optimizer
from bpxp.random import SPLIT, HostRandom
from bpxp.step import Data, State, TrainingStep
from bpxp.targets import warn_single_class

Batch = tuple[Array, Array, Array | None]


class Trainer:
    """Fits a network to data.

    Parameters
    ----------
    net : Network
    optimizer : Optimizer or str, optional
        ``bpxp.optim.Adam(1e-3)``, or a name with its default learning rate.
    callbacks : sequence of Callback, optional
        See `bpxp.callbacks`.
    metrics : sequence of str or Metric, optional
        What is evaluated after each epoch beside the loss; default: accuracy, where the loss has classes or labels.
    progress : bool, optional
        Show a bar on a terminal, or a line per epoch elsewhere.

    Examples
    --------
    >>> import bpxp
    >>> train, test = bpxp.data.digits()
    >>> net = bpxp.Network([64, 30, 10], backend="numpy", seed=0)
    >>> trainer = bpxp.Trainer(net, bpxp.optim.SGD(0.5), progress=False)
    >>> history = trainer.fit(train, epochs=2, batch_size=10, validation=test)
    >>> history.columns
    ['epoch', 'loss', 'validation_loss', 'validation_accuracy', 'learning_rate', 'seconds']
    """

    def __init__(
        self,
        net: Network,
        optimizer: Optimizer | str = "sgd",
        *,
        callbacks: Sequence[Callback] = (),
        metrics: Sequence[str | Metric] | None = None,
        progress: bool = True,
    ) -> None:
        if not isinstance(net, Network):
            raise InvalidTypeError(message("Trainer(net=…)", "not a Network", got=type(net).__name__))
        self.net = net
        self.optimizer = get_optimizer(optimizer)
        self.metrics = checked_metrics(metrics, net.loss)
        self.callbacks = [*([Progress()] if progress else []), *callbacks]
        self.stop = ""  # a callback sets it to the reason
        self.last_epoch = 0

    def fit(
        self,
        data: Any,
        *,
        epochs: int,
        batch_size: int | None = None,
        validation: Any = None,
        weight: Any = None,
        class_weight: Any = None,
        shuffle: bool = True,
        augment: Sequence[Any] = (),
        evaluate_train: bool = False,
    ) -> History:
        """Train for a number of epochs, from where the network stands.

        Parameters
        ----------
        data : Dataset or pair of array_like
            Samples and targets.
        epochs : int
            More epochs; 0 only evaluates nothing and returns.
        batch_size : int, optional
            Samples per step; default: 32, or all if there are fewer. The last mini-batch of an epoch may be shorter; it
            counts by its weight.
        validation : Dataset, pair of array_like, or float, optional
            Evaluated after each epoch. A fraction sets this part of `data` aside, at random.
        weight : array_like, (n,), optional
            Weight of each sample.
        class_weight : dict, sequence or ``"balanced"``, optional
            Weight of each class.
        shuffle : bool, optional
            Draw a new order each epoch, a function of the network's seed and the number of the epoch.
        augment : sequence of transforms, optional
            Change each mini-batch on its way, by random numbers of the step; see `bpxp.data.augment`.
        evaluate_train : bool, optional
            Evaluate the training data, too, after each epoch.

        Returns
        -------
        History

        Raises
        ------
        InvalidValueError, InvalidTypeError
            Wrong arguments or data; the network is as it was.
        FitInProgressError
            The network is being fitted already.
        """
        net = self.net
        checked_epochs(epochs)
        train = net.prepare(data, weight, class_weight, "fit")
        held_out: Batch | None = None
        if isinstance(validation, float):
            train, held_out = self._split(train, validation)
        elif validation is not None:
            held_out = net.prepare(validation, None, None, "fit: validation")
        warn_single_class(net.backend.to_numpy(train[1]), "fit: y")
        n = int(train[0].shape[0])
        size = min(32, n) if batch_size is None else usable_batch_size(batch_size, n, "fit(batch_size=…)")
        step = TrainingStep(net.model, net.loss, self.optimizer, self._arranged(augment), xp=net.xp)
        history = History()
        with self._session(epochs):
            self._epochs(history, step, train, held_out, size, shuffle, evaluate_train)
        return history

    def _epochs(
        self,
        history: History,
        training: TrainingStep,
        train: Batch,
        held_out: Batch | None,
        size: int,
        shuffle: bool,
        evaluate_train: bool,
    ) -> None:
        net, xp = self.net, self.net.xp
        n = int(train[0].shape[0])
        x, y, weight = train
        if y.ndim == 1 and any(getattr(transform, "mixes", False) for transform in training.augment):
            y = one_hot(y, net.output_shape[0], dtype=getattr(xp, net.dtype), xp=xp)
        data = Data(x, y, weight, xp.arange(size, dtype=xp.int32))
        step = net.compiled(training)
        params, opt = self._resume()
        stats, key = net.stats, net.key or (net.key_at(0) if training.augment else ())
        try:
            while net.epoch < self.last_epoch and not self.stop:
                begun = time.perf_counter()
                order = epoch_order(net.seed, net.epoch, n, size, shuffle=shuffle)
                state = self._fresh(params, opt, stats, key, order)
                for done, count in chunks(len(order) // size):
                    state = step(state, data, count=count)
                    params, opt, stats, key = state.params, state.opt, state.stats, state.key
                    net._params, net.stats, net.key = params, stats, key
                    self._call("on_batches", done, len(order) // size)
                loss, total = (float(net.backend.to_numpy(a)[0]) for a in (state.loss, state.weight))
                check_finite(loss, net.epoch + 1, history, opt, net)
                row: dict[str, Any] = {"epoch": net.epoch + 1, "loss": loss / total}
                evaluated = opt.average or params
                if evaluate_train:
                    row |= flat(net.evaluate_arrays(train, evaluated, self.metrics), "train_")
                if held_out is not None:
                    row |= flat(net.evaluate_arrays(held_out, evaluated, self.metrics), "validation_")
                opt = self._observe(opt, row)
                rate = float(net.backend.to_numpy(opt.learning_rate)[0])
                row |= {"learning_rate": rate, "seconds": time.perf_counter() - begun}
                history.append(row)
                net._params = evaluated
                net.epoch += 1
                self._call("on_epoch_end", row)
        finally:
            self._keep(params, opt)

    def _arranged(self, augment: Sequence[Any]) -> tuple[Any, ...]:
        """Return the transforms, checked; who changes no images does not import what would change them."""
        if isinstance(augment, (tuple, list)) and not augment:
            return ()
        from bpxp.data.augment.compose import arranged

        return arranged(augment, self.net.input_shape)

    def _fresh(self, params: Params, opt: OptState, stats: Any, key: Any, order: np.ndarray) -> State:
        """Return the state at the beginning of an epoch."""
        net, xp = self.net, self.net.xp
        kind = getattr(xp, net.dtype)
        zeros = (xp.zeros((1,), dtype=xp.int32), xp.zeros((1,), dtype=kind), xp.zeros((1,), dtype=kind))
        return State(params, opt, stats, key, net.backend.asarray(order), *zeros)

    def _resume(self) -> tuple[Params, OptState]:
        """Return parameters and optimizer state to go on from.

        A network keeps the moving average of its parameters as its parameters between fits, since that is what was
        evaluated; the state then holds the others. Here they change places again.
        """
        net = self.net
        if net.optimizer != self.optimizer or net.opt_state is None:
            net.optimizer, net.opt_state = self.optimizer, self.optimizer.init(net.params, xp=net.xp)
            return net.params, net.opt_state
        return self._swap(net.params, net.opt_state)

    def _keep(self, params: Params, opt: OptState) -> None:
        self.net._params, self.net.opt_state = self._swap(params, opt)

    @staticmethod
    def _swap(params: Params, opt: OptState) -> tuple[Params, OptState]:
        return (opt.average, opt._replace(average=params)) if opt.average else (params, opt)

    def _observe(self, opt: OptState, row: dict[str, Any]) -> OptState:
        """Let the schedule see the epoch's loss: that of the validation, where there is one."""
        net = self.net
        value = row.get("validation_loss", row["loss"])
        metric = net.xp.full((1,), value, dtype=getattr(net.xp, net.dtype))
        return self.optimizer.observe(opt, metric, xp=net.xp)

    def _split(self, train: Batch, fraction: float) -> tuple[Batch, Batch]:
        n = int(train[0].shape[0])
        held = round(n * fraction) if 0.0 < fraction < 1.0 else 0
        if not 0 < held < n:
            raise InvalidValueError(
                message(
                    "fit(validation=…)",
                    f"a split of {n} samples leaves {held} for validation",
                    got=repr(fraction),
                    expected="a fraction in (0, 1) that leaves samples on both sides",
                )
            )
        xp, order = self.net.xp, HostRandom(self.net.seed, (SPLIT,)).permutation(n)

        def part(rows: np.ndarray) -> Batch:
            index = self.net.backend.asarray(rows)
            x, y, weight = (None if a is None else xp.take(a, index, axis=0) for a in train)
            return x, y, weight

        return part(order[held:]), part(order[:held])

    @contextmanager
    def _session(self, epochs: int) -> Iterator[None]:
        net = self.net
        if net.training:
            raise FitInProgressError(
                message(
                    "fit", "this network is being fitted already", fix="wait for the other fit, or use another Network"
                )
            )
        net.training, self.stop, self.last_epoch = True, "", net.epoch + epochs
        try:
            self._call("on_fit_begin")
            yield
        finally:
            net.training = False
            self._call("on_fit_end")

    def _call(self, moment: str, *args: Any) -> None:
        for callback in self.callbacks:
            try:
                getattr(callback, moment)(self, *args)
            except Exception as error:
                error.add_note(f"in the callback {type(callback).__name__}.{moment}, epoch {self.net.epoch}")
                raise


def chunks(batches: int, most: int = 20) -> Iterator[tuple[int, int]]:
    """Yield (done, count): an epoch in at most `most` runs of the compiled step, so that progress can be shown."""
    done = 0
    for i in range(min(most, batches)):
        end = (i + 1) * batches // min(most, batches)
        yield end, end - done
        done = end


def checked_epochs(epochs: Any) -> None:
    """Raise unless `epochs` is an int >= 0."""
    if isinstance(epochs, bool) or not isinstance(epochs, (int, np.integer)):
        raise InvalidTypeError(message("fit(epochs=…)", "not an int", got=f"{type(epochs).__name__} {epochs!r}"))
    if epochs < 0:
        raise InvalidValueError(message("fit(epochs=…)", "must be >= 0", got=str(epochs), expected=">= 0"))


def check_finite(loss: float, epoch: int, history: History, opt: OptState, net: Network) -> None:
    """Raise if the epoch's loss is NaN or infinite: nothing after it would mean anything."""
    if math.isfinite(loss):
        return
    rate = float(net.backend.to_numpy(opt.learning_rate)[0])
    last = ", ".join(f"{row['loss']:.4g}" for row in history.rows[-3:]) or "none"
    raise DivergenceError(
        f"fit: the loss of epoch {epoch} is {loss} at learning rate {rate:g}; losses of the epochs before: {last}. "
        "The parameters are no longer useful. Fix: a smaller learning rate, scaled inputs, or clip_norm=1.0."
    )
