"""CuPy's compiled step: a CUDA graph in memory of its own."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import cupy

from bpxp.backends.base import State, StepFunction
from bpxp.backends.capture import NotRecordable, Play
from bpxp.backends.cuda_graph import GraphReplay
from bpxp.core.typing import Array, Namespace


class CupyGraph(GraphReplay):
    """A step of CuPy, captured on a stream of its own and launched on the current one.

    Parameters
    ----------
    step : callable
    xp : namespace
    device : cupy.cuda.Device
    no_matmul : str
        Why matrix products cannot be captured; empty if they can.

    Notes
    -----
    A graph holds the addresses of its temporaries, and CuPy's pool would reuse their memory. So they come from a
    private memory pool that lives as long as the graph.
    """

    def __init__(self, step: StepFunction, xp: Namespace, device: Any, no_matmul: str, /) -> None:
        self.device, self.no_matmul = device, no_matmul
        self.stream: Any = None  # one for all graphs of the step: cuBLAS has a workspace for each stream
        super().__init__(step, xp)

    def __call__(self, state: State, data: Any, /, *, count: int = 1) -> State:
        with self.device:
            return super().__call__(state, data, count=count)

    def is_array(self, a: Any) -> bool:
        return isinstance(a, cupy.ndarray) and bool(a.device == self.device)

    def own(self, a: Array) -> Array:
        return cupy.array(a, order="C", copy=True)

    def copy(self, into: Array, a: Array) -> None:
        into[...] = a

    def place(self, a: Array) -> tuple[int, Any]:
        return int(a.data.mem.ptr), (int(a.data.ptr), a.strides)

    def same(self, a: Array, b: Array) -> bool:
        bits = [cupy.ascontiguousarray(x).reshape(-1).view(cupy.uint8) for x in (a, b)]
        return bool((bits[0] == bits[1]).all())

    def wait(self) -> None:
        with self.device:
            self.device.synchronize()

    def capture(self, state: State, data: Any, size: int) -> Play:
        self.stream = stream = self.stream or cupy.cuda.Stream(non_blocking=True)
        pool = cupy.cuda.MemoryPool()
        self.device.synchronize()  # the stream does not wait for others: the state has to be complete
        with stream, cupy.cuda.using_allocator(pool.malloc), _no_collection():
            self.warm_up(state, data)
            stream.synchronize()
            stream.begin_capture()
            try:
                self.work(state, data, size)
            except BaseException as error:
                with contextlib.suppress(Exception):  # of a capture that is invalid by now
                    stream.end_capture()
                if isinstance(error, NotImplementedError) and "cublas" in str(error).lower():
                    raise NotRecordable(
                        f"CuPy multiplies no matrices in a CUDA graph: {self.no_matmul or error}"
                    ) from error
                raise
            graph = stream.end_capture()
        return _Launch(graph, pool, stream)


class _Launch:
    """A graph, and what has to live as long as it does."""

    def __init__(self, graph: Any, *kept: Any) -> None:
        self.graph, self.kept = graph, kept

    def __call__(self, times: int) -> None:
        launch = self.graph.launch
        for _ in range(times):
            launch()


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Prevent the collector from freeing other arrays during the capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
