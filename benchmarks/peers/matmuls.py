"""The floor: the matrix products of a training step and nothing else, by the same library, hence the same BLAS.

Per dense layer x W, xᵀ δ, and δ Wᵀ except in the first, which needs no input gradient. The operands are random and lie
where they are: nothing is gathered, activated or updated. NumPy, CuPy and torch write into the same results every time.
JAX computes them all in one jitted call per step, which is how it would be quickest if nothing depended on anything.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.peers.serve import Loop, options, serve
from benchmarks.peers.work import Work

Triple = tuple[Any, Any, Any]  # x, W, delta


class Matmuls(Loop):
    def __init__(self, work: Work, arguments: argparse.Namespace) -> None:
        self.work = work
        rng = np.random.default_rng(0)
        operands = [
            tuple(rng.standard_normal(shape, np.float32) for shape in ((work.batch, m), (m, n), (work.batch, n)))
            for m, n in pairwise(work.widths)
        ]
        library, _, device = arguments.library.partition(":")
        self.step, self.wait = globals()[f"with_{library}"](operands, device)

    def start(self, seed: int) -> None:
        """Nothing is learned."""

    def epoch(self) -> float:
        for _ in range(self.work.steps):
            self.step()
        self.wait()
        return 0.0

    def accuracy(self) -> float:
        raise NotImplementedError


def with_numpy(operands: list[Triple], device: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    return in_place(np, operands), lambda: None


def with_cupy(operands: list[Triple], device: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    cupy = importlib.import_module("cupy")
    triples = [tuple(cupy.asarray(a) for a in triple) for triple in operands]
    return in_place(cupy, triples), cupy.cuda.get_current_stream().synchronize


def in_place(xp: Any, operands: list[Triple]) -> Callable[[], Any]:
    """Return a step of products written into results allocated once; CuPy and torch have `matmul(out=)`, too."""
    work = []
    for i, (x, W, delta) in enumerate(operands):
        work += [(x, W, xp.empty_like(delta)), (x.T, delta, xp.empty_like(W))]
        if i:
            work.append((delta, W.T, xp.empty_like(x)))

    def step() -> None:
        for a, b, out in work:
            xp.matmul(a, b, out=out)

    return step


def with_torch(operands: list[Triple], device: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import torch

    triples = [tuple(torch.from_numpy(a).to(device or "cpu") for a in triple) for triple in operands]
    return in_place(torch, triples), torch.cuda.synchronize if device else lambda: None


def with_jax(operands: list[Triple], device: str) -> tuple[Callable[[], Any], Callable[[], Any]]:
    import jax

    triples = jax.device_put(operands)
    last: list[Any] = []

    @jax.jit
    def products(triples: list[Triple]) -> list[Any]:
        first = [(x @ W, x.T @ delta) for x, W, delta in triples]
        return [*first, *(delta @ W.T for _, W, delta in triples[1:])]

    def step() -> None:
        last[:] = products(triples)

    return step, lambda: jax.block_until_ready(last)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--library", default="numpy", help="numpy, torch, torch:cuda, cupy or jax")
    serve(Matmuls, parser)
