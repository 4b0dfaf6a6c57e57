"""Pre-flight: what a training step will cost in operations, FLOPs, bytes moved and peak memory.

The real step runs on abstract arrays (see `bpxp.backends.abstract.namespace`), so none of it is described a second
time, and the network may be larger than this machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from bpxp.backends.abstract.array import Cost, Meter
from bpxp.backends.abstract.namespace import shape_namespace, shape_of
from bpxp.backends.precision import label
from bpxp.core.checks import positive_int
from bpxp.core.tree import leaves, tree_map
from bpxp.network.feed import batches_of_a_piece
from bpxp.network.network import Network, validate_network
from bpxp.network.prepare import transforms
from bpxp.network.step import Data, State, TrainingStep
from bpxp.network.summary import si
from bpxp.nn.losses.softmax_cross_entropy import one_hot
from bpxp.optim import Optimizer, get_optimizer

LARGEST = 4096  # batch that the advice considers


class Machine(NamedTuple):
    """Rough speed of a machine: seconds per operation, FLOP per second, bytes per second."""

    launch: float
    flops: float
    bandwidth: float


# A core of a server of 2024 under NumPy, and a data-centre GPU of that time whose kernels are launched one by one; in
# float32. Orders of magnitude, good enough to say which of the three dominates.
CPU_CORE = Machine(1.5e-6, 1e11, 2e10)
GPU = Machine(5e-6, 4e13, 2e12)


class Costs(NamedTuple):
    """What one training step costs; as text it is a table with advice.

    Attributes
    ----------
    backend, optimizer, dtype : str
    batch_size, samples : int
    operations : int
        That read or write numbers: on a GPU one kernel launch each, or a few where a library has no kernel for it.
        Views are not counted.
    flops : int
        Floating-point operations of the matrix products, 2 for each multiply-add: exact.
    bytes : int
        That the operations read and write, as if there were no cache.
    resident_bytes : int
        Parameters, running statistics, optimizer state, the data set, and tables that layers keep.
    peak_bytes : int
        The peak of live bytes, with the resident ones. The array library's own buffers are not known.
    by_operation : dict of str to Cost
        The same by name: count, bytes, flops.
    largest_product : tuple of int
        (m, k, n) of the matrix product with the most FLOPs; (0, 0, 0) if there is none.
    advice : tuple of str
        What limits the step, and what would help.
    state_bytes : int
        The resident bytes of parameters, running statistics and optimizer state. A fit keeps a copy in the host's
        memory, to go back to when it diverges.
    streamed : bool
        Whether the device holds two pieces of the data set instead of all of it.
    """

    backend: str
    optimizer: str
    dtype: str
    batch_size: int
    samples: int
    operations: int
    flops: int
    bytes: int
    resident_bytes: int
    peak_bytes: int
    by_operation: dict[str, Cost]
    largest_product: tuple[int, int, int]
    advice: tuple[str, ...] = ()
    state_bytes: int = 0
    streamed: bool = False

    def seconds(self, machine: Machine) -> float:
        """Return the sum of launches, arithmetic and traffic on a machine: an order of magnitude."""
        return sum(self.parts(machine))

    def parts(self, machine: Machine) -> tuple[float, float, float]:
        """Return the seconds for launches, for arithmetic, and for traffic."""
        return self.operations * machine.launch, self.flops / machine.flops, self.bytes / machine.bandwidth

    def __str__(self) -> str:
        step = self.peak_bytes - self.resident_bytes
        rows = sorted(self.by_operation.items(), key=lambda item: -item[1].bytes)
        width = max((len(name) for name in self.by_operation), default=0)
        lines = [
            f"one training step of {self.batch_size:,} samples: {self.optimizer}, {self.dtype}, backend {self.backend}",
            f"  {self.operations:,} operations, {si(self.flops)}FLOP in matrix products, {si(self.bytes)}B moved",
            f"  {si(self.peak_bytes)}B at the peak: {si(self.resident_bytes)}B of parameters, optimizer state and "
            f"{'two pieces of ' * self.streamed}{self.samples:,} samples, and {si(step)}B of the step",
            f"  {si(self.state_bytes)}B of the host's memory for the state that a fit can go back to",
            f"  about {_time(self.seconds(CPU_CORE))} on a core of a CPU, {_time(self.seconds(GPU))} on a GPU",
            *(f"    {name:{width}}  {cost.operations:5,} ×  {si(cost.bytes)}B" for name, cost in rows[:8]),
            *(f"  {line}" for line in self.advice),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return str(self)


def preflight(
    net: Network,
    *,
    batch_size: int = 32,
    samples: int | None = None,
    optimizer: Optimizer | str = "sgd",
    pixels: bool = False,
    weighted: bool = False,
    augment: Sequence[Any] = (),
    resident: bool = True,
) -> Costs:
    """Return what one step of ``Trainer(net, optimizer).fit(…, batch_size=batch_size)`` costs, without running it.

    Parameters
    ----------
    net : Network
        It is not changed.
    batch_size : int, optional
    samples : int, optional
        Size of the data set on the device; default: one mini-batch. If the batch size does not divide it, the last
        mini-batch is masked, at a cost in every step.
    optimizer : Optimizer or str, optional
    pixels : bool, optional
        Whether the data set is uint8, as images are.
    weighted : bool, optional
        Whether samples or classes have weights.
    augment : sequence of transforms, optional
        As for `Trainer.fit`.
    resident : bool, optional
        False: the data set is streamed, see `bpxp.data.Dataset`; the device holds two pieces of it.

    Returns
    -------
    Costs

    Raises
    ------
    ShapeRuleError
        If a layer of your own uses a function of the Array API that has no rule of cost.

    Notes
    -----
    These are the costs of the step on NumPy, CuPy and eager PyTorch. JAX fuses operations: its launches and bytes are
    fewer. FLOPs are the same everywhere.

    Examples
    --------
    >>> import bpxp
    >>> net = bpxp.Network([784, 256, 10], hidden="relu", backend="numpy", seed=0)
    >>> costs = bpxp.preflight(net, batch_size=64)
    >>> costs.flops == 64 * sum(layer.forward_flops + layer.backward_flops for layer in net.summary().layers)
    True
    """
    validate_network(net, "preflight(net)")
    size = positive_int(batch_size, "preflight(batch_size=…)")
    n = size if samples is None else positive_int(samples, "preflight(samples=…)")
    rule = get_optimizer(optimizer)

    def at(batch: int) -> Costs:
        return step_costs(net, batch, max(n, batch), rule, pixels, weighted, tuple(augment), resident)

    costs = at(min(size, n))
    return costs._replace(advice=tuple(_advice(costs, "cuda" in str(net.backend.device).lower(), at)))


def step_costs(
    net: Network,
    batch: int,
    n: int,
    optimizer: Optimizer,
    pixels: bool,
    weights: int,
    augment: tuple[Any, ...],
    resident: bool = True,
) -> Costs:
    """Return what a step costs, without advice; see `preflight`. A sample has so many `weights`."""
    meter = Meter()
    xp = shape_namespace(meter, net.xp)
    chain = transforms(augment, net.input_shape, "preflight(augment=…)")
    step = TrainingStep(net.model, net.loss, optimizer, chain, None if resident else n, xp=xp)
    state, data = _start(step, net, batch, n, pixels, weights, meter)
    state = step(state, data)  # the first step makes the cached tables
    meter.start()
    live = meter.live
    state = step(state, data)
    total, largest = meter.total, max(meter.matmuls, key=math.prod, default=(0, 0, 0))
    about = (label(net.backend), type(optimizer).__name__, net.dtype, batch, n)
    counts = (total.operations, total.flops, total.bytes, live, meter.peak)
    return Costs(
        *about,
        *counts,
        dict(meter.by_name),
        largest,
        state_bytes=sum(math.prod(a.shape) * a.dtype.itemsize for a in leaves((state.params, state.stats, state.opt))),
        streamed=not resident,
    )


def _start(
    step: TrainingStep, net: Network, batch: int, n: int, pixels: bool, weights: int, meter: Meter
) -> tuple[State, Data]:
    """Return state and data as the trainer makes them, without numbers."""
    xp = step.xp
    kind, out = getattr(xp, net.dtype), net.output_shape
    key = net.key or (net._key_at(0) if step.augment else ())
    params, stats, key = tree_map(lambda a: shape_of(a, meter), (net.params, net.stats, key))
    classes, samples = net.loss.targets == "classes", n
    if step.samples is not None:
        each = 8 if net.dtype == "float64" else 4
        labels = 4 * math.prod(out[:-1]) if classes else each * math.prod(out)
        width = (1 if pixels else each) * math.prod(net.input_shape) + labels
        n = 2 * batch * batches_of_a_piece(net.backend, width + each * weights, samples, batch)
    x = xp.empty((n, *net.input_shape), dtype=xp.uint8 if pixels else kind)
    y = xp.empty((n, *(out[:-1] if classes else out)), dtype=xp.int32 if classes else kind)
    if classes and any(getattr(transform, "mixes", False) for transform in step.augment):
        y = one_hot(y, out[-1], dtype=kind, xp=xp)
    weight = xp.empty((n,) if weights == 1 else (n, weights), dtype=kind) if weights else None
    order = xp.empty((-(-samples // batch) * batch if step.samples is None else 1,), dtype=xp.int32)
    state = step.init(params, stats, key)._replace(order=order)
    return state, Data(x, y, weight, xp.arange(batch, dtype=xp.int32))


# ---------------------------------------------------------------- advice


def _advice(costs: Costs, gpu: bool, at: Any) -> list[str]:
    machine = GPU if gpu else CPU_CORE
    launches, arithmetic, traffic = costs.parts(machine)
    named = f"launches {_time(launches)}, arithmetic {_time(arithmetic)}, memory traffic {_time(traffic)}"
    if launches < max(arithmetic, traffic):
        if arithmetic >= traffic:
            help_ = "a lower precision of the matrix products" if gpu else "a GPU, or more threads"
            return [f"compute-bound ({named}): {help_}"]
        return [f"memory-bound ({named}): fewer or cheaper elementwise layers, or a backend that fuses them (jax)"]
    better = _enough(costs, machine, at)
    batch = f"a batch of {better:,} or more" if better else "a larger batch"
    if not gpu:  # the step is captured, or compiled: nothing else launches fewer functions
        return [f"launch-bound ({named}): {batch}"]
    advice = f"launch-bound ({named}): use {batch}"
    if costs.seconds(CPU_CORE) < costs.seconds(GPU):
        advice += f", or the CPU, where a core takes about {_time(costs.seconds(CPU_CORE))}"
    return [advice]


def _enough(costs: Costs, machine: Machine, at: Any) -> int:
    """Return the first doubled batch that is not launch-bound; 0 if none is found."""
    batch = costs.batch_size
    while (batch := 2 * batch) <= LARGEST:
        launches, arithmetic, traffic = at(batch).parts(machine)
        if launches < max(arithmetic, traffic):
            return batch
    return 0


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} µs"
