"""Proof that gradients are right, and that the code is its derivation: for users, and used by the tests."""

from bpxp.verify.derivations import DerivationReport, EquationCheck, check_equations
from bpxp.verify.gradients import GradientReport, ParameterCheck, check_gradients

__all__ = [
    "DerivationReport",
    "EquationCheck",
    "GradientReport",
    "ParameterCheck",
    "check_equations",
    "check_gradients",
]
