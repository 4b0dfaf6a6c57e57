"""Each of 43 bugs that happened is brought back into bpxp, and is seen by the checks that are written down for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from museum import page, training
from museum.checks import CHECKS, TORCH
from museum.collection import EXHIBITS
from museum.instruments import fault, reached

SEEN_FILE = Path(__file__).with_name("seen.json")
SEEN = json.loads(SEEN_FILE.read_text(encoding="utf-8"))
HERE = [name for name in CHECKS if name != TORCH]


def look(names):
    """Return for each check its cells, and what each of them reaches; a false alarm is an error."""
    return {name: [(cell, reached(cell)) for cell in CHECKS[name]()] for name in names}


def seen_by(exhibit, looked):
    """Return which checks see an exhibit, and what they say."""
    found = {}
    codes = exhibit.codes
    with pytest.MonkeyPatch.context() as patch:
        exhibit.install(patch)
        for name, cells in looked.items():
            faults = (fault(cell) for cell, codes_of_cell in cells if codes & codes_of_cell)
            found[name] = next(filter(None, faults), "")
    return {name: what for name, what in found.items() if what}


@pytest.fixture(scope="module")
def looked():
    """Every check on the code as it is: none gives a false alarm."""
    return look(HERE)


def test_no_check_gives_a_false_alarm(looked):
    assert all(cells for cells in looked.values())


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.key)
def test_who_sees_it(exhibit, looked):
    found = seen_by(exhibit, looked)
    print(found)
    assert list(found) == [name for name in SEEN[exhibit.key]["checks"] if name != TORCH]


def test_what_pytorch_sees():
    pytest.importorskip("torch")
    looked = look([TORCH])
    found = [exhibit.key for exhibit in EXHIBITS if seen_by(exhibit, looked)]
    assert found == [key for key, seen in SEEN.items() if TORCH in seen["checks"]]


def test_every_bug_is_here_and_is_seen_without_pytorch(promise):
    # `test_who_sees_it` has compared what is written down with what is seen.
    numbers = {exhibit.number for exhibit in EXHIBITS}
    assert numbers == set(range(1, 44))
    assert [exhibit.key for exhibit in EXHIBITS] == list(SEEN)
    unseen = [key for key, seen in SEEN.items() if not set(seen["checks"]) - {TORCH}]
    assert unseen == []
    promise(
        "Historical bugs of backpropagation, reintroduced one at a time: seen by a named check", page.of_43(numbers)
    )
    told = {exhibit.number for exhibit in EXHIBITS if page.training_sees(SEEN[exhibit.key])}
    promise("Of the same bugs, seen by a falling loss or an accuracy threshold", page.of_43(told))


def test_the_page_is_of_this_collection():
    text = page.render(EXHIBITS, SEEN)
    assert page.FILE.read_text(encoding="utf-8") == text, "python -m museum.measure writes it (in tests/)"


def test_the_networks_learn(nightly):
    for name in training.NETWORKS if nightly else ["dense", "sigmoid"]:
        assert training.loss_falls(name), name
        assert training.accuracy(name) >= training.ACCURACY, name


def test_what_training_sees(nightly):
    for exhibit in EXHIBITS if nightly else EXHIBITS[:2]:
        with pytest.MonkeyPatch.context() as patch:
            exhibit.install(patch)
            falls, accuracy = training.loss_falls(exhibit.training), training.accuracy(exhibit.training)
        seen = SEEN[exhibit.key]
        assert falls == seen["loss falls"], exhibit.key
        if abs(accuracy - training.ACCURACY) >= 0.02:  # nearer to it rounding decides, which differs between machines
            assert (accuracy >= training.ACCURACY) == (seen["accuracy"] >= training.ACCURACY), exhibit.key
