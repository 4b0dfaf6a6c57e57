"""The trainer: epochs over shuffled mini-batches, an evaluation after each, and their history."""

from __future__ import annotations

import dataclasses
import functools
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bpxp.backends import Step
from bpxp.backends.capture import prove_within
from bpxp.backends.device import here
from bpxp.core.aliases import named_arguments
from bpxp.core.checks import as_path, one_of
from bpxp.core.text import report
from bpxp.errors import NOTHING_CHANGED, DeviceMemoryError, FitInProgressError, InvalidValueError
from bpxp.metrics import Metric
from bpxp.network.network import Network, validate_network
from bpxp.network.prepare import as_metrics, together
from bpxp.network.step import TrainingStep
from bpxp.optim import Optimizer, OptState, get_optimizer
from bpxp.training.callback import SAVING, Callback, overrides, validate_callbacks
from bpxp.training.columns import Columns
from bpxp.training.divergence.monitor import DivergenceMonitor
from bpxp.training.history import History, flat
from bpxp.training.interrupts import NAMES, Interrupts
from bpxp.training.memory import MemoryEstimate, explained, no_memory_for_samples
from bpxp.training.moments import Moments, savers, told_if_unchanged
from bpxp.training.pacing import MARKS, Pace, chunks
from bpxp.training.progress import Progress
from bpxp.training.run import FitProgress, claimed, over
from bpxp.training.schedule_end import warn_early_end
from bpxp.training.setup import FitSetup, validate_epochs

if TYPE_CHECKING:
    from pathlib import Path


