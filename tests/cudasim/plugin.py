"""pytest's plugin: ``PYTHONPATH=tests pytest -p cudasim.plugin`` tests on the simulated device."""

from __future__ import annotations

import os

import pytest

import cudasim

cudasim.install()


def pytest_sessionstart() -> None:
    if os.environ.get("CUDASIM_POOL") == "0":  # each array has a guard page of its own
        import cupy

        cupy.cuda.set_allocator(None)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    cudasim.repair()


def pytest_runtest_teardown() -> None:
    assert cudasim.counters()["unknown"] == 0, "the test needs what the simulated device lacks; see its stderr"
