"""Two GPUs: a network computes on its own, and the user's current device stays as it was."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

cupy = pytest.importorskip("cupy")

import bpxp  # noqa: E402
from bpxp import nn, optim  # noqa: E402
from bpxp.errors import DeviceMismatchError, InvalidValueError  # noqa: E402

if cupy.cuda.runtime.getDeviceCount() < 2:
    pytest.skip("needs two GPUs", allow_module_level=True)

X, Y = np.random.default_rng(0).random((200, 12), dtype=np.float32), np.random.default_rng(1).integers(0, 3, 200)


def network(name, **options):
    return bpxp.Network([12, nn.Dense(7, "relu"), nn.Dropout(0.5), nn.BatchNorm(), 3], backend=name, seed=0, **options)


def fit(net, data=(X, Y)):
    trainer = bpxp.Trainer(net, optim.Adam(optim.OneCycle(0.1, steps=80), clip_norm=1.0), progress=False)
    trainer.fit(data, epochs=4, batch_size=10, validation=(X, Y))
    assert net.eager_steps == {}
    return net.params


METHODS = {
    "fit": fit,
    "fit, streamed": lambda net: fit(net, bpxp.data.Dataset(X, Y, resident=False)),
    "predict": lambda net: net.predict(X),
    "predict_proba": lambda net: net.predict_proba(X),
    "logits": lambda net: net.logits(X),
    "loss_and_gradients": lambda net: net.loss_and_gradients(X, Y),
    "gradient_descent": lambda net: [net.gradient_descent((X, Y), 0.1) for _ in range(12)] and net.params,
    "evaluate": lambda net: net.evaluate(X, Y),
    "params": lambda net: setattr(net, "params", net.params) or net.params,
    "summary": lambda net: str(net.summary()).replace(net.backend.name, ""),
    "to": lambda net: net.to(net.backend).params,
    "to another": lambda net: [net.to(f"cupy:{i}") and net.predict_proba(X).get() for i in (1, 0, 1)],
    "deepcopy": lambda net: copy.deepcopy(net).predict_proba(X),
    "pickle": lambda net: pickle.loads(pickle.dumps(net)).predict_proba(X),
    "a second network": lambda net: fit(network(net.backend)),
    "own arrays": lambda net: net.predict_proba(net.backend.asarray(X)),
    "preflight": lambda net: bpxp.preflight(net, batch_size=10).operations,
    "check_gradients": lambda net: (
        bpxp.verify.check_gradients(network(net.backend, dtype="float64"), X[:4], Y[:4]).worst
    ),
}


def numbers(found):
    if isinstance(found, cupy.ndarray):
        return f"device {found.device.id}", found.get().tolist()
    if isinstance(found, (tuple, list)):
        return [numbers(a) for a in found]
    return str(found)


@pytest.fixture(params=[0, 1])
def current(request):
    """The user's current device."""
    with cupy.cuda.Device(request.param):
        yield request.param
        assert cupy.cuda.runtime.getDevice() == request.param


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threaded", [False, True])
def test_every_method_computes_on_the_networks_device(method, threaded, current):
    found = {}

    def call(name):
        with cupy.cuda.Device(current):
            net = network(name)
            found[name] = numbers(METHODS[method](net))
            assert cupy.cuda.runtime.getDevice() == current
            assert cupy.zeros(1).device.id == current
            if method != "to another":
                assert {a.device.id for layer in net.params for a in layer} == {net.backend.device.id}

    for name in ("cupy", "cupy:0", "cupy:1"):
        thread = threading.Thread(target=call, args=(name,))
        thread.start() if threaded else call(name)
        if threaded:
            thread.join()
    assert set(found) == {"cupy", "cupy:0", "cupy:1"}
    assert found["cupy"] == found["cupy:0"]
    if method not in ("to another", "check_gradients"):
        assert repr(found["cupy:1"]).replace("device 1", "device 0") == repr(found["cupy"])


def test_networks_on_two_devices_train_at_the_same_time(current):
    expected, found = numbers(fit(network("cupy"))), {}

    def run(name):
        found[name] = numbers(fit(network(name)))

    threads = [threading.Thread(target=run, args=(f"cupy:{i}",)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found["cupy:0"] == expected
    assert repr(found["cupy:1"]).replace("device 1", "device 0") == repr(expected)


def test_callbacks_see_the_device_of_the_user(current):
    seen = []

    class Look(bpxp.callbacks.Callback):
        def on_epoch_end(self, trainer, row):
            seen.append(cupy.zeros(1).device.id)

    net = network("cupy:1")
    bpxp.Trainer(net, progress=False, callbacks=[Look()]).fit((X, Y), epochs=2, batch_size=50)
    assert seen == [current] * 2 or seen == [1] * 2


def test_arrays_of_the_other_device_are_refused_and_the_fix_works(current):
    net = network("cupy:1")
    with cupy.cuda.Device(0):
        x = cupy.asarray(X)
    with pytest.raises(DeviceMismatchError, match=r"Fix: net.to\('cupy:0'\)"):
        net.predict(x)
    assert net.to("cupy:0").predict(x).device.id == 0


@pytest.mark.parametrize(("name", "fix"), [("cupy:2", "cupy:0"), ("cupy:gpu", "cupy:0")])
def test_devices_that_are_not_there(name, fix):
    with pytest.raises(InvalidValueError, match=rf"CuPy has 2 CUDA devices \(0\.\.1\).*Fix: backend='{fix}'"):
        bpxp.get_backend(name)


def test_precisions_on_the_second_device(current):
    for precision in ("tf32", "float16"):
        assert network(f"cupy:1+{precision}").predict_proba(X).device.id == 1
