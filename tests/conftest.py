"""The `backend` fixture: one test, every array library; a library that was asked for and is missing fails.

``BPXP_TEST_BACKENDS=numpy,strict`` says which run (default: numpy and strict, what the test group installs).
"""

from __future__ import annotations

import os

import pytest

import bpxp.backends
from bpxp.backends import Backend

ASKED = os.environ.get("BPXP_TEST_BACKENDS", "numpy,strict").replace("strict", "strict,strict:device1").split(",")


@pytest.fixture(scope="session", params=ASKED)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each backend that was asked for; one that does not work here is an error, never a skip."""
    return bpxp.backends.get_backend(request.param)