IN_A_FIT = {
    "net": "trainer.net.params = other.params",
    "optimizer": "trainer.stop = 'another optimizer', and a new fit with it; a schedule changes the learning rate",
}


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
        Evaluated after each epoch in addition to the loss; default: accuracy, where the loss has classes or labels.
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

    @named_arguments
    def __init__(
        self,
        net: Network,
        optimizer: Optimizer | str = "sgd",
        *,
        callbacks: Sequence[Callback] = (),
        metrics: Sequence[str | Metric] | None = None,
        progress: bool = True,
    ) -> None:
        self.net = validate_network(net, "Trainer(net=…)")
        self.optimizer: Optimizer = get_optimizer(optimizer)
        self.metrics = as_metrics(metrics, net.spec)
        self.callbacks = [*([Progress()] if progress else []), *validate_callbacks(callbacks)]
        self.stop = ""  # a callback sets it to the reason
        self.last_epoch = 0
        self.history = History()
        self.run: FitProgress  # of the current fit, or the last one
        self.resumed_from = ""
        self._make_step: Callable[..., TrainingStep] = TrainingStep  # data-parallel runs have another
        self.how_to_resume: Callable[[str], str] = "trainer.fit(…, resume={!r})".format  # printed after an interrupt
        self.how_to_save = SAVING

    def __setattr__(self, name: str, value: Any) -> None:
        if name in IN_A_FIT:
            if hasattr(self, "run") and self.net._held.fit is self.run:
                what = "it cannot be replaced within a fit"
                raise FitInProgressError(f"Trainer.{name}", what, code="E051", fix=IN_A_FIT[name])
            value = validate_network(value, "Trainer.net") if name == "net" else get_optimizer(value)
        super().__setattr__(name, value)

    @named_arguments
    def fit(
        self,
        data: Any,
        y: Any = None,
        *,
        epochs: int,
        batch_size: int | None = None,
        validation: Any = None,
        weight: Any = None,
        class_weight: Any = None,
        shuffle: bool = True,
        augment: Sequence[Any] = (),
        evaluate_train: bool = False,
        resume: str | Path | bool = False,
        on_interrupt: str = "raise",
        on_divergence: str = "locate",
        bundle: str | Path | None = None,
    ) -> History:
        """Train for a number of epochs, from where the network stands or from where a run was cut.

        Parameters
        ----------
        data, y : Dataset, pair of array_like, or two array_like
            Samples and targets.
        epochs : int
            How many more epochs; with 0 the fit returns at once. With `resume` the total, those that are done included.
        batch_size : int, optional
            Samples per step; default: 32, or all if there are fewer. The last mini-batch of an epoch may be shorter; it
            counts by its weight.
        validation : Dataset, pair of array_like, or float, optional
            Evaluated after each epoch. A fraction sets this part of `data` aside, at random. Its samples count by their
            own weights, if they have some, and not by `class_weight`, whichever way they are given.
        weight : array_like, (n,), optional
            Weight of each sample, relative to the mean over the training data: 2 counts as two samples of weight 1, in
            mini-batches of any size.
        class_weight : dict, sequence or ``"balanced"``, optional
            Weight of each class, ``{0: 1.0, 1: 5.0}``, by which the steps multiply the weights of the samples. One
            output with binary cross-entropy has the classes 0 and 1; of several labels each has a weight, or a pair of
            weights for 0 and for 1. ``"balanced"`` gives class k the weight n/(classes n_k), counted in the samples
            that are trained on.
        shuffle : bool, optional
            Draw a new order each epoch, a function of the network's seed and the number of the epoch.
        augment : sequence of transforms, optional
            Data augmentation, random transforms of each mini-batch on the device; see `bpxp.data.augment`.
        evaluate_train : bool, optional
            Evaluate the training data after each epoch, too.
        resume : path or bool, optional
            A file that `callbacks.Checkpoint` wrote: go on from there, with the network, data and arguments of that
            fit, to the same bits as if nothing had happened. The parameters, the seed and the optimizer's state come
            from the file. True goes on from the newest file of the trainer's own `Checkpoint`, and begins if there is
            none.
        on_interrupt : {"raise", "return"}, optional
            After Ctrl-C the step is finished, the run saved if there is a `Checkpoint`, and a line printed that says
            how to go on; then KeyboardInterrupt is raised, or the history returned. After SIGTERM the program ends in
            either case, with exit code 143. A second signal ends at once, and leaves parameters of which some may be a
            step ahead of the others.
        on_divergence : {"locate", "raise"}, optional
            What to do when a number is NaN or infinite: go back to the last finite state, repeat the steps and name the
            one, and the layer, where it began; or only raise. For the first a copy of the state is kept in the host's
            memory; checks and copies take at most 1 % of the time.
        bundle : path, optional
            Where a step that diverges is written, for `bpxp.replay`. Default: beside the file of a `Checkpoint`,
            ``run.diverged.bpxp`` for ``run.bpxp``; without one, nowhere.

        Returns
        -------
        History

        Raises
        ------
        InvalidValueError, InvalidTypeError
            Wrong arguments or data; the network is as it was.
        FitInProgressError
            The network is being fitted already.
        DivergenceError
            A number is no longer finite; a FloatingPointError. The network is as it was before that step.
        DeviceMemoryError
            The device has too little memory; a MemoryError. The network is as it was at a step's end that it names.
        CheckpointError
            What is to be resumed is no run, damaged, or another network's or fit's; all differences are named.
        OSError
            A checkpoint cannot be written: before the first step, or at the end, if the last one failed.
        """
        net = self.net
        from bpxp.training import resume as saved_runs  # files are needed in a fit, not by `import bpxp`

        with here(net.backend), claimed(net), told_if_unchanged(self):
            validate_epochs(epochs)
            one_of(on_interrupt, ("raise", "return"), "fit(on_interrupt=…)")
            one_of(on_divergence, ("locate", "raise"), "fit(on_divergence=…)")
            self._moments = Moments()
            path = self._source(resume)
            saved = None if path is None else saved_runs.read(path, net)
            with explained(net, functools.partial(no_memory_for_samples, net)):
                setup = FitSetup.of(
                    net,
                    self.optimizer,
                    self.metrics,
                    together(data, y),
                    batch_size=saved.batch_size if batch_size is None and saved else batch_size,
                    validation=validation,
                    weight=weight,
                    class_weight=class_weight,
                    shuffle=shuffle,
                    augment=augment,
                    evaluate_train=evaluate_train,
                    seed=saved.seed if saved else net.seed,
                    spec=dataclasses.replace(net.spec, inputs=saved.inputs) if saved else net.spec,
                    make_step=self._make_step,
                )
            self.columns = Columns(net.spec, net.backend, self.metrics, setup.evaluated)
            self._moments.call(self, "on_setup")
            self._memory = MemoryEstimate(net, setup, keeps=on_divergence == "locate")
            self._memory.check()
            self.run = setup.begin(net) if saved is None else saved_runs.restore(saved, net, setup)
            self.history, self.last_epoch = self.run.history, self.run.first + epochs
            warn_early_end(self.optimizer, self.run, self.last_epoch)
            self.resumed_from, self.stop = ("", "") if saved is None else (saved.path, saved.stop)
            try:
                with Interrupts() as interrupts, self.run.at_work(), self._moments.begin_and_end(self, saved):
                    self._train(setup, interrupts, self._bundle(bundle))
            finally:  # nothing is kept of the data
                del self._memory
                self._moments, self.run.plan = Moments(), over
        if interrupts.heard and (on_interrupt == "raise" or interrupts.heard != signal.SIGINT):
            interrupts.pass_on()
        for callback in self.callbacks:
            if callback.failure is not None:
                raise callback.failure
        return self.history

    def __getstate__(self) -> dict[str, Any]:  # without the fit that runs or ran last: the network has its arrays
        return {name: value for name, value in vars(self).items() if name not in ("run", "_memory", "_moments")}

    @property
    def where(self) -> str:
        """Where the fit is: ``"epoch 7, step 340 of 938"``."""
        if not hasattr(self, "run"):
            return "before the first fit"
        run, epoch = self.run, self.net.epoch
        return f"epoch {epoch + 1}, step {run.done} of {run.batches}" if run.done else f"epoch {epoch} done"

    # ---------------------------------------------------------------- the loop

    def _train(self, setup: FitSetup, interrupts: Interrupts, bundle: Path | None) -> None:
        """Go through the epochs, watched for divergence."""
        run, step = self.run, self.net._compile(setup.step)
        try:
            monitor = DivergenceMonitor(run, setup, step, self._observe, file=bundle, locate=self._memory.keeps)
            with explained(
                self.net, functools.partial(self._out_of_memory, monitor), lambda e: e is self._moments.raised
            ):
                self._epochs(setup, step, monitor, interrupts)
        finally:
            run.finish()

    def _epochs(self, setup: FitSetup, step: Step, monitor: DivergenceMonitor, interrupts: Interrupts) -> None:
        net, run, pace = self.net, self.run, Pace()
        marks = MARKS if any(overrides(c, "on_batches") for c in self.callbacks) else 1
        while net.epoch < self.last_epoch and not self.stop and not interrupts.heard:
            begun = time.perf_counter() - run.seconds
            run.begin_epoch(setup.order(net.seed, net.epoch), setup.feed)
            prove_within(step, run.batches - run.done)
            pauses = [c.steps for c in self.callbacks if c.steps is not None]
            for count in chunks(run, pace, pauses, marks):
                monitor.follow()
                run.advance(step, setup.feed, count)
                run.seconds = time.perf_counter() - begun
                monitor.look()
                self._moments.call(self, "on_batches", run.done, run.batches)
                if run.done < run.batches:
                    if interrupts.heard:
                        break
                    if any(c.steps is not None and run.steps % c.steps == 0 for c in self.callbacks):
                        monitor.check()
                        self._moments.call(self, "on_pause", "steps")
            else:
                monitor.check(whole=any(c.saves for c in self.callbacks))
                self._end_epoch(setup, begun, monitor)
                monitor.keep()
                self._moments.call(self, "on_pause", "epoch")
        monitor.check()
        if interrupts.heard:
            self._interrupted(NAMES[interrupts.heard])

    def _end_epoch(self, setup: FitSetup, begun: float, monitor: DivergenceMonitor) -> None:
        """Evaluate, write the row of the history, and go over to the next epoch."""
        net, run = self.net, self.run
        state, evaluated = run.live, run.between_fits()[0]
        loss, total = (float(net.backend.to_numpy(a)[0]) for a in (state.loss, state.weight))
        row: dict[str, Any] = {"epoch": net.epoch + 1, "loss": loss / total}
        if setup.evaluate_train:
            row |= flat(net._evaluate(setup.train, evaluated, state.stats, self.metrics, "train"), "train_")
        if setup.held_out is not None:
            row |= flat(net._evaluate(setup.held_out, evaluated, state.stats, self.metrics), "validation_")
        if not all(math.isfinite(value) for value in row.values() if isinstance(value, float)):
            monitor.check()
        run.observe(self._observe, row)
        rate = float(net.backend.to_numpy(run.live.opt.learning_rate)[0])
        row |= {"learning_rate": rate, "seconds": time.perf_counter() - begun}
        self.history.append(row)
        run.show()
        net.epoch, run.done, run.seconds = net.epoch + 1, 0, 0.0
        self._moments.call(self, "on_epoch_end", row)

    def _interrupted(self, by: str) -> None:
        """Save, and say how to go on."""
        self._moments.call(self, "on_pause", "interrupt")
        files = [str(c.saved) for c in savers(self.callbacks) if c.saved]
        unsaved, self.stop = f"nothing is saved, which {self.how_to_save} would do", by
        how = f"to go on: {self.how_to_resume(files[-1])}" if files else unsaved
        report(f"{by} in {self.where}; {how}", sys.stderr)

    def _out_of_memory(self, monitor: DivergenceMonitor, cause: BaseException) -> DeviceMemoryError:
        """Go back to the last complete state, and return the error that says what was needed."""
        run = self.run
        if monitor.kept is None:
            return self._memory.error("Some parameters of the network may be a step ahead of the others", cause)
        monitor.put_back(last=True)
        before = self.net.epoch == run.first and not run.done
        return self._memory.error(NOTHING_CHANGED if before else f"The network is as it was: {self.where}", cause)

    # ---------------------------------------------------------------- before it

    def _source(self, resume: str | Path | bool) -> Path | None:
        """Return the file to go on from, if any."""
        if not isinstance(resume, bool):
            return as_path(resume, "fit(resume=…)")
        if not resume:
            return None
        if not savers(self.callbacks):
            what = "the trainer has no Checkpoint that says where the run is saved"
            raise InvalidValueError("fit(resume=True)", what, code="E055", fix=f"Trainer(net, …, {SAVING})")
        return savers(self.callbacks)[0].newest()

    def _bundle(self, path: str | Path | None) -> Path | None:
        """Return where a step that diverges is written."""
        if path is not None:
            return as_path(path, "fit(bundle=…)")
        return savers(self.callbacks)[0].beside("diverged") if savers(self.callbacks) else None

    def _observe(self, opt: OptState, row: dict[str, Any]) -> OptState:
        """Let the schedule see the epoch's loss: that of the validation, where there is one."""
        net = self.net
        value = row.get("validation_loss", row["loss"])
        metric = net.xp.full((1,), value, dtype=getattr(net.xp, net.dtype))
        return self.optimizer.observe(opt, metric, xp=net.xp)
