"""Importing bpxp.data imports nothing that only a download needs."""

from __future__ import annotations

import subprocess
import sys

import bpxp.data

HEAVY = ["pooch", "requests", "urllib3", "rich", "platformdirs", "tqdm", "cupy", "torch", "jax", "sklearn"]


def test_importing_loads_no_downloader_and_reading_digits_needs_none() -> None:
    code = f"""
import sys, bpxp.data
bpxp.data.digits()
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_all_is_what_there_is() -> None:
    assert bpxp.data.__all__ == sorted(bpxp.data.__all__)
    for name in bpxp.data.__all__:
        assert getattr(bpxp.data, name).__doc__
    assert callable(bpxp.data.mnist)
    assert callable(bpxp.data.digits)
