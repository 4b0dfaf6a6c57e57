"""The certificate: what is right is within its bounds on every backend, what is wrong is not; and the X-ray."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from helpers.faulty_backends import faulty, off, short_sum, tf32

import bpxp
from bpxp import nn, optim
from bpxp.cli import main
from bpxp.errors import InvalidValueError
from bpxp.verify import certify, xray
from bpxp.verify.parity.certificate import Certificate
from bpxp.verify.parity.certify import operand_bits
from bpxp.verify.parity.rounding import Arithmetic

LAYERS = [
    nn.Conv2D(4, 3, padding="same", activation="relu"),
    nn.MaxPool2D(2),
    nn.Conv2D(4, 3, bias=False),
    nn.BatchNorm(),
    nn.Residual(nn.Conv2D(4, 1, activation="tanh")),
    nn.Flatten(),
    nn.Dense(8, "gelu"),
    nn.Dropout(0.3),
    nn.LayerNorm(),
    3,
]
DTYPES = {"float32": 24, "float64": 53}


def small(**options):
    return bpxp.Network([12, 7, 4], hidden="tanh", backend="numpy", seed=0, **options)


def compiles(backend):
    """Return whether each shape of each operation costs a compilation: of such a backend a few are enough by day."""
    return backend.name.startswith("jax")


def test_every_quantity_of_a_network_of_all_kinds_is_within_its_bound(backend, nightly):
    if compiles(backend) and not nightly:
        pytest.skip("takes too long")
    net = bpxp.Network(LAYERS, input_shape=(6, 6, 2), backend="numpy", seed=1)
    found = certify(net, [backend], steps=4, batch_size=6, optimizer=optim.Adam(1e-3, clip_norm=0.1, average=0.9))
    assert found.ok, found.verdict
    assert [run.dtype for run in found.runs] == list(DTYPES)
    for run in found.runs:
        names = {row.quantity for row in run.rows}
        assert {"0/z", "0/a", "loss/J", "loss/delta", "2/dW", "0/W", "9/b m'", "9/W v'", "3/mean'", "3/var'"} <= names
        assert {"4.0/z", "4.0/delta", "4/0/W", "8/dgamma", "0/W average", "learning rate"} <= names
        assert all(len(row.share) == 4 for row in run.rows)
        assert run.unlikely == ()
        # The step of a fit is what its halves are: bit for bit, where no compiler puts them together.
        fused = backend.name.startswith(("jax", "cupy", "torch:cuda"))
        assert run.whole_step < (1e-5 if fused else 1e-300)
        # A bound that is never nearly reached might as well not be there. NumPy's float64 is what is compared with.
        itself = run.dtype == "float64" and backend.name.startswith(("numpy", "strict"))
        assert itself or run.worst.worst > 0.1


def test_bytes_and_weights(backend):
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12)).astype(np.uint8)
    data = bpxp.data.Dataset(pixels, np.arange(12) % 4, weight=np.linspace(0.1, 2.0, 12))
    found = certify(small(), [backend], data, steps=3, batch_size=5, dtypes=["float32"])
    assert found.ok, found.verdict


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_promise(backend, dtype, promise, nightly):
    steps = 100 if nightly else 4
    net = bpxp.Network([784, 30, 10], backend="numpy", seed=0)
    found = certify(net, [backend], steps=steps, batch_size=10, optimizer=optim.SGD(0.5), dtypes=[dtype])
    (run,) = found.runs
    worst = run.worst
    sharpest = max(max(row.share) for row in run.rows if row.quantity[2:] in ("z", "a", "delta", "dW", "db"))
    promise(
        f"784-30-10, {steps} steps, every value of every step against float64, {dtype} ({backend.name})",
        f"at most {worst.worst:.2f} of its rounding bound ({worst.quantity}), gradients {sharpest:.2f}; free-running "
        f"loss drift {run.drift_of_loss:.0e}",
    )
    assert found.ok, found.verdict
    assert run.unlikely == ()
    assert run.drift_of_loss < {"float32": 1e-4, "float64": 1e-12}[dtype]
    assert run.operand_bits == 24


def test_300_steps_stay_near_float64(backend, promise, nightly):
    if compiles(backend) and not nightly:
        pytest.skip("takes too long")
    steps = 300 if nightly else 20
    net = bpxp.Network([784, 30, 10], backend="numpy", seed=0)
    for dtype, limit in (("float32", 1e-4), ("float64", 1e-12)):
        found = certify(net, [backend], steps=steps, batch_size=10, optimizer=optim.SGD(0.5), dtypes=[dtype])
        (run,) = found.runs
        what = f"784-30-10, {steps} steps against a float64 run, {dtype} ({backend.name})"
        promise(what, f"relative difference: loss {run.drift_of_loss:.0e}, parameters {run.drift_of_parameters:.0e}")
        assert run.drift_of_loss < limit


@pytest.mark.parametrize(
    ("amended", "quantity"),
    [
        ({"matmul": tf32}, "1/z"),
        ({"sum": short_sum}, "1/db"),
        ({"tanh": off("tanh", 1e-6)}, "0/a"),
        ({"log": off("log", 1e-5)}, "loss/J"),
    ],
)
def test_a_fault_is_beyond_its_bound(amended, quantity):
    found = certify(small(), [faulty(**amended)], steps=2, batch_size=8, dtypes=["float32"])
    assert not found.ok
    (run,) = found.runs
    (row,) = [row for row in run.rows if row.quantity == quantity]
    assert row.worst > 1.0
    assert "NOT WITHIN ITS BOUNDS" in found.verdict
    # Each equation is held by itself: what is right elsewhere stays within its bound.
    right = {"1/z": "0/a", "1/db": "0/z", "0/a": "1/z", "loss/J": "1/dW"}[quantity]
    (row,) = [row for row in run.rows if row.quantity == right]
    assert row.worst <= 1.0


def test_a_wrong_update_is_found():
    wrong = faulty(sqrt=off("sqrt", 1e-2))
    found = certify(small(), [wrong], steps=2, optimizer=optim.Adagrad(0.01), dtypes=["float32"])
    assert {row.quantity for row in found.runs[0].rows if row.worst > 1.0} == {"0/W", "0/b", "1/W", "1/b"}


def test_fewer_bits_are_measured_and_have_their_own_bounds():
    assert operand_bits(faulty(matmul=tf32)) == 11
    pytest.importorskip("torch")
    found = certify(small(), ["torch+float16"], steps=2, dtypes=["float32", "float64"])
    assert found.ok, found.verdict
    assert found.runs[0].operand_bits == 11
    assert "products of float64 are not rounded" in found.not_run["torch+float16 float64"]


def test_what_does_not_run_is_in_the_certificate(tmp_path):
    found = certify(small(), ["numpy", "strict:no_float64", "nothing"], steps=1)
    assert set(found.not_run) == {"strict:no_float64 float64", "nothing"}
    assert "nothing: not run: unknown backend" in str(found)
    assert "unknown backend" in found.not_run["nothing"]
    assert found.ok  # what ran is right
    assert not certify(small(), ["nothing"], steps=1).ok  # nothing is proved where nothing ran
    found.save(tmp_path / "certificate.json")
    read = json.loads((tmp_path / "certificate.json").read_text(encoding="utf-8"))
    assert read["ok"] is True
    assert read["not_run"] == found.not_run
    assert read["runs"][0]["rows"][0]["quantity"] == "0/z"
    assert read["environment"]["numpy"] == np.__version__
    assert {"bpxp", "python", "cores"} <= set(read["environment"])


def test_the_table_shows_deviation_and_bound():
    found = certify(small(), ["numpy"], steps=2, dtypes=["float32"])
    row = found.runs[0].rows[0]
    i = row.step - 1
    assert f"{row.deviation[i]:.1e} of {row.bound[i]:.1e}" in str(found)
    assert "12 -> 7 -> 4" in str(found)
    assert "SGD(learning_rate=0.1)" in str(found) or "SGD()" in str(found)


def test_infinite_bounds_are_counted_and_not_written_as_infinity():
    from bpxp.verify.parity.certificate import ParityRow, ParityRun

    row = ParityRow("0/W", (1.0,), (1.0,), (math.inf,), (0.0,), (0.25,), (0.0,))
    found = Certificate("n", "o", 1, 1, 0, (ParityRun("b", "float32", "cpu", "1", 24, (row,), 0.0, 0.0, 0.0),))
    assert "up to 25.0% of the entries have no finite bound" in found.verdict
    assert json.loads(found.to_json())["runs"][0]["rows"][0]["bound"] == [None]


def test_what_overflows_is_not_proved():
    rng = np.random.default_rng(0)
    data = (1e30 * rng.normal(size=(20, 12)).astype(np.float32), np.arange(20) % 4)
    net = bpxp.Network([12, 5, 4], hidden="relu", backend="numpy", seed=0)
    with np.errstate(all="ignore"):
        found = certify(net, ["numpy"], data, steps=3, batch_size=5, dtypes=["float32", "float64"])
    narrow, wide = found.runs
    assert not narrow.ok
    assert "0/z" in narrow.unseen
    assert "NOT PROVED, no finite bound for 0/z" in found.verdict
    assert wide.ok


def test_one_backend_and_one_dtype_need_no_list():
    found = certify(small(), "numpy", steps=1, dtypes="float32")
    assert [(run.backend, run.dtype) for run in found.runs] == [("numpy", "float32")]


def test_wrong_arguments():
    for call, options in (
        (certify, {"steps": 0}),
        (certify, {"batch_size": 0}),
        (xray, {"steps": (0,)}),
        (xray, {"steps": ()}),
    ):
        with pytest.raises(InvalidValueError):
            call(small(), **options)


def test_the_network_is_not_changed():
    net = small()
    before = [p.W.copy() for p in net.params]
    certify(net, ["numpy"], steps=2, dtypes=["float32"])
    xray(net, steps=(2,))
    assert all(np.array_equal(a, p.W) for a, p in zip(before, net.params, strict=True))


# ---------------------------------------------------------------- how exact it is


def test_xray_measures_each_delta_and_gradient(backend):
    report = xray(small(), backend=backend, steps=(1, 3), batch_size=8)
    assert {row.quantity for row in report.rows} >= {"0/delta", "1/delta", "0/dW", "0/db", "1/dW", "1/db", "loss/J"}
    assert {row.step for row in report.rows} == {1, 3}
    u = Arithmetic("float32").u
    assert all(0.01 * u < row.relative < 100.0 * u for row in report.rows if row.quantity.endswith("dW"))
    assert "relative error" in str(report)
    assert json.loads(report.to_json())["rows"][0]["step"] == 1


def test_xray_of_the_truth_is_nothing():
    report = xray(small(dtype="float64"), steps=(1, 2), everything=True)
    assert report.worst.relative == 0.0
    assert {"0/z", "0/a", "1/dx"} <= {row.quantity for row in report.rows}


def test_xray_sees_what_is_wrong_and_where():
    report = xray(small(), backend=faulty(tanh=off("tanh", 1e-3)), steps=(1,))
    error = {row.quantity: row.relative for row in report.rows}
    assert error["1/dW"] == pytest.approx(1e-3, rel=0.5)

    def flipped(x, /, *, axis=None, **options):
        total = np.add.reduce(x, axis=axis, **options)
        return -total if axis == 0 and x.shape[1] > 1 else total

    flipped = xray(small(), backend=faulty(sum=flipped), steps=(1,))
    assert {row.quantity: row.lost for row in flipped.rows}["1/db"] == 1.0


def test_xray_of_fewer_bits():
    pytest.importorskip("torch")
    errors = [xray(small(), backend="torch", matmul=m, steps=(1,)).worst.relative for m in ("float32", "float16")]
    assert errors[0] < 1e-6 < 5e-5 < errors[1] < 1e-2


# ---------------------------------------------------------------- the command line


def test_commands(tmp_path, capsys):
    path, out = tmp_path / "net.bpxp", tmp_path / "found.json"
    bpxp.Network([64, 9, 10], backend="numpy", seed=0).save(path)
    options = [str(path), "--data", "digits", "--out", str(out)]
    assert main(["certify", *options, "--backends", "numpy", "--steps", "2"]) == 0
    assert "numpy float64: within its bounds" in capsys.readouterr().out
    assert json.loads(out.read_text("utf-8"))["steps"] == 2
    assert main(["bisect", "numpy", "numpy", *options, "--steps", "2"]) == 0
    assert "none differs" in capsys.readouterr().out
    assert json.loads(out.read_text("utf-8"))["difference"] is None
    assert main(["xray", *options, "--backend", "numpy", "--at", "1,2"]) == 0
    assert "step 2" in capsys.readouterr().out
    assert json.loads(out.read_text("utf-8"))["backend"] == "numpy"


def test_commands_fail_where_something_is_wrong(capsys, monkeypatch):
    wrong = faulty(tanh=off("tanh"))
    for module in ("parity.certify", "parity.bisect"):
        plain = bpxp.get_backend
        monkeypatch.setattr(
            f"bpxp.verify.{module}.get_backend", lambda name, plain=plain: wrong if name == "wrong" else plain(name)
        )
    assert main(["certify", "--layers", "5,4,3", "--backends", "wrong", "--steps", "1", "--dtypes", "float32"]) == 1
    assert "NOT WITHIN" in capsys.readouterr().out
    assert main(["bisect", "numpy", "wrong", "--layers", "5,4,3", "--steps", "1"]) == 1
    assert "layer 0 (Sigmoid), equation forward" in capsys.readouterr().out
    assert main(["certify", "--layers", "5,4,3", "--backends", "none", "--steps", "1"]) == 1
    assert "not run" in capsys.readouterr().out
