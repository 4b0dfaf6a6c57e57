"""The parity certificate: every backend beside a float64 run, step by step, each deviation beside its rounding bound.

A bound is useful only where it is small. Two free runs drift apart, and a bound of the drift would soon exceed every
number. So each equation of each step is checked by itself: float64 computes it from the numbers that the backend had,
with a bound of the rounding errors of the backend's arithmetic. No equation may do more than round.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend, get_backend
from bpxp.backends.device import on_its_device
from bpxp.backends.dtypes import validate_dtype
from bpxp.backends.names import backend_names, version_of
from bpxp.backends.numpy.threads import blas_pools
from bpxp.backends.precision import label
from bpxp.core.checks import positive_int
from bpxp.core.tree import leaves, named_leaves
from bpxp.core.typing import Namespace
from bpxp.core.version import __version__
from bpxp.errors import BpxpError
from bpxp.network.network import Network, validate_network
from bpxp.nn.observe import Calls, Part, named, opaque, passed_on_by
from bpxp.optim import Optimizer
from bpxp.verify.equations.comparison import slot_names
from bpxp.verify.parity.certificate import Certificate, ParityRow, ParityRun
from bpxp.verify.parity.error_bounds import bounded_namespace, exact, quiet
from bpxp.verify.parity.rounding import Arithmetic, Rounded, arithmetic, as_rounded, shares
from bpxp.verify.parity.run import Runner, Trial, forward_and_back, make_trial, whole_run

DTYPES = ("float32", "float64")


@on_its_device
def certify(
    net: Network,
    backends: str | Backend | Sequence[str | Backend] | None = None,
    data: Any = None,
    /,
    *,
    steps: int = 100,
    batch_size: int = 32,
    optimizer: Optimizer | str | None = None,
    dtypes: str | Sequence[str] = DTYPES,
) -> Certificate:
    """Train on each backend, and compare every step with float64.

    Parameters
    ----------
    net : Network
        It is not changed. Each run begins with its parameters, and takes its seed.
    backends : str, Backend or sequence of them, optional
        Names as for `get_backend`, ``"torch:cuda"`` and ``"torch+bfloat16"`` too; default: every array library. One
        that does not work here is in the certificate, with the reason.
    data : Dataset or pair of array_like, optional
        As for `Trainer.fit`; without it, random samples of the network's input shape.
    steps, batch_size : int, optional
    optimizer : Optimizer or str, optional
        Default: gradient descent with learning rate 0.1.
    dtypes : str or sequence of str, optional
        A run for each.

    Returns
    -------
    Certificate
        Print it; `Certificate.ok` is the verdict. A deviation beyond its bound is no error of this function.

    Notes
    -----
    Compared are the output of each layer and activation, loss, delta, every gradient, running statistics, every
    parameter after the update and the optimizer's state, as returned by the two halves of a step, compiled by the
    backend. The training step itself, which returns less and may be fused more, then runs from the same start, and the
    certificate says how far it is from its halves. A layer that is made of layers and has no `children` is compared as
    a whole.

    The bound is a running one: beside each number of the float64 run stands how far the backend's number can be from
    it, computed operation by operation from the errors of the operands and the rounding of the operation:
    γ_n = n u/(1 - n u) of ``Σ|x_i||w_i|`` for a sum of n products in any order, u for a sum or product of two numbers,
    4u for a quotient or a root, 8u for exp, log, tanh (u = 2⁻²⁴ in float32); numbers below the smallest normal one may
    become 0. The factors 4 and 8 are stated by the libraries, not proved. The bound holds for every order of summation,
    with and without fused operations, on one thread or many. The estimate replaces γ_n by 6 √n u: roundings that are
    independent and have mean 0 stay below it. It is sharper than the bound, and proves nothing.

    An infinite bound says nothing: where a divisor's bound reaches 0. The certificate says how many entries have one.

    References
    ----------
    N. Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd edition, SIAM 2002, chapter 3.

    Examples
    --------
    >>> import bpxp
    >>> net = bpxp.Network([4, 3, 2], backend="numpy", seed=0)
    >>> certificate = bpxp.verify.certify(net, ["numpy"], steps=3, batch_size=8)
    >>> certificate.ok
    True
    """
    validate_network(net, "certify(net)")
    positive_int(steps, "certify(steps=…)")
    trial = make_trial(net, data, batch_size=batch_size, optimizer=optimizer, where="certify")
    asked = [backends] if isinstance(backends, (str, Backend)) else backends or backend_names()
    runs, not_run, usable = [], {}, []
    free = functools.cache(_free)
    for name in asked:
        try:
            usable.append(get_backend(name))
        except BpxpError as error:
            not_run[str(name)] = _reason(error)
    for dtype in [dtypes] if isinstance(dtypes, str) else dtypes:
        for backend in usable:
            try:
                validate_dtype(dtype, backend)
            except BpxpError as error:
                not_run[f"{label(backend)} {dtype}"] = _reason(error)
                continue
            runs.append(_certified(trial, backend, dtype, steps, *free(trial, steps)))
    about = (repr(net)[1:-1].rpartition(",")[0], _described(trial.optimizer), steps, trial.size, trial.seed)
    return Certificate(*about, tuple(runs), not_run, environment(), opaque(trial.model, trial.params))


def _reason(error: BpxpError) -> str:
    """Return in one line why something does not work here."""
    cause = error.__cause__ or error
    return " ".join((cause.brief if isinstance(cause, BpxpError) else str(cause)).split())


def _described(optimizer: Optimizer) -> str:
    """Return the constructor's call, with the options that are not the defaults."""
    options = {f.name: (getattr(optimizer, f.name), f.default) for f in dataclasses.fields(optimizer)}
    told = ", ".join(f"{name}={value!r}" for name, (value, usual) in options.items() if value != usual)
    return f"{type(optimizer).__name__}({told})"


