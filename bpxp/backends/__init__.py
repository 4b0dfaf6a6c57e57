"""Array libraries behind one protocol: a folder for each.

This package is the only place that names cupy, torch and jax; each is imported at first use.
"""

from bpxp.backends.base import Backend, Step
from bpxp.backends.dlpack import device_name
from bpxp.backends.names import BackendInfo, available_backends, get_backend
from bpxp.core.typing import Array, Namespace

__all__ = [
    "Array",
    "Backend",
    "BackendInfo",
    "Namespace",
    "Step",
    "available_backends",
    "device_name",
    "get_backend",
]
