"""The benchmarks on a GPU: which work, which peers, what is to be reached; run by `benchmarks.gpu`, after the tests.

float32 everywhere, and nobody computes in TF32: that is the default of PyTorch and of CuPy.
"""

from __future__ import annotations

from dataclasses import replace

from benchmarks.harness import Case
from benchmarks.peers.work import Work
from benchmarks.report import Goal
from benchmarks.suite import CNN, LOADED, MLP, MNIST, STEP, TORCH, Benchmark

GRAPH, COMPILED, SCAN = "PyTorch CUDA graph", "PyTorch compiled, reduce-overhead", "JAX optax, scan"
WIDE = Work(net="784-4096-4096-10", batch=4096, samples=8 * 4096, hidden="relu", learning_rate=0.1)
LARGER = Work(samples=122_880)
CNN99 = Work(CNN.net, 128, 60_000, optimizer="adam", learning_rate=0.01, one_cycle=4, data="mnist")


def benchmarks(backends: list[str], quick: bool = False) -> list[Benchmark]:
    """Return the benchmarks for these backends of bpxp, beside PyTorch if it is one of them, and JAX likewise.

    A goal speaks of CuPy; where the backends are others, as in a rehearsal, it is not measured and says so.
    """
    torch = [name for name in backends if name.startswith("torch")]
    device = (torch[0].partition(":")[2] or "cpu") if torch else ""

    def peer(name: str, program: str, work: Work, *more: str, fresh: bool = False) -> Case:
        work = work.quick() if quick else work
        return Case(name, ("-m", f"benchmarks.peers.{program}", "--work", work.to_json(), *more), fresh=fresh)

    def own(work: Work, *more: str, fresh: bool = False) -> list[Case]:
        return [peer(f"bpxp {name}", "bpxp_fit", work, "--backend", name, *more, fresh=fresh) for name in backends]

    def streamed(work: Work) -> list[Case]:
        more = ("--pixels", "--streamed")
        return [peer(f"bpxp {name}, streamed", "bpxp_fit", work, "--backend", name, *more) for name in backends]

    def loaded(work: Work) -> list[Case]:
        more = ("--device", device, "--batches", "mapped", "--workers", "2")
        return [peer(LOADED, "torch_eager", work, *more)] if torch else []

    def eager(work: Work, *more: str, fresh: bool = False) -> list[Case]:
        return [peer(TORCH, "torch_eager", work, "--device", device, *more, fresh=fresh)] if torch else []

    def graph(work: Work, *more: str, fresh: bool = False) -> list[Case]:
        return [peer(GRAPH, "torch_graph", work, "--device", device, *more, fresh=fresh)] if torch else []

    def floors(work: Work) -> list[Case]:
        return [peer(f"floor: {name} matmuls", "matmuls", work, "--library", name) for name in backends]

    compiled = [peer(COMPILED, "torch_eager", MLP, "--device", device, "--compile", "reduce-overhead")] if torch else []
    jax = [peer(SCAN, "jax_optax", MLP, "--scan")] if any(name.startswith("jax") for name in backends) else []
    full = ("--until", "0.2" if quick else "0.98", "--epochs", "20", "--all-epochs", "--seed", "{round}")
    cycle = (
        "--until",
        "0.2" if quick else "0.99",
        "--epochs",
        str(CNN99.one_cycle),
        "--all-epochs",
        "--seed",
        "{round}",
    )
    found = [
        Benchmark(
            "gpu-mlp",
            "784-256-10, batch 64, plain SGD",
            STEP,
            (*own(MLP), *eager(MLP), *graph(MLP), *compiled, *jax),
            (TORCH, GRAPH),
            (
                Goal("H200: cupy / PyTorch eager, 784-256-10 batch 64", "bpxp cupy", (TORCH,), 0.15),
                Goal("H200: cupy / PyTorch CUDA graph or compile", "bpxp cupy", (GRAPH, COMPILED), 1.0),
            ),
        ),
        Benchmark(
            "gpu-mnist",
            "MNIST, 20 epochs of 784-256-10, ReLU, batch 64, plain SGD 0.3, to at least 98 %",
            "s of training",
            (*own(MNIST, "--pixels", *full, fresh=True), *graph(MNIST, *full, fresh=True)),
            goals=(Goal("H200: MNIST 784-256-10, 20 epochs, ≥ 98 %", "bpxp cupy", (), 1.0, "s"),),
            rounds=2,
        ),
        Benchmark(
            "gpu-wide",
            "784-4096-4096-10, batch 4096, plain SGD",
            STEP,
            (*own(WIDE), *floors(WIDE)),
            tuple(f"floor: {name} matmuls" for name in backends),
            tuple(
                Goal(
                    f"H200: 4096-wide MLP, batch 4096, {name}: ≥ 85 % of the matmul rate, so time / floor",
                    f"bpxp {name}",
                    (f"floor: {name} matmuls",),
                    round(1 / 0.85, 3),
                )
                for name in backends
            ),
        ),
        Benchmark(
            "gpu-stream",
            "784-256-10, batch 64, uint8 pixels, from a memory-mapped file of 96 MB",
            STEP,
            (*own(LARGER, "--pixels"), *streamed(LARGER), *loaded(LARGER)),
            tuple(f"bpxp {name}" for name in backends),
            tuple(
                Goal(f"784-256-10: {name}, streamed / resident", f"bpxp {name}, streamed", (f"bpxp {name}",), 1.11)
                for name in backends
            ),
            rounds=3,
        ),
        Benchmark(
            "gpu-cnn-99",
            f"MNIST to 99 %: conv 16 and 32, 3×3, pooling, dense; batch 128, Adam, a cycle of {CNN99.one_cycle} epochs",
            "s of training",
            (*own(CNN99, "--pixels", *cycle, fresh=True), *eager(CNN99, *cycle, "--channels-last", fresh=True)),
            goals=(Goal("H200: CNN to 99 %", "bpxp cupy", (), 0.75, "s"),),
            rounds=2,
        ),
        Benchmark(
            "gpu-cnn",
            "conv 16 and 32, 3×3, pooling, dense; 28×28×1, batch 64, plain SGD",
            STEP,
            (*own(CNN), *eager(CNN, "--channels-last"), *graph(CNN, "--channels-last")),
            (TORCH, GRAPH),
        ),
    ]
    return [replace(benchmark, rounds=1) for benchmark in found] if quick else found
