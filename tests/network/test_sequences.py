"""Networks that answer at several positions of a sample, (batch, time, classes): train, predict, evaluate, verify."""

from __future__ import annotations

import numpy as np
import pytest

import bpxp
from bpxp import nn
from bpxp.data.augment import Mixup

LAYERS = [nn.Embedding(5, 8), nn.Dense(16, "relu"), nn.LayerNorm(), 3]


def network(backend="numpy", layers=LAYERS, **options):
    return bpxp.Network(layers, **{"input_shape": (6,), "backend": backend, "seed": 0, **options})


@pytest.fixture
def symbols(rng):
    x = rng.integers(0, 5, (50, 6))
    return x, x % 3


def test_symbols_are_classified_as_a_whole(backend, symbols):
    x, _ = symbols
    net = network(backend, [nn.Embedding(5, 4), nn.Dense(3), nn.Flatten(), 2])
    y = (x.sum(axis=1) > 12).astype(int)
    bpxp.Trainer(net, bpxp.optim.Adam(0.03), progress=False).fit((x, y), epochs=40, batch_size=16)
    assert net.predict(x).shape == (50,)
    assert net.evaluate(x, y)["accuracy"] > 0.85


def test_each_position_is_classified(backend, symbols):
    x, y = symbols
    net = network(backend)
    trainer = bpxp.Trainer(net, bpxp.optim.Adam(0.05), progress=False)
    history = trainer.fit((x, y), epochs=8, batch_size=16, validation=0.2)  # the last mini-batch is short
    assert history["validation_accuracy"][-1] == 1.0
    assert not net.eager_steps
    assert net.output_shape == (6, 3)
    assert net.predict_proba(x).shape == (50, 6, 3)
    np.testing.assert_array_equal(backend.to_numpy(net.predict(x)), y)


def test_metrics_count_positions(symbols):
    x, y = symbols
    net = network()
    guess = np.asarray(net.predict(x))
    found = net.evaluate(x, y, metrics=["accuracy", "precision_recall_f1", "top5_accuracy"])
    assert found["accuracy"] == pytest.approx(np.mean(guess == y))
    assert found["top5_accuracy"] == 1.0
    weight = np.arange(50.0) % 2
    assert net.evaluate(x, y, weight=weight)["accuracy"] == pytest.approx(np.mean((guess == y)[1::2]))
    flat = network(layers=[3], input_shape=(4,), loss="binary_cross_entropy")
    z = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    labels = (z[:, :3] > 0.3).astype(int)
    several = network(layers=[3], input_shape=(2, 4), loss="binary_cross_entropy")
    several.params = flat.params
    metrics = ["label_accuracy", "exact_match", "f1"]
    one = flat.evaluate(z, labels, metrics=metrics)
    other = several.evaluate(z.reshape(10, 2, 4), labels.reshape(10, 2, 3), metrics=metrics)
    assert one.pop("loss") == pytest.approx(other.pop("loss"))
    assert other == one


def test_a_sample_counts_once(symbols):
    x, y = symbols
    net = network()
    whole, one, other = (
        net.evaluate(*(a[part] for a in symbols))["loss"] for part in (slice(2), slice(1), slice(1, 2))
    )
    assert whole == pytest.approx((one + other) / 2)
    assert net.evaluate(x[:2], y[:2], weight=[1.0, 3.0])["loss"] == pytest.approx((one + 3 * other) / 4)


def test_streamed_samples_give_the_same_bits(symbols):
    x, y = symbols
    runs = []
    for resident in (True, False):
        data = bpxp.data.Dataset(x.astype(np.float32), y, resident=resident)
        net = network()
        runs.append(bpxp.Trainer(net, progress=False).fit(data, epochs=2, batch_size=16)["loss"])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("resident", [True, False])
def test_targets_are_mixed_as_rows(symbols, rng, resident):
    x, y = rng.standard_normal((50, 6, 2)), symbols[1]
    net = network(layers=[nn.Dense(8, "relu"), 3], input_shape=(6, 2))
    data = bpxp.data.Dataset(x.astype(np.float32), y, resident=resident)
    history = bpxp.Trainer(net, progress=False).fit(data, epochs=1, batch_size=10, augment=[Mixup()])
    assert np.isfinite(history["loss"][-1])


def test_rows_are_targets_too(symbols):
    x, y = symbols
    rows = np.eye(3)[y]
    net = network(dtype="float64")
    assert net.evaluate(x, rows) == pytest.approx(net.evaluate(x, y))
    with pytest.warns(bpxp.BpxpWarning, match=r"using y\[:, :, 0\]"):
        assert net.evaluate(x, y[..., None]) == net.evaluate(x, y)
    with pytest.raises(ValueError, match=r"row 0, 0 sums to 0\.5"):
        net.evaluate(x, 0.5 * rows)
    with pytest.raises(ValueError, match=r"y\[0, 2\] = 7, but 3 classes need 0\.\.2"):
        net.evaluate(x, np.where(np.arange(6) == 2, 7, y))


def test_it_is_forecast_measured_and_verified(symbols):
    x, y = symbols
    net = network(dtype="float64")
    assert bpxp.preflight(net, batch_size=16, samples=50).peak_bytes > 0
    assert net.summary().layers[1].entries
    assert bpxp.verify.check_gradients(net, x[:4], y[:4]).worst < 1e-9
    assert bpxp.verify.check_equations(net).worst < 1e-12
    assert bpxp.verify.certify(net, ["numpy"], steps=2, batch_size=5).ok
    assert "per step" in str(bpxp.Network([4, 3], input_shape=(6, 2), backend="fastest:8", seed=0).backend_report)
