"""Tensors copied and compared, for captured steps of PyTorch on the CPU and on a GPU."""

from __future__ import annotations

from typing import Any

import torch

from bpxp.backends.capture import Replay
from bpxp.core.typing import Array


class TorchReplay(Replay):
    """A compiled step of PyTorch."""

    def own(self, a: Array) -> Array:
        return a.detach().clone(memory_format=torch.contiguous_format)

    def copy(self, into: Array, a: Array) -> None:
        into.copy_(a)

    def place(self, a: Array) -> tuple[int, Any]:
        return a.untyped_storage().data_ptr(), (a.data_ptr(), a.stride())

    def same(self, a: Array, b: Array) -> bool:
        bits = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return bool(torch.equal(*bits))