class Deviation(NamedTuple):
    """An array beside its float64 counterpart, in one step; see `ParityRow`."""

    largest: float
    deviation: float
    bound: float
    share: float
    blind: float


def compare(found: np.ndarray, expected: Rounded) -> Deviation:
    """Compare an array with the values and bounds of the float64 run."""
    if not found.size:
        return Deviation(0.0, 0.0, 0.0, 0.0, 0.0)
    difference, bound, share = shares(found, expected.v, expected.bound)
    i = int(np.argmax(share))
    deviation, nearest, most = (float(a.flat[i]) for a in (difference, bound, share))
    return Deviation(float(np.max(difference)), deviation, nearest, most, float(np.mean(np.isinf(bound))))


def _certified(
    trial: Trial, backend: Backend, dtype: str, steps: int, free_losses: list[float], free_params: list[np.ndarray]
) -> ParityRun:
    """Do the run, and compare each step."""
    both = [arithmetic(backend, dtype, statistical) for statistical in (False, True)]
    runner = Runner(trial, backend, dtype)
    found: dict[str, list[tuple[Deviation, float]]] = {}
    losses = []
    for step, host in enumerate(trial.batches(steps)):
        batch = runner.place(host, step)
        grads, stats, results = runner.gradients(batch)
        with quiet():
            expected = [_expected(trial, runner, batch, results, rules) for rules in both]
        passed_on = {name: results[of] for name, of in runner.passed_on.items() if name in expected[0]}
        _note(found, both, expected, results | passed_on)
        losses.append(float(results["loss/J"].reshape(())))
        with quiet():
            expected = [_updated(trial, runner, grads, rules) for rules in both]
        runner.update(grads, stats)
        params, opt = runner.host((runner.params, runner.opt))
        _note(found, both, expected, _named_update(trial, params, opt))
    rows = tuple(_row(quantity, each) for quantity, each in found.items())
    library = backend.name.partition(":")[0]
    return ParityRun(
        label(backend),
        dtype,
        str(backend.device),
        f"{library} {version_of(library)}",
        operand_bits(backend),
        rows,
        drift_of_loss=max(abs(a - b) / (abs(b) or 1.0) for a, b in zip(losses, free_losses, strict=True)),
        drift_of_parameters=_apart(leaves(params), free_params),
        whole_step=_apart(whole_run(trial, backend, dtype, steps), leaves(params)),
    )


