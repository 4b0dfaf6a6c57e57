"""``np.seterr(all="raise")``: nothing that bpxp computes raises because of it, and no step ends half-way."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp.core.floating_point import never_raising
from bpxp.core.tree import leaves, tree_map

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(64, 5)).astype(np.float32), np.arange(64) % 3


@pytest.fixture(autouse=True)
def raising():
    with np.errstate(all="raise"):
        yield


def network(hidden, scale):
    net = bpxp.Network([5, 7, 3], hidden=hidden, backend="numpy", seed=0)
    net.params = tree_map(lambda a: a * np.float32(scale), net.params)
    return net


CALLS = {
    "evaluate": lambda net: net.evaluate(X, Y),
    "predict": lambda net: net.predict(X),
    "predict_proba": lambda net: net.predict_proba(X),
    "logits": lambda net: net.logits(X),
    "loss_and_gradients": lambda net: net.loss_and_gradients(X, Y),
    "gradient_descent": lambda net: [net.gradient_descent((X, Y), 0.1) for _ in range(50)],
    "fit": lambda net: bpxp.Trainer(net, "adam", progress=False).fit(X, Y, epochs=2, validation=0.2),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("hidden", ["relu", "sigmoid", "tanh", "gelu", "softplus", "elu"])
def test_underflow_is_zero(call, hidden):
    net, other = network(hidden, 300), network(hidden, 300)
    found = CALLS[call](net)
    with np.errstate(all="ignore"):
        wanted = CALLS[call](other)
    assert [a.tobytes() for a in leaves(net.params)] == [a.tobytes() for a in leaves(other.params)]
    if call == "evaluate":
        assert found == wanted
    elif call not in ("fit", "gradient_descent"):
        assert [a.tobytes() for a in leaves(found)] == [a.tobytes() for a in leaves(wanted)]


def test_a_step_that_overflows_is_whole_and_warns():
    nets = [bpxp.Network([5, 3], loss="mean_squared_error", backend="numpy", seed=0) for _ in range(2)]
    for net in nets:
        net.params = tree_map(lambda a: a * np.float32(1e30), net.params)
    with pytest.warns(RuntimeWarning, match="overflow"):
        nets[0].gradient_descent((X, X[:, :3]), 1.0)
    with np.errstate(all="ignore"):
        nets[1].gradient_descent((X, X[:, :3]), 1.0)
    assert [a.tobytes() for a in leaves(nets[0].params)] == [a.tobytes() for a in leaves(nets[1].params)]


def test_a_fit_that_diverges_says_so():
    net = bpxp.Network([5, 3], loss="mean_squared_error", backend="numpy", seed=0)
    with pytest.raises(bpxp.errors.DivergenceError):
        bpxp.Trainer(net, bpxp.optim.SGD(1e30), progress=False).fit(X, X[:, :3], epochs=9)


def test_the_setting_of_the_user_stays():
    before = np.geterr()
    network("relu", 1).predict(X)
    assert np.geterr() == before
    with pytest.raises(FloatingPointError):
        np.float32(1e30) * np.float32(1e30)
    assert never_raising(np.geterr)() == {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
    with np.errstate(all="ignore"):
        assert set(never_raising(np.geterr)().values()) == {"ignore"}


def test_files_and_reports(tmp_path):
    net = network("sigmoid", 300)
    net.save(tmp_path / "net.bpxp")
    bpxp.Network.load(tmp_path / "net.bpxp", backend="numpy").evaluate(X, Y)
    bpxp.verify.check_gradients(network("sigmoid", 1), X[:4], Y[:4])
    bpxp.verify.check_equations(network("sigmoid", 1))
    str(net.summary())
    bpxp.verify.certify(network("sigmoid", 1), ["numpy"], steps=2)
