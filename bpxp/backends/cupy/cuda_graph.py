"""CuPy's compiled step: a CUDA graph in memory of its own."""

from __future__ import annotations

import contextlib
from typing import Any

import cupy

from bpxp.backends.base import State, StepFunction
from bpxp.backends.cuda_graph import CapturedGraph, NotRecordable, Play
from bpxp.backends.cupy.cublas import Blas, stream_key
from bpxp.core.typing import Array, Namespace

# One launch for each leaf, and one number to wait for: a reduction costs seconds of compilation in NVRTC.
_compare = cupy.ElementwiseKernel("uint8 a, uint8 b", "raw int32 differ", "if (a != b) differ[0] = 1", "bpxp_compare")


class CupyGraph(CapturedGraph):
    """A step of CuPy, captured on a stream of its own and launched on the current one.

    Parameters
    ----------
    step : callable
    xp : namespace
    device : cupy.cuda.Device
    blas : Blas or None
        Matrix products that can be captured.
    no_matmul : str
        Why there are none; empty if there are.
    """

    def __init__(self, step: StepFunction, xp: Namespace, device: Any, blas: Blas | None, no_matmul: str, /) -> None:
        self.device, self.blas, self.no_matmul = device, blas, no_matmul
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

    def same(self, pairs: list[tuple[Array, Array]]) -> bool:
        differ = cupy.zeros(1, dtype=cupy.int32)
        for pair in pairs:
            _compare(*(cupy.ascontiguousarray(a).reshape(-1).view(cupy.uint8) for a in pair), differ)
        return not int(differ[0])

    def stream(self) -> Any:
        return stream_key()

    def _forget(self, given: list[Any]) -> None:
        super()._forget(given)
        self._memory: _Memory | None = None

    def capture(self, state: State, data: Any, size: int) -> Play:
        memory = self._memory = self._memory or _Memory()
        stream = cupy.cuda.Stream(non_blocking=True)
        lent = self.blas.lent(stream) if self.blas is not None else contextlib.nullcontext()
        with lent, stream, cupy.cuda.using_allocator(memory.pool.malloc):
            stream.begin_capture()
            try:
                self.work(state, data, size)
            except BaseException as error:
                with contextlib.suppress(Exception):  # of a capture that is invalid by now
                    stream.end_capture()
                if isinstance(error, NotImplementedError) and "cublas" in str(error).lower():
                    why = f"{self.no_matmul or error}; xp.matmul can be captured, @ and cupy's own functions cannot"
                    raise NotRecordable(f"CuPy multiplies no matrices in a CUDA graph: {why}") from error
                raise
            graph = stream.end_capture()
        return _Launch(graph, memory)


class _Memory:
    """The memory of a step's graphs: a pool that takes blocks from the current allocator, and gives them back.

    A graph holds the addresses of its temporaries, which CuPy's pool would reuse. The blocks are those of the stream
    that will launch the graph, so whatever used them before, or will use them next, is in the order of that stream.
    """

    def __init__(self) -> None:
        allocate, home = cupy.cuda.get_allocator(), cupy.cuda.get_current_stream()

        def malloc(size: int) -> Any:
            with home:
                return allocate(size)

        self.pool = cupy.cuda.MemoryPool(malloc)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # when the interpreter exits
            self.pool.free_all_blocks()  # CuPy keeps the memory of a pool that is gone


class _Launch:
    """A graph, and the memory that has to live as long as it does."""

    def __init__(self, graph: Any, memory: _Memory) -> None:
        self.graph, self.memory = graph, memory

    def __call__(self, times: int) -> None:
        launch = self.graph.launch
        for _ in range(times):
            launch()
