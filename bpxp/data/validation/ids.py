"""Validation of ids, the samples of a network that begins with an embedding: each is in its table, or refused."""

from __future__ import annotations

import numpy as np

from bpxp.backends import Array, Backend, get_backend
from bpxp.data.rows import Rows
from bpxp.errors import InvalidValueError


def check_ids(x: Array | Rows, count: int, backend: Backend, where: str) -> None:
    """Raise unless every number of x is one of 0 … count - 1."""
    begin = 0
    for block in x.blocks() if isinstance(x, Rows) else (x,):
        _check(block, count, get_backend("numpy") if isinstance(x, Rows) else backend, where, begin)
        begin += int(block.shape[0])


def _check(x: Array, count: int, backend: Backend, where: str, begin: int) -> None:
    """Raise for a block of samples, of which `begin` is the number of the first."""
    xp = backend.xp
    wrong = xp.logical_or(x < 0, x > count - 1)
    if xp.isdtype(x.dtype, "real floating"):
        wrong = xp.logical_or(wrong, x != xp.round(x))
    if not backend.to_numpy(xp.any(wrong)):
        return
    host, bad = backend.to_numpy(x), np.argwhere(backend.to_numpy(wrong))
    first = [int(i) for i in bad[0]]
    what = f"x[{', '.join(map(str, [begin + first[0], *first[1:]]))}] = {host[tuple(first)]:g} is no id"
    whole = bool((host >= 0).all() and (host == np.round(host)).all())
    fix = f"nn.Embedding({int(host.max()) + 1}, …), if there are so many" if whole else ""
    expected, more = f"integers 0..{count - 1}", f"{len(bad)} in all" if len(bad) > 1 else ""
    raise InvalidValueError(where, what, code="E029", expected=expected, first=more, fix=fix)
