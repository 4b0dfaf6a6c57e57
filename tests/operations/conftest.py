"""What is spared where an operation is compiled for each shape and dtype: see `sparing`."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def sparing(request, nightly):
    """On JAX run one form of each thing, in float32; with BPXP_NIGHTLY=1 all forms in both dtypes.

    The suites take seconds elsewhere, and minutes there. What is left out has the same code, and ran on the others.
    """
    given = getattr(request.node, "callspec", None)
    if given is None or nightly or "backend" not in request.fixturenames:
        return
    if not request.getfixturevalue("backend").name.startswith("jax"):
        return
    record = given.params.get("record")
    other_form = record is not None and "," in record.name
    if given.params.get("dtype") == "float64" or other_form:
        pytest.skip("XLA compiles for long: one form of each, in float32; all with BPXP_NIGHTLY=1")
