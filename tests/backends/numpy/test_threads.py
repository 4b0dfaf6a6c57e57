"""BLAS has no more threads in a step than its largest product is worth; the decision depends on nothing but shapes."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import bpxp
from bpxp import nn, optim
from bpxp.backends import Step, get_backend
from bpxp.backends.numpy import threads
from bpxp.errors import InvalidValueError
from bpxp.network.step import TrainingStep


class Pool:
    """A BLAS library that writes down how many threads it was given."""

    def __init__(self, count):
        self.num_threads, self.given = count, []

    def set_num_threads(self, count):
        self.num_threads = count
        self.given.append(count)


@pytest.fixture
def pool(monkeypatch):
    """A machine of eight cores, on which nobody has said how many threads to take."""
    for name in (threads.ENVIRONMENT, *threads.OF_BLAS):
        monkeypatch.delenv(name, raising=False)
    pool = Pool(8)
    monkeypatch.setattr(threads, "_pools", [pool])
    return pool


def fitted(layers, batch, n=None):
    """Fit one epoch on NumPy, and return the compiled step of the training."""
    net = bpxp.Network(layers, backend="numpy", seed=0)
    n = n or batch
    x = np.random.default_rng(0).random((n, *net.input_shape)).astype("float32")
    y = np.arange(n) % net.output_shape[0]
    bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit((x, y), epochs=1, batch_size=batch)
    (step,) = (run for key, run in net._compiled.items() if isinstance(key, TrainingStep))
    return step, net


def test_a_thread_for_each_grain_of_work():
    grain = threads.GRAIN
    found = [threads.worth(product, 4) for product in (0, grain - 1, 2 * grain - 1, 2 * grain, 3 * grain, 99 * grain)]
    assert found == [1, 1, 1, 2, 3, 4]
    # What a thread is worth waking for, and what is not: the sizes that were measured.
    assert threads.worth(64 * 784 * 256, 2) == 2
    assert threads.worth(64 * 784 * 30, 2) == 1


@pytest.mark.parametrize(("layers", "batch", "limit"), [([64, 30, 10], 10, 1), ([784, 512, 10], 32, 3)])
def test_the_step_is_limited_and_the_rest_is_not(pool, layers, batch, limit):
    step, _ = fitted(layers, batch)
    assert isinstance(step, Step)
    assert step.threads == limit
    assert pool.given == [limit, 8]
    assert pool.num_threads == 8


def test_a_step_that_is_worth_all_threads_is_left_alone(pool):
    step, _ = fitted([784, 512, 10], 128)
    assert step.threads == 0
    assert pool.given == []


def test_the_limit_is_the_same_whatever_the_epoch_and_the_run(pool):
    limits = {fitted([784, 512, 10], 32, n=n)[0].threads for n in (32, 64, 90)}
    assert limits == {3}


def test_the_network_is_the_same_with_and_without(pool, monkeypatch):
    _, limited = fitted([64, 30, 10], 10, n=95)
    monkeypatch.setenv(threads.ENVIRONMENT, "keep")
    _, kept = fitted([64, 30, 10], 10, n=95)
    for a, b in zip(limited.params, kept.params, strict=True):
        np.testing.assert_array_equal(a.W, b.W)


def test_threads_are_given_back_when_a_step_fails(pool):
    def step(state, data):
        raise ZeroDivisionError

    run = threads.LimitedStep(step)
    run.threads = 2
    with pytest.raises(ZeroDivisionError):
        run((), ())
    assert pool.given == [2, 8]


@pytest.mark.parametrize(("value", "given"), [("keep", []), ("3", [3, 8]), (" Auto ", [1, 8]), ("", [1, 8]), ("8", [])])
def test_the_environment_decides(pool, monkeypatch, value, given):
    monkeypatch.setenv(threads.ENVIRONMENT, value)
    fitted([64, 30, 10], 10)
    assert pool.given == given


@pytest.mark.parametrize("name", threads.OF_BLAS)
def test_who_told_blas_has_decided(pool, monkeypatch, name):
    monkeypatch.setenv(name, "8")
    fitted([64, 30, 10], 10)
    assert pool.given == []
    monkeypatch.setenv(threads.ENVIRONMENT, "2")  # and who tells bpxp as well
    fitted([64, 30, 10], 10)
    assert pool.given == [2, 8]


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_threads(pool, monkeypatch, value):
    monkeypatch.setenv(threads.ENVIRONMENT, value)
    with pytest.raises(InvalidValueError, match="BPXP_THREADS: not a number of threads"):
        get_backend("numpy").compile(lambda state, data: state)


def test_one_core_is_not_asked_about_its_products(pool, monkeypatch):
    pool.num_threads = 1
    monkeypatch.setattr(threads, "largest_product", None)
    fitted([64, 30, 10], 10)


def test_a_step_of_which_nothing_is_known_keeps_its_threads(pool):
    run = get_backend("numpy").compile(lambda state, data: state)
    run((), ())
    assert run.threads == 0


class Peeking(nn.Sequential):
    """A layer that looks at numbers, which a run without numbers cannot."""

    def forward(self, params, x, /, *, xp, **context):
        assert float(xp.sum(x)) >= 0.0
        return super().forward(params, x, xp=xp, **context)


def test_a_layer_that_looks_at_numbers_keeps_its_threads(pool):
    step, _ = fitted([64, Peeking((nn.Dense(10),))], 10)
    assert step.threads == 0


def test_without_threadpoolctl_nothing_is_limited(pool, monkeypatch):
    monkeypatch.setattr(threads, "_pools", [])
    monkeypatch.setitem(__import__("sys").modules, "threadpoolctl", None)
    step, _ = fitted([64, 30, 10], 10)
    assert step.threads == 0


def test_numpys_own_blas_is_told(pool, monkeypatch):
    pytest.importorskip("threadpoolctl")
    monkeypatch.setattr(threads, "_pools", [])
    pools, seen = threads.blas_pools(), []
    if not pools:
        pytest.skip("threadpoolctl knows no BLAS in this process")
    before = [one.num_threads for one in pools]
    run = threads.LimitedStep(lambda state, data: seen.append([one.num_threads for one in pools]))
    run.threads = 1
    try:
        for one in pools:
            one.set_num_threads(2)
        run((), ())
        assert seen == [[1] * len(pools)]
        assert [one.num_threads for one in pools] == [2] * len(pools)
    finally:
        for one, count in zip(pools, before, strict=True):
            one.set_num_threads(count)


def test_the_last_of_several_steps_restores_the_number(pool):
    with threads.limited(1):
        with threads.limited(3):
            assert pool.num_threads == 1
            assert threads.available_threads() == 8
        assert pool.num_threads == 1
    assert pool.num_threads == 8
    first, second = threads.limited(3), threads.limited(2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert pool.num_threads == 2
    second.__exit__(None, None, None)
    assert pool.num_threads == 8


def test_threads_of_python_leave_blas_as_it_was():
    pytest.importorskip("threadpoolctl")
    pools = threads.blas_pools()
    if not pools:
        pytest.skip("threadpoolctl knows no BLAS in this process")
    before = [one.num_threads for one in pools]
    seen = []

    def work():
        for _ in range(200):
            with threads.limited(1):
                seen.append(max(one.num_threads for one in pools))

    try:
        for one in pools:
            one.set_num_threads(2)
        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        assert set(seen) == {1}
        assert [one.num_threads for one in pools] == [2] * len(pools)
    finally:
        for one, count in zip(pools, before, strict=True):
            one.set_num_threads(count)
