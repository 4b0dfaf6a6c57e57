"""Numerical derivatives, with the step sizes that float64 deserves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

EPS = 1e-3


@pytest.fixture(scope="session")
def slope() -> Callable[..., np.ndarray]:
    """``slope(f)`` is df(t)/dt at 0 by four-point differences: the error is h⁴ f⁽⁵⁾/30, and the rounding 1e-13."""

    def differences(f: Callable[[float], np.ndarray], h: float = EPS) -> np.ndarray:
        return (8.0 * (f(h) - f(-h)) - (f(2.0 * h) - f(-2.0 * h))) / (12.0 * h)

    return differences
