"""The museum as a page of the documentation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from museum import training
from museum.checks import CHECKS
from museum.exhibit import Exhibit

FILE = Path(__file__).parents[2] / "docs" / "museum.md"
ISSUE = r"([\w.-]+/[\w.-]+)#(\d+)"
LINK = r"[\1#\2](https://github.com/\1/issues/\2)"
TRAINING = {
    "falling loss": f"over {training.FEW} epochs of training",
    "accuracy": f"at least {100 * training.ACCURACY:.0f} % on the digits after {training.EPOCHS} epochs, with the best of "
    f"{len(training.RATES)} learning rates",
}
WHAT = {
    "gradient check, batch 1": "`bpxp.verify.check_gradients` in float64, on single samples",
    "gradient check, batch 7": "the same, on batches of seven",
    "equations": "`bpxp.verify.check_equations`: the code against its equations, run as slow loops",
    "by hand": "small networks worked out with pencil and paper",
    "PyTorch": "losses, gradients and statistics against PyTorch's",
    "kinks": "subgradients at kinks: at 0, at ties",
    "extreme values": "logits up to the largest number, without warnings, against many digits",
    "optimizers": "updates worked out by hand and written out in NumPy",
    "purity": "inputs are not written, a second call gives the same, results share no memory",
    "dtypes": "float32 stays float32, float64 is computed in float64",
    "evaluation mode": "no randomness, independent of the batch, the mean is preserved, the statistics are right",
    "validation": "invalid input is refused",
    "loop": "epochs, a short last batch, schedules, early stopping",
    "files": "save and load, cut and resume, on each backend",
    "relations": "invariants: a batch in two parts, repeated samples, options at neutral values",
    "options": "each option and the seed have an effect",
    "backends": "NumPy against array-api-strict",
}
TITLES = dict(
    enumerate(
        [
            "One σ′ too many",
            "Weights summed, biases averaged",
            "1/N missing, or twice",
            "1/N of the wrong batch",
            "Bias gradient divided by N again",
            "Bias gradient summed over all outputs",
            "Bias gradient from the weight gradient",
            "Bias gradient right only for a batch of one",
            "Bias gradient keeps the batch axis",
            "Mean over the outputs missing in the gradient",
            "Only the diagonal of the softmax's Jacobian",
            "Softmax twice",
            "Derivative at a instead of z",
            "Overflow, and a narrow accumulator",
            "Logarithm of zero",
            "LeakyReLU with slope 0",
            "Gradient right only for matrices",
            "Identity returns its input",
            "Ties in max pooling",
            "Overlapping pooling windows",
            "Only the first pooling window",
            "Pooling windows off by the remainder",
            "Biased running variance",
            "Batch statistics in evaluation",
            "Dropout",
            "z and a share an array",
            "Gradients accumulate across calls",
            "Penalty and its gradient",
            "Weight decay on one device",
            "Adam's ε",
            "Clipping by a zero norm, and an ignored option",
            "Ignored options and seeds",
            "A validator that never fires",
            "(N,) against (N, 1)",
            "Mean of means",
            "Loss of the last batch only",
            "Every part adds the same bias",
            "Parameters set and lost",
            "Saving from a device",
            "Indices out of bounds",
            "A maximum on one device",
            "First epoch's order again",
            "Early stopping",
        ],
        start=1,
    )
)
TEXT = """# The bug museum

A network with wrong gradients still learns, only slower or to a lower accuracy, so the bug is easy to miss. Here are
{numbers} published bugs of backpropagation, from tutorials and libraries. Each is reintroduced into bpxp as a patch of one
function, some in several variants, {forms} in all. For each, all checks below run, and a test asserts which of them see the
bug, and that none fails without it. So a check that goes blind is noticed.

A falling loss and the accuracy, the usual evidence, see {trained} of the {numbers}; the checks together see {union}.

| check | what it does | bugs seen, of {numbers} | seen by it alone |
|---|---|---|---|
{checks}

A bug counts if at least one of its variants is seen; the last column ignores the two training tests. These train on the
bundled digits, with a network that uses the patched function, and with another learning rate where the usual one fails.
"""


def of_43(numbers: set[int]) -> str:
    return f"{len(numbers)} of 43"


def training_sees(seen: dict[str, Any]) -> list[str]:
    """Return which of the two training tests turn red."""
    red = {"falling loss": not seen["loss falls"], "accuracy": seen["accuracy"] < training.ACCURACY}
    return [name for name, is_red in red.items() if is_red]


def render(exhibits: list[Exhibit], seen: dict[str, Any]) -> str:
    """Return the page."""
    red = {e.key: [*seen[e.key]["checks"], *training_sees(seen[e.key])] for e in exhibits}
    numbers = {e.number for e in exhibits}

    def row(check: str, what: str) -> str:
        found = {e.number for e in exhibits if check in red[e.key]}
        alone = [e.key for e in exhibits if seen[e.key]["checks"] == [check]]
        return f"| {check} | {what} | {len(found)} | {', '.join(alone)} |"

    rows = [row(check, WHAT[check]) for check in CHECKS]
    rows += [row(check, what) for check, what in TRAINING.items()]
    text = TEXT.format(
        numbers=len(numbers),
        forms=len(exhibits),
        trained=len({e.number for e in exhibits if training_sees(seen[e.key])}),
        union=len({e.number for e in exhibits if seen[e.key]["checks"]}),
        checks="\n".join(rows),
    )
    return text + "".join(entry(e, seen[e.key]) for e in exhibits)


def entry(exhibit: Exhibit, seen: dict[str, Any]) -> str:
    """Return the text about one exhibit."""
    told, learned = training_sees(seen), f"best accuracy {100 * seen['accuracy']:.1f} %"
    blind = [name for name in CHECKS if name not in seen["checks"]]
    lines = [
        f"\n## {exhibit.key} {TITLES[exhibit.number]}\n",
        f"{exhibit.what}" + (f" {exhibit.here}" if exhibit.here else "") + "\n",
        f"- **source**: {re.sub(ISSUE, LINK, exhibit.happened)}",
        f"- **patched here**: `{exhibit.place}`",
        f"- **seen by**: {' · '.join(seen['checks'])}",
        f"- **not seen by**: {' · '.join(blind)}",
        f"- **training tests that see it**: {' and '.join(told) or 'none'} ({learned})\n",
    ]
    return "\n".join(lines)
