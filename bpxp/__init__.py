"""Backpropagation derived by hand, written once against the Array API, run on any array library.

>>> import bpxp
>>> train, test = bpxp.data.digits()
>>> net = bpxp.Network([64, 30, 10], backend="numpy", seed=0)
>>> history = bpxp.Trainer(net, bpxp.optim.SGD(0.5), progress=False).fit(train, epochs=3, batch_size=10)
>>> net.evaluate(test)["accuracy"] > 0.9
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from bpxp.core.version import __version__

if TYPE_CHECKING:
    from bpxp import callbacks, data, errors, metrics, nn, optim, verify
    from bpxp.backends import available_backends, get_backend
    from bpxp.errors import BpxpError, BpxpWarning
    from bpxp.network.network import Network
    from bpxp.network.preflight import preflight
    from bpxp.training.divergence.replay import replay
    from bpxp.training.history import History
    from bpxp.training.trainer import Trainer

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
    "errors",
    "get_backend",
    "metrics",
    "nn",
    "optim",
    "preflight",
    "replay",
    "verify",
]

# What is public here, and its module. Each is imported at first use, so that `import bpxp` stays cheap; the other
# names are submodules.
_HOME = {
    "BpxpError": "bpxp.errors",
    "BpxpWarning": "bpxp.errors",
    "History": "bpxp.training.history",
    "Network": "bpxp.network.network",
    "Trainer": "bpxp.training.trainer",
    "available_backends": "bpxp.backends",
    "get_backend": "bpxp.backends",
    "preflight": "bpxp.network.preflight",
    "replay": "bpxp.training.divergence.replay",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(_HOME[name]), name)
    elif name in __all__:
        value = importlib.import_module(f"bpxp.{name}")
    else:
        raise AttributeError(f"module 'bpxp' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
