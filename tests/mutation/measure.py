"""Mutation testing: does a test fail when the code is changed? ``nox -s mutation``, ``… -- optim step`` a part.

mutmut changes one thing at a time, an operator, a number, an argument, and runs the tests that reach the function, on
NumPy, in a process that has imported bpxp and the tests already. What survives there is tried again in a fresh process
on NumPy and array-api-strict: things that a test module makes when it is imported were made before the change. What
survives that, too, has to stand in survivors.toml with the reason why no test can see it, else the run fails; what
stands there is not tried again. The figures go to mutation.json.

Left out: docstrings, type hints, and functions with a decorator such as a property, which mutmut never changes; what
stands in a class and not in a function (equations and default values); and statements that raise an error: its words
are checked where the mistakes are (`test_bad_input`).
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Container
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
SURVIVORS, FIGURES = (Path(__file__).with_name(name) for name in ("survivors.toml", "figures.json"))
ENDLESS = 300  # seconds, many times what the tests of a room take
LEFT_OUT = [r"^\s*(raise|return) \w+Error\(", r"^\s*raise ", r"\bwarn\(", r"^\s*where = f?\""]


Identity = tuple[str, str, str]


class Room(NamedTuple):
    """Modules, and the tests that are quick and about them."""

    modules: list[str]
    tests: list[str]


OTHERS = ["normalization", "embedding", "reshaping", "residual", "sequential"]
DRAWN = "tests/operations/test_values.py::test_initialisers_have_the_deviation_of_their_reference"
VALUES = [f"tests/operations/test_{name}.py" for name in ("bad_inputs", "extremes", "kinks", "values", "gradients")]
AUGMENTED = ["test_training_is_augmented_and_evaluation_is_not", "test_a_function_of_ones_own_may_be_a_transform"]
STREAMED = ["test_a_streamed_fit_has_the_bits_of_a_resident_one", "test_what_is_predicted_and_evaluated_is_the_same"]
ABSTRACT = [f"tests/backends/abstract/test_{name}.py" for name in ("trace", "rules", "namespace")]
NUMBERS = ["test_with_arrays_makes_each_number_once", "test_numbers_that_do_not_fit_stay_numbers"]
ROOMS = {
    "optim": Room(
        ["bpxp/optim/*"],
        [f"tests/optim/test_{name}.py" for name in ("optim_errors", "clipping", "schedules", "rules", "update")],
    ),
    "losses": Room(["bpxp/nn/losses/*"], ["tests/nn/test_losses.py", "tests/test_by_hand.py", *VALUES]),
    "activations": Room(
        ["bpxp/nn/activations/*", "bpxp/nn/functions.py"],
        [
            "tests/nn/test_activations.py",
            "tests/nn/test_losses.py",
            *VALUES,
            "tests/verify/equations/test_check_equations.py",
        ],
    ),
    "dense": Room(
        ["bpxp/nn/dense.py", "bpxp/nn/dropout.py"],
        ["tests/nn/test_dense.py", "tests/nn/test_dropout.py", "tests/test_by_hand.py", *VALUES],
    ),
    "step": Room(
        ["bpxp/network/step.py", "bpxp/core/random.py", "bpxp/core/threefry.py"],
        [
            "tests/network/test_step.py",
            "tests/core/test_random.py",
            "tests/core/test_threefry.py",
            "tests/nn/test_initializers.py",
            "tests/nn/test_dropout.py",
            "tests/network/test_network.py",
            "tests/training/test_trainer.py",
            "tests/nn/test_stateful_layers.py",
            "tests/test_by_hand.py",
            *(f"tests/data/test_augmentation.py::{name}" for name in AUGMENTED),
            *(f"tests/training/test_streaming.py::{name}" for name in STREAMED),
        ],
    ),
    "images": Room(
        ["bpxp/nn/conv.py", "bpxp/nn/pooling.py", "bpxp/nn/windows.py"],
        [
            *(f"tests/nn/test_{name}.py" for name in ("windows", "conv", "conv_ways", "pooling")),
            "tests/operations/test_bad_inputs.py",
            "tests/operations/test_values.py::test_layers_agree_with_numpy",
            "tests/operations/test_gradients.py::test_layers",
        ],
    ),
    "other layers": Room(
        [f"bpxp/nn/{name}.py" for name in OTHERS],
        [
            *(f"tests/nn/test_{name}.py" for name in (*OTHERS, "context")),
            "tests/nn/test_stateful_layers.py",
            "tests/operations/test_bad_inputs.py",
            "tests/operations/test_values.py::test_layers_agree_with_numpy",
            "tests/operations/test_gradients.py::test_layers",
        ],
    ),
    "tracer": Room(["bpxp/backends/abstract/*"], ABSTRACT),
    "plans": Room(
        ["bpxp/backends/plan.py", "bpxp/backends/program.py"],
        ["tests/backends/test_plan.py", *(f"tests/backends/test_libraries.py::{name}" for name in NUMBERS)],
    ),
    "executors": Room(
        [f"bpxp/backends/{name}.py" for name in ("arguments", "proof", "numpy/capture", "torch/capture")],
        [f"tests/backends/test_{name}.py" for name in ("arguments", "proof", "libraries")],
    ),
    "captured steps": Room(["bpxp/backends/captured.py"], ["tests/backends/test_captured.py"]),
    "constants": Room(["bpxp/backends/constants.py"], ["tests/backends/test_constants.py"]),
    "initializers": Room(
        ["bpxp/nn/initializers.py", "bpxp/core/checks.py"],
        ["tests/nn/test_initializers.py", "tests/core/test_checks.py", DRAWN],
    ),
}


def main(chosen: list[str]) -> int:
    """Measure the rooms that are named, or all."""
    audited = {identity(entry): entry for entry in tomllib.loads(SURVIVORS.read_text(encoding="utf-8"))["mutant"]}
    failures, found = 0, {}
    for name in chosen or ROOMS:
        total, survivors = measure(ROOMS[name], audited.keys())
        new = [mutant for mutant in survivors if identity(mutant) not in audited]
        for mutant in new:
            print(entry_of(mutant), flush=True)
        failures += len(new)
        found[name] = {
            "mutants": total,
            "killed": total - len(survivors),
            "equivalent": len(survivors) - len(new),
            "date": datetime.date.today().isoformat(),
            "mutmut": importlib.metadata.version("mutmut"),
        }
        print(
            f"{name}: {total} mutants, {total - len(survivors)} killed, {len(new)} survivors not on the list",
            flush=True,
        )
    # Read as late as this: another room may have been measured meanwhile.
    figures = (json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}) | found
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    print(score(figures))
    return 1 if failures else 0


def score(figures: dict[str, dict[str, int]]) -> str:
    """Return the figure of all rooms that were measured."""
    total, killed, equivalent = (sum(f[key] for f in figures.values()) for key in ("mutants", "killed", "equivalent"))
    rooms = f"{', '.join(figures)}; {max(str(f['date']) for f in figures.values())}"
    return (
        f"{100.0 * killed / total:.1f} % of {total} killed, {equivalent} more audited as equivalent: "
        f"{100.0 * killed / (total - equivalent):.1f} % of the others ({rooms})"
    )


def measure(room: Room, audited: Container[Identity]) -> tuple[int, list[dict[str, str]]]:
    """Return how many mutants a room has, and those that survive."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "bpxp"
        tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
        for file in filter(None, tracked.split("\0")):
            if (ROOT / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / file, folder / file)
        with open(folder / "pyproject.toml", "a", encoding="utf-8") as stream:
            stream.write(configuration(room))
        mutmut(folder, ["run", "--max-children", os.environ.get("BPXP_MUTANTS_AT_ONCE", "1")])
        return survivors_of(folder, room, audited)


