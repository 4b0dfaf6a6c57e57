"""Backpropagation derived by hand, written once against the Array API, run on any array library.

>>> import bpxp
>>> train, test = bpxp.data.digits()
>>> net = bpxp.Network([64, 30, 10], backend="numpy", seed=0)
>>> history = bpxp.Trainer(net, bpxp.optim.SGD(0.5), progress=False).fit(train, epochs=3, batch_size=10)
>>> net.evaluate(test)["accuracy"] > 0.9
True
"""

from bpxp import callbacks, data, metrics, nn, optim, verify
from bpxp.backends import available_backends, get_backend
from bpxp.errors import BpxpError, BpxpWarning
from bpxp.history import History
from bpxp.network import Network
from bpxp.trainer import Trainer

__all__ = [
    "BpxpError",
    "BpxpWarning",
    "History",
    "Network",
    "Trainer",
    "__version__",
    "available_backends",
    "callbacks",
    "data",
    "get_backend",
    "metrics",
    "nn",
    "optim",
    "verify",
]

__version__ = "0.1.0"
