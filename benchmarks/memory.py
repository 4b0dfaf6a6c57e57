"""The peak memory of a fit ÷ (data + parameters × (2 + optimizer slots) + one batch's activations)."""

from __future__ import annotations

from benchmarks.harness import Case, chosen, measure, options, write

PROGRAM = ("-m", "benchmarks.peers.memory_bpxp")
LARGE = ("--layers", "2000,4000,4000,10", "--samples", "640")  # 24 million parameters, little data
BACKENDS = ("numpy", "torch", "jax")
CASES = [
    *(Case(f"MNIST's size, SGD, {name}", (*PROGRAM, "--backend", name)) for name in BACKENDS),
    *(
        Case(f"24 M parameters, {rule}, {name}", (*PROGRAM, *LARGE, "--optimizer", rule, "--backend", name))
        for rule in ("sgd", "adam")
        for name in BACKENDS
    ),
]


def main() -> None:
    """Measure each case once: memory is not noisy."""
    arguments = options(__doc__ or "", rounds=1).parse_args()
    rows = measure(chosen(CASES, arguments.only), rounds=arguments.rounds)
    write("memory", "Peak memory of a fit", rows, unit="peak ÷ bound", references=[], goals=[], out=arguments.out)


if __name__ == "__main__":
    main()
