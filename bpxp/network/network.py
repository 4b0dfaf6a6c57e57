"""The network: layers, their parameters, and the backend that they live on.

It is the only object that holds arrays between calls. What can be a function of a network is one, in another file.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bpxp.backends import Backend
from bpxp.backends.device import methods_on_its_device
from bpxp.backends.dtypes import validate_dtype
from bpxp.backends.precision import label
from bpxp.core.aliases import named_arguments
from bpxp.core.checks import number
from bpxp.core.floating_point import never_raising
from bpxp.core.random import INIT, HostRandom, Seed, make_key, normalize_seed
from bpxp.core.threefry import Key
from bpxp.core.tree import leaves, tree_map
from bpxp.core.typing import Array, Params, Shape
from bpxp.errors import InvalidTypeError, nothing_changed
from bpxp.metrics import Metric
from bpxp.network import parameters, prepare
from bpxp.network.backend_choice import BackendReport, choose
from bpxp.network.compiled import CompiledSteps
from bpxp.network.evaluation import as_feed, evaluate
from bpxp.network.held import Held, Numbers
from bpxp.network.holder import Holder, steps_of
from bpxp.network.inference_batch import in_pieces, samples_at_a_time
from bpxp.network.pixels import learned
from bpxp.network.prediction import predicted
from bpxp.network.step import DescentStep, EvaluationStep, ForwardStep, GradientStep
from bpxp.nn import Layer, Loss
from bpxp.nn.spec import Spec, specify
from bpxp.optim import SGD, OptState

if TYPE_CHECKING:
    from pathlib import Path

    from bpxp.network.summary import Ledger
    from bpxp.saving.network import Stored


@methods_on_its_device
class Network(Holder):
    """A feed-forward network with gradients derived by hand.

    Parameters
    ----------
    layers : sequence of int or Layer
        ``[784, 30, 10]``: 784 inputs, 30 hidden units, 10 outputs. A number is the width of a dense layer; numbers and
        layers may be mixed. An activation replaces the default of the layer before it: ``[784, 30, nn.ReLU(), 10]``.
    input_shape : tuple of int, optional
        Shape of one sample, (height, width, channels) for images; then all of `layers` are layers.
    hidden : str or Activation, optional
        Activation of the hidden layers that have none of their own.
    output : str or Activation, optional
        Activation of the last layer. Losses that take logits need ``"identity"``.
    loss : str or Loss, optional
        See `bpxp.nn.LOSSES`.
    init : str or Initializer, optional
        See `bpxp.nn.INITIALIZERS`; ``"normal"`` is the textbook's N(0, 1).
    dtype : {"float32", "float64"}, optional
    backend : str, Backend or None, optional
        See `bpxp.get_backend`. None means the environment variable ``BPXP_BACKEND``, else CuPy if a GPU answers,
        else NumPy. ``"fastest"`` or ``"fastest:10"`` measures steps of 64 or 10 samples on what is installed.
    matmul : {"float32", "tf32", "bfloat16", "float16"}, optional
        Precision of the operands of matrix products. It is not saved: give it again when you load.
    seed : int, SeedSequence, Generator or None, optional
        Initial parameters are a pure function of the seed: the same bits on every backend.
    pixels : {"auto", True, False, "uint8"}, optional
        Whether integers in x are pixels 0 … 255, scaled to 0 … 1; floats are taken as they are. ``"auto"``: images of
        uint8 are, and data sets that say so, never the ids of an Embedding; then the first training makes it True.
        ``"uint8"``: uint8 of any shape, and no other integers. The files of the network keep it.

    Attributes
    ----------
    params : tuple
        One entry per layer: ``net.params[0].W`` are the weights of the first, (n_in, n_out). They are a snapshot: the
        next training step goes on with copies. What is assigned is copied, and counts from the next step on. While one
        thread fits the network, others get the arrays of the fit's beginning, then those of the end of each epoch.
    backend_report : BackendReport
        Why `backend` was chosen, with the measured times if there are some; print it.
    model, loss, backend, xp, dtype, seed, input_shape, output_shape

    Examples
    --------
    >>> import bpxp
    >>> net = bpxp.Network([2, 3, 2], backend="numpy", seed=0)
    >>> [p.W.shape for p in net.params]
    [(2, 3), (3, 2)]
    """

    @named_arguments
    def __init__(
        self,
        layers: Sequence[int | Layer],
        *,
        input_shape: int | Shape | None = None,
        hidden: Any = "sigmoid",
        output: Any = "identity",
        loss: str | Loss = "softmax_cross_entropy",
        init: Any = "glorot_uniform",
        dtype: str = "float32",
        backend: str | Backend | None = None,
        matmul: str | None = None,
        seed: Seed = None,
        pixels: bool | str = "auto",
    ) -> None:
        seed = normalize_seed(seed)
        names: dict[str, Any] = {"hidden": hidden, "output": output, "loss": loss, "init": init, "dtype": dtype}
        rng = HostRandom(seed, (INIT,))
        spec, drawn = specify(layers, rng, input_shape=input_shape, pixels=pixels, **names)
        place = choose(backend, matmul, spec, drawn)
        self._assemble(spec, place, drawn, spec.init_stats(drawn), seed=seed)

    def _assemble(
        self,
        spec: Spec,
        place: tuple[Backend, BackendReport],
        params: Params,
        stats: Any,
        *,
        seed: int,
        epoch: int = 0,
        steps: int = 0,
        own: Callable[[Any, Backend, str], Array] = parameters.own,
    ) -> None:
        """Put the network together on its backend, and why it is that one, from parameters and statistics on the host.

        `own` makes device arrays of them that nothing else holds, since training writes into them. `epoch` and `steps`
        are what training has done; the order of the samples in the next epoch is a function of (seed, epoch).
        """
        self.backend, self.backend_report = place
        self.spec = replace(spec, dtype=validate_dtype(spec.dtype, self.backend))
        self.model, self.loss, self.dtype = spec.model, spec.loss, self.spec.dtype
        self.input_shape, self.output_shape = spec.input_shape, spec.output_shape
        self.xp = self.backend.xp
        self.seed, self.epoch = seed, epoch
        params, stats = tree_map(lambda a: own(a, self.backend, self.dtype), (params, stats))
        key = self._key_at(steps) if "key" in spec.uses or steps else ()
        self._held = Held(self.backend, Numbers(params, stats, key))
        self.training = False  # True while a Trainer is at work
        self._compiled = CompiledSteps()

    @classmethod
    def _assembled(cls, *args: Any, **how: Any) -> Network:
        """Return a network without drawing its parameters; see `_assemble`."""
        net = cls.__new__(cls)
        net._assemble(*args, **how)
        return net

    def __repr__(self) -> str:
        return f"<Network {self.spec.title}, {self.size:,} parameters, {self.dtype} on {label(self.backend)}>"

    # ---------------------------------------------------------------- what it is

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, one for each entry of `params`."""
        return self.model.layers

    @property
    def pixels(self) -> bool | str:
        """Whether integers are pixels, which are scaled: as given, or True once it has been trained on pixels."""
        return self.spec.inputs.pixels

    @pixels.setter
    def pixels(self, value: bool | str) -> None:
        self._learn(self.spec.with_pixels(value, "net.pixels"))

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(math.prod(a.shape) for a in leaves(self._held.now.params))

    def summary(self) -> Ledger:
        """Return the shape ledger: shapes of x, W, b, z, a, delta, dW, db of each layer, and its costs; print it."""
        from bpxp.network.summary import make_ledger

        return make_ledger(self.spec, self.backend, *self._held.now[:3])

    # ---------------------------------------------------------------- mathematics on arrays

    @never_raising
    def loss_and_gradients(self, x: Any, y: Any = None, weight: Any = None) -> tuple[Array, Params]:
        r"""Return the mean loss over a batch (a 0-d array) and its gradients, in the structure of `params`.

        Parameters
        ----------
        x : array_like, (batch, \*input_shape), pair of array_like, or Dataset
        y : array_like, (batch, …) or (batch, …, n_out), optional
            Targets; left out if x is a pair (x, y) or a Dataset.
        weight : array_like, (batch,), optional
            Weight of each sample: Σ w_n J_n/Σ w_n over this batch, which need not know of others as a fit does.

        Notes
        -----
        Layers behave as in training: with the masks of the next step and the statistics of this batch. Nothing is
        changed: the same call gives the same result again.
        """
        batch = prepare.prepare(self.spec, self.backend, prepare.together(x, y), weight, "loss_and_gradients")
        run = self._compiled.recent("gradients")
        run = run or self._compile(GradientStep(self.model, self.loss, self.dtype, xp=self.xp), "gradients")
        with self._held as now:
            value, grads = run((), (now.params, now.stats, now.key, batch))
        return self.xp.reshape(value, ()), grads

    @nothing_changed()
    @never_raising
    def gradient_descent(self, batch: Any, y: Any = None, learning_rate: Any = None, weight: Any = None) -> None:
        """Take one step against the gradient of the mean loss over one mini-batch: p ← p − η ∂J/∂p.

        Parameters
        ----------
        batch, y : array_like, pair of array_like, or Dataset
            As in `loss_and_gradients`: ``((x, y), learning_rate)`` or ``(x, y, learning_rate)``.
        learning_rate : float
            η > 0.
        weight : array_like, (batch,), optional
            Weight of each sample: the mean is Σ w_n J_n/Σ w_n over this batch alone.
        """
        batch, learning_rate, weight = prepare.descent_arguments(batch, y, learning_rate, weight)
        rate = number(learning_rate, "gradient_descent(learning_rate=…)", low=0.0, low_open=True)
        arrays = prepare.prepare(self.spec, self.backend, batch, weight, "gradient_descent")
        self._learn(learned(self.spec, batch, arrays[0], self.backend))
        with self._held.lock:
            now = self._held.own("gradient_descent")
            run, opt = self._descent(rate)
            state = now.params, opt, now.stats, now.key
            after = run(state, arrays)
            if after is not state:  # written in place
                params, self._plain, stats, key = after
                self._held.put(Numbers(params, stats, key, now.optimizer, now.opt))

    @never_raising
    def logits(self, x: Any, y: Any = None) -> Array:
        """Return the outputs of the last layer, (n, …, n_out): what the loss takes. See `predict` for x."""
        return self._forward(x, "logits")

    @never_raising
    def predict_proba(self, x: Any, y: Any = None) -> Array:
        """Return the outputs as the loss reads them, (n, …, n_out): probabilities, rates or values. See `predict`."""
        return self.loss.activate(self._forward(x, "predict_proba"), xp=self.xp)

    @never_raising
    def predict(self, x: Any, y: Any = None) -> Array:
        """Return the prediction for each sample of an array, a pair (x, y) or a Dataset; targets are not looked at.

        Class indices (n, …) for a categorical loss; 0 or 1 per label (n, …, n_out) for a multi-label loss; values
        (n, …, n_out) otherwise. Outputs (n, time, n_out), say, have an answer at each time. Outputs that are NaN decide
        nothing: InvalidValueError.
        """
        return predicted(self._forward(x, "predict"), self.loss, self.backend)

    @never_raising
    def evaluate(
        self, x: Any, y: Any = None, *, weight: Any = None, metrics: Sequence[str | Metric] | None = None
    ) -> dict[str, Any]:
        """Return the mean loss and the metrics over a data set, as Python floats.

        Parameters
        ----------
        x : array_like, pair of array_like, or Dataset
        y : array_like, optional
            Targets; left out if x is a pair (x, y) or a Dataset.
        weight : array_like, optional
        metrics : sequence of str or Metric, optional
            Default: accuracy for a categorical loss, see `bpxp.metrics`.
        """
        batch = prepare.prepare_or_stream(self.spec, self.backend, prepare.together(x, y), weight, "evaluate")
        found = prepare.weighed_metrics(metrics, self.spec, self.backend, batch, self._chunk)
        with self._held as now:
            return self._evaluate(batch, now.params, now.stats, found)

    @never_raising
    def _evaluate(
        self,
        batch: prepare.Batch | prepare.HostSamples,
        params: Params,
        stats: Any,
        metrics: tuple[Metric, ...],
        which: str = "",
    ) -> dict[str, Any]:
        """Evaluate validated samples with the arrays given; otherwise like `evaluate`.

        A CUDA graph holds one set of arrays, so each data set that is evaluated in turn has its own name, `which`.
        """
        feed = as_feed(batch, self.backend, self._chunk)
        step = EvaluationStep(self.model, self.loss, metrics, feed.samples, xp=self.xp)
        run = self._compile(step, (step, which))
        with self._held.lock if self._held.reused else nullcontext():  # one call at a time has the graph's buffers
            return evaluate(step, run, self.spec, self.backend, params, stats, feed, prepare.count(batch))

    # ---------------------------------------------------------------- other places

    def to(self, backend: str | Backend) -> Network:
        """Return a network with the same parameters on another backend."""
        stored = self._stored()
        params, stats = tree_map(self.backend.to_numpy, (stored.params, stored.stats))
        place, own = choose(backend, None, self.spec, params), parameters.moved
        here = {"seed": self.seed, "epoch": stored.epoch, "steps": stored.steps}
        return Network._assembled(self.spec, place, params, stats, **here, own=own)

    def save(self, path: str | Path) -> None:
        """Write layers and parameters to one file, all or nothing.

        The file has the safetensors format, which other tools read, too; its name usually ends with ``.bpxp``. See
        `bpxp.saving.format`.

        Raises
        ------
        OSError
            If it cannot be written; an old file at `path` is intact.
        """
        from bpxp.saving.network import save

        save(path, self._stored(), self.backend)

    @staticmethod
    def load(path: str | Path, *, backend: str | Backend | None = None, custom: Sequence[type] = ()) -> Network:
        """Read a network that `save` wrote, on any backend.

        Parameters
        ----------
        path : path
        backend : str, Backend or None, optional
            As for `Network`.
        custom : sequence of type, optional
            Your own classes of layers that the file names. Nothing else in a file is ever imported or run.

        Raises
        ------
        OSError
            If there is no such file, or it cannot be read.
        CheckpointError
            If the file is not a network, damaged, or of a newer format; see `bpxp.errors`.
        """
        from bpxp.saving.network import load

        spec, params, stats, seed, epoch, steps = load(path, custom)
        place, own = choose(backend, None, spec, params), parameters.moved
        return Network._assembled(spec, place, params, stats, seed=seed, epoch=epoch, steps=steps, own=own)

    # ---------------------------------------------------------------- inner workings

    def _stored(self) -> Stored:
        """Return what a file holds of the network."""
        from bpxp.saving.network import Stored

        now = self._held.lend()
        return Stored(self.spec, now.params, now.stats, self.seed, self.epoch, steps_of(now.key, self.backend))

    @functools.cached_property
    def _chunk(self) -> int:
        return samples_at_a_time(self.spec, *self._held.now[:2], self.xp)

    def _forward(self, x: Any, where: str) -> Array:
        x = prepare.inputs_or_rows(self.spec, self.backend, x, where)
        run = self._compiled.recent("forward")
        run = run or self._compile(ForwardStep(self.model, self.dtype, xp=self.xp), "forward")
        with self._held as now:
            return in_pieces(lambda part: run((), (now.params, now.stats, part)), x, self._chunk, self.backend)

    def _descent(self, rate: float) -> tuple[Callable[..., Any], OptState]:
        """Return the compiled step of `gradient_descent` and its state, with the learning rate in it."""
        run = self._compiled.recent("descent")
        if run is None:
            rule = SGD(rate)
            run = self._compile(DescentStep(self.model, self.loss, rule, xp=self.xp), "descent")
            self._plain, self._rate = rule.init(self._held.now.params, xp=self.xp), rate
        if rate != self._rate:
            dtype = getattr(self.xp, self.dtype)
            self._plain = self._plain._replace(learning_rate=self.xp.full((1,), rate, dtype=dtype))
            self._rate = rate
        return run, self._plain

    def _compile(self, step: Any, key: Any = None) -> Callable[..., Any]:
        """Return `step` compiled by the backend, once for equal steps, or for the key."""
        return self._compiled.step(self.backend, step, key or step)

    def _key_at(self, step: int) -> Key:
        """Return the key of the random layers in a training step."""
        return tree_map(self.backend.asarray, make_key(self.seed, step))  # type: ignore[no-any-return]


def validate_network(net: Any, where: str) -> Network:
    """Return a Network, or raise."""
    if not isinstance(net, Network):
        fix = "bpxp.Network([784, 30, 10])"
        raise InvalidTypeError(where, "not a Network", code="E004", got=type(net).__name__, fix=fix)
    return net
