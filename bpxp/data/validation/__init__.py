"""Validation of samples, targets and weights that users pass."""
