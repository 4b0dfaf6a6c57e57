"""PyTorch's compiled step on a CUDA device: a CUDA graph in memory of its own."""

from __future__ import annotations

from typing import Any

import torch

from bpxp.backends.base import State, StepFunction
from bpxp.backends.capture import Play
from bpxp.backends.cuda_graph import GraphReplay
from bpxp.core.typing import Array, Namespace


class TorchGraph(GraphReplay):
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
        self.stream: Any = None
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

    def same(self, a: Array, b: Array) -> bool:
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return bool(torch.equal(*bits))

    def wait(self) -> None:
        torch.cuda.synchronize(self.device)

    def capture(self, state: State, data: Any, size: int) -> Play:
        self.stream = stream = self.stream or torch.cuda.Stream(self.device)
        torch.cuda.synchronize(self.device)
        with torch.cuda.stream(stream):
            self.warm_up(state, data)
        torch.cuda.synchronize(self.device)
        graph, failure = torch.cuda.CUDAGraph(), None
        try:
            # Threads that load data may allocate meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
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
