"""Milliseconds per training step of a small convolutional network: bpxp beside PyTorch eager and plain JAX."""

from __future__ import annotations

from benchmarks.harness import Case, Goal, chosen, measure, options, write
from benchmarks.peers import cnn_workload

UNIT = "ms per step"
TITLE = f"conv {cnn_workload.FILTERS[0]} and {cnn_workload.FILTERS[1]}, 3×3, pooling, dense; 28×28×1, batch 64, float32"
BPXP = ("-m", "benchmarks.peers.cnn_bpxp", "--backend")
TORCH, JAX = "PyTorch eager", "plain JAX"

CASES = [
    Case("bpxp numpy", (*BPXP, "numpy")),
    Case(TORCH, ("-m", "benchmarks.peers.cnn_torch")),
    Case("bpxp torch", (*BPXP, "torch")),
    Case("PyTorch eager, channels last", ("-m", "benchmarks.peers.cnn_torch", "--channels-last")),
    Case("bpxp jax", (*BPXP, "jax")),
    Case(JAX, ("-m", "benchmarks.peers.cnn_jax")),
]
GOALS = [Goal("bpxp numpy", TORCH, 2.0), Goal("bpxp torch", TORCH, 1.2), Goal("bpxp jax", JAX, 1.0)]


def gpu_cases(backends: list[str]) -> list[Case]:
    """Return the same on a GPU, for each backend and beside PyTorch eager where it is there."""
    cases = [Case(f"bpxp {name}", (*BPXP, name, "--pixels")) for name in backends]
    if any(name.startswith("torch") for name in backends):
        device = next(name.partition(":")[2] for name in backends if name.startswith("torch")) or "cpu"
        cases.append(Case(f"{TORCH}, {device}", ("-m", "benchmarks.peers.cnn_torch", "--device", device)))
    return cases


def main() -> None:
    """Run the comparison."""
    arguments = options(__doc__ or "", rounds=5).parse_args()
    rows = measure(chosen(CASES, arguments.only), rounds=arguments.rounds)
    write("cnn", TITLE, rows, unit=UNIT, references=[TORCH, JAX], goals=GOALS, out=arguments.out)


if __name__ == "__main__":
    main()
