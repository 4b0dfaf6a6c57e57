"""The number of BLAS threads in a step on NumPy: no more than its matrix products are worth.

BLAS waits for every thread that it wakes. For a small product that costs and gains little on an idle machine; where
another process uses the core it costs a time slice of the scheduler, thousands of times the product.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Iterator
from typing import Any

from bpxp.backends.base import State, Step, StepFunction, eager
from bpxp.core.tree import tree_map
from bpxp.core.typing import Namespace
from bpxp.errors import InvalidValueError

ENVIRONMENT = "BPXP_THREADS"
# If one of these is set, the number of threads is left alone.
OF_BLAS = (
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "OMP_NUM_THREADS",
)

# Multiply-adds for which a further thread is woken: about 0.1 ms of a core. Measured with OpenBLAS 0.3.31 in float32,
# which itself takes a second thread from about a million on. (64, 784) times (784, 256), 12.8 million, took 430 µs with
# one thread and 244 µs with two on two idle cores; (10, 784) times (784, 30), a quarter of a million, the same with
# both. With both threads on one core, as beside another program, products of 1.6 to 12.8 million took about 100 ms
# instead of 0.06 to 0.4. So one thread loses at most 0.1 ms, and avoids a factor of 1000.
GRAIN = 4_000_000


def worth(product: int, available: int) -> int:
    """Return the number of threads, at least one, for a product of so many multiply-adds."""
    return max(1, min(available, product // GRAIN))


class LimitedStep:
    """A step of NumPy with a limit on BLAS threads, set by the largest matrix product of the step.

    Parameters
    ----------
    step : callable
    run : callable, optional
        The compiled step, ``run(state, data, count=n)``; None runs `step` as it is.

    Attributes
    ----------
    threads : int or None
        The limit; None before the first run, and 0 where BLAS is left as it is.

    Notes
    -----
    The limit is a function of the shapes and of the number of threads available, not of a measured time: with another
    number of threads OpenBLAS sums in another order, so a measurement could make a second run differ in its last bits.
    The shapes come from a run on abstract arrays (`bpxp.backends.abstract.namespace`) before the first real one.

    Needs threadpoolctl (``pip install threadpoolctl``); without it nothing is limited. The environment variable
    ``BPXP_THREADS`` is ``auto``, ``keep`` (leave BLAS as it is) or a number. The limit of BLAS is global: while a step
    runs, it holds for other Python threads too.
    """

    def __init__(self, step: StepFunction, run: Step | None = None, /) -> None:
        self.step, self.run = step, run or eager(step)
        self.asked = asked()
        self.threads: int | None = 0 if self.asked == "keep" else None

    def __call__(self, state: State, data: Any, /, *, count: int = 1) -> State:
        if self.threads is None:
            self.threads = self._decide(state, data)
        if not self.threads:
            return self.run(state, data, count=count)
        with limited(self.threads):
            return self.run(state, data, count=count)

    def _decide(self, state: State, data: Any) -> int:
        available = available_threads()
        if available == 1:
            return 0
        threads = worth(largest_product(self.step, state, data), available) if self.asked == "auto" else int(self.asked)
        return threads if threads < available else 0


def asked() -> str:
    """Return ``"auto"``, ``"keep"`` or a number in digits from the environment.

    Raises
    ------
    InvalidValueError
        If it is something else.
    """
    value = os.environ.get(ENVIRONMENT, "").strip().lower() or "auto"
    if value == "auto" and any(name in os.environ for name in OF_BLAS):
        return "keep"
    if value not in ("auto", "keep") and not (value.isdecimal() and int(value) > 0):
        raise InvalidValueError(
            f"the environment variable {ENVIRONMENT}",
            "not a number of threads",
            code="E003",
            got=repr(value),
            expected="auto, keep, or a number >= 1",
        )
    return value


def largest_product(step: StepFunction, state: State, data: Any) -> int:
    """Return the multiply-adds of the largest matrix product of a step that has a field `xp`.

    A very large number for other steps, and for those that do not run on abstract arrays.
    """
    unknown = 1 << 62
    if not dataclasses.is_dataclass(step) or not hasattr(step, "xp"):
        return unknown
    # Not imported where there is one core, or a limit is set.
    from bpxp.backends.abstract.array import Meter
    from bpxp.backends.abstract.namespace import shape_namespace, shape_of

    meter = Meter()
    namespace: Namespace = shape_namespace(meter, step.xp)
    bare = tree_map(lambda a: shape_of(a, meter) if hasattr(a, "shape") else a, (state, data))
    try:
        dataclasses.replace(step, xp=namespace)(*bare)  # type: ignore[type-var]
    except Exception:  # a layer of the user's own may ask for anything
        return unknown
    return max((m * k * n for m, k, n in meter.matmuls), default=0)


_pools: list[Any] = []


def blas_pools() -> list[Any]:
    """Return threadpoolctl's handles of the BLAS libraries in this process; none without threadpoolctl."""
    if not _pools:
        try:
            import threadpoolctl
        except ImportError:
            return []
        _pools.extend(threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers)
    return _pools


_lock = threading.Lock()
_limits: list[int] = []  # of the steps that run now
_before: list[int] = []  # threads of each library when the first of them began


def available_threads() -> int:
    """Return how many threads BLAS takes when no step limits it."""
    with _lock:
        return max(_before if _limits else [pool.num_threads for pool in blas_pools()], default=1)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let BLAS take at most so many threads, and as many as before afterwards: two calls of 2 µs.

    BLAS has one number for the process. While several steps run, in threads of Python, the smallest limit holds; the
    last of them restores the number.
    """
    with _lock:
        if not _limits:
            _before[:] = [pool.num_threads for pool in blas_pools()]
        _limits.append(threads)
        _limit()
    try:
        yield
    finally:
        with _lock:
            _limits.remove(threads)
            _limit()


def _limit() -> None:
    for pool, had in zip(blas_pools(), _before, strict=True):
        # Of a shared pool threadpoolctl lets only the first thread of Python set the number, others silently do not.
        clear = getattr(pool, "clear_controlling_thread", None)
        if clear is not None:
            clear(force=True)
        pool.set_num_threads(min([had, *_limits]))
        if clear is not None:
            clear(force=True)
