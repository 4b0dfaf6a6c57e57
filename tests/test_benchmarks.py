"""The benchmarks: peers take turns, warm-ups do not count, goals are judged by the best peer, and the work is the same."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import bpxp
from benchmarks import harness, report, scaling, suite, suite_gpu
from benchmarks.harness import Case, Row
from benchmarks.peers import installed, serve
from benchmarks.peers.bpxp_fit import Bpxp
from benchmarks.peers.textbook import Textbook
from benchmarks.peers.work import CLASSES, INPUTS, Work
from benchmarks.report import Goal

if sys.platform == "win32":
    pytest.skip("the harness is for POSIX", allow_module_level=True)

SMALL = Work(net="784-12-10", batch=16, samples=64)
# Answers each line with how often it was asked, and writes its name into a file that all share.
TALKER = """
import json, sys
for turn, line in enumerate(sys.stdin):
    open(sys.argv[1], 'a').write(sys.argv[2])
    print('noise')
    print(json.dumps({'value': 10 ** int(line) * (turn + 1), 'index': int(line)}), flush=True)
"""


def talker(log: Path, name: str) -> Case:
    return Case(name, ("-c", TALKER, str(log), name))


# ---------------------------------------------------------------- the work


def test_a_work_says_its_shapes():
    work = Work(net="28x28x1-conv16-conv32-10", batch=64, samples=130)
    assert (work.filters, work.widths, work.steps, work.is_image) == ([16, 32], [32 * 49, 10], 3, True)
    dense = Work(net="784-30-20-10")
    assert (dense.filters, dense.widths, dense.is_image) == ([], [784, 30, 20, 10], False)
    assert serve.parsed(dense.to_json()) == dense


def test_pictures_are_like_mnist_and_the_floats_are_the_pixels():
    work = Work(samples=2000)
    x, y = work.pixels()
    assert (x.shape, x.dtype, y.dtype) == ((2000, INPUTS), np.uint8, np.int32)
    assert set(y) == set(range(CLASSES))
    assert 0.15 < (x > 0).mean() < 0.3
    np.testing.assert_allclose(work.floats()[0], x / 255.0, rtol=1e-6)
    image = Work(net="28x28x1-conv4-10", samples=2000)
    np.testing.assert_array_equal(image.pixels()[0].reshape(2000, INPUTS), x)


@pytest.mark.parametrize("hidden", ["sigmoid", "relu"])
def test_the_textbook_takes_the_steps_of_bpxp(hidden):
    work = Work(net="784-12-10", batch=64, samples=64, hidden=hidden)
    book = Textbook(work, argparse.Namespace())
    own = Bpxp(work, argparse.Namespace(backend="numpy", pixels=False, streamed=False, whole=False))
    own.net.params = tuple(
        type(p)(W, b) for p, W, b in zip(own.net.params, book.net.weights, book.net.biases, strict=True)
    )
    expected = [book.epoch() for _ in range(4)]
    found: list[float] = []
    own.train(4, lambda seconds, loss: bool(found.append(loss)))
    assert expected[-1] < 0.9 * expected[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# ---------------------------------------------------------------- peers


class Pretender:
    """A peer whose loss and accuracy are known."""

    def __init__(self, work, arguments):
        self.epochs, self.seeds = 0, []

    def start(self, seed):
        self.epochs = 0
        self.seeds.append(seed)

    def train(self, epochs, after):
        for _ in range(epochs):
            self.epochs += 1
            if after(0.25, 1.0 / self.epochs):
                return

    def accuracy(self):
        return self.epochs / 10


def arguments(**more):
    return argparse.Namespace(**{"work": [SMALL, SMALL], "seconds": 0.6, "seed": 7, "all_epochs": False, **more})


def test_the_first_turn_is_one_epoch_and_another_lasts_as_long_as_it_must():
    told = []
    serve.take_turns(Pretender, arguments(), iter(["0\n", "0\n", "1\n", "1\n", "0\n"]), told.append)
    assert [answer["epochs"] for answer in told] == [1, 4, 1, 4, 1]  # 3 × 0.25 s ≥ 0.6 s; another work begins anew
    assert {answer["value"] for answer in told} == {250.0 / SMALL.steps}
    assert {answer["first loss"] for answer in told} == {1.0}


def test_a_race_ends_at_the_accuracy_and_counts_the_seconds_of_training_alone():
    peer = Pretender(SMALL, None)
    found = serve.race(peer, arguments(until=0.3, epochs=9))
    assert (found["value"], found["accuracies"], peer.seeds) == (0.75, [0.1, 0.2, 0.3], [7])
    found = serve.race(peer, arguments(until=0.3, epochs=5, all_epochs=True))
    assert (found["value"], found["accuracies"]) == (1.25, [0.5])


def test_a_race_that_is_lost_says_how_far_it_came():
    found = serve.race(Pretender(SMALL, None), arguments(until=0.9, epochs=2))
    assert found["error"].startswith("only 20.00 % after 2 epochs")


def test_peers_answer_from_processes_of_their_own():
    cases = [suite.case(name, SMALL, "--seconds", "0.01") for name in ("bpxp numpy", suite.TEXTBOOK, suite.FLOORS[0])]
    cases.append(suite.case(suite.TEXTBOOK, suite.CNN))
    cases[-1] = Case("impossible", cases[-1].arguments)
    *rows, impossible = harness.measure(cases, rounds=2)
    for row in rows:
        assert row.error == ""
        assert len(row.values) == 2
        assert all(0.0 < value < 1000.0 for value in row.values)
    own, book, floor = rows
    assert own.details[0]["first loss"] == pytest.approx(book.details[0]["first loss"], rel=0.25)
    assert own.details[-1]["loss"] < own.details[0]["first loss"]
    assert min(floor.values) < max(own.values)
    assert impossible.error == "it has no convolutions"


# ---------------------------------------------------------------- turns


def test_peers_take_turns_and_the_warm_up_does_not_count(tmp_path):
    log = tmp_path / "log"
    rows = harness.measure([talker(log, "a"), talker(log, "b")], rounds=3)
    turns = log.read_text()
    assert sorted(turns[:2]) == ["a", "b"]  # warm-ups, beside one another
    assert turns[2:] == "ababab"
    assert [row.values for row in rows] == [[2, 3, 4], [2, 3, 4]]


def test_a_peer_that_fails_is_a_row_with_the_reason_and_the_others_go_on(tmp_path):
    missing = Case("missing", ("-c", "import no_such_library"))
    silent = Case("silent", ("-c", "import time; time.sleep(60)"), fresh=True)
    rows = harness.measure([missing, silent, talker(tmp_path / "log", "a")], rounds=1, timeout=4.0)
    assert rows[0].error == "ModuleNotFoundError: No module named 'no_such_library'"
    assert rows[1].error == "not done after 4 s"
    assert rows[2].values == [2]


def test_a_fresh_program_starts_in_each_round_and_is_told_which():
    program = "import os; print('{\"value\":', {round} + 1, ', \"pid\":', os.getpid(), '}')"
    (row,) = harness.measure([Case("fresh", ("-c", program), fresh=True)], rounds=3)
    assert row.values == [1, 2, 3]
    assert len({found["pid"] for found in row.details}) == 3


def test_a_run_goes_on_where_it_ended(tmp_path):
    log, kept = tmp_path / "log", []
    known = [Row("a", [5.0, 6.0]), Row("b", [7.0], error="not done")]
    rows = harness.measure([talker(log, "a"), talker(log, "b")], rounds=3, known=known, keep=lambda r: kept.append(1))
    assert [row.values for row in rows] == [[5.0, 6.0, 2], [7.0, 2, 3]]
    assert rows[1].error == ""
    assert len(kept) == 2
    assert harness.measure([talker(log, "a")], rounds=3, known=rows)[0].values == [5.0, 6.0, 2]


def test_no_turn_begins_after_the_deadline(tmp_path):
    rows = harness.measure([talker(tmp_path / "log", "a")], rounds=50, deadline=time.monotonic() + 2.5)
    assert len(rows[0].values) < 50
    assert rows[0].error == ""


# ---------------------------------------------------------------- goals, tables, curves


ROWS = [
    Row("own", [1.0, 2.0, 30.0]),
    Row("quick", [2.0, 4.0, 20.0]),
    Row("slow", [9.0, 9.0, 9.0]),
    Row("gone", error="E"),
]


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    assert harness.ratio(ROWS, "own", "quick") == 0.5
    assert harness.ratio(ROWS, "own", "gone") is None


@pytest.mark.parametrize(
    ("goal", "found", "verdict"),
    [
        (Goal("", "own", ("slow", "quick"), 0.5), 0.5, "reached"),  # the quicker of the two counts
        (Goal("", "own", ("slow", "quick"), 0.49), 0.5, "NOT reached"),
        (Goal("", "own", ("gone", "quick"), 0.5), 0.5, "reached"),
        (Goal("", "own", ("gone",), 0.5), None, "not measured: gone: E"),
        (Goal("", "gone", ("quick",), 0.5), None, "not measured: gone: E"),
        (Goal("", "other", ("quick",), 0.5), None, "not measured: other: not run"),
        (Goal("", "own", (), 1.5, "s"), 2.0, "NOT reached"),
        (Goal("", "own", (), 2.0, "s"), 2.0, "reached"),
    ],
)
def test_goals_are_judged(goal, found, verdict):
    judged = report.judge(ROWS, goal)
    assert (judged["found"], judged["verdict"]) == (found, verdict)


def test_an_accuracy_that_is_not_reached_misses_the_goal():
    judged = report.judge([Row("own", error="only 97.00 % after 20 epochs, 1 s")], Goal("", "own", (), 1.0, "s"))
    assert judged["verdict"].startswith("NOT reached: only 97.00 %")


def test_results_become_one_page(tmp_path):
    about = {"date": "d", "cpu": "c", "cores": 2, "gpu": "", "python": "3", "versions": {}, "threads": {}}
    goals = (Goal("the goal", "own", ("quick",), 0.5),)
    report.dump("one", about, ROWS, tmp_path, title="Title", unit="ms", references=("quick",), goals=goals)
    axes = {"batch": {"what": "w", "unit": "ms", "sizes": [1, 2], "curves": {"own": [1.0, 2.0]}}}
    axes["batch"] |= {"exponents": {"own": 1.0}, "errors": {}}
    (tmp_path / "scaling.json").write_text(json.dumps({"title": "Growth", "machine": about, "axes": axes}))
    page = report.overview(tmp_path)
    assert "| the goal | ≤ 0.5 | 0.5 | reached |" in page
    assert "| own | 2 | 1 … 30 | 0.50 |" in page
    assert "| gone | missing | E |  |" in page
    assert "| own | 1 | 2 | 1.00 |" in page
    assert report.load("one", tmp_path)[1] == ROWS


def test_the_exponent_is_that_of_the_upper_half():
    sizes = [1, 2, 4, 8, 16, 32]
    costs = [7.0, 7.0, 7.0, *(3.0 * n**1.5 for n in sizes[3:])]
    assert scaling.exponent(sizes, costs) == pytest.approx(1.5)
    assert scaling.exponent(sizes, [*costs[:-1], None]) is None


def test_pictures_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    plots.bars("title", "ms", ROWS, tmp_path / "bars.svg")
    axis = {"what": "w", "unit": "ms", "sizes": [1, 2], "curves": {"own": [1.0, 2.0], "gone": [None, None]}}
    axis["exponents"] = {"own": 1.0, "gone": None}
    plots.growth({"batch": axis}, tmp_path / "growth.svg")
    assert "own" in (tmp_path / "bars.svg").read_text()
    assert "own: 1.00" in (tmp_path / "growth.svg").read_text()


# ---------------------------------------------------------------- the suites


@pytest.mark.parametrize("quick", [False, True])
def test_the_suites_are_consistent(quick):
    every = [*suite.benchmarks(quick), *suite_gpu.benchmarks(["cupy", "torch:cuda", "jax"], quick)]
    for benchmark in every:
        names = [case.name for case in benchmark.cases]
        assert len(names) == len(set(names))
        assert {goal.case for goal in benchmark.goals} <= set(names)
        assert {name for goal in benchmark.goals for name in goal.references} <= set(names)
        assert set(benchmark.references) <= set(names)
        for case in benchmark.cases:
            if case.arguments[0] == "-m":
                assert (harness.ROOT / case.arguments[1].replace(".", "/")).with_suffix(".py").exists()
    assert len({benchmark.name for benchmark in every}) == len(every)


def test_the_peers_of_a_benchmark_are_given_the_same_work():
    for benchmark in [
        *suite.steps(quick=False),
        *suite.streams(quick=False),
        *suite_gpu.benchmarks(["cupy", "torch:cuda"]),
    ]:
        works = {case.arguments[case.arguments.index("--work") + 1] for case in benchmark.cases}
        assert len(works) == 1


def test_every_axis_grows_one_thing():
    for axis in scaling.axes():
        sizes = [size for size, _ in axis.works]
        assert sizes == sorted(sizes)
        assert all(work.samples >= work.batch for _, work in axis.works)


def test_the_size_of_a_package_counts_what_it_needs():
    sizes = installed.closure("bpxp")
    assert next(iter(sizes)) == "bpxp"
    assert {"numpy", "array-api-compat"} <= set(sizes)
    assert 0.1 < sizes["bpxp"] < 20.0
    assert bpxp.__version__
