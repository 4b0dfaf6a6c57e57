"""Give a parser so many random inputs, or for so many seconds: ``PYTHONPATH=tests python -m fuzz idx 10000000``.

``python -m fuzz all 60s`` gives a minute to each; ``--seed`` other inputs than the last time. Undocumented exceptions,
inputs that take more than a second or 50 MiB, end it with exit code 1, and are printed with the seed of their batch.
``--publish`` writes what came out into docs/promises.md.
"""

from __future__ import annotations

import argparse
import signal
import sys
import warnings

from promises import measure as promises

from bpxp.errors import BpxpWarning
from fuzz import TARGETS
from fuzz.engine import fuzz


def main() -> int:
    """Fuzz, and print what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("amount", help="inputs, 10000000; or seconds, 60s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--publish", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", BpxpWarning)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it is told what came out so far
    amount = {"seconds": float(options.amount[:-1])} if options.amount.endswith("s") else {"count": int(options.amount)}
    code = 0
    for name in TARGETS if options.target == "all" else [options.target]:
        report = fuzz(TARGETS[name](), seed=options.seed, **amount)
        rate = report.inputs / max(report.seconds, 1e-9)
        print(f"{name}: {report}; {report.seconds:,.0f} s of one core, {rate:,.0f} inputs per second", flush=True)
        for batch, value, error in report.findings:
            print(f"  batch {batch}: {type(error).__name__}: {str(error)[:300]}\n    {repr(value)[:2000]}")
        code |= bool(report.findings)
        if options.publish and not report.findings:
            row = {"what": f"Fuzzing: {name}", "figure": str(report), "test": promises.FUZZ}
            promises.publish([row], lambda old, what=row["what"]: old["what"] == what)
    return code


if __name__ == "__main__":
    sys.exit(main())
