"""A captured step repeats the eager step to the bit, and runs eagerly, with a reason, where it could not."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
import threading
import weakref

import numpy as np
import pytest
from helpers.captured_steps import Lab, State, Written
from helpers.small_runs import NETWORKS, OPTIMIZERS

import bpxp
from bpxp import optim
from bpxp.backends import captured
from bpxp.backends.base import eager
from bpxp.backends.captured import CapturedStep
from bpxp.backends.numpy.capture import NumpyLibrary
from bpxp.core.tree import leaves
from bpxp.data import augment


@pytest.fixture(params=["numpy", "torch"])
def name(request):
    """The backends whose steps are captured on the host."""
    if request.param == "torch":
        pytest.importorskip("torch")
    return request.param


def trained(monkeypatch, name, worth, layers, shape, optimizer, n=60, batch=4, **options):
    """Return parameters, losses and the network of a training run in which `worth` steps are worth a capture."""
    rng = np.random.default_rng(0)
    x, y = rng.random((n, *shape), dtype=np.float32), rng.integers(0, 3, n)
    net = bpxp.Network(layers, input_shape=shape, hidden="relu", backend=name, seed=5)
    monkeypatch.setattr(CapturedStep, "WORTH", worth)
    trainer = bpxp.Trainer(net, optimizer, progress=False)
    history = trainer.fit((x, y), epochs=3, batch_size=batch, validation=(x[:9], y[:9]), **options)
    return bits(net), [*history["loss"], *history["validation_loss"]], net


def bits(net):
    return [net.backend.to_numpy(a).tobytes() for a in leaves(net.params)]


def steps_of(net):
    """Return the compiled steps of a network."""
    return [getattr(run, "run", run) for run in net._compiled.values()]


def same_bits_captured(monkeypatch, *arguments, **options):
    name, *others = arguments
    params, losses, _ = trained(monkeypatch, name, 1 << 30, *others, **options)
    captured, values, net = trained(monkeypatch, name, 2, *others, **options)
    assert net.eager_steps == {}
    assert all(step.plans for step in steps_of(net))
    assert captured == params
    assert values == losses


@pytest.mark.parametrize("batch", [7, 6], ids=["a short last batch", "whole batches"])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_training_run_is_the_same_bits(network, batch, name, monkeypatch):
    same_bits_captured(monkeypatch, name, *NETWORKS[network], optim.SGD(0.1), batch=batch)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{type(o).__name__} {getattr(o, 'momentum', '')}")
def test_every_optimizer_is_the_same_bits(optimizer, name, monkeypatch):
    same_bits_captured(monkeypatch, name, *NETWORKS["dense"], optimizer)


def test_augmentation_on_the_way_is_the_same_bits(name, monkeypatch):
    moves = [augment.Affine(degrees=10, shift=1), augment.ElasticDistortion(alpha=5.0, sigma=2.0), augment.Mixup(0.3)]
    same_bits_captured(monkeypatch, name, NETWORKS["images"][0], (7, 6, 4), optim.SGD(0.1), augment=moves)


@pytest.mark.parametrize("loss", ["binary_cross_entropy", "mean_squared_error", "huber"])
def test_every_loss_is_the_same_bits(loss, name, monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.random((40, 5), dtype=np.float32), (rng.random((40, 2)) < 0.5).astype(np.float32)
    runs = []
    for worth in (1 << 30, 2):
        net = bpxp.Network([5, 4, 2], loss=loss, backend=name, seed=1)
        monkeypatch.setattr(CapturedStep, "WORTH", worth)
        bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit((x, y), epochs=2, batch_size=2)
        runs.append(bits(net))
    assert runs[0] == runs[1]


# ---------------------------------------------------------------- steps written for the purpose


@pytest.fixture
def lab(name):
    return Lab(name)


def test_memory_that_the_step_makes_and_fills_begins_anew_in_every_step(lab):
    def step(state, data, xp):
        total = xp.zeros((4,), dtype=xp.float64)
        ramp = xp.arange(4, dtype=xp.float64) + 1.0  # a constant that is never written
        total += state.w * data
        total *= ramp
        part = xp.reshape(total, (2, 2))
        part *= 2.0
        return State(state.w + total, state.total + xp.sum(total))

    assert lab.agree(step).plans


def test_what_is_read_before_it_is_written_begins_anew_too(lab):
    def step(state, data, xp):
        carried = xp.zeros((4,), dtype=xp.float64)
        before = carried + state.w  # nothing else shows in the first steps, where w is 0 and nothing is carried
        carried += xp.maximum(state.w - 1.0, xp.zeros((4,), dtype=xp.float64))
        return State(before + data, state.total + xp.sum(carried))

    def begin():
        return State(lab.array(np.zeros(4)), lab.array(np.zeros(1)))

    assert lab.agree(step, lab.array(np.full(4, 1 / 16)), counts=(40,), start=begin).plans


def test_views_stay_views_and_new_arrays_are_carried_over(lab):
    def step(state, data, xp):
        folded = xp.reshape(state.w, (2, 2))
        turned = xp.matrix_transpose(folded)
        flat = xp.reshape(turned, (4,))  # a copy: it has to be made again
        joined = xp.concat([flat[:2], xp.flip(flat)[:2]])
        return State(joined + data, xp.sum(joined, keepdims=True))

    assert lab.agree(step).plans


def test_a_view_of_the_state_that_is_written(lab):
    def step(state, data, xp):
        part = xp.reshape(state.w, (2, 2))[1, :]
        seen = part * 1.0
        part += data[:2]
        total = state.total
        total += xp.sum(seen)
        return State(state.w, total)

    assert lab.agree(step).plans


def test_numbers_beside_arrays_are_the_same_bits(lab):
    def step(state, data, xp):
        w = (1.0 - state.w) * 0.1 + 2 / (state.w + 3.0)
        w -= 0.7
        w /= 3.0
        count = xp.astype(state.total, xp.int64) * 3 + 1
        chosen = xp.where(w > 0.1, w, 0.0)
        small = xp.astype(w, xp.float32) * 0.1  # a tenth of float32, not of float64
        return State(chosen + xp.astype(small, xp.float64), state.total + xp.astype(count % 7, xp.float64) ** 2)

    assert lab.agree(step).plans


def test_a_state_from_elsewhere_is_written_in_place(lab):
    def step(state, data, xp):
        w, total = state
        w *= data
        total += 1.0
        return State(w, total)

    run, data = lab.compile(step), lab.array(np.full(4, 0.5))
    state = run(lab.start(), data, count=20)
    assert run.plans
    mine = lab.array(np.ones(4))
    state = run(state._replace(w=mine), data, count=2)
    assert state.w is mine
    np.testing.assert_array_equal(lab.host(mine), 0.25)
    assert lab.host(state.total) == 22


def test_other_data_of_the_same_kind_are_the_same_plan(lab):
    def step(state, data, xp):
        return State(state.w + data, state.total)

    run = lab.compile(step)
    state = run(lab.start(), lab.array(np.ones(4)), count=20)
    (plan,) = run.plans
    state = run(state, lab.array(np.full(4, 2.0)), count=20)
    assert run.plans == [plan]
    np.testing.assert_array_equal(lab.host(state.w), np.arange(4) + 60.0)


def test_nothing_is_kept_of_the_arguments(lab):
    def step(state, data, xp):
        return State(state.w + xp.reshape(data, (2, 2))[0, 0], state.total)

    run, data = lab.compile(step), lab.array(np.ones(4))
    state = run(lab.start(), data, count=20)
    assert run.plans
    gone = [weakref.ref(data), weakref.ref(state.w)]
    del data, state
    gc.collect()
    assert [ref() for ref in gone] == [None, None]


def test_what_a_step_without_a_state_returns_is_new_in_every_call(lab):
    def step(state, data, xp):
        total = xp.exp(data * 2.0)
        return total, xp.reshape(total, (2, 2)), xp.sum(data, keepdims=True), data, None

    run = lab.compile(step)
    results = [run((), lab.array(np.full(4, float(i) / 8))) for i in range(14)]
    assert run.plans
    for i, (total, folded, mean, given, nothing) in enumerate(results):
        np.testing.assert_array_equal(lab.host(total), lab.host(lab.xp.exp(lab.array(np.full(4, i / 8)) * 2.0)))
        np.testing.assert_array_equal(lab.host(folded).ravel(), lab.host(total))
        np.testing.assert_array_equal(lab.host(given), i / 8)
        assert lab.host(mean) == i / 2
        assert nothing is None


def test_a_kind_of_arguments_is_a_plan_of_its_own(lab, monkeypatch):
    monkeypatch.setattr(CapturedStep, "WORTH", 1)

    def step(state, data, xp):
        return State(state.w + xp.sum(data) / data.shape[0], state.total)

    run, plain = lab.compile(step), eager(Written(step, xp=lab.xp))
    a, b = lab.start(), lab.start()
    for size in (*range(2, 9), *range(2, 9)) * 2:
        data = lab.array(np.arange(float(size)))
        a, b = run(a, data, count=4), plain(b, data, count=4)
        np.testing.assert_array_equal(lab.host(a.w), lab.host(b.w))
    assert len(run.plans) == captured.PLANS


def test_what_is_given_away_may_be_read_only():
    def step(state, data, xp):
        return State(state.w + data, state.total)

    state = State(np.arange(4.0), np.zeros(1))
    state.w.flags.writeable = False
    run = CapturedStep(Written(step, xp=bpxp.get_backend("numpy").xp), NumpyLibrary())
    np.testing.assert_array_equal(run(state, np.ones(4), count=20).w, np.arange(4) + 20.0)


def test_a_state_that_shares_memory_runs_eagerly(lab):
    def step(state, data, xp):
        w, total = state
        w += data
        total += w[:1]
        return State(w, total)

    def begin():
        w = lab.array(np.arange(4.0))
        return State(w, w[3:])

    run = lab.agree(step)
    assert run.plans
    plain = eager(Written(step, xp=lab.xp))
    for start, given in ((begin, lambda w: lab.quarters), (lab.start, lambda w: w)):
        a, b = start(), start()
        a, b = run(a, given(a.w), count=3), plain(b, given(b.w), count=3)
        np.testing.assert_array_equal(lab.host(a.w), lab.host(b.w))


def looks_at_a_number(state, data, xp):
    return State(state.w + float(state.w[0] > 0), state.total)


def looks_and_catches_the_error(state, data, xp):
    try:
        large = float(state.w[0]) > 1e9
    except TypeError:
        large = False
    return State(state.w * 0.5 if large else state.w, state.total)


def asks_for_a_method(state, data, xp):
    return State(state.w + int(state.w.argmax()), state.total)


def asks_whether_there_is_a_method(state, data, xp):
    return State(state.w + 1.0 if hasattr(state.w, "tolist") else state.w, state.total)


def picks_by_an_array(state, data, xp):
    return State(state.w[xp.argsort(state.w)], state.total)


def goes_to_numpy(state, data, xp):
    return State(state.w + float(np.asarray(state.w).max()), state.total)


def reads_its_text(state, data, xp):
    return State(state.w + float("9" in str(state.w)), state.total)


def has_no_rule(state, data, xp):
    return State(state.w + xp.astype(xp.unique_values(state.w)[:1] > 0.0, state.w.dtype), state.total)


def writes_the_data(state, data, xp):
    data *= 1.0
    return State(state.w + data, state.total)


def mixes_kinds(state, data, xp):
    return State(state.w + xp.astype(state.total, xp.int64) * 0.5, state.total)


def takes_an_array_from_elsewhere(state, data, xp):
    return State(state.w + np.float64(1.5), state.total)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (looks_at_a_number, "no numbers to look at"),
        (looks_and_catches_the_error, "no numbers to look at"),
        (asks_for_a_method, "x.argmax"),
        (asks_whether_there_is_a_method, "x.tolist"),
        (picks_by_an_array, "an array as an index"),
        (goes_to_numpy, "no numbers to look at"),
        (reads_its_text, "no numbers to look at"),
        (has_no_rule, "unique_values"),
        (writes_the_data, "not its own"),
        (mixes_kinds, "mixed kinds"),
        (takes_an_array_from_elsewhere, "mixed kinds"),
    ],
)
def test_what_cannot_be_captured_runs_eagerly(step, reason, lab):
    run = lab.agree(step)
    assert not run.plans
    assert reason in run.reason


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda state, data, xp: State(state.total, state.w), "state trades places"),
        (lambda state, data, xp: State(data, state.total + 1.0), "trades places"),
        (lambda state, data, xp: State(*[state.w + 1.0] * 2), "are one array"),
        (lambda state, data, xp: State(state.w + 1.0, state.total[:2] * 1.0), "state changes its structure"),
        (lambda state, data, xp: (state.w, state.total), "changes its structure"),
    ],
)
def test_a_state_that_is_not_the_next_one_runs_eagerly(step, reason, lab):
    run = lab.compile(step)
    for _ in range(12):
        run(State(lab.array(np.arange(4.0)), lab.array(np.ones(4))), lab.quarters)
    assert not run.plans
    assert reason in run.reason


def test_a_function_is_no_step_that_can_be_captured(lab):
    run = CapturedStep(lambda state, data: State(state.w + data, state.total), lab.library)
    assert lab.host(run(lab.start(), lab.quarters, count=20).w)[0] == 5.0
    assert "field xp" in run.reason


def test_large_steps_are_left_alone(lab, monkeypatch):
    monkeypatch.setattr(captured, "ROOM", 100)

    def step(state, data, xp):
        one, two, three = 0.1 * state.w, 0.2 * data, state.w * data
        return State(one * two + two * three + one * three, state.total)

    run = lab.agree(step)
    assert "results take more" in run.reason


def test_an_index_out_of_range_is_an_error_in_a_plan_too(lab, monkeypatch):
    monkeypatch.setattr("bpxp.backends.numpy.capture.COPIED", 0)  # the indices are looked through
    monkeypatch.setattr(CapturedStep, "WORTH", 2)

    def step(state, data, xp):
        picked = xp.take(data, xp.astype(state.total, xp.int64), axis=0)
        return State(state.w + picked, state.total + 1.0)

    run, table = lab.compile(step), lab.array(np.arange(10.0))
    state = run(lab.start(), table, count=6)
    assert run.plans
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        run(state, table, count=6)


@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda run: pickle.loads(pickle.dumps(run))])
def test_a_copy_of_a_compiled_step_finds_out_for_itself(copied):
    run = CapturedStep(Written(at_module_level, xp=None), NumpyLibrary())
    assert copied(run).plans == []


def at_module_level(state, data, xp):
    return state


def test_an_evaluation_of_two_data_sets_in_turn_is_captured(monkeypatch, name):
    monkeypatch.setattr("bpxp.network.inference_batch.CHUNK", 10)
    x, y = np.ones((1000, 300), np.float32), np.arange(1000) % 3
    net = bpxp.Network([300, 4, 3], backend=name, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(0.1), progress=False)
    trainer.fit((x, y), epochs=4, batch_size=100, validation=(x[:900].copy(), y[:900]), evaluate_train=True)
    assert net.eager_steps == {}
    assert all(step.plans for step in steps_of(net))


def test_capture_can_be_switched_off(monkeypatch, name):
    x, y = np.ones((60, 5), np.float32), np.arange(60) % 3
    off = {"TrainingStep": "capture is switched off"}

    def fitted(prepare):
        net = bpxp.Network([5, 3], backend=name, seed=0)
        prepare(net)
        bpxp.Trainer(net, optim.SGD(0.1), progress=False).fit((x, y), epochs=3, batch_size=4)
        return net

    assert fitted(lambda net: None).eager_steps == {}
    net = fitted(lambda net: setattr(net, "capture", False))
    assert not net.capture
    assert net.eager_steps == off
    monkeypatch.setenv("BPXP_CAPTURE", "0")
    assert fitted(lambda net: None).eager_steps == off
    monkeypatch.delenv("BPXP_CAPTURE")
    name = f"{name}:eager"
    net = fitted(lambda net: None)
    assert net.backend.name == name
    assert net.eager_steps == off


def test_a_backend_without_capture_computes_the_same(name):
    plain, eagerly = bpxp.get_backend(name), bpxp.get_backend(f"{name}:eager")
    assert bpxp.get_backend(f"{name}:eager") is eagerly
    assert eagerly.xp is plain.xp
    with pytest.raises(bpxp.errors.BpxpError, match="strict captures no steps"):
        bpxp.get_backend("strict:eager")


def test_a_plan_is_proved_at_a_random_step_of_each_epoch(name, monkeypatch):
    proved, done = [], 0
    prove, play = CapturedStep._prove, CapturedStep._some

    def some(self, state, data, count):
        nonlocal done
        steps, state = play(self, state, data, count)
        done += steps
        return steps, state

    monkeypatch.setattr(CapturedStep, "_prove", lambda self, *a: proved.append(done) or prove(self, *a))
    monkeypatch.setattr(CapturedStep, "_some", some)
    x, y = np.ones((600, 3), np.float32), np.arange(600) % 2
    net = bpxp.Network([3, 2], backend=name, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(0.1), progress=False)
    trainer.fit((x, y), epochs=10, batch_size=2)  # of 300 steps
    assert {at // 300 for at in proved} == set(range(10))
    assert len(proved) <= 12
    assert len({at % 300 for at in proved[1:]}) > 3
    before = len(proved)
    trainer.fit((x, y), epochs=40, batch_size=20)  # of 30 steps: another kind of batch, so captured anew
    gaps = np.diff(proved[before:])
    assert 3 <= len(gaps) <= 7
    assert (gaps >= 140).all()


def test_a_constant_that_changes_ends_the_plan(lab, monkeypatch):
    from bpxp.nn import functions

    def step(state, data, xp):
        return State(state.w + functions.constant(FACTOR, data, xp=xp) * data, state.total)

    run, plain = lab.compile(step), eager(Written(step, xp=lab.xp))
    a, b = lab.start(), lab.start()
    for factor in (1.0, 2.0, 3.0):
        monkeypatch.setattr(sys.modules[__name__], "FACTOR", factor)
        a, b = run(a, lab.quarters, count=20), plain(b, lab.quarters, count=20)
        np.testing.assert_array_equal(lab.host(a.w), lab.host(b.w))
        assert run.plans
    for factor in (4.0, 5.0):
        monkeypatch.setattr(sys.modules[__name__], "FACTOR", factor)
        a, b = run(a, lab.quarters, count=20), plain(b, lab.quarters, count=20)
        np.testing.assert_array_equal(lab.host(a.w), lab.host(b.w))
    assert "FACTOR" in run.reason


FACTOR = 1.0


def test_a_later_proof_finds_what_was_not_seen(lab, monkeypatch):
    from bpxp.nn import functions

    monkeypatch.setattr(captured, "PROOFS", (5, 5))

    def step(state, data, xp):
        return State(state.w + functions.softplus(data, xp=xp), state.total)

    run = lab.compile(step)
    state = run(lab.start(), lab.quarters, count=30)
    assert run.plans
    decay = functions.decay
    monkeypatch.setattr(functions, "decay", lambda z, /, *, xp: decay(z * 0.5, xp=xp))  # bpxp's own code is trusted
    with pytest.warns(bpxp.errors.BpxpWarning, match=r"differs from the eager step: .*xp\.\w+") as caught:
        state = run(state, lab.quarters, count=30)
    assert caught[0].message.code == "BPX-W009"
    assert "to the bit" in run.reason
    plain = eager(Written(step, xp=lab.xp))
    for own, other in zip(leaves(run(state, lab.quarters)), leaves(plain(state, lab.quarters)), strict=True):
        np.testing.assert_array_equal(lab.host(own), lab.host(other))


def test_threads_have_the_bits_of_one_after_another(name):
    rng = np.random.default_rng(0)
    x = [rng.random((300, 8), dtype=np.float32) for _ in range(2)]
    y = [(a[:, 0] > 0.5).astype(np.int32) for a in x]
    net = bpxp.Network([8, 16, 2], backend=name, seed=0)
    asked = {
        "evaluate": lambda i: net.evaluate(x[i], y[i])["loss"],
        "predict": lambda i: net.backend.to_numpy(net.predict_proba(x[i])).tobytes(),
        "gradients": lambda i: float(net.backend.to_numpy(net.loss_and_gradients(x[i], y[i])[0])),
    }
    for _ in range(12):
        expected = [[ask(i) for ask in asked.values()] for i in (0, 1)]
    wrong = []

    def work(i):
        for _ in range(150):
            wrong.extend([ask for ask, want in zip(asked, expected[i], strict=True) if asked[ask](i) != want])

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(i,)) for i in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert net.eager_steps == {}
    assert wrong == []


@pytest.mark.parametrize("what", ["fit", "evaluate", "predict", "loss_and_gradients", "gradient_descent"])
def test_no_data_are_kept(what, name):
    net = bpxp.Network([8, 8, 2], backend=name, seed=0)

    def use(x, y):
        if what == "fit":
            bpxp.Trainer(net, progress=False).fit((x, y), epochs=20, batch_size=200)
        for _ in range(12):
            if what == "evaluate":
                net.evaluate(x, y)
            elif what == "predict":
                net.predict(x)
            elif what == "loss_and_gradients":
                net.loss_and_gradients(x, y)
            elif what == "gradient_descent":
                net.gradient_descent((x, y), 0.1)

    x, y = np.ones((1000, 8), np.float32), np.arange(1000, dtype=np.int32) % 2
    gone = weakref.ref(x)
    use(x, y)
    assert all(step.plans for step in steps_of(net))
    del x, y
    gc.collect()
    assert gone() is None


def test_short_fits_do_not_pile_up(name):
    x, y = np.ones((200, 50), np.float32), np.arange(200, dtype=np.int32) % 3
    net = bpxp.Network([50, 30, 3], backend=name, seed=0)
    for i in range(20):
        bpxp.Trainer(net, optim.SGD(0.1 / (i + 1)), progress=False).fit((x, y), epochs=2, batch_size=10)
    assert len(net._compiled) <= 8
