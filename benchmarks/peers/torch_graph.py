"""PyTorch with the whole step captured in a CUDA graph: gather, forward, backward, fused update, one replay per step.

The order of the epoch and the place in it are buffers on the device, so that a step takes nothing from the host.
Captured as PyTorch's documentation has it: warm up on a stream beside, set the gradients to None, capture. On the CPU,
where there is nothing to capture, the same step runs eagerly, as a rehearsal.
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.peers.serve import options, serve
from benchmarks.peers.torch_eager import Torch, network, optimizer
from benchmarks.peers.work import Work


class TorchGraph(Torch):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        super().__init__(work, arguments)
        n, kind = len(self.x), {"dtype": torch.long, "device": self.device}
        self.order, self.position = torch.zeros(n, **kind), torch.zeros(1, **kind)
        self.lane = torch.arange(work.batch, **kind)
        self.total = torch.zeros((), device=self.device)
        self.one_step = self.step if self.device.type == "cpu" else self.captured()
        self.start(seed=0)

    def captured(self):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                self.position.zero_()
                self.optimizer.zero_grad(set_to_none=True)
                self.step()
        torch.cuda.current_stream().wait_stream(aside)
        self.optimizer.zero_grad(set_to_none=True)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.step()
        return self.graph.replay

    def start(self, seed: int) -> None:
        torch.manual_seed(seed)
        if not hasattr(self, "net"):
            self.net = network(self.work).to(self.device, memory_format=self.layout)
            self.loss = torch.nn.CrossEntropyLoss()
            how = {"capturable": self.device.type == "cuda"} if self.work.optimizer == "adam" else {}
            self.optimizer = optimizer(self.work, self.net, fused=True, **how)
        self.net.load_state_dict(network(self.work).state_dict())
        for state in self.optimizer.state.values():  # in place: the graph holds these addresses
            for value in state.values():
                if isinstance(value, torch.Tensor):
                    value.zero_()

    def step(self) -> None:
        rows = self.order.index_select(0, self.position + self.lane)
        self.learn(rows)
        self.position += len(rows)

    def learn(self, rows: torch.Tensor) -> None:
        if self.device.type == "cpu":
            self.optimizer.zero_grad(set_to_none=True)  # a replay writes the gradients anew
        loss = self.loss(self.net(self.x.index_select(0, rows)), self.y.index_select(0, rows))
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach() * len(rows)

    def epoch(self) -> float:
        n, batch = len(self.x), self.work.batch
        self.order.copy_(torch.randperm(n, device=self.device))
        self.position.zero_()
        self.total.zero_()
        for _ in range(n // batch):
            self.one_step()
        if n % batch:
            self.optimizer.zero_grad(set_to_none=True)
            self.learn(self.order[n // batch * batch :])
        return float(self.total) / n


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--channels-last", action="store_true", help="memory format of pictures and kernels")
    parser.set_defaults(batches="index", compile=None, workers=0)
    serve(TorchGraph, parser, can=("images",))
