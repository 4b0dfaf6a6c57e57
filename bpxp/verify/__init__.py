"""Proof that gradients are right, and that the code is its derivation: for users, and used by the tests."""

from bpxp.verify.equations.check_equations import check_equations
from bpxp.verify.equations.comparison import DerivationReport, EquationCheck
from bpxp.verify.gradients import GradientReport, ParameterCheck, check_gradients
from bpxp.verify.layer.check_layer import LayerReport, check_layer
from bpxp.verify.own.loss import check_loss
from bpxp.verify.own.metric import check_metric
from bpxp.verify.own.optimizer import check_optimizer
from bpxp.verify.parity.bisect import Bisection, Difference, bisect
from bpxp.verify.parity.certificate import Certificate, ParityRow, ParityRun
from bpxp.verify.parity.certify import certify
from bpxp.verify.parity.xray import PrecisionReport, PrecisionRow, xray
from bpxp.verify.rules import RuleCheck, RuleReport

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
    "RuleReport",
    "bisect",
    "certify",
    "check_equations",
    "check_gradients",
    "check_layer",
    "check_loss",
    "check_metric",
    "check_optimizer",
    "xray",
]
