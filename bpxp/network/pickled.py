"""A network as pickle, joblib and copy take it: numbers on the host, without what is compiled.

Another process may lack the array library: the network is then on the default backend there, with a warning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from bpxp.backends import Backend
from bpxp.backends.by_name import is_named
from bpxp.backends.dtypes import validate_dtype
from bpxp.backends.precision import label
from bpxp.core.tree import tree_map
from bpxp.errors import BackendNotInstalledError, BackendNotUsableError, InvalidValueError, warn
from bpxp.network.backend_choice import choose
from bpxp.network.compiled import CompiledSteps
from bpxp.network.held import Held, Numbers

MADE_AGAIN = ("xp", "_plain", "_rate", "_chunk")


def state_of(net: Any) -> dict[str, Any]:
    """Return the attributes of a network with its arrays on the host; the copy is not being fitted."""
    backend: Backend = net.backend
    state = {name: value for name, value in dict(vars(net)).items() if name not in MADE_AGAIN}
    state["spec"] = dataclasses.replace(
        net.spec
    )  # without what another thread may be adding to it, its cached properties
    state |= {"_held": _mapped(backend.to_numpy, net._held.lend(whole=True)), "training": False}
    place = {"backend": label(backend)} if is_named(backend) else {}
    return state | place | {"_compiled": net.capture}


def restore(net: Any, state: dict[str, Any]) -> None:
    """Give a network what `state_of` returned; its arrays are copied: others may be read-only, in a mapped file."""
    asked, report = state["backend"], state["backend_report"]
    try:
        backend, _ = choose(asked, None, state["spec"], ())
    except (BackendNotInstalledError, BackendNotUsableError, InvalidValueError) as error:
        backend, report = choose(None, None, state["spec"], ())
        what = f"it was on backend {asked!r}, which does not work here ({error.what}); it is on {label(backend)!r} now"
        warn("a pickled network", what, code="W012", fix=f"net.to({label(backend)!r}) before it is pickled")
    validate_dtype(state["dtype"], backend)
    held = Held(backend, _mapped(lambda a: backend.asarray(np.array(a)), state["_held"]))
    own = {"backend": backend, "backend_report": report, "xp": backend.xp, "_held": held}
    vars(net).update(state | own | {"_compiled": CompiledSteps(capture=state["_compiled"])})


def _mapped(function: Callable[[Any], Any], now: Numbers) -> Numbers:
    """Return numbers with a function applied to each array."""
    arrays = (now.params, now.stats, now.key, now.opt)
    params, stats, key, opt = tree_map(lambda a: None if a is None else function(a), arrays)
    return Numbers(params, stats, key, now.optimizer, opt)
