"""Which integers are pixels is a property of a network: decided once, kept in its file, applied to every dtype."""

from __future__ import annotations

import json

import numpy as np
import pandas
import pytest

import bpxp
from bpxp import nn
from bpxp.data import Dataset
from bpxp.errors import BpxpWarning, InvalidTypeError, InvalidValueError
from bpxp.saving import format as files
from bpxp.saving.network import known_inputs

rng = np.random.default_rng(0)
IMAGES, Y = rng.integers(0, 256, (20, 3, 4, 1)).astype(np.uint8), np.arange(20) % 3
IMAGES[0, 0, :2, 0] = 0, 255
FLOATS = (IMAGES * np.float32(1 / 255)).astype(np.float32)
TABLE = np.arange(80, dtype=np.uint8).reshape(20, 4)


def network(backend, *, images=False, inputs=12, **options):
    layers = [nn.Flatten(), 5, 3] if images else [inputs, 5, 3]
    shape = {"input_shape": (3, 4, 1)} if images else {}
    return bpxp.Network(layers, backend=backend, seed=0, **shape, **options)


def fitted(net, x, epochs=1, **options):
    bpxp.Trainer(net, bpxp.optim.SGD(0.5), progress=False).fit((x, Y), epochs=epochs, batch_size=8, **options)
    return net


def bits(net, x):
    return net.backend.to_numpy(net.logits(x)).tobytes()


# ---------------------------------------------------------------- what is scaled


@pytest.mark.parametrize("images", [True, False])
def test_images_of_bytes_are_scaled_and_then_integers_of_any_dtype(backend, images):
    net, other = network(backend, images=images), network(backend, images=images)
    assert net.pixels == "auto"
    assert bits(net, IMAGES) == bits(net, FLOATS)
    assert net.pixels == "auto"  # nothing was learned
    fitted(net, IMAGES)
    assert net.pixels is True
    assert bits(net, FLOATS) == bits(fitted(other, FLOATS), FLOATS)
    for kind in ("uint8", "int16", "int64", ">i4", "uint16"):
        x = IMAGES.astype(kind)
        assert bits(net, x) == bits(net, FLOATS)
        assert net.evaluate(x, Y) == net.evaluate(FLOATS, Y)
        loss, right = (net.backend.to_numpy(net.loss_and_gradients(a, Y)[0]) for a in (x, FLOATS))
        assert loss == right
    assert bits(net, IMAGES.tolist()) == bits(net, net.backend.asarray(IMAGES)) == bits(net, FLOATS)
    if not images:
        assert bits(net, IMAGES.reshape(20, 12)) == bits(net, IMAGES[..., 0]) == bits(net, FLOATS)


@pytest.mark.parametrize("kind", ["uint8", "int8", "int64", "bool", "float32", "list"])
def test_one_hot_columns_are_the_same_numbers_in_every_dtype(backend, kind):
    hot = np.eye(4)[np.arange(20) % 4]
    given = hot.tolist() if kind == "list" else hot.astype(kind)
    net = fitted(network(backend, inputs=4), given)
    assert net.pixels == "auto"
    assert bits(net, hot) == bits(fitted(network(backend, inputs=4), hot), hot) == bits(net, given)
    planes = hot.reshape(20, 2, 2, 1).astype(np.uint8)  # board planes: flags, no greys
    assert bits(net, planes) == bits(net, hot)


def test_tables_are_not_scaled(backend):
    net = fitted(network(backend, inputs=4), TABLE)
    same = [
        TABLE,
        TABLE.tolist(),
        TABLE.astype(float),
        pandas.DataFrame(TABLE),
        pandas.DataFrame(TABLE).astype({0: float}),
    ]
    assert len({bits(net, x) for x in same}) == 1
    assert net.pixels == "auto"
    assert net.spec.inputs.range == (-79.0, 79.0)  # of few numbers
    assert bits(fitted(network(backend, inputs=4), TABLE.astype(float)), TABLE) == bits(net, TABLE)


def test_ids_are_never_scaled(backend):
    layers = [nn.Embedding(200, 3), nn.Flatten(), 3]
    ids = rng.integers(0, 200, (20, 4)).astype(np.uint8)
    net = bpxp.Network(layers, input_shape=(4,), backend=backend, seed=0)
    fitted(net, ids)
    assert bits(net, ids) == bits(net, ids.astype(np.int64)) == bits(net, ids.astype(float))
    assert net.spec.inputs.range is None  # ids that training did not see are no mistake
    with pytest.raises(InvalidValueError, match=r"the ids of an Embedding are no pixels.*Fix: pixels=False"):
        bpxp.Network(layers, input_shape=(4,), backend=backend, pixels=True)
    bpxp.Network(layers, input_shape=(4,), backend=backend, pixels=False)


