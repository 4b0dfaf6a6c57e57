"""Proof that gradients are right: for users, and used by the tests."""

from bpxp.verify.gradients import GradientReport, ParameterCheck, check_gradients

__all__ = ["GradientReport", "ParameterCheck", "check_gradients"]