def survivors_of(folder: Path, room: Room, audited: Container[Identity]) -> tuple[int, list[dict[str, str]]]:
    """Return how many mutants mutmut has tried in a folder, and those that are audited or survive afresh, too."""
    lines = mutmut(folder, ["results", "--all", "true"]).splitlines()
    found = dict(line.strip().rsplit(": ", 1) for line in lines if ": " in line)
    # What took too long may have been kept waiting by others on the machine: it is tried again.
    missed = {key: told(folder, key) for key, status in found.items() if status != "killed"}
    survivors = [m for key, m in missed.items() if identity(m) in audited or survives_afresh(folder, room, key)]
    return len(found), survivors


def configuration(room: Room) -> str:
    """Return mutmut's part of pyproject.toml, for the copy."""
    lists = {
        "source_paths": ["bpxp"],
        "only_mutate": room.modules,
        "do_not_mutate_patterns": LEFT_OUT,
        "pytest_add_cli_args_test_selection": room.tests,
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist"],
    }
    # A JSON list of strings is one of TOML.
    lines = [f"{key} = {json.dumps(value)}" for key, value in lists.items()]
    return "\n".join(["", "[tool.mutmut]", *lines, "use_git_change_detection = false", ""])


def mutmut(folder: Path, arguments: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=folder,
        env=environment("numpy"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1) or "Failed to run clean test" in done.stdout:
        print(done.stdout[-3000:], done.stderr[-3000:])
        raise SystemExit(f"mutmut {' '.join(arguments)}: {done.returncode}")
    return done.stdout


def environment(backends: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "BPXP_NIGHTLY")}
    return kept | {"BPXP_TEST_BACKENDS": backends, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def survives_afresh(folder: Path, room: Room, key: str) -> bool:
    """Return whether the tests of a room pass with a mutant from the beginning, on NumPy and array-api-strict."""
    line = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *room.tests]
    told = environment("numpy,strict") | {"MUTANT_UNDER_TEST": key}
    try:
        done = subprocess.run(line, cwd=folder / "mutants", env=told, capture_output=True, check=False, timeout=ENDLESS)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def told(folder: Path, key: str) -> dict[str, str]:
    """Return a mutant as it stands in the list: by what it changes, not by a number that moves with the code."""
    text = mutmut(folder, ["show", key])
    changed = [line for line in text.splitlines() if re.match(r"[-+](?![-+][-+] )", line)]
    was, becomes = ("\n".join(line[1:].strip() for line in changed if line[0] == sign) for sign in "-+")
    place = re.sub(r"__mutmut_\d+$", "", key).replace("xǁ", "").replace("ǁ", ".")
    return {"function": re.sub(r"\.x_(\w+)$", r".\1", place), "was": was, "becomes": becomes}


def identity(entry: dict[str, str]) -> Identity:
    return entry["function"], entry["was"], entry["becomes"]


def entry_of(mutant: dict[str, str]) -> str:
    """Return a survivor as it would stand in survivors.toml."""
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in mutant.items()]
    return "\n".join(["[[mutant]]", *lines, 'why = ""', ""])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
