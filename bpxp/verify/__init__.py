"""Proof that gradients are right, and that the code is its derivation: for users, and used by the tests."""

from bpxp.verify.equations.check_equations import check_equations
from bpxp.verify.equations.comparison import DerivationReport, EquationCheck
from bpxp.verify.gradients import GradientReport, ParameterCheck, check_gradients
from bpxp.verify.layer.check_layer import LayerReport, RuleCheck, check_layer
from bpxp.verify.parity.bisect import Bisection, Difference, bisect
from bpxp.verify.parity.certificate import Certificate, ParityRow, ParityRun
from bpxp.verify.parity.certify import certify
from bpxp.verify.parity.xray import PrecisionReport, PrecisionRow, xray

__all__ = [
    "Bisection",
    "Certificate",
    "DerivationReport",
    "Difference",
    "EquationCheck",
    "GradientReport",
    "LayerReport",
    "ParameterCheck",
    "ParityRow",
    "ParityRun",
    "PrecisionReport",
    "PrecisionRow",
    "RuleCheck",
    "bisect",
    "certify",
    "check_equations",
    "check_gradients",
    "check_layer",
    "xray",
]
