"""The command line, as a user types it: what it prints, what it returns, and no traceback for a mistake."""

from __future__ import annotations

import importlib.util
import io
import re
import subprocess
import sys

import numpy as np
import pytest

import bpxp
from bpxp.cli import main, resuming


@pytest.fixture(autouse=True)
def numpy_backend(monkeypatch):
    monkeypatch.setenv("BPXP_BACKEND", "numpy")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "digits.bpxp"
    assert main(["train", "--epochs", "10", "--backend", "numpy", "--quiet", "--out", str(path)]) == 0
    return path


def test_train_ends_with_the_accuracy(capsys):
    assert main(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert float(re.fullmatch(r"test accuracy: (0\.\d+)", lines[-1])[1]) >= 0.97
    assert any(line.startswith("epoch  1/80") for line in lines)


def test_train_with_every_option(capsys, tmp_path):
    path = tmp_path / "net.bpxp"
    line = (
        f"train digits --layers 64,20,10 --hidden relu --init he --dtype float64 --optimizer adam --learning-rate 0.01 "
        f"--epochs 3 --batch-size 32 --seed 7 --out {path} --backend numpy --quiet"
    )
    assert main(line.split()) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"saved: {path}"
    net = bpxp.Network.load(path, backend="numpy")
    assert (net.input_shape, net.output_shape, net.dtype, net.seed) == ((64,), (10,), "float64", 7)


def test_activations_among_the_sizes(capsys, tmp_path):
    path = tmp_path / "net.bpxp"
    assert main(f"train --layers 64,20,relu,10 --epochs 1 --quiet --backend numpy --out {path}".split()) == 0
    assert bpxp.Network.load(path, backend="numpy").layers[:2] == (
        bpxp.nn.Dense(20, "identity", "glorot_uniform"),
        bpxp.nn.ReLU(),
    )


def test_a_step_that_diverged_is_done_again(capsys, tmp_path):
    path = tmp_path / "run.bpxp"
    assert main(["train", "--hidden", "identity", "--learning-rate", "1e30", "--checkpoint", str(path), "--quiet"]) == 1
    error, note = capsys.readouterr().err.splitlines()
    found = re.match(r"bpxp: fit: epoch 1, (step \d+) of 65: (.*) \(Dense.* is not finite", error)
    assert error.endswith("[BPX-E052]")
    bundle = tmp_path / "run.diverged.bpxp"
    assert note == f"to see it on NumPy in float64: bpxp replay {bundle}"
    assert not path.exists()
    assert main(["replay", str(bundle)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"epoch 1, {found[1]};")
    assert lines[-2].startswith(f"in float32 {found[2]} is the first that is not finite")
    assert lines[-1] == "in float64 all is finite"
    assert main(["replay", str(tmp_path / "none.bpxp")]) == 1


def test_a_run_is_saved_and_goes_on(capsys, tmp_path):
    path = tmp_path / "run.bpxp"
    line = ["train", "--batch-size", "200", "--quiet"]
    assert main([*line, "--epochs", "4", "--out", str(tmp_path / "whole.bpxp")]) == 0
    wanted = capsys.readouterr().out.splitlines()[-1]
    assert main([*line, "--epochs", "2", "--checkpoint", str(path), "--checkpoint-steps", "5"]) == 0
    assert main([*line, "--epochs", "4", "--resume", str(path), "--out", str(tmp_path / "parts.bpxp")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == wanted
    assert (tmp_path / "whole.bpxp").read_bytes() == (tmp_path / "parts.bpxp").read_bytes()
    assert bpxp.Network.load(path).epoch == 4  # what is resumed is saved again
    assert main([*line, "--epochs", "4", "--resume", str(path), "--layers", "64,10"]) == 1
    assert "the network is another: layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("train mnist --checkpoint r.bpxp", "bpxp train mnist --checkpoint r.bpxp --resume r.bpxp"),
        ("train --resume r.bpxp --epochs 3", "bpxp train --epochs 3 --resume r.bpxp"),
        ("train --resume=old.bpxp --epochs 3", "bpxp train --epochs 3 --resume r.bpxp"),
        ("train --checkpoint {epoch}.bpxp", "bpxp train --checkpoint '{epoch}.bpxp' --resume r.bpxp"),
    ],
)
def test_the_line_that_goes_on(line, text):
    assert resuming(line.split(), "r.bpxp") == text


def test_what_cannot_be_saved_is_not_trained(capsys, tmp_path):
    for out in (tmp_path, tmp_path / "no" / "x.bpxp"):
        assert main(["train", "--epochs", "1", "--out", str(out)]) == 1
        assert "epoch" not in capsys.readouterr().out


def test_the_same_command_prints_the_same(capsys):
    outputs = []
    for _ in range(2):
        main(["train", "--epochs", "2", "--quiet"])
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1]


def test_evaluate(model, capsys):
    assert main(["evaluate", str(model), "--per-class"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^7 +\d\.\d{4} +\d\.\d{4} +\d\.\d{4}$", out, re.MULTILINE)
    assert re.search(r"^test accuracy: 0\.9\d+$", out, re.MULTILINE)


def test_files_of_several_dtypes_do_not_change_each_other(model, capsys, tmp_path):
    _, test = bpxp.data.digits()
    names = []
    for i, kind in enumerate(("uint8", "int64", "float32", "float64", "uint8")):
        picture = test.x[i].astype(kind) / (255 if kind.startswith("f") else 1)
        np.save(tmp_path / f"{i}.npy", picture.astype(kind))
        names.append(str(tmp_path / f"{i}.npy"))
    assert main(["predict", str(model), *names]) == 0
    together = capsys.readouterr().out
    for name in names:
        assert main(["predict", str(model), name]) == 0
    assert capsys.readouterr().out == together
    assert [line.split()[1] for line in together.splitlines()] == [str(y) for y in test.y[:5]]


def test_the_test_part_of_a_folder_may_have_more_classes(capsys, tmp_path):
    for part, classes in (("train", 3), ("t10k", 4)):
        bpxp.data.write_idx(tmp_path / f"{part}-images-idx3-ubyte", np.arange(480, dtype=np.uint8).reshape(30, 4, 4))
        bpxp.data.write_idx(tmp_path / f"{part}-labels-idx1-ubyte", (np.arange(30) % classes).astype(np.uint8))
    assert main(["train", str(tmp_path), "--epochs", "1", "--quiet"]) == 0
    assert "test accuracy" in capsys.readouterr().out


def test_predict_pictures(model, capsys, tmp_path):
    pillow = pytest.importorskip("PIL.Image")
    _, test = bpxp.data.digits()
    paths = []
    for k in range(10):
        digit = test.x[np.flatnonzero(test.y == k)[0], :, :, 0]
        # As a photograph of ink on paper: large, dark on light.
        big = 255 - np.kron(digit, np.ones((20, 20), np.uint8))
        paths.append(tmp_path / f"{k}.png")
        pillow.fromarray(big).save(paths[-1])
    assert main(["predict", str(model), *map(str, paths)]) == 0
    guesses = [line.split(": ")[1].split()[0] for line in capsys.readouterr().out.splitlines()]
    assert sum(guess == str(k) for k, guess in enumerate(guesses)) >= 8


def test_predict_arrays_and_bad_files(model, capsys, tmp_path):
    _, test = bpxp.data.digits()
    np.save(tmp_path / "x.npy", test.x[0])
    assert main(["predict", str(model), str(tmp_path / "x.npy")]) == 0
    assert re.fullmatch(rf".*x\.npy: {test.y[0]} \(\d\.\d+\)\n", capsys.readouterr().out)
    (tmp_path / "x.png").write_text("no picture")
    assert main(["predict", str(model), str(tmp_path / "x.png")]) == 1
    assert "not a picture" in capsys.readouterr().err
    np.save(tmp_path / "x.npy", np.ones(3))
    assert main(["predict", str(model), str(tmp_path / "x.npy")]) == 1
    assert "64 pixels" in capsys.readouterr().err


def test_files_whose_names_are_no_text(model, tmp_path, monkeypatch):
    _, test = bpxp.data.digits()
    path = tmp_path / "x\udc80é.npy"
    np.save(path, test.x[0])
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["predict", str(model), str(path)]) == 0
    out.flush()
    assert rb"x\udc80\xe9.npy: " in out.buffer.getvalue()


def test_backends(capsys):
    assert main(["backends"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^numpy +available", out, re.MULTILINE)
    assert "default: numpy" in out


def test_verify(model, capsys):
    assert main(["verify"]) == 0
    out = capsys.readouterr().out
    gradients, equations = out.split("\n\n")
    for part, name in ((gradients, "mish + poisson"), (equations, "layer BatchNorm"), (equations, "schedule WarmUp")):
        assert re.search(rf"^{re.escape(name)} +\d\.\de[-+]\d\d$", part, re.MULTILINE)
        assert re.search(r"^largest relative error: \d\.\de-\d\d$", part, re.MULTILINE)
    assert main(["verify", str(model)]) == 0
    gradients, equations = capsys.readouterr().out.split("\n\n")
    assert "0/W" in gradients
    assert re.search(
        r"^0 Dense  .*dW\[i,j\] = sum_n x\[n,i\]\*delta\[n,j\] +\d\.\de-\d\d$", equations, re.MULTILINE | re.DOTALL
    )
    assert "loss SoftmaxCrossEntropy" in equations


def test_verify_with_something_wrong(model, capsys, monkeypatch):
    monkeypatch.setattr(bpxp.nn.Sigmoid, "backward", lambda self, params, a, da, /, *, xp: (da * a, ()))
    monkeypatch.setattr("bpxp.verify.survey.check_model", lambda net: "")
    assert main(["verify", str(model)]) == 1
    assert "Sigmoid, dz: 'dz[n,j] = da[n,j]*a[n,j]*(1 - a[n,j])'" in capsys.readouterr().err


def test_verify_a_network_of_words(capsys, tmp_path):
    layers = [bpxp.nn.Embedding(9, 2), bpxp.nn.Flatten(), 3]
    bpxp.Network(layers, input_shape=(4,), backend="numpy", seed=0).save(tmp_path / "words.bpxp")
    assert main(["verify", str(tmp_path / "words.bpxp")]) == 0
    assert "y[n,j] = W[x[n],j]" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        ("train nothing", 1, "neither digits, mnist, fashion-mnist nor a folder"),
        ("train --layers 64,x", 2, "not a list of sizes"),
        ("train --layers 63,10", 1, "64 features|expects 63"),
        ("train --optimizer adamm", 1, "Did you mean 'adam'"),
        ("train --hidden rel", 1, "Did you mean 'relu'"),
        ("train --layers 64,20,rel,10", 2, "Did you mean 'relu'"),
        ("train --layers 64,2o,10", 2, "not a list of sizes"),
        ("train --backend cuppy", 1, "Did you mean 'cupy'"),
        ("train --epochs -1", 1, ">= 0"),
        ("train --epochs many", 2, "invalid int value"),
        ("train --batch-size 0", 1, ">= 1"),
        ("train --learning-rate -1", 1, "> 0"),
        ("train --learning-rate 0", 1, "> 0"),
        ("train --seed -1", 1, "negative"),
        ("train --out no/such/folder/x.bpxp --epochs 0", 1, "no/such/folder"),
        ("train --checkpoint no/such/folder/x.bpxp", 1, "no/such/folder"),
        ("train --resume nothing.bpxp", 1, "nothing.bpxp"),
        ("train --checkpoint x.bpxp --checkpoint-steps 0", 1, ">= 1"),
        ("evaluate nothing.bpxp", 1, "nothing.bpxp"),
        ("certify nothing.bpxp", 1, "nothing.bpxp"),
        ("certify --layers 4,3 --data digits", 1, "64 features|expects 4"),
        ("bisect numpy --layers 4,3", 2, "second"),
        ("bisect numpy numpy --layers 4,3 --steps 0", 1, ">= 1"),
        ("xray --layers 4,3 --at 0", 1, ">= 1"),
        ("xray --layers 4,3 --at 1 --backend numpy --matmul float8", 1, "unknown precision"),
        ("trian", 2, "invalid choice"),
        ("", 2, ""),
    ],
)
def test_mistakes_get_a_reason_and_a_code(line, code, text, capsys):
    try:
        found = main(line.split())
    except SystemExit as stop:
        found = stop.code
    assert found == code
    error = capsys.readouterr().err
    assert re.search(text, error)
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "command", ["", "train", "evaluate", "predict", "backends", "verify", "certify", "bisect", "xray"]
)
def test_help_has_an_example(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    assert "example" in capsys.readouterr().out


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "bpxp", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"bpxp {bpxp.__version__}\n"


def test_interrupt(monkeypatch, capsys):
    def stop(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(bpxp.Trainer, "fit", stop)
    assert main(["train"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_a_fix_is_an_option_on_the_command_line(capsys, monkeypatch):
    monkeypatch.setattr("bpxp.backends.names._found", {})
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find(name))
    assert main(["train", "--backend", "cupy"]) == 1
    error = capsys.readouterr().err
    assert "or --backend numpy" in error
    assert "backend='numpy'" not in error


def test_validation_and_test_are_apart(monkeypatch, capsys):
    fits, evaluated = [], []
    real_fit, real_evaluate = bpxp.Trainer.fit, bpxp.Network.evaluate

    def fit(self, data, *args, **options):
        fits.append((data, options["validation"]))
        return real_fit(self, data, *args, **options)

    monkeypatch.setattr(bpxp.Trainer, "fit", fit)
    monkeypatch.setattr(
        bpxp.Network, "evaluate", lambda net, data, **how: evaluated.append(data) or real_evaluate(net, data, **how)
    )
    assert main(["train", "--epochs", "1", "--quiet"]) == 0
    train, test = bpxp.data.digits()
    ((data, validation),) = fits
    assert validation == 0.1  # a part of the training set, which is not trained on
    assert np.array_equal(data.x, train.x)
    assert [len(found) for found in evaluated] == [len(test)]
    assert np.array_equal(evaluated[0].x, test.x)


@pytest.mark.parametrize(
    ("options", "said"),
    [([], True), (["--quiet"], True), (["--out", "m.bpxp"], False), (["--checkpoint", "r.bpxp"], False)],
)
def test_a_network_that_is_not_saved(options, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--epochs", "1", *options]) == 0
    out = capsys.readouterr().out
    assert ("the network will not be saved: --out FILE saves it" in out) == said
    assert out.splitlines()[-1].startswith("test accuracy: ")
    assert (len(list(tmp_path.iterdir())) == 0) == said


@pytest.mark.parametrize("option", ["--out", "--checkpoint", "--resume"])
def test_an_empty_path_is_wrong_usage(option, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--epochs", "1", option, ""])
    assert stop.value.code == 2
    assert re.search(f"argument {option}: an empty path", capsys.readouterr().err)


def test_steps_between_checkpoints_need_a_checkpoint(tmp_path, capsys):
    line = ["train", "--epochs", "1", "--quiet", "--checkpoint-steps", "9"]
    assert main(line) == 1
    error = capsys.readouterr().err
    assert "--checkpoint-steps: there is no file to save the run to" in error
    assert "epoch" not in error
    (fix,) = re.findall(r"Fix: --checkpoint (\S+)\. ", error)
    path = tmp_path / fix
    assert main([*line, "--checkpoint", str(path)]) == 0
    assert main(["train", "--epochs", "2", "--quiet", "--checkpoint-steps", "9", "--resume", str(path)]) == 0
    assert bpxp.Network.load(path).epoch == 2


def test_what_cannot_be_written_is_known_before_the_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bpxp.verify, "certify", lambda *args, **how: pytest.fail("it has begun"))
    for path in (tmp_path, tmp_path / "no" / "c.json"):
        assert main(["certify", "--out", str(path)]) == 1
    assert "No such file or directory" in capsys.readouterr().err
