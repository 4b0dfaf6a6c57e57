"""PyTorch: nn.Sequential, CrossEntropyLoss, an optimizer, tensors that stay on the device.

Its best forms, each a case of its own: mini-batches by index, or the data shuffled once an epoch and sliced, or a
DataLoader (no worker processes: they only cost where the data lie in memory); eager, or with `torch.compile` around
model and loss and around the update; pictures channels last. The optimizer is PyTorch's fused one, one kernel for all
parameters, which is its quickest. No value goes to the host before the epoch ends.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from itertools import pairwise

import torch

from benchmarks.peers.serve import Loop, options, serve
from benchmarks.peers.work import Work, in_a_file

Pairs = Iterator[tuple[torch.Tensor, torch.Tensor]]


def network(work: Work) -> torch.nn.Sequential:
    """Return the network of a work, initialised as everybody's: Glorot, biases 0."""
    parts: list[torch.nn.Module] = []
    channels = 1
    for filters in work.filters:
        parts += [torch.nn.Conv2d(channels, filters, 3, padding="same"), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        channels = filters
    if work.is_image:
        parts.append(torch.nn.Flatten())
    for n_in, n_out in pairwise(work.widths):
        parts.append(torch.nn.Linear(n_in, n_out))
        parts.append(torch.nn.Sigmoid() if work.hidden == "sigmoid" else torch.nn.ReLU())
    net = torch.nn.Sequential(*parts[:-1])
    for p in net.parameters():
        torch.nn.init.xavier_uniform_(p) if p.ndim > 1 else torch.nn.init.zeros_(p)
    return net


def optimizer(work: Work, net: torch.nn.Module, **how: bool) -> torch.optim.Optimizer:
    rule = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[work.optimizer]
    return rule(net.parameters(), lr=work.learning_rate, **how)


class Gathered(torch.utils.data.Dataset):
    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y

    def __getitem__(self, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.x[rows], self.y[rows]


class Torch(Loop):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        self.work, self.batches = work, getattr(self, arguments.batches)
        self.device, self.workers = torch.device(arguments.device), arguments.workers
        self.layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
        self.mode = arguments.compile
        if self.mode and self.device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
            raise SystemExit("torch.compile needs a C++ compiler, and there is none")
        self.x, self.y = self.arrays(*work.floats())
        self.start(seed=0)

    def arrays(self, x, y) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = torch.from_numpy(x).to(self.device), torch.from_numpy(y).to(self.device).long()
        if self.work.is_image:
            x = x.permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
        return x, y

    def start(self, seed: int) -> None:
        torch.manual_seed(seed)
        if not hasattr(self, "net"):
            self.net = network(self.work).to(self.device, memory_format=self.layout)
            self.loss = torch.nn.CrossEntropyLoss()
            self.forward, self.update = lambda x, y: self.loss(self.net(x), y), lambda: self.optimizer.step()
            if self.mode:
                self.forward = torch.compile(self.forward, mode=self.mode)
                self.update = torch.compile(self.update, mode=self.mode)
        self.net.load_state_dict(network(self.work).state_dict())
        self.optimizer = optimizer(self.work, self.net, fused=not self.mode)  # the compiler fuses it itself
        if self.work.one_cycle:
            steps = self.work.one_cycle * self.work.steps
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, self.work.learning_rate, steps)

    def index(self) -> Pairs:
        for rows in torch.randperm(len(self.x), device=self.device).split(self.work.batch):
            yield self.x[rows], self.y[rows]

    def slice(self) -> Pairs:
        order = torch.randperm(len(self.x), device=self.device)
        yield from zip(self.x[order].split(self.work.batch), self.y[order].split(self.work.batch), strict=True)

    def loader(self) -> Pairs:
        data = torch.utils.data.TensorDataset(self.x, self.y)
        yield from torch.utils.data.DataLoader(data, batch_size=self.work.batch, shuffle=True)

    def mapped(self) -> Pairs:
        """Yield mini-batches of a memory-mapped file, each gathered with one call: a DataLoader's quickest form."""
        if not hasattr(self, "loader_of_file"):
            # The file has what `arrays` has brought to the device, so that a picture is there as the network takes it.
            x, y = torch.from_numpy(in_a_file(self.x.cpu().numpy())), self.y.cpu()
            rows = torch.utils.data.RandomSampler(range(len(x)))
            self.loader_of_file = torch.utils.data.DataLoader(
                Gathered(x, y),
                batch_size=None,
                sampler=torch.utils.data.BatchSampler(rows, self.work.batch, drop_last=False),
                num_workers=self.workers,
                persistent_workers=self.workers > 0,
                pin_memory=self.device.type == "cuda",
            )
        for x, y in self.loader_of_file:
            yield x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)

    def epoch(self) -> float:
        total = torch.zeros((), device=self.device)
        for x, y in self.batches():
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.forward(x, y)
            loss.backward()
            self.update()
            if self.work.one_cycle:
                self.schedule.step()
            total += loss.detach() * len(y)
        return float(total) / len(self.x)

    @torch.no_grad()
    def accuracy(self) -> float:
        x, y = self.arrays(*self.work.test_floats())
        parts = zip(x.split(1000), y.split(1000), strict=True)
        return float(sum((self.net(a).argmax(dim=1) == b).sum() for a, b in parts)) / len(x)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", choices=["index", "slice", "loader", "mapped"], default="index")
    parser.add_argument("--workers", type=int, default=0, help="processes that gather, of a DataLoader over a file")
    parser.add_argument("--compile", help="mode of torch.compile, default or reduce-overhead")
    parser.add_argument("--channels-last", action="store_true", help="memory format of pictures and kernels")
    serve(Torch, parser, can=("images", "one_cycle"))
