"""What mutation testing found: the list of survivors is audited and current, the score is what was promised."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

from mutation import measure as mutation

ROOT = Path(__file__).parents[2]
LISTED = tomllib.loads(mutation.SURVIVORS.read_text(encoding="utf-8"))["mutant"]


def test_a_survivor_has_a_reason_and_is_of_code_that_is_there():
    for entry in LISTED:
        assert entry.keys() == {"function", "was", "becomes", "why"}
        assert entry["why"].endswith("."), entry
        module = entry["function"]
        while not (file := ROOT / Path(*module.split(".")).with_suffix(".py")).exists():
            module = module.rpartition(".")[0]
        lines = {line.strip() for line in file.read_text(encoding="utf-8").splitlines()}
        assert set(entry["was"].splitlines()) <= lines, entry
        assert entry["becomes"] != entry["was"]


def test_no_survivor_is_listed_twice():
    assert len({mutation.identity(entry) for entry in LISTED}) == len(LISTED)


def test_a_survivor_is_known_by_what_it_changes():
    mutant = {"function": "bpxp.network.step.f", "was": "a = b + 1", "becomes": 'a = "ε" + 1'}
    (entry,) = tomllib.loads(mutation.entry_of(mutant))["mutant"]
    assert mutation.identity(entry) == mutation.identity(mutant)


def test_the_score(promise):
    figures = json.loads(mutation.FIGURES.read_text(encoding="utf-8"))
    assert figures.keys() <= mutation.ROOMS.keys()
    for room, found in figures.items():
        assert found["killed"] + found["equivalent"] == found["mutants"], f"{room}: survivors that nobody has looked at"
        assert found["killed"] >= 0.97 * (found["mutants"] - found["equivalent"])
    promise("Mutants of the mathematics and of capture (mutmut)", mutation.score(figures))
