"""72 to 76: what happens while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

import bpxp
from bpxp import optim
from bpxp.core.memory import Memory
from bpxp.errors import BpxpWarning
from mistakes.rows import row
from mistakes.samples import CuPy

# The rows are a table: a few lines each.
# fmt: off

# ---------------------------------------------------------------- 72-76: while it runs


@row(72, FloatingPointError, "E052", "fit: epoch ", " of 4: ", " is not finite", "the learning rate is 1e+30",
    "The network is as it was before that step")
def divergence(c):
    net = bpxp.Network([4, 6, 3], hidden="identity", loss="mean_squared_error", backend=c.backend, seed=0)
    trainer = bpxp.Trainer(net, optim.SGD(1e30), progress=False)
    with np.errstate(all="ignore"):
        trainer.fit((c.x, np.eye(3)[c.y]), epochs=20, batch_size=5)


@row(72, ValueError, "E003", "fit(on_divergence=…)", kind="backend")
def on_divergence(c):
    c.fit(on_divergence="ignore")


def _memory(c: Any, free: int, total: int) -> None:
    c.patch.setattr(type(c.backend), "memory", lambda self: Memory(free, total))


@row(73, MemoryError, "E053", "fit(batch_size=20) on ", "the device has too little memory: got about ",
    "0.000977 MiB of 0.000977 MiB free", "Fix: batch_size=", "the largest that fits", kind="backend")
def a_small_device(c):
    c.patch.setattr(c.backend.xp, "fuses", False, raising=False)  # where a compiler may make do with less, it is W008
    _memory(c, 1024, 1024)
    c.fit()


@row(73, BpxpWarning, "W008", "a step needs about ", "0.000977 MiB of 1 GiB are free", "Fix: batch_size=",
    kind="backend")
def a_device_that_others_use(c):
    _memory(c, 1024, 1 << 30)
    c.fit()


@row(74, ZeroDivisionError, "", "mine", "in the callback Broken.on_epoch_end, epoch 1", kind="backend")
def an_error_in_a_callback(c):
    class Broken(bpxp.callbacks.Callback):
        def on_epoch_end(self, trainer, row):
            raise ZeroDivisionError("mine")

    net = bpxp.Network([4, 3], backend=c.backend, seed=0)
    try:
        bpxp.Trainer(net, progress=False, callbacks=[Broken()]).fit((c.x, c.y), epochs=3)
    finally:
        assert (net.training, net.epoch) == (False, 1)  # it can be fitted again, from where it stands


@row(75, RuntimeError, "E051", "fit: this network is being fitted already", kind="backend")
def a_fit_within_a_fit(c):
    class Again(bpxp.callbacks.Callback):
        def on_epoch_end(self, trainer, row):
            trainer.fit((c.x, c.y), epochs=1)

    net = bpxp.Network([4, 3], backend=c.backend, seed=0)
    try:
        bpxp.Trainer(net, progress=False, callbacks=[Again()]).fit((c.x, c.y), epochs=1)
    finally:
        bpxp.Trainer(net, progress=False).fit((c.x, c.y), epochs=1)  # and afterwards all is well


@row(76, ValueError, "E016", "Network.params: 0/b has the wrong shape: got shape (4,), expected shape (3,)",
    kind="backend")
def parameters_of_another_shape(c):
    (first,) = c.net.params
    c.net.params = (type(first)(first.W, np.zeros(4)),)


@row(76, ValueError, "E016", "Network.params: another structure: got nothing, expected 0/W, 0/b", kind="backend")
def parameters_of_another_structure(c):
    c.net.params = ((),)


@row(76, ValueError, "E025", "Network.params: 0/b: the array is on another device: got cuda:0 (cupy)")
def parameters_on_another_device(c):
    (first,) = c.net.params
    elsewhere = CuPy((2, 0))
    elsewhere.shape = (3,)
    c.net.params = (type(first)(first.W, elsewhere),)


@row(76, TypeError, "E031", "Network.params: 0/b: complex128 not supported", kind="backend")
def parameters_of_another_dtype(c):
    (first,) = c.net.params
    c.net.params = (type(first)(first.W, np.zeros(3, complex)),)
