"""PyTorch's compiled step on a CUDA device: a CUDA graph in memory of its own."""

from __future__ import annotations

import threading
from typing import Any

import torch

from bpxp.backends.base import State, StepFunction
from bpxp.backends.cuda_graph import CapturedGraph, Play
from bpxp.core.typing import Array, Namespace

_one_at_a_time = threading.Lock()


class TorchGraph(CapturedGraph):
    """A step of PyTorch, captured on a stream of its own and launched on the current one.

    Parameters
    ----------
    step : callable
    xp : namespace
    device : torch.device
        A CUDA device.

    Notes
    -----
    PyTorch gives a graph a memory pool by itself. Its cuBLAS workspaces belong to streams, and one that was made within
    a capture dies with the graph: so the step is done on the stream before it is captured, and every step that is
    compiled has its own.
    """

    def __init__(self, step: StepFunction, xp: Namespace, device: Any, /) -> None:
        self.device = device
        self._side: Any = None  # the stream of the capture
        super().__init__(step, xp)

    def __call__(self, state: State, data: Any, /, *, count: int = 1) -> State:
        with torch.cuda.device(self.device):
            return super().__call__(state, data, count=count)

    def is_array(self, a: Any) -> bool:
        return isinstance(a, torch.Tensor) and a.device == self.device

    def own(self, a: Array) -> Array:
        return a.detach().clone(memory_format=torch.contiguous_format)

    def copy(self, into: Array, a: Array) -> None:
        into.copy_(a)

    def place(self, a: Array) -> tuple[int, Any]:
        return a.untyped_storage().data_ptr(), (a.data_ptr(), a.stride())

    def same(self, pairs: list[tuple[Array, Array]]) -> bool:
        bits = ([a.contiguous().reshape(-1).view(torch.uint8) for a in pair] for pair in pairs)
        return all(torch.equal(*pair) for pair in bits)

    def stream(self) -> Any:
        return torch.cuda.current_stream(self.device).cuda_stream

    def broken(self, error: Exception) -> bool:
        return super().broken(error) or "previously invalidated" in str(error)

    def _warm_up(self, state: State, data: Any) -> None:
        self._side = self._side or torch.cuda.Stream(self.device)
        current = torch.cuda.current_stream(self.device)
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side):
            super()._warm_up(state, data)
        current.wait_stream(self._side)

    def capture(self, state: State, data: Any, size: int) -> Play:
        with _one_at_a_time:  # torch.cuda.graph synchronises the device, which would break another capture
            return self._capture(state, data, size)

    def _capture(self, state: State, data: Any, size: int) -> Play:
        graph, failure = torch.cuda.CUDAGraph(), None
        try:
            # Threads that load data may allocate meanwhile.
            with torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local"):
                try:
                    self.work(state, data, size)
                except Exception as error:
                    failure = error  # the capture is ended in an orderly way first
        except Exception as error:
            raise (failure or error) from None
        if failure is not None:
            raise failure

        def play(times: int) -> None:
            for _ in range(times):
                graph.replay()

        return play