def test_a_data_set_says_what_it_is(backend):
    flat, thin = IMAGES.reshape(20, 12), IMAGES.reshape(20, 12).astype(np.int32)
    for data in (Dataset(flat, Y, pixels=True), Dataset(thin, Y, pixels=True), Dataset(IMAGES, Y).flatten()):
        for form in (data, data.to(backend), data.take(np.arange(20)), Dataset(data.x, Y, resident=False, pixels=True)):
            net = network(backend)
            bpxp.Trainer(net, progress=False).fit(form, epochs=1, batch_size=8)
            assert net.pixels is True
            assert net.evaluate(form) == net.evaluate(FLOATS, Y)
    said = network(backend)
    assert bits(said, Dataset(IMAGES, Y, pixels=False)) == bits(said, IMAGES.astype(float))
    assert bpxp.data.digits()[0].pixels


def test_a_choice_is_a_choice(backend):
    never = fitted(network(backend, images=True, pixels=False), IMAGES)
    assert never.pixels is False
    assert bits(never, IMAGES) == bits(never, IMAGES.astype(float))
    always = network(backend, pixels=True)
    assert bits(always, IMAGES.reshape(20, 12).astype(np.int64)) == bits(always, FLOATS)
    only = network(backend, pixels="uint8")
    assert bits(only, IMAGES.reshape(20, 12)) == bits(only, FLOATS)
    assert bits(only, IMAGES.astype(np.int64)) == bits(only, IMAGES.astype(float))
    for wrong, error in ((1, InvalidTypeError), (None, InvalidTypeError), ("unit8", InvalidValueError)):
        with pytest.raises(error, match=r"Network\(pixels=…\).*True, False, 'auto' or 'uint8'"):
            network(backend, pixels=wrong)
        with pytest.raises(error, match=r"net\.pixels.*True, False"):
            always.pixels = wrong
    assert always.pixels is True


