"""Milliseconds per training step of 784-256-10, batch 64, float32, plain SGD: bpxp beside PyTorch and scikit-learn."""

from __future__ import annotations

from benchmarks.harness import Case, Goal, chosen, measure, options, write

UNIT = "ms per step"
BPXP = ("-m", "benchmarks.peers.mlp_bpxp", "--backend")
TORCH = "PyTorch eager"
SKLEARN = "scikit-learn MLPClassifier"

CASES = [
    Case("bpxp numpy", (*BPXP, "numpy")),
    Case(TORCH, ("-m", "benchmarks.peers.mlp_torch")),
    Case("bpxp torch", (*BPXP, "torch")),
    Case(SKLEARN, ("-m", "benchmarks.peers.mlp_sklearn")),
    Case("bpxp jax", (*BPXP, "jax")),
    Case("bpxp numpy, uint8 pixels", (*BPXP, "numpy", "--pixels")),
    Case("bpxp torch, uint8 pixels", (*BPXP, "torch", "--pixels")),
]
GOALS = [Goal("bpxp numpy", TORCH, 1.0), Goal("bpxp numpy", SKLEARN, 0.7), Goal("bpxp torch", TORCH, 0.8)]


def gpu_cases(backends: list[str]) -> list[Case]:
    """Return the same on a GPU, for each backend and beside PyTorch eager where it is there."""
    cases = [Case(f"bpxp {name}", (*BPXP, name, "--pixels")) for name in backends]
    if any(name.startswith("torch") for name in backends):
        device = next(name.partition(":")[2] for name in backends if name.startswith("torch")) or "cpu"
        cases.append(Case(f"{TORCH}, {device}", ("-m", "benchmarks.peers.mlp_torch", "--device", device)))
    return cases


def main() -> None:
    """Run the comparison."""
    arguments = options(__doc__ or "", rounds=5).parse_args()
    rows = measure(chosen(CASES, arguments.only), rounds=arguments.rounds)
    title = "784-256-10, batch 64, float32, plain SGD"
    write("mlp", title, rows, unit=UNIT, references=[TORCH, SKLEARN], goals=GOALS, out=arguments.out)


if __name__ == "__main__":
    main()
