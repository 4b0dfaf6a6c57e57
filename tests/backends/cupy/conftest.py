"""Tests of CuPy alone; ``pytest -p cudasim.plugin`` runs them on a simulated device."""

from __future__ import annotations

import sys
from typing import Any

import pytest


@pytest.fixture
def cudasim() -> Any:
    """The simulated device, which counts what it is given."""
    if "cudasim.plugin" not in sys.modules:
        pytest.skip("counts on the simulated device")
    return sys.modules["cudasim"]
