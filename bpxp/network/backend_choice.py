"""The choice of a network's backend: asked for, found, or measured to be the fastest of those installed."""

from __future__ import annotations

import functools
import os
import sys
import time
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from bpxp.backends import Backend, available_backends, get_backend
from bpxp.backends.dtypes import validate_dtype
from bpxp.backends.names import ENVIRONMENT, FASTEST, LIBRARIES, backend_names
from bpxp.backends.precision import label, parse_label
from bpxp.core.random import make_key
from bpxp.core.tree import tree_map
from bpxp.core.typing import Params
from bpxp.errors import BackendNotInstalledError, BpxpError, InvalidValueError
from bpxp.network.step import Data, State, TrainingStep
from bpxp.nn.spec import Spec
from bpxp.optim import SGD

CANDIDATES = backend_names(devices=True)
BUDGET = 1.0 / len(CANDIDATES)  # seconds of measured steps for each: one second for all
MOST = 64  # steps at a time
BATCH = 64


class BackendReport(NamedTuple):
    """Why a network lives on its backend.

    Attributes
    ----------
    backend : str
        Its name.
    reason : str
        What decided.
    seconds : dict of str to float
        Of one training step, by backend; empty if nothing was measured.
    excluded : dict of str to str
        What could not be measured, and why not.
    """

    backend: str
    reason: str
    seconds: dict[str, float]
    excluded: dict[str, str]

    def __str__(self) -> str:
        rows = [f"  {name}: {1e6 * t:,.0f} µs per step" for name, t in sorted(self.seconds.items(), key=lambda r: r[1])]
        rows += [f"  {name}: {reason}" for name, reason in self.excluded.items()]
        return "\n".join([f"{self.backend}: {self.reason}", *rows])


def choose(
    asked: str | Backend | None, matmul: str | None, spec: Spec, params: Params
) -> tuple[Backend, BackendReport]:
    """Return the backend that was asked for, and why it is this one.

    `asked` and `matmul` are as for `get_backend`; or ``"fastest"``, ``"fastest:128"``, which measures training steps of
    64 or 128 samples with these parameters, which are on the host. Parameters, order of the samples and masks are the
    same on every backend; the last bits of what is computed with them are not: name the backend to reproduce these.
    """
    named = (os.environ.get(ENVIRONMENT) or "auto") if asked is None else asked
    if isinstance(named, str) and named.partition(":")[0] == FASTEST:
        return fastest(spec, params, _batch(named), matmul)
    backend = get_backend(asked, matmul=matmul)
    return backend, BackendReport(label(backend), _reason(asked, named, backend), {}, {})


def _batch(name: str) -> int:
    _, colon, batch = name.partition(":")
    if colon and not (batch.isdecimal() and int(batch) > 0):
        what, expected = "not a batch size", "'fastest:64', say"
        raise InvalidValueError("backend", what, code="E003", got=repr(name), expected=expected)
    return int(batch or BATCH)


def _reason(asked: Any, named: Any, backend: Backend) -> str:
    if not isinstance(named, str):
        return "given as an object"
    if parse_label(named)[0] != "auto":
        return "asked for" if asked is not None else f"the environment variable {ENVIRONMENT} names it"
    return "a CUDA device answers CuPy" if backend.name.startswith("cupy") else f"CuPy does not work here ({why()})"


@functools.cache
def why() -> str:
    """Return why CuPy does not work here; tried once."""
    return available_backends(["cupy"])["cupy"].reason


# ---------------------------------------------------------------- measuring


def fastest(spec: Spec, params: Params, batch: int, matmul: str | None = None) -> tuple[Backend, BackendReport]:
    """Measure a few training steps on every library that works here, and return the backend with the least time.

    Only libraries that have the precision `matmul` take part. The samples are random, since only their shape matters.
    Each library is imported and its step compiled. Beyond that it takes at most a second; for networks whose step takes
    longer than a library's share of it, a step or two of each.
    """
    seconds: dict[str, float] = {}
    excluded: dict[str, str] = {}
    backends: dict[str, Backend] = {}
    if "jax" not in sys.modules:  # it would preallocate three quarters of a GPU's memory
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    for name in CANDIDATES:
        try:
            backend = get_backend(name, matmul=matmul)
            own = replace(spec, dtype=validate_dtype(spec.dtype, backend))
            seconds[label(backend)] = measured(own, params, backend, batch)
            backends[label(backend)] = backend
        except BackendNotInstalledError:
            excluded[name] = f"not installed: {LIBRARIES[name.partition(':')[0]].install}"
        except BpxpError as error:
            excluded[name] = str(error.__cause__ or error.brief)
        except Exception as error:  # such as out of memory: each library raises its own type
            excluded[name] = f"{type(error).__name__}: {error}"
    if not seconds:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in excluded.items())
        raise InvalidValueError(f"backend='{FASTEST}'", f"no library here can do it ({reasons})", code="E022")
    best = min(seconds, key=seconds.__getitem__)
    reason = f"measured to be the fastest for batches of {batch}"
    return backends[best], BackendReport(best, reason, seconds, excluded)


def measured(spec: Spec, params: Params, backend: Backend, batch: int, budget: float = BUDGET) -> float:
    """Return the seconds of one step: the shortest mean of a few steps at a time."""
    step = TrainingStep(spec.model, spec.loss, SGD(1e-6), xp=backend.xp)
    state, data = _start(step, spec, params, backend, batch)
    run = backend.compile(step)

    def clocked(state: State, count: int) -> tuple[State, float]:
        begun = time.perf_counter()
        state = run(state, data, count=count)
        backend.to_numpy(state.position)  # waits until it is done
        state = state._replace(position=backend.asarray(np.zeros(1, np.int32)))
        return state, (time.perf_counter() - begun) / count

    state, first = clocked(state, 1)  # compiles
    if first > budget and backend.name in ("numpy", "torch"):
        return first
    state, best = clocked(state, 1)
    end = time.perf_counter() + budget - best
    count = max(1, min(MOST, int(0.02 / best)))
    for _ in range(5):
        if time.perf_counter() + count * best > end:
            break
        state, mean = clocked(state, count)
        best = min(best, mean)
    return best


def _start(step: TrainingStep, spec: Spec, params: Params, backend: Backend, batch: int) -> tuple[State, Data]:
    """Return a state with the network's parameters, and as many random samples as a step takes."""
    rng, kind = np.random.default_rng(0), np.dtype(spec.dtype)

    def own(a: Any) -> Any:
        a = np.asarray(a)
        return backend.asarray(np.array(a, kind if a.dtype.kind == "f" else a.dtype))

    x = rng.random((batch, *spec.input_shape), np.float32)
    y: np.ndarray = rng.integers(0, spec.n_out, (batch, *spec.output_shape[:-1]), np.int32)
    if spec.loss.targets != "classes":
        y = rng.integers(0, 2, (batch, *spec.output_shape)).astype(kind)
    order = own(np.arange(batch * MOST, dtype=np.int32) % batch)
    key = tree_map(own, make_key(0)) if "key" in spec.uses else ()
    params, stats = tree_map(own, (params, spec.init_stats(params)))
    state = step.init(params, stats, key)._replace(order=order)
    return state, Data(own(x), own(y), None, own(np.arange(batch, dtype=np.int32)))