def test_integers_that_are_no_pixels_are_refused_where_pixels_are_scaled(backend):
    deep = IMAGES.astype(np.int32) * 257
    net = network(backend, images=True, pixels=True)
    for x in (deep, net.backend.asarray(deep), Dataset(deep, Y, resident=False)):
        with pytest.raises(InvalidValueError, match=r"no pixels of 8 bits: got 0 … 65535.*Fix: net.pixels = False"):
            net.predict(x)
    assert bits(net, (deep // 257).astype("uint8")) == bits(net, FLOATS)
    net.pixels = False
    net.predict(deep)


def test_the_textbook_step_decides_too(backend):
    net = network(backend, images=True)
    net.gradient_descent((IMAGES, Y), learning_rate=0.1)
    assert net.pixels is True
    assert bits(net, IMAGES.astype(np.int64)) == bits(net, FLOATS)


def test_targets_of_an_autoencoder_are_scaled_as_its_inputs(backend):
    def trained(x, y, **options):
        net = bpxp.Network([12, 4, 12], loss="mean_squared_error", backend=backend, seed=0)
        bpxp.Trainer(net, progress=False).fit((x, y), epochs=2, batch_size=8, **options)
        return net

    right = trained(FLOATS, FLOATS.reshape(20, 12))
    for x, y in (
        (IMAGES, IMAGES),
        (IMAGES, IMAGES.astype(np.int64)),
        (IMAGES, IMAGES.reshape(20, 12).tolist()),
        (FLOATS, FLOATS),
        (right.backend.asarray(IMAGES), right.backend.asarray(IMAGES)),
    ):
        net = trained(x, y, validation=(x, y))
        assert bits(net, FLOATS) == bits(right, FLOATS)
        assert net.evaluate(x, y) == right.evaluate(FLOATS, FLOATS.reshape(20, 12))
    masks = (IMAGES > 100).astype(np.uint8)
    assert bits(trained(IMAGES, masks), FLOATS) == bits(trained(FLOATS, masks.astype(float)), FLOATS)
    ages = np.arange(20, dtype=np.uint8)[:, None]
    one = bpxp.Network([12, 1], loss="mean_squared_error", backend=backend, seed=0)
    assert one.evaluate(IMAGES, ages)["loss"] > 50.0  # not scaled
    with pytest.raises(TypeError, match="text labels"):
        right.evaluate(IMAGES, np.full((20, 12), "a"))


# ---------------------------------------------------------------- what is remembered


def test_the_file_keeps_it(backend, tmp_path):
    path = tmp_path / "net.bpxp"
    for net in (
        fitted(network(backend, images=True), IMAGES),
        network(backend),
        fitted(network(backend, inputs=4), pandas.DataFrame(TABLE, columns=list("abcd"))),
        network(backend, pixels=False),
    ):
        net.save(path)
        loaded = bpxp.Network.load(path, backend=backend)
        assert loaded.spec.inputs == net.spec.inputs
        assert net.to(backend).spec.inputs == net.spec.inputs


def test_files_of_before_mean_what_they_meant(backend, tmp_path):
    path, net = tmp_path / "net.bpxp", network(backend)
    net.save(path)
    tensors, description = files.read(path)
    del description["network"]["inputs"]
    files.write(path, tensors, {"network": description["network"], "written": description["written"]})
    old = bpxp.Network.load(path, backend=backend)
    assert old.pixels == "uint8"
    assert bits(old, IMAGES.reshape(20, 12)) == bits(net, FLOATS)
    assert bits(old, IMAGES.astype(np.int64)) == bits(old, IMAGES.astype(float))
    ids = bpxp.Network([nn.Embedding(200, 3), nn.Flatten(), 3], input_shape=(4,), backend="numpy", seed=0)
    assert known_inputs(ids.spec, {}).pixels is False


@pytest.mark.parametrize(
    "wrong",
    [
        {"pixels": "always"},
        {"pixels": 1},
        {"range": [1.0, 0.0]},
        {"range": [0.0, None]},
        {"range": "01"[:1]},
        {"range": [0.0, float("nan")]},
        {"features": ["a"]},
        {"features": [[]] * 12},
        {"features": 3},
    ],
)
def test_files_that_say_nonsense_are_refused(wrong, tmp_path):
    path = tmp_path / "net.bpxp"
    network("numpy").save(path)
    tensors, description = files.read(path)
    description["network"]["inputs"] |= wrong
    files.write(path, tensors, json.loads(json.dumps({"network": description["network"], "written": {}})))
    with pytest.raises(bpxp.BpxpError, match="does not describe a network"):
        bpxp.Network.load(path, backend="numpy")


def test_a_resumed_run_takes_it_from_the_file(backend, tmp_path):
    path = tmp_path / "run.bpxp"

    def trainer(net):
        return bpxp.Trainer(net, callbacks=[bpxp.callbacks.Checkpoint(path)], progress=False)

    once = network(backend)
    trainer(once).fit((IMAGES, Y), epochs=3, batch_size=8)
    trainer(network(backend)).fit((IMAGES, Y), epochs=1, batch_size=8)
    resumed = network(backend)
    trainer(resumed).fit((IMAGES, Y), epochs=3, batch_size=8, resume=True)
    assert resumed.pixels is True
    assert bits(resumed, IMAGES) == bits(once, IMAGES)
    with pytest.raises(bpxp.BpxpError, match="pixels is True in the file, False here"):
        trainer(network(backend, pixels=False)).fit((IMAGES, Y), epochs=4, batch_size=8, resume=path)


# ---------------------------------------------------------------- what is warned of


def test_numbers_far_outside_of_the_range_of_training_are_warned_of(backend):
    net = fitted(network(backend, images=True), IMAGES)
    far, where = IMAGES.astype(np.float64), r"numbers from 0 to 255, far outside .* 0 to 1\. Fix: .*x / 255"
    for call in (
        lambda x: net.predict(x),
        lambda x: net.evaluate(x, Y),
        lambda x: net.loss_and_gradients(x, Y),
        lambda x: net.gradient_descent((x, Y), learning_rate=0.1),
        lambda x: net.predict(net.backend.asarray(x.astype(np.float32))),
        lambda x: net.evaluate(Dataset(x, Y, resident=False)),
        lambda x: fitted(net, IMAGES, validation=(x, Y)),
        lambda x: fitted(net, x),  # the last: its range is known from then on
    ):
        with pytest.warns(BpxpWarning, match=where):
            call(far)
        call(far / 255)


def test_standardized_data_give_no_false_alarm(backend):
    x = rng.normal(size=(20, 12))
    net = fitted(network(backend), x)
    low, high = net.spec.inputs.range
    assert (low, high) == (np.float32(x.min()), np.float32(x.max()))
    for _ in range(20):
        net.predict(rng.standard_t(5, size=(200, 12)))
    with pytest.warns(BpxpWarning, match="W016"):
        net.predict(255 * np.ones((1, 12)))
    kelvin = fitted(network(backend), rng.uniform(270, 310, (20, 12)))
    kelvin.predict(np.full((1, 12), 330.0))
    with pytest.warns(BpxpWarning, match="W016"):
        kelvin.predict(np.full((1, 12), 25.0))


@pytest.mark.parametrize("x", [np.zeros((20, 12)), np.ones((20, 12)), np.eye(20, 12)])
def test_few_or_equal_numbers_say_little_of_their_range(backend, x):
    net = fitted(network(backend), x)
    net.predict(x - 3.0)
    net.predict(np.zeros((1, 12)))


def test_whole_numbers_that_look_like_pixels_are_warned_of(backend):
    x = np.resize(np.arange(256), (20, 16))
    for kind in ("uint8", "int64", "float64"):
        net = bpxp.Network([16, 3], backend=backend, seed=0)
        with pytest.warns(BpxpWarning, match=r"look like pixels.*Fix: net\.pixels = True"):
            fitted(net, x.astype(kind))
        if kind != "float64":
            for call in (lambda n, a: n.predict(a), lambda n, a: n.gradient_descent((a, Y), learning_rate=0.1)):
                with pytest.warns(BpxpWarning, match="look like pixels"):
                    call(bpxp.Network([16, 3], backend=backend, seed=0), x.astype(kind))
        for choice in (True, False):
            said = bpxp.Network([16, 3], backend=backend, seed=0, pixels=choice)
            if kind != "float64" or not choice:
                fitted(said, x.astype(kind))
    fitted(bpxp.Network([16, 3], backend=backend, seed=0), x + 0.5)
    fitted(bpxp.Network([16, 3], backend=backend, seed=0), x // 2)