def _apart(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the largest difference, relative to the largest number."""
    largest = max((float(np.max(np.abs(b), initial=0.0)) for b in expected), default=0.0)
    apart = (float(np.max(np.abs(a - b), initial=0.0)) for a, b in zip(found, expected, strict=True))
    return max(apart, default=0.0) / (largest or 1.0)


class _Expected:
    """An observer in the namespace of bounds: keeps what each part should return, and goes on with what it returned.

    So each equation starts from the numbers that the backend had, and its bound is that of this equation alone.
    """

    def __init__(self, found: dict[str, np.ndarray], passed_on: dict[str, str], rules: Arithmetic) -> None:
        self.found, self.passed_on, self.rules = found, passed_on, rules
        self.expected: dict[str, Any] = {}
        self._returned: dict[str, Any] = {}
        self._calls = Calls()

    def call(self, part: Part, method: str, args: tuple[Any, ...], xp: Namespace, context: Mapping[str, Any]) -> Any:
        """Call with bounds, and return what the backend found."""
        part = self._calls(part, method)
        done = getattr(part.thing, method)(*args, xp=xp, **context)
        results = named(part, method, done)
        # What a container passes on from its children, here as on the backend, is theirs.
        passed_on = passed_on_by(part.thing, results, self._returned).items() & self.passed_on.items()
        self.expected |= {name: a for name, a in results.items() if (name, self.passed_on.get(name)) not in passed_on}
        self._returned |= results
        if method in ("gradients", "advance"):
            return done
        names = list(results)
        if method == "__call__":
            return self._found(names[0], done[0]), self._found(names[1], done[1])
        return self._found(names[-1], done[0]), done[1]  # y, or dx, which is the last of the names

    def _found(self, name: str, expected: Any) -> Any:
        """Return what the backend found; what a container passes on, as it is."""
        if name not in self.expected:
            return expected
        self._returned[name] = as_rounded(self.found[self.passed_on.get(name, name)], self.rules)
        return self._returned[name]


def _expected(trial: Trial, runner: Runner, batch: Any, found: dict[str, Any], rules: Arithmetic) -> dict[str, Any]:
    """Return what each equation of a step should find, with its bound, from where the runner stands."""
    given = exact((runner.params, runner.stats, runner.key, batch), runner.backend, rules)
    observer = _Expected(found, runner.passed_on, rules)
    forward_and_back(trial, observer, *given, xp=bounded_namespace(rules), dtype="float64")
    return observer.expected


def _updated(trial: Trial, runner: Runner, grads: Any, rules: Arithmetic) -> dict[str, Rounded]:
    """Return the results of the update with bounds, from the gradients that the backend found."""
    params, opt = exact((runner.params, runner.opt), runner.backend, rules)
    given = exact(grads, get_backend("numpy"), rules)
    new, state = trial.optimizer.update(params, given, opt, xp=bounded_namespace(rules))
    return _named_update(trial, new, state)


def _named_update(trial: Trial, params: Any, opt: Any) -> dict[str, Any]:
    kept = slot_names(getattr(trial.optimizer, "equations", {}))
    found = {**dict(named_leaves(params)), "learning rate": opt.learning_rate}
    for i, slot in enumerate(opt.slots):
        what = kept[i] if i < len(kept) else f"slot {i}"
        found |= {f"{name} {what}": a for name, a in named_leaves(slot)}
    return {**found, **{f"{name} average": a for name, a in named_leaves(opt.average)}}


def _note(
    found: dict[str, list[tuple[Deviation, float]]],
    both: Sequence[Arithmetic],
    expected: Sequence[dict[str, Any]],
    got: dict[str, Any],
) -> None:
    """Add a step to each quantity: its deviation beside the bound, and its share of the estimate."""
    with quiet():
        for name, a in got.items():
            if name in expected[0]:
                sides = (as_rounded(one[name], rules) for one, rules in zip(expected, both, strict=True))
                bound, estimate = (compare(a, side) for side in sides)
                found.setdefault(name, []).append((bound, estimate.share))
            else:
                assert name.endswith("/delta"), name  # a delta is some dx


def _row(quantity: str, steps: Sequence[tuple[Deviation, float]]) -> ParityRow:
    columns = dict(zip(Deviation._fields, zip(*(one for one, _ in steps), strict=True), strict=True))
    return ParityRow(quantity, **columns, estimate=tuple(estimate for _, estimate in steps))


def _free(trial: Trial, steps: int) -> tuple[list[float], list[np.ndarray]]:
    """Return the losses and the last parameters of the free float64 run."""
    runner, losses = Runner(trial, get_backend("numpy"), "float64"), []
    for step, host in enumerate(trial.batches(steps)):
        grads, stats, results = runner.gradients(runner.place(host, step))
        losses.append(float(results["loss/J"].reshape(())))
        runner.update(grads, stats)
    return losses, leaves(runner.host(runner.params))


def operand_bits(backend: Backend) -> int:
    """Return how many bits of a float32 operand a matrix product keeps, by trying numbers that need more and more."""
    xp, n = backend.xp, 64
    identity = backend.asarray(np.eye(n, dtype=np.float32))
    for k in range(23, 0, -1):
        a = np.full((n, n), 1.0 + 2.0**-k, dtype=np.float32)
        a[0, 0] = 2.0  # dividing by the largest entry is exact
        if np.array_equal(backend.to_numpy(xp.matmul(backend.asarray(a), identity)), a):
            return k + 1
    return 0


def environment() -> dict[str, Any]:
    """Return what a run depends on beside its arguments."""
    return {
        "bpxp": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads of BLAS": max((pool.num_threads for pool in blas_pools()), default=None),
        **{name: os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS") if name in os.environ},
    }
