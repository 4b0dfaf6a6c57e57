"""1 to 27: networks and hyper-parameters."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import bpxp
from bpxp import nn, optim, verify
from bpxp.backends import base, names
from bpxp.errors import BpxpWarning
from mistakes.rows import INF, NAN, ROWS, Row, named, row

# The rows are a table: a few lines each.
# fmt: off

# ---------------------------------------------------------------- 1-8: layers


def _sizes(number: int, name: str, layers: Any, error: type[BaseException], code: str, *parts: str) -> None:
    ROWS.append(Row(number, name, lambda c: bpxp.Network(layers, backend="numpy"), error, code, parts, "once"))


_sizes(1, "one size", [784], ValueError, "E010", "Network: needs at least 2 sizes (input, output), got 1: [784]")
_sizes(2, "no sizes", [], ValueError, "E010", "needs at least 2 sizes (input, output), got 0",
    "Fix: Network([784, 30, 10])")
_sizes(3, "size 0", [784, 0, 10], ValueError, "E010", "sizes[1] must be >= 1, got 0")
_sizes(4, "size -3", [784, -3, 10], ValueError, "E010", "sizes[1] must be >= 1, got -3")
_sizes(5, "size 30.5", [784, 30.5, 10], TypeError, "E010", "sizes[1] must be an int or a layer, got float 30.5")
_sizes(6, "size True", [784, True, 10], TypeError, "E010", "sizes[1] must be an int or a layer, got bool True")
_sizes(7, "sizes as text", "784,30,10", TypeError, "E010", "a sequence of ints", "got str",
    "Fix: Network([784, 30, 10])")
_sizes(7, "an int", 784, TypeError, "E010", "a sequence of ints", "got int 784")
_sizes(7, "a class of layers", [4, nn.Dense, 3], TypeError, "E010", "sizes[1]", "got Dense. Fix: Dense(…)")
_sizes(7, "no input shape", [nn.Dense(3)], ValueError, "E010", "Fix: input_shape=(28, 28, 1)")
_sizes(8, "too large", [4, 10**6, 10**6], MemoryError, "E011", "needs 7,451 GiB of parameters", "GiB available")


# ---------------------------------------------------------------- 9-14: backends, devices, dtypes


@row(9, ValueError, "E020", "unknown backend 'cuppy'; available: numpy", "Did you mean 'cupy'?")
def unknown_backend(c):
    bpxp.Network([4, 3], backend="cuppy")


@row(9, TypeError, "E004", "backend: not a backend", "got int 3", "Fix: backend='numpy'")
def backend_of_another_type(c):
    bpxp.Network([4, 3], backend=3)


def fake_cupy(c: Any, check_device: Callable[[str], None]) -> None:
    """Let CuPy 14.2.0 be installed, with a device that does what `check_device` does."""
    module = types.ModuleType("bpxp.backends.cupy.backend")
    module.check_device = check_device  # type: ignore[attr-defined]
    library = types.ModuleType("cupy")
    library.__version__, library.__spec__ = "14.2.0", importlib.machinery.ModuleSpec("cupy", None)  # type: ignore
    c.patch.setattr(names, "_found", {})
    c.patch.setitem(sys.modules, "cupy", library)
    c.patch.setitem(sys.modules, "bpxp.backends.cupy.backend", module)


@row(10, ImportError, "E021", "'cupy' needs cupy, which is not installed", "pip install 'cupy-cuda13x[ctk]'",
    "backend='numpy'")
def cupy_is_not_installed(c):
    c.patch.setattr(names, "_found", {})
    find = importlib.util.find_spec
    c.patch.setattr(importlib.util, "find_spec", lambda name: None if name == "cupy" else find(name))
    bpxp.Network([4, 3], backend="cupy")


@row(11, RuntimeError, "E022", "cupy 14.2.0 is installed", "no CUDA-capable device is detected", "backend='auto'")
def no_device(c):
    def check_device(device: str) -> None:
        raise OSError("cudaErrorNoDevice: no CUDA-capable device is detected")

    fake_cupy(c, check_device)
    bpxp.Network([4, 3], backend="cupy")


@row(12, ValueError, "E023", "CuPy has 1 CUDA device (0)", "got 'cupy:7'", "Fix: backend='cupy:0'")
def device_7_of_1(c):
    def check_device(device: str) -> None:
        raise base.no_such_device("CuPy", f"cupy:{device}", 1, "CUDA")

    fake_cupy(c, check_device)
    bpxp.Network([4, 3], backend="cupy:7")


@row(12, ValueError, "E023", "no such device: got 'device9'", "expected device1")
def device_9_of_strict(c):
    bpxp.Network([4, 3], backend="strict:device9")


@row(13, ValueError, "E012", "no_float64", "has no float64. Fix: dtype='float32'")
def no_float64(c):
    bpxp.Network([4, 3], backend="strict:no_float64", seed=0).evaluate(c.x, c.y)
    bpxp.Network([4, 3], backend="strict:no_float64", dtype="float64")


def _option(number: int, options: dict[str, Any], error: type[BaseException], code: str, *parts: str) -> None:
    name = ", ".join(f"{key}={value!r}" for key, value in options.items())
    layers = [3, 2] if "input_shape" in options else [4, 3, 2]
    call = lambda c: bpxp.Network(layers, **{"backend": "numpy", **options})  # noqa: E731
    ROWS.append(Row(number, name, call, error, code, parts, "once"))


_option(14, {"dtype": "int32"}, TypeError, "E012", "Network(dtype=…)", "a floating dtype among float32, float64")
_option(14, {"dtype": "float16"}, TypeError, "E012", "got 'float16'", "Fix: dtype='float32'")
_option(14, {"dtype": np.int8}, TypeError, "E012", "a floating dtype among float32, float64")
_option(15, {"hidden": "rel"}, ValueError, "E003", "one of identity, sigmoid", "Did you mean 'relu'?")
_option(15, {"hidden": 3}, TypeError, "E004", "neither a name nor an Activation", "Fix: hidden='relu'")
_option(15, {"loss": "cross_entropy"}, ValueError, "E003", "Did you mean 'softmax_cross_entropy'?")
_option(15, {"loss": "hinge"}, ValueError, "E003", "mean_absolute_error, huber, poisson. [")
_option(15, {"init": "xavier_uniform"}, ValueError, "E003", "Did you mean 'glorot_uniform'?")
_option(15, {"activation": "relu"}, TypeError, "E003", "Network(activation=…): unknown argument", "Fix: hidden=…")
_option(15, {"init": "glorott"}, ValueError, "E003", "Did you mean 'glorot'?")
_option(15, {"matmul": "tf23", "backend": "numpy"}, ValueError, "E024", "unknown precision 'tf23'",
    "Did you mean 'tf32'?")
_option(15, {"input_shape": (2, 0)}, ValueError, "E002", "input_shape[1] must be >= 1", "got 0")
_option(15, {"input_shape": "8"}, TypeError, "E001", "got '8'", "a tuple of ints")
_option(16, {"output": "relu"}, ValueError, "E013", "output ReLU", "take logits", "mean_squared_error",
    "fit any output")
_option(16, {"output": "sigmoid", "loss": "binary_cross_entropy"}, ValueError, "E013", "twice",
    "Fix: output='identity'")
_option(16, {"hidden": "softmax"}, ValueError, "E013", "softmax twice: losses take logits", "predict_proba")
_option(27, {"seed": "abc"}, TypeError, "E001", "got str 'abc'", "int, SeedSequence, Generator or None", "Fix: seed=0")
_option(27, {"seed": 1.5}, TypeError, "E001", "got float 1.5")
_option(27, {"seed": True}, TypeError, "E001", "got bool True")
_option(27, {"seed": -1}, ValueError, "E002", "a seed cannot be negative", ">= 0")


@row(17, ValueError, "E013", "softmax over 1 class is constant", "Fix: 2 outputs, or loss='binary_cross_entropy'")
def softmax_of_one(c):
    bpxp.Network([4, 1], backend="numpy")


def _trainer(options: dict[str, Any], *parts: str) -> None:
    # Without the addresses of objects: processes that run a part each compare the names.
    name = re.sub(r" object at \w+", "", ", ".join(f"{key}={value!r}" for key, value in options.items()))
    row(15, TypeError, "E004", *parts)(named(name, lambda c: bpxp.Trainer(c.net, **options)))


_trainer({"optimizer": None}, "neither a name nor an Optimizer", "Fix: optimizer=bpxp.optim.Adam(0.001)")
_trainer({"metrics": "accuracy"}, "metrics: not a list of metrics: got str 'accuracy'", "Fix: metrics=['accuracy']")
_trainer({"metrics": 3}, "metrics: not a list of metrics: got int 3")
_trainer({"metrics": [3]}, "metrics: neither a name nor a Metric: got int 3")
_trainer({"callbacks": 3}, "Trainer(callbacks=…): not a list of callbacks: got int", "Checkpoint('run.bpxp')]")
_trainer({"callbacks": [bpxp.callbacks.Progress]}, "not an object: got the class Progress", "Progress(…)")
_trainer({"callbacks": bpxp.callbacks.Progress()}, "not a list of callbacks: got Progress")


def _network(name: str, call: Callable[[Any], Any]) -> None:
    row(15, TypeError, "E004", f"{name}(net", "not a Network: got list")(named(f"{name}([4, 3])", lambda c: call([4, 3])))


_network("Trainer", bpxp.Trainer)
_network("preflight", bpxp.preflight)
_network("check_gradients", lambda net: verify.check_gradients(net, None, None))
_network("certify", verify.certify)
_network("xray", verify.xray)
_network("bisect", lambda net: verify.bisect(net, "numpy", "numpy"))


# ---------------------------------------------------------------- 18-27: hyper-parameters


def _rate(rate: Any, error: type[BaseException], code: str, *parts: str) -> None:
    number, descend = 18 if error is ValueError else 19, lambda c: c.net.gradient_descent((c.x, c.y), rate)
    row(number, error, code, *parts, "SGD(learning_rate=…)")(named(f"SGD({rate!r})", lambda c: optim.SGD(rate)))
    step = row(number, error, code, *parts, "gradient_descent(learning_rate=…)", kind="backend")
    step(named(f"gradient_descent({rate!r})", descend))




for _wrong in (-0.1, 0, NAN, INF):
    _rate(_wrong, ValueError, "E002", "a finite number > 0", f"got {float(_wrong)!r}")
_rate("0.1", TypeError, "E001", "got str '0.1'", "a number")


@row(20, ValueError, "E002", "SGD(momentum=…)", "got 1.5", "a number in [0, 1)")
def momentum_beyond_1(c):
    optim.SGD(0.1, momentum=1.5)


@row(20, ValueError, "E002", "Adam(beta2=…)", "got 1.0", "a number in [0, 1)")
def beta_of_1(c):
    optim.Adam(beta2=1.0)


@row(20, ValueError, "E005", "got momentum 0", "Fix: SGD(…, momentum=0.9, nesterov=True)")
def nesterov_without_momentum(c):
    optim.SGD(0.1, nesterov=True)


@row(21, ValueError, "E002", "1.0 would drop everything", "a number in [0, 1)")
def dropout_of_all(c):
    nn.Dropout(1.0)


@row(22, ValueError, "E002", "SGD(l2=…)", "got -1.0", ">= 0")
def negative_penalty(c):
    optim.SGD(0.1, l2=-1)


@row(23, ValueError, "E002", "fit(batch_size=…)", "must be >= 1", "got 0", kind="backend")
def batch_size_0(c):
    c.fit(batch_size=0)


@row(23, ValueError, "E002", "got -5", kind="backend")
def batch_size_below_0(c):
    c.fit(batch_size=-5)


@row(24, TypeError, "E001", "fit(batch_size=…)", "not an int: got float 2.5", kind="backend")
def batch_size_of_a_fraction(c):
    c.fit(batch_size=2.5)


@row(25, BpxpWarning, "W003", "batch_size 1000 > 20 samples; using 20", kind="backend")
def batch_size_beyond_the_data(c):
    c.fit(batch_size=1000)


@row(26, ValueError, "E002", "fit(epochs=…)", "got -1", ">= 0", kind="backend")
def epochs_below_0(c):
    c.fit(epochs=-1)


@row(26, TypeError, "E001", "not an int: got float 1.5", kind="backend")
def epochs_of_a_fraction(c):
    c.fit(epochs=1.5)


@row(26, TypeError, "E001", "not an int: got bool True", kind="backend")
def epochs_true(c):
    c.fit(epochs=True)


@row(26, ValueError, "E003", "fit(on_interrupt=…)", "'raise' or 'return'", kind="backend")
def on_interrupt(c):
    c.fit(on_interrupt="ignore")
