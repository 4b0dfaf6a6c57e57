"""What `import bpxp` costs beside `import numpy`: milliseconds within a fresh Python."""

from __future__ import annotations

from benchmarks.harness import Case, Goal, chosen, measure, options, write

PROGRAM = """
import json, time
begun = time.perf_counter()
import {0}
print(json.dumps({{"value": 1e3 * (time.perf_counter() - begun)}}))
"""
# `import bpxp` alone says little: its names bring their modules when they are first used.
USED = "bpxp, numpy; bpxp.Network, bpxp.Trainer, bpxp.optim, bpxp.data"
CASES = [
    Case("import numpy", ("-c", PROGRAM.format("numpy"))),
    Case("import bpxp", ("-c", PROGRAM.format("bpxp"))),
    Case("import bpxp, and use its names", ("-c", PROGRAM.format(USED))),
    *(Case(f"import {name}", ("-c", PROGRAM.format(name))) for name in ("torch", "jax", "sklearn")),
]
GOALS = [Goal("import bpxp", "import numpy", 1.4), Goal("import bpxp, and use its names", "import numpy", 1.4)]


def main() -> None:
    """Run the comparison."""
    arguments = options(__doc__ or "", rounds=9).parse_args()
    rows = measure(chosen(CASES, arguments.only), rounds=arguments.rounds)
    write("imports", "Import time", rows, unit="ms", references=["import numpy"], goals=GOALS, out=arguments.out)


if __name__ == "__main__":
    main()
