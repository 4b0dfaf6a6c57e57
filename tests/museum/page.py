"""The museum as a page of the documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from museum import training
from museum.checks import CHECKS
from museum.exhibit import Exhibit

FILE = Path(__file__).parents[2] / "docs" / "museum.md"
TRAINING = {
    "the loss goes down": f"over {training.FEW} epochs of training",
    "accuracy": f"at least {100 * training.ACCURACY:.0f} % of the digits right after {training.EPOCHS} epochs, with the best of "
    f"{len(training.RATES)} learning rates",
}
WHAT = {
    "gradient check, batch 1": "`bpxp.verify.check_gradients` in float64, on single samples",
    "gradient check, batch 7": "the same on batches of seven",
    "equations": "`bpxp.verify.check_equations`: the code against its own equations, as slow loops",
    "by hand": "small networks worked with pencil and paper",
    "PyTorch": "losses, gradients and statistics beside PyTorch's",
    "kinks": "derivatives where there is none: at 0, at ties",
    "extreme values": "logits up to the largest number, without a warning, against long precision",
    "optimizers": "updates worked by hand and written out in NumPy",
    "purity": "nothing that is given is written, twice gives the same, results share memory with nothing",
    "dtypes": "float32 stays float32, float64 is computed in float64",
    "evaluation mode": "no randomness, no batch, the mean is kept, the statistics are right",
    "validation": "what must be refused is refused",
    "loop": "epochs, the short last batch, schedules, early stopping",
    "files": "saved and loaded, cut and resumed, on each backend",
    "relations": "a batch in two parts, repeated samples, options that change nothing",
    "options": "each option, and the seed, has an effect",
    "backends": "NumPy beside array-api-strict",
}
TITLES = dict(
    enumerate(
        [
            "the slope of the sigmoid too many",
            "weights summed, biases averaged",
            "1/N missing, or twice",
            "1/N of the wrong batch",
            "a bias's gradient divided by N again",
            "a bias's gradient summed over everything",
            "a bias's gradient from the weights'",
            "a bias's gradient right for a batch of one",
            "a vector that becomes a matrix",
            "the mean over the outputs",
            "the diagonal of the softmax alone",
            "the softmax twice",
            "a derivative at the wrong place",
            "overflow, and a narrow sum",
            "the logarithm of nothing",
            "LeakyReLU without a slope",
            "right for matrices only",
            "nothing to do",
            "ties in max pooling",
            "overlapping windows",
            "the first window only",
            "a window off by the rest",
            "the running variance",
            "the batch in evaluation",
            "dropout",
            "z and a in one array",
            "gradients of the call before",
            "the penalty",
            "weight decay on one device",
            "Adam's ε",
            "clipping nothing, and an option ignored",
            "options and seeds ignored",
            "a validator that never fires",
            "(N,) against (N, 1)",
            "the mean of means",
            "the last batch only",
            "everybody's bias",
            "parameters set and lost",
            "saving from a device",
            "indices out of bounds",
            "a maximum on one device",
            "the first epoch again",
            "early stopping",
        ],
        start=1,
    )
)
TEXT = """# The bug museum

A network learns although its gradients are wrong: slower, or to a lower accuracy than it could, and nobody can tell by
looking. Here are {numbers} bugs of backpropagation that happened in public, in tutorials and in libraries. Each is brought
back into bpxp as a patch of one function, some in several forms, {forms} in all; then every check of the test suite runs,
and the test asserts which of them see it, and that none gives an alarm without the bug. So a check that goes blind is
noticed.

What most people look at, a falling loss and the accuracy, sees {trained} of the {numbers}; the checks together see {union}.

| check | what it does | bugs, of {numbers} | seen by it alone |
|---|---|---|---|
{checks}

A bug counts for a check that sees one of its forms; the last column counts among the checks, without training. The two
training tests were measured with the digits that come with bpxp, on the network in which the wrong function has work, and with another learning rate where the usual one fails.
"""


def of_43(numbers: set[int]) -> str:
    return f"{len(numbers)} of 43"


def training_sees(seen: dict[str, Any]) -> list[str]:
    """Return which of the two training tests turn red."""
    red = {"the loss goes down": not seen["loss falls"], "accuracy": seen["accuracy"] < training.ACCURACY}
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
        f"- **happened**: {exhibit.happened}",
        f"- **here**: a patch of `{exhibit.place}`",
        f"- **seen by**: {' · '.join(seen['checks'])}",
        f"- **not seen by**: {' · '.join(blind)}",
        f"- **training**: {' and '.join(told) or 'neither'} sees it ({learned})\n",
    ]
    return "\n".join(lines)
